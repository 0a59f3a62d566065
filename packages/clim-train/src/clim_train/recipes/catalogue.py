"""Summaries and help of the recipes, read from files, so that nobody waits for torch.

`python -m clim_train.commands.record_recipes` writes the files anew; a test compares them with the
recipes.
"""

import difflib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from clim_data.files import write_text
from clim_eval.reports import markdown

COMMA = ",\n"
CATALOGUE = Path(__file__).with_name("catalogue.json")
HELP = Path(__file__).with_name("help.json")

WITHOUT_TRAINING = (
    "A transfer of fvit_lvis_evab16 or fvit_lvis_eval14 to COCO, Objects365 or VOC has no training "
    "and so no recipe: `clim-eval detection RUN --transfer coco` (or other), with the data that "
    "`clim-data doctor DATA --need coco-instances-val objects365 voc2007` looks for."
)
"""What the papers report and no recipe trains, below the table of recipes."""

HELP_COLUMNS = 80
"""Width of the stored help, in columns: the narrowest terminals have as many."""


@dataclass(frozen=True)
class RecipeSummary:
    """One line about a recipe.

    Args:
        method, backbone, data: what trains what, and on which data set.
        gpus, batch: GPUs that share a step, and images of each.
        length: "100 epochs" or "250 steps".
        blocks: blocks of the image tower that train.
        px: side of the largest images.
        alpha: of the export.
        gb: memory of one GPU by `clim-train estimate`, None if it was not measured.
        offline: whether weights and data come with the packages.
    """

    method: str
    backbone: str
    data: str
    gpus: int
    batch: int
    length: str
    blocks: int
    px: int
    alpha: float
    gb: float | None
    offline: bool


@cache
def read_catalogue() -> Mapping[str, RecipeSummary]:
    """Return the recipes that come with this package, by name."""
    stored = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    return {name: RecipeSummary(**values) for name, values in stored.items()}


def is_recipe(name: str) -> bool:
    """Return whether a recipe has this name, also a new one that the catalogue does not know."""
    if name in read_catalogue():
        return True
    modules = CATALOGUE.parent.glob("*.py")
    return any(f"def {name}()" in module.read_text(encoding="utf-8") for module in modules)


def stored_help(name: str) -> str | None:
    """Return the text of `NAME --help`, or None where it has to be made for this terminal."""
    if shutil.get_terminal_size().columns < HELP_COLUMNS:
        return None
    stored = json.loads(HELP.read_text(encoding="utf-8"))
    numbers = stored["recipes"].get(name)
    if numbers is None:
        return None
    return "\n".join(stored["lines"][number] for number in numbers)


def write_help(texts: Mapping[str, str]) -> None:
    """Store the help of recipes; each line that several of them have is stored once."""
    lines: dict[str, int] = {}
    recipes = {}
    for name, text in texts.items():
        recipes[name] = [lines.setdefault(line, len(lines)) for line in text.splitlines()]

    stored = [json.dumps(line, ensure_ascii=False) for line in lines]
    numbers = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in recipes.items()]
    text = f'{{"lines": [\n{COMMA.join(stored)}\n],\n"recipes": {{\n{COMMA.join(numbers)}\n}}}}\n'
    write_text(HELP, text)


def list_recipes(recipes: Mapping[str, RecipeSummary], *, as_json: bool = False) -> str:
    """Return recipes as a Markdown table, with a line on results that need no recipe, or as JSON.

    Both are sorted by method.
    """
    ordered = sorted(recipes.items(), key=lambda item: (item[1].method, item[0]))
    if as_json:
        return json.dumps([{"name": name, **asdict(found)} for name, found in ordered], indent=2)

    head = ("recipe", "method", "backbone", "data", "GPUs x batch", "length", "blocks", "px")
    rows = []
    for name, found in ordered:
        rows.append(
            (
                name,
                found.method,
                found.backbone,
                found.data,
                f"{found.gpus} x {found.batch}",
                found.length,
                str(found.blocks),
                str(found.px),
                f"{found.alpha:g}",
                "-" if found.gb is None else f"{found.gb:.1f}",
                "yes" if found.offline else "no",
            )
        )
    table = markdown((*head, "alpha", "GB per GPU", "offline"), rows, text=True)
    return f"{table}\n\n{WITHOUT_TRAINING}"


def unknown_recipe(name: str, names: Iterable[str]) -> str:
    """Return the message for a name that no recipe has: the closest first, then all."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"there is no recipe {name!r}: {hint}The recipes are {', '.join(names)}"
