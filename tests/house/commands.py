"""What every command says about itself, and how typical mistakes end; all in this process."""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from house import access, batches

# Program -> its commands. `RECIPE` stands for each recipe whose options differ in kind.
COMMANDS = {
    "clim-data": (
        "",
        "pack",
        "pack coco-captions",
        "pack cc3m",
        "pack coco-instances",
        "pack lvis",
        "pack coco-panoptic",
        "pack folder",
        "pack png",
        "pack refcoco",
        "doctor",
        "proposals",
        "nouns",
        "tags",
        "ov-split",
        "voc",
    ),
    "clim-models": ("", "export"),
    "clim-eval": (
        "",
        "regions",
        "readouts",
        "retrieval",
        "zeroshot",
        "alpha",
        "embed",
        "label",
        "pseudo-label",
        "report",
        "show",
        "detect",
        "detection",
        "rescore",
    ),
    "clim-train": (
        "",
        "estimate",
        "clim_coco_vitb16",
        "clipself_coco_patches_evab16",
        "regionclip_coco_evab16",
    ),
    "flmm": (
        "",
        "attention",
        "ground",
        "chat",
        "demo",
        "eval",
        "eval flickr30k",
        "eval png",
        "eval reasonseg",
        "eval refcoco",
        "eval grefcoco",
        "eval viscot",
        "demo-model",
        "train",
        "train flmm_llava_1_5_vicuna_7b",
        "train presence",
    ),
}
MODULES = ("clim_train.quickstart", "clim_train.compare")

# Program and arguments of mistakes that people make. TMP holds what `write_mistakes` writes, OUT is
# a folder that does not exist yet.
TRAIN = "clim-train clim_coco_vitb16 --engine.device cpu"
MISTAKES = {
    "data: unknown command": "clim-data unpack",
    "data: missing file": "clim-data pack coco-captions --images TMP/images "
    "--captions-json TMP/no.json --out OUT",
    "data: missing images": "clim-data pack folder --images TMP/nowhere --out OUT",
    "data: folder without images": "clim-data pack folder --images TMP/empty --out OUT",
    "data: bad json": "clim-data pack coco-instances --images TMP/images "
    "--instances-json TMP/bad.json --out OUT",
    "data: nothing to split": "clim-data ov-split coco --out OUT",
    "data: options of another source": "clim-data proposals --from TMP/bad.json --out OUT "
    "--search-px 64",
    "data: illegal choice": "clim-data pack folder --images TMP/images --out OUT --on-error ignore",
    "eval: missing report": "clim-eval report TMP/nowhere",
    "eval: missing annotations": "clim-eval regions --images TMP/images "
    "--panoptic-json TMP/no.json --model RN50 --device cpu",
    "eval: bad json": "clim-eval report TMP/bad.json",
    "eval: missing option": "clim-eval embed --names TMP/no.txt",
    "train: unknown recipe": "clim-train clim_coco_vitb61",
    "train: unknown option": "clim-train clim_coco_vitb16 --optim.l 1",
    "train: illegal value": "clim-train clim_coco_vitb16 --run.alpha 3",
    "train: no data": f"{TRAIN} --run.folder OUT",
    "train: missing images": f"{TRAIN} --run.folder OUT --data.images TMP/nowhere",
    "train: used run folder": f"{TRAIN} --run.folder TMP/used --data.images TMP/images",
    "train: resume without a run": "clim-train resume TMP/empty",
    "train: resume a bad config.json": "clim-train resume TMP/used",
    "flmm: unknown command": "flmm point TMP/images/0000.png",
    "flmm: unknown recipe": "flmm train flmm_lava",
    "flmm: missing image": "flmm ground TMP/no.png cat",
    "flmm: used folder": "flmm demo-model TMP/images",
    "flmm: resume without a run": "flmm train resume TMP/empty",
}

OPTION = re.compile(r"(?:^|, )(--?[A-Za-z][\w.-]*)")
CHOICES = re.compile(r"^  \{([\w,-]+)\}", re.MULTILINE)
# Lines such as `  ground   masks of ...` and `usage: clim-train resume RUN   continue ...`.
LISTED = re.compile(
    r"^(?:usage:| ) +(?:clim-train |flmm train )?(?!flmm )([a-z][a-z-]+|RECIPE)\b.* {2,}\S",
    re.MULTILINE,
)
RULE = re.compile(r"[\s-]+")


def write_mistakes(folder: Path) -> Path:
    """Write the files that the mistakes name."""
    batches.write_data(folder)
    (folder / "empty").mkdir()
    (folder / "bad.json").write_text('{"images": [')
    (folder / "used").mkdir()
    (folder / "used" / "config.json").write_text("no json")
    return folder


def collect_help() -> dict[str, Any]:
    """Return exit status, option strings and subcommands of every command's `--help`."""
    found = {}
    mains = access.programs()
    for program, commands in COMMANDS.items():
        for command in commands:
            status, text, _ = run(mains[program], [*command.split(), "--help"])
            found[f"{program} {command}".strip()] = describe_help(status, text)

    for module in MODULES:
        status, text, _ = run(
            lambda arguments, name=module: access.run_module(name, arguments), ["--help"]
        )
        found[f"python -m {module}"] = describe_help(status, text)
    return found


def describe_help(status: int | str, text: str) -> dict[str, Any]:
    options = sorted(set(options_in(text)))
    choices = CHOICES.search(text)
    commands = choices[1].split(",") if choices else [] if options else LISTED.findall(text)
    return {"status": status, "options": options, "commands": sorted(set(commands))}


def options_in(text: str) -> Iterator[str]:
    """Yield the option strings of a help text of argparse or tyro, without those in sentences."""
    for line in text.splitlines():
        # Options and their help are two or more spaces apart, and so are the columns of tyro.
        for part in re.split(r" {2,}", line):
            if part.startswith("-"):
                yield from OPTION.findall(part)


def collect_mistakes(folder: Path) -> dict[str, Any]:
    """Return the exit status and the first line of the message of every mistake."""
    mains = access.programs()
    found = {}
    for number, (title, line) in enumerate(MISTAKES.items()):
        places = {"TMP": str(folder), "OUT": str(folder / f"new{number}")}
        for placeholder, path in places.items():
            line = line.replace(placeholder, path)
        program, *arguments = line.split()
        status, out, err = run(mains[program], arguments)
        said = reason(err or out, program)
        found[title] = {"status": status, "says": said.replace(str(folder), "TMP")}
    return found


def reason(text: str, program: str) -> str:
    """Return the line that begins with the program's name, or the first one.

    What depends on the version of Python, the list of choices, is left out.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # tyro rules a line below the title of an error.
    if len(lines) > 1 and RULE.fullmatch(lines[1]):
        lines = lines[2:]
    named = [line for line in lines if line.startswith(program)]
    return re.sub(r"\(choose from.*", "(choose from ...)", [*named, *lines, ""][0])


def run(
    main: Callable[[Sequence[str]], Any], arguments: Sequence[str]
) -> tuple[int | str, str, str]:
    """Run a main function and return its exit status, stdout and stderr.

    The status of an error that it lets through is the name of the error.
    """
    out, err = io.StringIO(), io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "4000"  # help and messages on one line each
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: int | str = main(arguments) or 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int | str) else 0
    except Exception as error:
        status = f"raises {type(error).__name__}"
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return status, out.getvalue(), err.getvalue()
