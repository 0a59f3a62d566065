"""Commands keep their options, and mistakes their exit status and message."""

import subprocess
import sys

import pytest
from house import access, commands, machine

RECORDED = machine.load("commands")[0]


@pytest.fixture(scope="module")
def helps():
    return commands.collect_help()


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory):
    return commands.collect_mistakes(
        commands.write_mistakes(tmp_path_factory.mktemp("mistakes") / "data")
    )


def test_records_have_what_is_asked(helps, mistakes):
    assert set(helps) == set(RECORDED["help"])
    assert set(mistakes) == set(RECORDED["mistakes"])


@pytest.mark.parametrize("command", sorted(RECORDED["help"]))
def test_help_lists_the_options_of_the_record(command, helps):
    assert helps[command] == RECORDED["help"][command]
    assert helps[command]["status"] == 0


@pytest.mark.parametrize("title", sorted(RECORDED["mistakes"]))
def test_mistake_ends_as_recorded(title, mistakes):
    assert mistakes[title] == RECORDED["mistakes"][title]


def test_every_command_is_asked(helps):
    """A command that is added has to be added to `commands.COMMANDS`, too."""
    asked = {name.rpartition(" ")[2] for name in helps}
    runs = {
        "RECIPE",
        "list",
        "show",
        "resume",
        "convert",
        "export",
    }  # of one argument, without a parser
    kinds = {"coco", "lvis"}  # values of `ov-split`
    for name, shown in helps.items():
        assert set(shown["commands"]) - runs - kinds <= asked, name


@pytest.mark.parametrize("program", sorted(access.programs()))
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_answered_at_once(program, option):
    """Without the libraries that take a second or more to import."""
    module = access.programs()[program].__module__
    code = f"""
import sys
from {module} import main
assert main([{option!r}]) == 0
slow = {{"torch", "torchvision", "numpy", "open_clip", "transformers"}}
sys.exit(", ".join(slow & sys.modules.keys()) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]
    assert done.stdout


def test_options_in_sentences_do_not_count():
    lines = ("usage: x [-h]", "  -o OUT, --out OUT  folder, see --images", "  --data.px INT  side")
    text = "\n".join([*lines, " -----"])
    assert list(commands.options_in(text)) == ["-o", "--out", "--data.px"]
