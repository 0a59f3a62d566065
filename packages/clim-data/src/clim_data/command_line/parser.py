"""Parsers of commands: the format of their help, and old spellings of options."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from clim_data.command_line.interrupts import importing


class Commands(Protocol):
    """The result of `ArgumentParser.add_subparsers`, which has no public name in argparse."""

    def add_parser(self, name: str, **options: Any) -> Any:
        """Add a command and return its parser."""


class CommandParser(argparse.ArgumentParser):
    """A parser that still takes old spellings of its options, which `--help` does not show.

    Each use of an old spelling prints one line on stderr that names the new one. Parsers of
    subcommands are of this class, too.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.old_spellings: dict[str, str] = {}

    def add_old_spelling(self, old: str, new: str) -> None:
        """Take the option `old` as `new` for one release."""
        self.old_spellings[old] = new

    def parse_known_args(  # type: ignore[override]  # the class of the namespace is always ours
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, with old spellings in place of the new ones."""
        words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._renew(words), namespace)

    def _renew(self, words: list[str]) -> list[str]:
        """Replace old spellings, `--old VALUE` and `--old=VALUE`, and tell the user."""
        renewed: list[str] = []
        replaced: dict[str, str] = {}
        for place, word in enumerate(words):
            if word == "--":  # what follows is no option
                renewed += words[place:]
                break

            option, equals, value = word.partition("=")
            if option in self.old_spellings:
                replaced[option] = self.old_spellings[option]
                word = self.old_spellings[option] + equals + value
            renewed.append(word)

        for old, new in replaced.items():
            print(
                f"{self.prog}: {old} is now {new}: the next release drops {old}",
                file=sys.stderr,
                flush=True,
            )
        return renewed


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show defaults, except those without information, such as None."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default is None or isinstance(action.default, bool | list | tuple)
        return action.help if says_nothing else super()._get_help_string(action)


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    text: str,
    *,
    description: str | None = None,
) -> CommandParser:
    """Add a command that calls `run` with its options; return its parser.

    Args:
        text: one line for the list of commands.
        description: the beginning of `COMMAND --help`; by default the same line.
    """
    parser: CommandParser = commands.add_parser(
        name, help=text, description=description or text, formatter_class=HelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def add_commands(
    parser: argparse.ArgumentParser, table: Mapping[str, tuple[str, str]], words: Sequence[str]
) -> None:
    """Add the commands of a program, with options only for the one that `words` begin with.

    The modules of the others are not imported, so that help and mistakes are answered at once.

    Args:
        parser: of the program.
        table: command -> (its module, the line that the program's help shows). A module has
            `add(commands)`.
        words: of the command line, without the program's name.
    """
    commands = parser.add_subparsers(dest="command", required=True)
    wanted = words[0] if words else None
    for name, (module, text) in table.items():
        if name == wanted:
            with importing():
                add = import_module(module).add
            add(commands)
        else:
            commands.add_parser(name, help=text)
