"""The options that mean the same in every command, and their old spellings.

An option that one command alone needs is declared by that command with `add_argument`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clim_data.command_line.checks import at_least


@dataclass(frozen=True)
class Word:
    """An option of the vocabulary.

    Args:
        help: what it means in every command; a command may say more.
        kind: makes a value of the text on the command line; None for a switch.
        metavar: the value in the help.
        choices: legal values, if they are few.
    """

    help: str
    kind: Callable[[str], Any] | None = str
    metavar: str | None = None
    choices: Sequence[str] | None = None


VOCABULARY: dict[str, Word] = {
    "--images": Word("folder of images, or shards", str, "SOURCE"),
    "--captions-json": Word("COCO captions json", Path, "JSON"),
    "--instances-json": Word("COCO or LVIS instances json", Path, "JSON"),
    "--panoptic-json": Word("COCO panoptic json", Path, "JSON"),
    "--panoptic-dir": Word("folder of the segment png files", Path, "DIR"),
    "--narratives-json": Word("Panoptic Narrative Grounding json", Path, "JSON"),
    "--images-json": Word("COCO json of any kind, whose images alone count", Path, "JSON"),
    "--refs": Word("references: refs(unc).p, refs(umd).p, refs(google).p or json", Path, "FILE"),
    "--split": Word("split of the references: train, val, testA, testB or test"),
    "--boxes": Word("COCO json of boxes", Path, "JSON"),
    "--names": Word("text file with one class name per line", Path, "TXT"),
    "--out": Word("path of the output", Path, "PATH"),
    "--model": Word(
        "open_clip name such as EVA02-B-16, or clim-tiny; a run folder knows its own", str, "NAME"
    ),
    "--pretrained": Word(
        "open_clip tag, .pt or .safetensors file, or run folder", str, "TAG_OR_PATH"
    ),
    "--precision": Word("numbers of the model's weights", str, None, ("fp32", "bf16", "fp16")),
    "--device": Word("such as cpu or cuda:0; default: the GPU if there is one", str, "DEVICE"),
    "--workers": Word("processes that load images", at_least(0), "N"),
    "--batch-size": Word("images per forward pass", at_least(1), "N"),
    "--part-images": Word(
        "images per part; a process that is killed loses one part", at_least(1), "N"
    ),
    "--patience": Word(
        "seconds without a new part after which rank 0 names the missing ranks", float, "S"
    ),
    "--on-error": Word(
        "input that cannot be used: skip and count it, or stop", str, None, ("skip", "raise")
    ),
    "--overwrite": Word("replace an output of other input or options", None),
    "--trust": Word("let a folder from a stranger name a model that may bring code", None),
}


def add_option(
    parser: Any,
    flag: str,
    *,
    short: str | None = None,
    old: Sequence[str] = (),
    **options: Any,
) -> None:
    """Add an option of the vocabulary to a parser, or to a group of one.

    Args:
        parser: a `CommandParser` where there are `old` spellings, else also a group.
        flag: the option.
        short: a second, short spelling, such as -o.
        old: spellings of earlier releases, which one release still takes.
        options: for `add_argument`; they win over the vocabulary's.

    Raises:
        KeyError: the vocabulary has no such option.
    """
    word = VOCABULARY[flag]
    if word.kind is None:
        standard: dict[str, Any] = {"help": word.help, "action": "store_true"}
    else:
        standard = {"help": word.help, "type": word.kind, "metavar": word.metavar}
        if word.choices:
            standard = {"help": word.help, "choices": word.choices}

    flags = [short, flag] if short else [flag]
    parser.add_argument(*flags, **{**standard, **options})
    for spelling in old:
        parser.add_old_spelling(spelling, flag)
