"""The program `clim-models`: files, exit statuses, mistakes in one line."""

import json
import logging

import numpy as np
import pytest
from clim_data.command_line import FAILED, INTERRUPTED, MISTAKE
from clim_models.__main__ import main
from clim_models.commands import main as commands


@pytest.fixture(autouse=True)
def no_traces():
    """Torch logs every step of an export where somebody listens, as pytest does."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


def test_export_of_the_shipped_model(tmp_path, capsys):
    words = ["--labels", "a guitar", "a frog"]
    chosen = ["--model", "clim-tiny", "--graphs", "dense", "--formats", "pt2"]
    assert main(["export", *chosen, *words, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "dense.pt2" in shown
    assert "from the model in 4 picture sizes" in shown
    about = json.loads((tmp_path / "out" / "graphs.json").read_text())
    assert about["read_at_px"] == 192
    assert np.load(tmp_path / "out" / "classes.npy").shape == (2, 384)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "RN50"], "which weights of RN50"),
        ([], "which model"),
        (["--pretrained", "no/such/run"], "which model"),
        (["--detector", "no/such/run"], "no/such/run holds no detector.json"),
        (["--detector", "run", "--model", "RN50"], "leave out --model and --pretrained"),
        (["--model", "clim-tiny", "--vocabulary", "no.json"], "no vocabulary at no.json"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, capsys):
    assert main(["export", *words, "--out", str(tmp_path)]) == MISTAKE
    said = capsys.readouterr().err
    assert said.startswith("clim-models export: ")
    assert said.count("\n") == 1
    assert message in said


def test_statuses_are_those_of_the_other_programs(monkeypatch, capsys):
    assert (commands.FAILED, commands.MISTAKE, commands.INTERRUPTED) == (
        FAILED,
        MISTAKE,
        INTERRUPTED,
    )
    events = {
        FAILED: OSError(28, "No space left on device"),
        MISTAKE: PermissionError(13, "Permission denied"),
        INTERRUPTED: KeyboardInterrupt(),
    }
    for status, error in events.items():

        def fail(options, error=error):
            raise error

        monkeypatch.setattr("clim_models.commands.export.run", fail)
        assert main(["export", "--model", "RN50", "--out", "x"]) == status
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["export"]) == MISTAKE
    assert main(["unpack"]) == MISTAKE
