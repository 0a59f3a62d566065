"""Command lines of the READMEs and of the documentation parse: their subcommands, options and
values exist."""

import argparse
import re
import shlex
from pathlib import Path

import clim_data.commands.main
import clim_eval.commands.main
import clim_models.commands.main
import flmm.commands.main
import flmm.commands.presence
import flmm.commands.train
import pytest
from clim_train import PairDataConfig
from clim_train.commands.ending import next_commands
from clim_train.commands.estimate import build_parser as estimate_parser
from clim_train.commands.main import configure
from clim_train.methods.views import DetectionDataConfig
from clim_train.recipes import RECIPES
from flmm.training.recipes import RECIPES as FLMM_RECIPES

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("packages/*/README.md"), *ROOT.glob("docs/*.md")])
# Program -> parser for a command line, whose first word decides what flmm imports.
PARSERS = {
    "clim-data": lambda command: clim_data.commands.main.build_parser([command]),
    "clim-eval": lambda command: clim_eval.commands.main.build_parser([command]),
    "clim-models": lambda command: clim_models.commands.main.build_parser(),
    "flmm": flmm.commands.main.build_parser,
}
PROGRAMS = ("clim-data", "clim-eval", "clim-models", "clim-train", "flmm")
LAUNCHED = re.compile(
    r"^(?:deepspeed|torchrun|python) .*?(?:--module|-m) (clim_data|clim_eval|clim_models|clim_train|flmm)\b"
)
NEEDED = {
    "list": 0,
    "show": 1,
    "resume": 1,
    "convert": 1,
    "export": 1,
}  # arguments of clim-train's other commands


def block_commands(text: str) -> list[str]:
    """The lines of code blocks that call one of our commands: continued lines joined, launchers
    taken off."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fenced if language in ("", "bash", "sh")]
    lines = [
        line.strip() for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()
    ]
    lines = [LAUNCHED.sub(lambda found: found[1].replace("_", "-"), line) for line in lines]
    return [line for line in lines if line.split(" ")[0] in PROGRAMS and " " in line]


def inline_commands(text: str) -> list[str]:
    """`PROGRAM COMMAND ...` within sentences and tables, where arguments may be left out."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [
        " ".join(code.split()) for code in re.findall(rf"`((?:{'|'.join(PROGRAMS)}) [^`]+)`", prose)
    ]


def words(command: str) -> list[str]:
    return [word for word in shlex.split(command, comments=True) if word not in ("...", r"\|")]


def subparser(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.ArgumentParser:
    """The parser of the (nested) subcommand that the arguments begin with; fails where there is no
    such."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and arguments:
            return subparser(action.choices[arguments[0]], arguments[1:])
    return parser


def parse(command: str) -> None:
    """Fails unless the command line is complete and right; nothing is run."""
    program, *arguments = words(command)
    if arguments[:2] == ["train", "estimate"]:
        own, rest = flmm.commands.train.estimate_parser().parse_known_args(arguments[2:])
        flmm.commands.train.configure(own.recipe, rest)
    elif arguments[:2] == ["train", "presence"]:
        flmm.commands.presence.build_parser().parse_args(arguments[2:])
    elif (program, arguments[0]) == ("flmm", "train"):
        parse_run(command, arguments[1:], flmm.commands.train.configure)
    elif program in PARSERS:
        PARSERS[program](arguments[0]).parse_args(arguments)
    elif arguments[0] == "estimate":
        own, rest = estimate_parser().parse_known_args(arguments[1:])
        configure(own.recipe, rest)
    else:
        parse_run(command, arguments, configure)


def parse_run(command: str, arguments: list[str], configure_recipe) -> None:
    """The same for commands of trainings and their runs."""
    first, *rest = arguments
    if first not in NEEDED:
        configure_recipe(first, rest)
        return
    assert len([word for word in rest if word != "--trust"]) == NEEDED[first], command
    if first == "show":
        assert rest[0] in {*RECIPES, "RECIPE"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_code_blocks_parse(page, capsys):
    for command in block_commands(page.read_text()):
        try:
            parse(command)
        except (SystemExit, ValueError, AssertionError) as fault:
            pytest.fail(f"{command}\n{fault}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_within_sentences_exist(page):
    for command in inline_commands(page.read_text()):
        program, *arguments = words(command)
        if (program, arguments[0]) == ("flmm", "train"):
            named = arguments[1:2] or ["RECIPE"]
            assert named[0] in {*NEEDED, *FLMM_RECIPES, "RECIPE", "presence"}, command
        elif program in PARSERS:
            parser = PARSERS[program](arguments[0])
            options = subparser(parser, arguments)._option_string_actions
            assert {word for word in arguments if word.startswith("--")} <= set(options), command
        else:
            assert arguments[0] in {*NEEDED, *RECIPES, "estimate", "RECIPE"}, command


def test_commands_are_found_and_mistakes_in_them_noticed():
    page = "```bash\nclim-data nouns --captions-json a.json \\\n    --out n.txt   # all\nls\n```\nand `clim-train list`\n"
    page += (
        "```\ndeepspeed --num_gpus 8 --module clim_train clim_coco_vitb16 --optim.lr 1 ...\n```\n"
    )
    commands = block_commands(page)
    assert [words(command)[:2] for command in commands] == [
        ["clim-data", "nouns"],
        ["clim-train", "clim_coco_vitb16"],
    ]
    assert inline_commands(page) == ["clim-train list"]
    for command in commands:
        parse(command)
    for wrong in (
        "clim-data noun --out a",
        "clim-data nouns --captions-json a",
        "clim-train clim_coco_vitb16 --optim.l 1",
    ):
        with pytest.raises(SystemExit):
            parse(wrong)
    with pytest.raises(ValueError, match="clim_coco_vitb16"):
        parse("clim-train clim_coco_vitb61")
    assert len(block_commands((ROOT / "docs" / "reproduce.md").read_text())) > 10


def test_no_page_and_no_message_installs_packages_by_names_that_no_registry_has():
    """The five packages are installed from a clone, by their folders."""
    named = re.compile(
        r"""pip install [^\n`]*?["' ](clim-(?:data|models|train|eval)|flmm)[\["'\s,;)]"""
    )
    sources = list(ROOT.glob("packages/*/src/**/*.py"))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in [*PAGES, *sources]
        for match in named.finditer(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("data", [PairDataConfig(), DetectionDataConfig()])
def test_the_next_commands_of_a_training_parse(data):
    config = type("Config", (), {"data": data})()
    first, *commands = next_commands(config, Path("runs/a b"))
    assert first == "next:"
    assert len(commands) == 2
    for command in commands:
        assert "'runs/a b'" in command
        parse(re.sub(r"^.*?(clim[_-]eval)", "clim-eval", command.strip()))
        # A detector that runs needs a folder, which no parser knows.
        assert " --out " in command or " detection " not in command
