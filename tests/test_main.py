"""The command line: what is read, what is written, exit codes; the audit itself is stood in for."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from jsoft import __main__ as command
from jsoft.label_kinds import Kind

SOFT = np.array([[0.7, 0.3], [0.2, 0.8], [0.4, 0.6]])
TEXT = "Δ = 0.1"


@dataclasses.dataclass
class StandIn:
    """An audit that remembers what it was asked, and says `TEXT`."""

    soft_labels: np.ndarray
    labels: np.ndarray | None
    options: dict
    certified: bool = False
    numbers: dict = dataclasses.field(default_factory=lambda: {"schema_version": 1})

    def to_json(self):
        return self.numbers

    def text(self, width=80, color=False):
        return f"{TEXT} width={width} color={color}"

    def html(self, command=""):
        return f"<p>{command}</p>"


@pytest.fixture
def asked(monkeypatch):
    """Return what the audit was asked, and may be told to answer."""
    seen = types.SimpleNamespace(certified=False, error=None, audit=None)

    def audit(soft_labels, labels=None, **options):
        if seen.error is not None:
            raise seen.error
        seen.audit = StandIn(soft_labels, labels, options, seen.certified)
        return seen.audit

    monkeypatch.setitem(sys.modules, "jsoft.audit", types.SimpleNamespace(audit=audit))
    return seen


@pytest.fixture
def soft(tmp_path):
    path = tmp_path / "soft.npy"
    np.save(path, SOFT)
    return path


def run(*args):
    return command.main(["audit", *map(str, args)])


def test_soft_labels_and_options_reach_the_audit(asked, soft, tmp_path, capsys):
    np.save(tmp_path / "labels.npy", [0, 1, -1])
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert run(soft, tmp_path / "labels.npy", "--classes", tmp_path / "names.txt") == 0
    np.testing.assert_array_equal(asked.audit.soft_labels, SOFT)
    assert asked.audit.labels.tolist() == [0, 1, -1]
    assert asked.audit.options == {
        "k": None,
        "max_k": None,
        "alpha": 0.05,
        "ties": "fractional",
        "progress": False,
        "kind": None,
        "classes": ("cat", "dog"),
        "where": None,
    }
    options = ["--kind", "votes", "--k", "1", "--max-k", "1", "--alpha", "0.01", "--ties", "first"]
    assert run(soft, *options) == 0
    given = {"kind": Kind.VOTES, "k": 1, "max_k": 1, "alpha": 0.01, "ties": "first"}
    assert asked.audit.options == given | {"progress": False, "classes": None, "where": None}
    assert asked.audit.labels is None
    assert capsys.readouterr().err == ""


def test_columns_beside_the_soft_labels_reach_the_audit(asked, tmp_path):
    path = tmp_path / "soft.csv"
    path.write_text("cat,dog,truth,keep\n0.7,0.3,cat,1\n0.2,0.8,dog,1\n0.4,0.6,cat,0\n")
    assert run(path, "--labels-column", "truth", "--where", "keep") == 0
    np.testing.assert_array_equal(asked.audit.soft_labels, SOFT)
    assert asked.audit.labels.tolist() == [0, 1, 0]
    assert asked.audit.options["where"].tolist() == [True, True, False]
    assert asked.audit.options["classes"] == ("cat", "dog")


def test_labels_column_is_one_of_the_labels_file_where_there_is_one(asked, soft, tmp_path):
    np.savez(tmp_path / "labels.npz", clean=[0, 1, 1], noisy=[1, 0, 1])
    np.savez(tmp_path / "soft.npz", a=SOFT, b=SOFT[:2])
    assert run(soft, tmp_path / "labels.npz", "--labels-column", "clean") == 0
    assert asked.audit.labels.tolist() == [0, 1, 1]
    assert run(tmp_path / "soft.npz", "--array", "b") == 0
    np.testing.assert_array_equal(asked.audit.soft_labels, SOFT[:2])


def test_prints_as_wide_as_the_terminal_and_plain_elsewhere(asked, soft, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert run(soft) == 0
    assert capsys.readouterr().out == f"{TEXT} width=60 color=False\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for environment, color in [({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False)]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        run(soft)
        assert capsys.readouterr().out == f"{TEXT} width=60 color={color}\n"
    assert run(soft, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_requirement_sets_the_exit_code(asked, soft):
    assert run(soft) == 0
    assert run(soft, "--require-certified", "--quiet") == 1
    asked.certified = True
    assert run(soft, "--require-certified") == 0


def test_writes_what_was_asked_for_and_nothing_else(asked, soft, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "r.html").write_text("an older report")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    monkeypatch.chdir(folder)
    assert run(soft, "--json", "a.json", "--report", "r.html") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "r.html"]
    assert json.loads((folder / "a.json").read_text()) == {"schema_version": 1}
    assert f"jsoft audit {soft} --json a.json" in (folder / "r.html").read_text()
    assert (folder / "a.json").stat().st_mode == soft.stat().st_mode
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_failed_write_leaves_the_older_file(asked, soft, tmp_path, monkeypatch, capsys):
    report = tmp_path / "r.html"
    report.write_text("an older report")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert run(soft, "--report", report) == 2
    assert capsys.readouterr().err == "jsoft audit: No space left on device\n"
    assert report.read_text() == "an older report"
    assert {path.name for path in tmp_path.iterdir()} == {"r.html", "soft.npy"}


def test_numbers_that_json_does_not_know_are_not_written(asked, soft, tmp_path, capsys):
    asked.audit = None
    original = StandIn.to_json
    try:
        StandIn.to_json = lambda self: {"gamma": float("nan")}
        assert run(soft, "--json", tmp_path / "a.json") == 2
    finally:
        StandIn.to_json = original
    assert not (tmp_path / "a.json").exists()
    assert len(capsys.readouterr().err.splitlines()) == 1


BAD = {
    "nothing": ([], "expected a file of soft labels, or --demo"),
    "absent": (["absent.npy"], "absent.npy: expected a file, got none"),
    "demo and a file": (["soft.npy", "--demo"], "--demo: expected no file"),
    "demo and a kind": (["--demo", "--kind", "votes"], "--demo: expected no file"),
    "output over input": (["soft.npy", "--json", "./soft.npy"], "expected another file than those"),
    "one output": (["soft.npy", "--json", "a", "--report", "./a"], "another file than --json"),
    "output in no folder": (["soft.npy", "--json", "no/a.json"], "expected an existing folder"),
    "output on a folder": (["soft.npy", "--report", "."], "--report .: expected a file to write"),
    "output on a device": (["soft.npy", "--report", "/dev/null"], "expected a file to write"),
    "other labels": (["soft.npy", "two.npy"], "two.npy: labels: expected shape [3]"),
    "labels that are a mask": (["soft.npy", "mask.npy"], "expected integers or class names"),
    "other class names": (["soft.npy", "--classes", "one.txt"], "expected 1 classes, one a name"),
}


@pytest.mark.parametrize(("args", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(asked, soft, tmp_path, monkeypatch, capsys, args, message):
    np.save(tmp_path / "two.npy", [0, 1])
    np.save(tmp_path / "mask.npy", np.array([True, False, True]))
    (tmp_path / "one.txt").write_text("cat\n")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert run(*args) == 2
    assert asked.audit is None
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jsoft audit: ")
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("k: expected 1,\n  got 2"), 2, "k: expected 1, got 2"),
        (TypeError("alpha: expected a number"), 2, "alpha: expected a number"),
        (MemoryError(), 2, "this needs more memory than there is"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_the_audit_refuses_is_one_line(asked, soft, capsys, error, code, line):
    asked.error = error
    assert run(soft) == code
    assert capsys.readouterr() == ("", f"jsoft audit: {line}\n")


def test_errors_of_our_own_are_not_taken_for_bad_input(asked, soft):
    asked.error = AssertionError("a bug")
    with pytest.raises(AssertionError, match="a bug"):
        run(soft)


@pytest.mark.parametrize("columns", ["40", "200"])
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Expected one of {audit}"),
        (["audti"], "Unrecognized options: audti"),
        (["audit", "--nonsense"], "Unrecognized options: --nonsense"),
        (["audit", *["--very-long-nonsense"] * 3], "--very-long-nonsense, --very-long-nonsense"),
        (["audit", "a", "b", "c"], "Unrecognized options: c"),
        (["audit", "--k", "two"], "Error parsing --k:"),
        (["audit", "--k"], "Missing value for argument '--k'"),
        (["audit", "--ties", "odd"], "invalid choice 'odd' for argument '--ties'"),
    ],
)
def test_mistyped_options_are_one_line(asked, capsys, monkeypatch, columns, args, message):
    monkeypatch.setenv("COLUMNS", columns)
    assert command.main(args) == 2
    assert asked.audit is None
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jsoft audit: ")
    assert err.endswith("; see jsoft audit --help\n")
    assert len(err.splitlines()) == 1
    assert message in err
    assert not set("│─╭╮╰╯") & set(err)


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["audit", "--help"])
    assert end.value.code == 0
    help = capsys.readouterr().out
    assert "jsoft audit --demo --report report.html" in help
    for field in dataclasses.fields(command.AuditCommand)[2:]:
        assert f"--{field.name.replace('_', '-')}" in help


def test_demo_brings_labels_that_a_choice_of_k_matters_for(asked):
    assert run("--demo") == 0
    soft_labels, labels = asked.audit.soft_labels, asked.audit.labels
    assert soft_labels.shape == (1797, 10)
    assert asked.audit.options["classes"] == command.DIGITS
    for k, smallest, largest, pair in [(1, 0.6, 0.7, "three eight"), (2, -0.1, 0, "zero nine")]:
        chosen = np.argsort(-soft_labels, axis=1)[:, :k, None] == np.arange(10)
        frequencies = np.stack([chosen.any(axis=1)[labels == y].mean(axis=0) for y in range(10)])
        missed = 1 - np.diagonal(frequencies)[labels].mean()
        wrong = np.where(np.eye(10, dtype=bool), 0, frequencies)
        worst = np.unravel_index(wrong.argmax(), wrong.shape)
        assert smallest < 1 - missed - wrong.max() < largest
        assert " ".join(command.DIGITS[i] for i in worst) == pair


def in_a_process(folder, *args):
    """Return CPU seconds and output of Python with our modules; nothing must be said on stderr."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-W", "error", *args],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "")
    return after.ru_utime - before.ru_utime, done.stdout


