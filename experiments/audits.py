"""Audits of soft labels that exist, and of some made on purpose: writes docs/audits.md.

    python -m experiments.audits --data FOLDER …

runs `jsoft audit` on labels of people (CIFAR-10H, CIFAR-10N) and of a network, on candidate sets of
people (Lost, MSRCv2), on two teachers of our own, one honest and one bad, and on labels that were
made differentially private: a minute or two on two cores. What was known of the files before stands
beside what is measured. Nothing of the data goes into the page, only what was counted.

The folders hold the files of `experiments.measured_labels`, called cifar10h_counts.npy,
cifar10_test_pyx.npy, cifar10_test_labels.npy and cifar10n_train.npz, and of
`experiments.real_candidate_sets`, lost.npz and msrcv2.npz. Audits whose files are in none of them
are left out, and the page says so.

The picture in the README is the head of a report, in any browser of the Chromium family:

    jsoft audit --demo --report report.html
    chromium --headless --hide-scrollbars --force-device-scale-factor=1.5 --window-size=1000,980 \
        --screenshot=docs/figures/audit.png report.html
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import shlex
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import jsoft
from experiments import bad_teachers, keep_compiled_programs
from jsoft.__main__ import DIGITS, main

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TEMPERATURE = 4.0
EPSILON = 2.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Audit labels of people, of models, and some made on purpose."""

    data: tuple[Path, ...] = ()
    """Folders with the files of people's and networks' labels."""
    out: Path = Path("docs/audits.md")
    """Page to write."""


class Subject(NamedTuple):
    """What is audited: the command, the data it needs, what makes files that are not data.

    `known` holds what was measured of the files before: (k, Δ, γ, pair of classes), Δ and γ as they
    were printed. `lesson` says what is to be learned, in sentences that hold whatever the digits.
    `rows` says what the rows are to whoever labelled them; of a teacher's own training rows
    (`trained_on`) no certificate speaks, whatever the command says, which cannot know.
    """

    title: str
    command: str
    lesson: str
    needs: tuple[str, ...] = ()
    known: tuple[tuple[int, str, str, str], ...] = ()
    make: Callable[[], None] | None = None
    rows: str = "independent"
    trained_on: bool = False


def _teacher_on_digits() -> None:
    """Write what a small network says of digits that it did not learn from: logits and softer."""
    digits = jsoft.load("digits")
    few = jax.tree.map(lambda leaf: leaf[:300], digits.train)
    network = jsoft.MLP((64,), 10)
    params, _ = jsoft.training.fit_params(
        network,
        optax.softmax_cross_entropy_with_integer_labels,
        few.images,
        few.labels,
        digits.valid,
        digits.test,
        jax.random.key(0),
        epochs=30,
        batch_size=50,
    )
    rest = jax.tree.map(lambda leaf: leaf[300:], digits.train)
    logits = jsoft.training.predict(network, params, rest.images)
    np.save("logits.npy", logits)
    np.save("softened.npy", jsoft.temperature_softmax(logits, temperature=TEMPERATURE))
    np.save("digits.npy", rest.labels)


def _bad_teacher() -> None:
    """Write what bad teacher B says of its own training rows, none of which it gets right."""
    config = dataclasses.replace(bad_teachers.PRESETS["digits"], snapshots=(200,))
    setting = bad_teachers.SETTINGS["B"]
    digits = jsoft.load("digits")
    labels = jnp.asarray(digits.train.labels)
    draw, start = jax.random.split(jax.random.key(0))
    wrong = bad_teachers.wrong_classes(labels, draw, num_classes=10, k=setting.k)
    teacher, _ = bad_teachers.teacher_and_student(config, 10)
    soft_labels, _ = bad_teachers.train_teacher(
        config, teacher, digits, setting._asdict(), lambda epoch: wrong, start
    )
    np.save("bad_teacher.npy", soft_labels[-1])
    np.save("bad_teacher_digits.npy", digits.train.labels)


def _people_of_cifar10n() -> None:
    """Write the votes of three people for every image."""
    with np.load("cifar10n_train.npz") as archive:
        votes = [np.eye(10, dtype=np.uint8)[archive[f"random{i}"]] for i in (1, 2, 3)]
    np.save("cifar10n_votes.npy", sum(votes))


def _private_labels() -> None:
    """Write labels of which every one was told by randomised response."""
    labels = np.load("cifar10_test_labels.npy").astype(np.int32)
    told = jsoft.randomised_response(labels, jax.random.key(0), num_classes=10, epsilon=EPSILON)
    np.save("private.npy", told)


