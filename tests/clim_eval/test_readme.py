"""The example of the README that needs no data runs as it is printed, and every public name is in
the README."""

import re
from pathlib import Path

import clim_eval
import pytest

README = Path(__file__).parents[2] / "packages" / "clim-eval" / "README.md"


def test_masks_of_phrases(tmp_path, monkeypatch):
    code = re.search(
        r"```python\n(import torch\nfrom clim_eval import MaskScores.*?)```",
        README.read_text(),
        re.S,
    )[1]
    monkeypatch.chdir(tmp_path)
    first, again = {}, {}
    exec(compile(code, "README", "exec"), first)
    assert len((tmp_path / "scores" / "png" / "scores-0000.jsonl").read_text().splitlines()) == 2
    names = re.findall(r"(?:AR\w*|acc@[\d.]+|standard\.\w+(?:@[\d.]+)?)(?=[,\n])", code)
    assert len(names) == 9
    assert first["metrics"].keys() >= set(names)
    exec(compile(code, "README", "exec"), again)  # nothing is counted twice
    assert again["metrics"] == pytest.approx(first["metrics"])


def test_every_public_name_is_in_the_readme():
    words = set(re.findall(r"\w+", README.read_text()))
    assert [name for name in clim_eval.__all__ if name not in words and name != "__version__"] == []
