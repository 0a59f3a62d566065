"""The page of a model on the hub, filled from its run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEAD = """---
library_name: open_clip
pipeline_tag: zero-shot-image-classification
tags:
- clip
- open_clip
- region-features
- clim
---
"""
# Names of the method and the data in a run's config.json, with their names on the page.
FACTS = {
    ("task", "name"): "Method",
    ("model", "name"): "Model",
    ("model", "pretrained"): "Started from",
    ("data", "images"): "Images",
    ("data", "shards"): "Shards",
    ("data", "captions_json"): "Captions",
    ("data", "boxes"): "Boxes",
    ("schedule", "steps"): "Steps",
    ("schedule", "epochs"): "Epochs",
    ("optim", "lr"): "Learning rate",
}


def model_card(
    repo_id: str,
    about: Mapping[str, Any],
    run: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> str:
    """Return README.md of a model.

    Args:
        repo_id: OWNER/NAME.
        about: config.json of the export: `name`, `eval_px`.
        run: config.json of the run; None without one.
        metrics: of a report of `clim-eval`; numbers, or tables of them by arm.
    """
    name, eval_px = about.get("name"), about.get("eval_px")
    lines = [f"# {repo_id.partition('/')[2] or repo_id}", ""]
    lines += [f"A {name} whose box, mask and patch features match words.", "", "## Use", ""]
    lines += ["```python", "import open_clip", ""]
    lines += [f'model = open_clip.create_model("hf-hub:{repo_id}")', "```", "", "```python"]
    lines += ["import clim_models", "", f'model = clim_models.from_pretrained("{repo_id}")']
    lines += ["name_boxes = clim_models.pipeline("]
    lines += ['    "region-classification", model=model, labels=["cat", "dog"]', ")", "```", ""]
    if eval_px is not None:
        lines += [f"Regions were trained at {eval_px} px: read pictures at that size.", ""]

    facts = _facts(run or {})
    if facts:
        lines += ["## Training", "", "| | |", "|---|---|"]
        lines += [f"| {title} | {value} |" for title, value in facts.items()]
        lines += [""]
    rows = _rows(metrics or {})
    lines += ["## Figures", ""]
    if rows:
        lines += ["| measure | value |", "|---|--:|"]
        lines += [f"| {title} | {value:.4g} |" for title, value in rows.items()]
    else:
        lines += ["None were given. `clim-eval regions` and `clim-eval zeroshot` measure them."]
    return HEAD + "\n".join(lines) + "\n"


def _facts(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the method and data of a run's config.json; of paths only the last part."""
    found = {}
    for (section, key), title in FACTS.items():
        options = run.get(section)
        value = options.get(key) if isinstance(options, Mapping) else None
        values = value if isinstance(value, list | tuple) else [value]
        text = ", ".join(_public(str(one)) for one in values if one is not None)
        if text:
            found[title] = text
    return found


def _public(text: str) -> str:
    """Return the last part of a path: the folders of a machine are private."""
    return Path(text).name if text.startswith(("/", "~")) else text


def _rows(metrics: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """Return all numbers of nested tables, each with its path."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= _rows(value, f"{before}{name} / ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{before}{name}"] = value
    return found