SUBJECTS = (
    Subject(
        "Fifty people for every image: CIFAR-10H",
        "cifar10h_counts.npy cifar10_test_labels.npy --classes cifar10.txt",
        """Votes of many people are as good as labels get: the first place alone is enough, and one
        or two hundred labelled rows would be certified. More places only add doubt, because people
        who agree leave all other classes tied at no votes: the tie share is the column to watch,
        and limits, which decide ties against the labels, go to 1.""",
        needs=("cifar10h_counts.npy", "cifar10_test_labels.npy"),
        known=(
            (1, "0.00785", "0.0180", "deer → horse"),
            (2, "0.00084", "0.3995", ""),
        ),
    ),
    Subject(
        "A network, cross-validated: CIFAR-10",
        "cifar10_test_pyx.npy cifar10_test_labels.npy --classes cifar10.txt",
        """A network that is right on nine images in ten is a good teacher by its first class and a
        poor one by its first two: whatever looks like a truck also looks like an automobile, and
        the second place goes there nearly always. Choosing k is not a detail.""",
        needs=("cifar10_test_pyx.npy", "cifar10_test_labels.npy"),
        rows="held out, fold by fold",
        known=(
            (1, "0.0706", "0.0780", "cat → dog"),
            (2, "0.0224", "0.7920", "truck → automobile"),
        ),
    ),
    Subject(
        "Three people for every image: CIFAR-10N",
        "cifar10n_votes.npy cifar10n_train.npz --labels-column clean --classes cifar10.txt",
        """Three votes are noisier than fifty, and still certified. Which is the worst pair does not
        change: people and networks agree on what is hard, and relabelling cats and dogs is what
        helps most.""",
        needs=("cifar10n_train.npz",),
        known=((1, "0.08821", "0.0778", "cat → dog"),),
        make=_people_of_cifar10n,
    ),
    Subject(
        "Names under faces: Lost",
        "lost.npz --array candidates --labels-column label",
        """Candidate sets have no k. These never miss the truth (Δ = 0), so all depends on the name
        that comes along most often. Nothing can be certified of classes without a single row:
        that is said first, because no number of other rows changes it.""",
        needs=("lost.npz",),
        known=((1, "", "0.763", "class 6 → class 2"),),
    ),
    Subject(
        "Names of regions: MSRCv2",
        "msrcv2.npz --array candidates --labels-column label",
        """The condition fails, and the audit says where: one class never comes without another, so
        sets alone cannot tell the two apart. Merge them or label them; no loss in jsoft
        will help.""",
        needs=("msrcv2.npz",),
        known=((1, "", "1.000", "class 3 → class 1"),),
    ),
    Subject(
        "A teacher of our own",
        "logits.npy digits.npy --classes digits.txt",
        """A small network that learned from 300 digits, asked about others. Logits are recognised
        as such; top-k sets look at their order and not at how confident they are.""",
        make=_teacher_on_digits,
        rows="held out",
    ),
    Subject(
        "The same teacher at temperature 4",
        "softened.npy digits.npy --classes digits.txt",
        """The same network, softer. Δ, γ, κ, D and the certificate are the same to the last digit,
        since the order of the classes is; only the mean-label margin μ, which decides whether the
        raw labels can be fitted, gets smaller. Temperature is a remedy for neither Δ nor γ.""",
        rows="held out",
    ),
    Subject(
        "A bad teacher",
        "bad_teacher.npy bad_teacher_digits.npy --classes digits.txt",
        """Trained to be wrong about every one of its training rows, and yet to keep the truth among
        the first three (`experiments/bad_teachers.py`). An accuracy of nought would condemn it; its
        top-3 and top-4 sets hold the truth and little else that is constant, so their student
        learns. A student of its raw labels does not: μ is below 0, and the audit names the class
        that would be learned as another. “Certified” must not be believed here: the
        certificate supposes rows drawn independently of the teacher, and these are the rows that
        it learned from, so it applies neither to them nor to new images.""",
        make=_bad_teacher,
        rows="its own training rows",
        trained_on=True,
    ),
    Subject(
        "Differentially private labels",
        "private.npy cifar10_test_labels.npy --classes cifar10.txt",
        """True labels told by randomised response at ε = 2, so that more than half are wrong. All
        wrong classes are told equally often, and that is why they still teach. Here Δ = 9/(e² + 9)
        = 0.549 and γ = 1/(e² + 9) = 0.061 are known (`jsoft.randomised_response_indicators`); the
        γ of the table is larger, being the largest of 90 frequencies. Privacy costs rows, not the
        condition: D says how many.""",
        needs=("cifar10_test_labels.npy",),
        make=_private_labels,
    ),
)


def run(config: Config) -> dict[str, tuple[dict[str, Any], str]]:
    """Return the numbers and the screen of every audit whose files are there, by title.

    Raises:
      RuntimeError: an audit that was refused.
    """
    done = {}
    files = {path.name: path.resolve() for folder in config.data for path in folder.iterdir()}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, path in files.items():
            Path(name).symlink_to(path)
        Path("cifar10.txt").write_text("\n".join(CIFAR10))
        Path("digits.txt").write_text("\n".join(DIGITS))
        for subject in SUBJECTS:
            if not all(Path(name).exists() for name in subject.needs):
                continue
            if subject.make is not None:
                subject.make()
            args, screen = shlex.split(subject.command), io.StringIO()
            with contextlib.redirect_stdout(screen):
                code = main(["audit", *args, "--json", "numbers.json"])
            if code != 0:
                raise RuntimeError(f"{subject.title}: expected exit code 0, got {code}")
            done[subject.title] = json.loads(Path("numbers.json").read_text()), screen.getvalue()
    return done


