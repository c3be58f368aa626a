"""The examples of README and pages run, and print what the pages say they print."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/systems/*.md"))]
BLOCKS = {
    page.stem: re.findall(r"```(\w+)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for page in PAGES
}
PYTHON = [
    (page, i)
    for page, blocks in BLOCKS.items()
    for i, (language, _) in enumerate(blocks)
    if language == "python"
]


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_python_block_runs_and_prints_what_follows_it(page, block, capsys):
    names, blocks = {}, BLOCKS[page]
    for other, i in PYTHON:  # later examples use names of earlier ones
        if other == page and i <= block:
            capsys.readouterr()
            exec(compile(blocks[i][1], f"{page} block {i}", "exec"), names)
    language, text = blocks[block + 1] if block + 1 < len(blocks) else ("", "")
    if language == "text":
        assert capsys.readouterr().out.split() == text.split()
    if "table" in names:
        assert names["table"].num_rows == 5 * 4 * 10
        accuracy = names["table"].group_by("unreliability").aggregate([("test_accuracy", "mean")])
        first, *_, last = accuracy["test_accuracy_mean"].to_pylist()
        assert first > 0.9 > 0.2 > last
