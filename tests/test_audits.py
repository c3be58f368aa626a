"""The page of real audits: what was known before is met, and what is missing is named."""

import os
import re
from pathlib import Path

import pytest

from experiments import audits

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
FOLDERS = (
    Path(os.environ.get("JSOFT_SOFT_LABELS", SHARED / "soft_labels")),
    SHARED / "partial_labels",
)


def subjects(*titles):
    return tuple(
        subject for subject in audits.SUBJECTS if any(title in subject.title for title in titles)
    )


def test_page_has_the_audits_made_and_names_the_others(monkeypatch, tmp_path):
    (tmp_path / "made").mkdir()

    def make():
        Path("votes.csv").write_text("a b,c,truth\n3,1,a b\n2,2,a b\n0,4,c\n1,3,c\n")

    made = audits.Subject(
        "Made: here",
        "votes.csv --labels-column truth",
        "A\n  lesson.",
        ("there",),
        ((1, "", "0.25", ""),),
        make,
    )
    monkeypatch.setattr(audits, "SUBJECTS", (made, made._replace(title="Other", needs=("absent",))))
    (tmp_path / "made" / "there").touch()
    page = audits.page(audits.run(audits.Config(data=(tmp_path / "made",))))
    assert "Not made, for want of files: Other." in page
    assert "| [Made: here](#made-here) | 4 × 2 | votes | 1 |" in page
    assert "| independent | on this sample, not certified |" in page
    assert "no certificate applies" not in page
    assert "## Made: here\n\n    jsoft audit votes.csv --labels-column truth\n\n**" in page
    assert "\nA lesson.\n" in page
    assert "- k = 1: 0.25; here 0.12500, 0.2500, a b → c" in page


def test_certified_is_not_said_of_rows_that_the_teacher_learned_from():
    own = audits.Subject("Own", "x.npy", "", rows="its own training rows", trained_on=True)
    row = {
        "k": 1, "unreliability": 0.0, "ambiguity": 0.1, "divergence": 0.9,
        "worst_pair": {"true": "a", "wrong": "b"},
    }  # fmt: skip
    numbers = {
        "rows": 9, "classes": ["a", "b"], "kind": "votes", "best_k": 1, "top_k": [row],
        "with_labels": {"mean_label_margin": 0.5}, "status": "certified", "versions": {},
        "verdict": "Certified.",
    }  # fmt: skip
    table = audits._summary(own, numbers)
    assert table.endswith("| its own training rows | on these rows; nothing is certified |")
    assert audits._summary(own._replace(trained_on=False), numbers).endswith("certified at 95 % |")
    assert any("no certificate applies" in line for line in audits._section(own, numbers, ""))


def test_an_audit_that_is_refused_makes_no_page(monkeypatch, capsys):
    bad = audits.Subject("Bad", "absent.npy", "")
    monkeypatch.setattr(audits, "SUBJECTS", (bad,))
    with pytest.raises(RuntimeError, match="Bad: expected exit code 0, got 2"):
        audits.run(audits.Config())
    assert "absent.npy: expected a file" in capsys.readouterr().err


@pytest.mark.skipif(
    not all(folder.is_dir() for folder in FOLDERS),
    reason="needs the files of CIFAR-10H, CIFAR-10N, Lost and MSRCv2, which are not for everybody",
)
def test_what_was_known_of_the_files_is_met(monkeypatch):
    known = tuple(subject for subject in audits.SUBJECTS if subject.known)
    monkeypatch.setattr(audits, "SUBJECTS", known)
    done = audits.run(audits.Config(data=FOLDERS))
    for subject in known:
        rows = {row["k"]: row for row in done[subject.title][0]["top_k"]}
        for k, unreliability, ambiguity, pair in subject.known:
            row = rows.get(k) or next(iter(rows.values()))
            for value, printed in (
                (row["unreliability"], unreliability),
                (row["ambiguity"], ambiguity),
            ):
                digits = len(printed.partition(".")[2])
                assert printed in ("", f"{value:.{digits}f}")
            assert pair in ("", f"{row['worst_pair']['true']} → {row['worst_pair']['wrong']}")


@pytest.mark.slow
def test_temperature_changes_no_set_and_a_bad_teacher_teaches(monkeypatch):
    monkeypatch.setattr(audits, "SUBJECTS", subjects("teacher"))
    done = audits.run(audits.Config())
    plain, softened, bad = (numbers for numbers, _ in done.values())
    assert plain["kind"] == "logits"
    assert plain["top_k"] == softened["top_k"]
    margins = [numbers["with_labels"]["mean_label_margin"] for numbers in (plain, softened, bad)]
    assert margins[0] > margins[1] > 0 > margins[2]
    assert bad["top_k"][0]["unreliability"] > 0.95
    assert bad["certified"]


def test_the_page_in_the_repository_is_of_all_subjects():
    page = (Path(__file__).parents[1] / "docs" / "audits.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [s.title for s in audits.SUBJECTS]
