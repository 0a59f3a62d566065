"""Command lines of the READMEs and of the documentation parse: their subcommands, options and
values exist."""

import argparse
import re
import shlex
from pathlib import Path

import clim_data.commands.main
import clim_eval.commands.main
import pytest
from clim_train.commands.main import configure
from clim_train.recipes import RECIPES

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("packages/*/README.md"), *ROOT.glob("docs/*.md")])
PARSERS = {
    "clim-data": clim_data.commands.main._parser,
    "clim-eval": clim_eval.commands.main.build_parser,
}
LAUNCHED = re.compile(r"^(?:deepspeed|torchrun|python) .*?(?:--module|-m) clim_(data|eval|train)\b")
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
    blocks = re.findall(r"^```(?:bash|sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [
        line.strip() for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()
    ]
    lines = [LAUNCHED.sub(r"clim-\1", line) for line in lines]
    return [line for line in lines if re.match(r"clim-(data|eval|train) ", line)]


def inline_commands(text: str) -> list[str]:
    """`clim-... SUBCOMMAND ...` within sentences and tables, where arguments may be left out."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [
        " ".join(code.split()) for code in re.findall(r"`(clim-(?:data|eval|train) [^`]+)`", prose)
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
    if program in PARSERS:
        PARSERS[program]().parse_args(arguments)
        return
    first, *rest = arguments
    if first in NEEDED:
        assert len([word for word in rest if word != "--trust"]) == NEEDED[first], command
    elif first == "estimate":
        configure(rest[0], _without(rest[1:], "--gpus"))
    else:
        configure(first, rest)
    if first in ("show", "estimate"):
        assert rest[0] in {*RECIPES, "RECIPE"}


def _without(arguments: list[str], option: str) -> list[str]:
    if option not in arguments:
        return arguments
    place = arguments.index(option)
    return arguments[:place] + arguments[place + 2 :]


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
        if program in PARSERS:
            options = subparser(PARSERS[program](), arguments)._option_string_actions
            assert {word for word in arguments if word.startswith("--")} <= set(options), command
        else:
            assert arguments[0] in {*NEEDED, *RECIPES, "estimate", "RECIPE"}, command


def test_commands_are_found_and_mistakes_in_them_noticed():
    page = "```bash\nclim-data nouns --captions a.json \\\n    --output n.txt   # all\nls\n```\nand `clim-train list`\n"
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
        "clim-data noun --output a",
        "clim-data nouns --output a",
        "clim-train clim_coco_vitb16 --optim.l 1",
    ):
        with pytest.raises(SystemExit):
            parse(wrong)
    with pytest.raises(ValueError, match="clim_coco_vitb16"):
        parse("clim-train clim_coco_vitb61")
    assert len(block_commands((ROOT / "README.md").read_text())) > 10