def page(done: dict[str, tuple[dict[str, Any], str]]) -> str:
    """Return the page in Markdown."""
    there = [subject for subject in SUBJECTS if subject.title in done]
    missing = [subject.title for subject in SUBJECTS if subject.title not in done]
    versions = ", ".join(f"{name} {version}" for name, version in _versions(done).items())
    return "\n".join(
        [
            "# Audits",
            "",
            "What `jsoft audit` says of labels of people and of models. This page is written by",
            "`python -m experiments.audits`; of its numbers only those known before were typed.",
            f"Versions: {versions}.",
            "",
            "Δ is how often the top-k sets miss the truth, γ how often the most frequent companion",
            "of a class comes along; the paper's condition is Δ + γ < 1. D is the error exponent:",
            "a learner needs about 1/D times the rows that it needs of true labels. μ is the",
            "mean-label margin, which decides about ordinary distillation. A certificate speaks of",
            "rows that were drawn independently of whoever labelled them; the last columns of the",
            "table say which rows are. The data are not here, only what was counted in them; their",
            "sources and licences stand in",
            "[measured_labels.py](../experiments/measured_labels.py) and",
            "[real_candidate_sets.py](../experiments/real_candidate_sets.py).",
            "",
            *([f"Not made, for want of files: {', '.join(missing)}.", ""] if missing else []),
            "| labels | rows × classes | kind | k | Δ | γ | worst pair | D | μ | rows are "
            "| Δ + γ < 1, no class lost |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *(_summary(subject, done[subject.title][0]) for subject in there),
            "",
            *(line for subject in there for line in _section(subject, *done[subject.title])),
        ]
    )


def _versions(done: dict[str, tuple[dict[str, Any], str]]) -> dict[str, str]:
    return next(iter(done.values()))[0]["versions"]


def _at(numbers: dict[str, Any], k: int) -> dict[str, Any]:
    """Return the row of the table at k; candidate sets have one row and no k."""
    rows = numbers["top_k"]
    return next((row for row in rows if row["k"] == k), rows[0])


def _pair(row: dict[str, Any]) -> str:
    return f"{row['worst_pair']['true']} → {row['worst_pair']['wrong']}"


def _summary(subject: Subject, numbers: dict[str, Any]) -> str:
    best = _at(numbers, numbers["best_k"])
    cells = [
        f"[{subject.title}](#{_anchor(subject.title)})",
        f"{numbers['rows']:,} × {len(numbers['classes'])}",
        numbers["kind"],
        "" if numbers["kind"] == "sets" else str(numbers["best_k"]),
        f"{best['unreliability']:.4f}",
        f"{best['ambiguity']:.4f}",
        _pair(best),
        f"{best['divergence']:.3f}",
        f"{numbers['with_labels']['mean_label_margin']:.3f}",
        subject.rows,
        _certified(subject, numbers["status"]),
    ]
    return f"| {' | '.join(cells)} |"


def _certified(subject: Subject, status: str) -> str:
    """Return what may be claimed."""
    if subject.trained_on and status == "certified":
        return "on these rows; nothing is certified"
    return {
        "certified": "certified at 95 %",
        "learnable": "on this sample, not certified",
        "not_learnable": "no",
    }[status]


def _anchor(title: str) -> str:
    """Return what GitHub calls a heading in an address."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _section(subject: Subject, numbers: dict[str, Any], screen: str) -> list[str]:
    known = []
    for k, *expected in subject.known:
        row = _at(numbers, k)
        found = (f"{row['unreliability']:.5f}", f"{row['ambiguity']:.4f}", _pair(row))
        at = "" if numbers["kind"] == "sets" else f"k = {k}: "
        known.append(f"- {at}{', '.join(filter(None, expected))}; here {', '.join(found)}")
    return [
        f"## {subject.title}",
        "",
        f"    jsoft audit {subject.command}",
        "",
        f"**{numbers['verdict']}**",
        "",
        *(
            [
                "*The labels' maker learned from these very rows: no certificate applies to them.*",
                "",
            ]
            if subject.trained_on
            else []
        ),
        *textwrap.wrap(" ".join(subject.lesson.split()), 100),
        "",
        *(["Known before, Δ, γ and the pair:", "", *known, ""] if known else []),
        "<details><summary>The whole screen</summary>",
        "",
        "```text",
        screen.rstrip(),
        "```",
        "",
        "</details>",
        "",
    ]


if __name__ == "__main__":
    keep_compiled_programs()
    config = tyro.cli(Config)
    config.out.write_text(page(run(config)), encoding="utf-8")
    print(f"written to {config.out}")
