"""How a program is typed in the shell in which this process was started."""

import sys

import pytest
from clim_data.command_line import spelling, typed


@pytest.mark.parametrize(
    ("first", "on_path", "hatch", "form"),
    [
        ("/env/bin/clim-train", True, False, "clim-eval"),
        ("/env/bin/clim-train", True, True, "hatch run clim-eval"),
        ("/site/clim_train/__main__.py", True, False, "python -m clim_eval"),
        ("/env/bin/clim-train", False, False, "python -m clim_eval"),
    ],
)
def test_form(monkeypatch, first, on_path, hatch, form):
    monkeypatch.setattr(sys, "argv", [first])
    monkeypatch.setattr(spelling.shutil, "which", lambda name: name if on_path else None)
    monkeypatch.delenv("HATCH_ENV_ACTIVE", raising=False)
    if hatch:
        monkeypatch.setenv("HATCH_ENV_ACTIVE", "default")
    assert typed("clim-eval") == form
