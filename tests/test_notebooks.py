"""The notebooks run from the first cell to the last, on tiny models and without the network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What stands for a shell line: the programs of this environment, as modules.
HEAD = """
import os, shlex, subprocess, sys
os.environ["MPLBACKEND"] = "Agg"


def run_line(line):
    program, *arguments = shlex.split(line.format(**globals()))
    command = [sys.executable, "-m", program.replace("-", "_"), *arguments]
    subprocess.run(command, check=True)


"""


def code_of(notebook: Path) -> str:
    """The code cells as one script: shell lines become calls, other magics are left out."""
    cells = json.loads(notebook.read_text())["cells"]
    lines = [
        line
        for cell in cells
        if cell["cell_type"] == "code"
        for line in [*"".join(cell["source"]).splitlines(), ""]
    ]
    calls = [re.sub(r"^(\s*)!(.*)$", lambda m: f"{m[1]}run_line({m[2]!r})", line) for line in lines]
    return HEAD + "\n".join(re.sub(r"^(\s*)%.*$", r"\1pass", line) for line in calls)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path):
    script = tmp_path / "notebook.py"
    script.write_text(code_of(notebook))
    ended = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(notebook):
    for cell in json.loads(notebook.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
