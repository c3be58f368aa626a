"""The README's examples run, and print what it says they print."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


PYTHON = [i for i, (language, _) in enumerate(BLOCKS) if language == "python"]


@pytest.mark.parametrize("block", PYTHON)
def test_python_block_runs_and_prints_what_follows_it(block, capsys):
    names = {}
    for i in PYTHON[: PYTHON.index(block) + 1]:  # later examples use names of earlier ones
        capsys.readouterr()
        exec(compile(BLOCKS[i][1], f"README block {i}", "exec"), names)
    language, text = BLOCKS[block + 1]
    if language == "text":
        assert capsys.readouterr().out.split() == text.split()
    if "table" in names:
        assert names["table"].num_rows == 5 * 4 * 10
        accuracy = names["table"].group_by("unreliability").aggregate([("test_accuracy", "mean")])
        first, *_, last = accuracy["test_accuracy_mean"].to_pylist()
        assert first > 0.9 > 0.2 > last
