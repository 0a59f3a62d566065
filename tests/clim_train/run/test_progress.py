"""How a run shows where it is."""

import io
import sys

import pytest
from clim_train.run.progress import duration, open_progress


def test_without_a_terminal_there_is_a_line_for_each_twentieth(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    progress = open_progress(0, 400, enabled=True)
    for step in range(1, 401):
        progress.advance()
        if step == 1 or step % 5 == 0:
            progress.show(step, {"loss": 5.678e-07, "samples_per_s": 11.04})
    progress.show(400, {"regions/mAcc1": 0.5})
    progress.close()

    lines = out.getvalue().splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("step 20 of 400: loss 5.678e-07, 11.04 samples/s, ")
    assert lines[-1] == "step 400 of 400: loss 5.678e-07, 11.04 samples/s"


def test_the_bar_appears_with_the_first_step(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    progress = open_progress(3, 5, enabled=True)
    assert out.getvalue() == ""
    progress.advance()
    progress.say("a line of its own")
    progress.close()
    assert "4/5" in out.getvalue()
    assert "\na line of its own\n" in out.getvalue().replace("\r", "\n")


def test_nothing_is_shown_where_nobody_looks(capsys):
    progress = open_progress(0, 5, enabled=False)
    progress.advance()
    progress.say("hidden")
    progress.show(1, {"loss": 1.0})
    progress.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.43, "0.43 s"), (40, "40 s"), (430, "7.2 min"), (95_000, "26 h"), (300_000, "3 days")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text
