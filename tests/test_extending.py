"""The code of docs/extending.md runs as it is printed, block by block."""

import re
from pathlib import Path

import pytest
from two_processes import run_ranks

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
SECTIONS = re.findall(
    r"^## (.+?)\n.*?^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
)


def test_every_section_has_code():
    assert [title for title, _ in SECTIONS] == re.findall(r"^## (.+)", PAGE.read_text(), re.M)


@pytest.mark.parametrize(
    ("title", "code"), SECTIONS, ids=lambda value: value if len(value) < 30 else ""
)
def test_code_runs(title, code, tmp_path):
    """In a process of its own, so that what it registers is gone afterwards."""
    script = tmp_path / "section.py"
    script.write_text(f"import os\nos.chdir({str(tmp_path)!r})\n{code}")
    ended = run_ranks(script, [], tmp_path / "log")
    assert ended == [0], (tmp_path / "log.0.log").read_text()[-3000:]