def save_votes(folder):
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=10_000)
    np.save(folder / "soft.npy", rng.multinomial(5, 0.7 * np.eye(10)[labels] + 0.03))
    np.save(folder / "labels.npy", labels)


def test_python_m_jsoft(tmp_path):
    save_votes(tmp_path)
    _, out = in_a_process(tmp_path, "-m", "jsoft", "audit", "soft.npy", "labels.npy")
    assert out.startswith("Learnable by top-")


@pytest.mark.slow
def test_ten_thousand_rows_take_about_a_second_beyond_jax(tmp_path):
    save_votes(tmp_path)
    audit = ("-m", "jsoft", "audit", "soft.npy", "labels.npy")
    jax = min(in_a_process(tmp_path, "-c", "import jax")[0] for _ in range(3))
    ours = min(in_a_process(tmp_path, *audit)[0] for _ in range(3))
    assert ours < jax + 2  # twice what a quiet core takes


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_million_rows_take_little_memory_and_time(tmp_path):
    rows, classes = 1_000_000, 100
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=rows)
    values = np.lib.format.open_memmap(
        tmp_path / "soft.npy", mode="w+", dtype=np.float32, shape=(rows, classes)
    )
    for start in range(0, rows, 50_000):
        logits = 2 * rng.standard_normal((50_000, classes), dtype=np.float32)
        logits[np.arange(50_000), labels[start : start + 50_000]] += 5
        values[start : start + 50_000] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    values.flush()
    np.save(tmp_path / "labels.npy", labels)
    code = """if True:
        import re, time
        from pathlib import Path
        import numpy as np
        from jsoft.__main__ import main

        start = time.process_time()
        code = main(["audit", "soft.npy", "labels.npy", "--quiet"])
        ours = time.process_time() - start
        peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
        start = time.process_time()
        values = np.load("soft.npy")
        for first in range(0, len(values), 10_000):
            np.argpartition(values[first : first + 10_000], -10, axis=1)
        print(code, peak, ours, time.process_time() - start)
    """
    _, out = in_a_process(tmp_path, "-c", code)
    code, peak, ours, partition = map(float, out.split())
    assert code == 0
    assert 1024 * peak < 1e9
    assert ours < 6 * partition  # about 3 on a quiet core, where partitions take a second
