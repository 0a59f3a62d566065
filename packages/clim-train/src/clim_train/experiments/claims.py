"""Folders of experiments: each has one set of options."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clim_data.files import write_json


def claim_folder(folder: Path, options: Mapping[str, Any]) -> None:
    """Write options to `folder`/options.json, or check that the file has the same ones.

    Args:
        options: title of a part -> option -> value, as JSON holds them. Parts that are only in the
            file are not compared.

    Raises:
        ValueError: the folder holds other options, or runs without any.
    """
    path = folder / "options.json"
    mine = json.loads(json.dumps(options))
    if not path.exists():
        if (folder / "runs").exists():
            raise ValueError(
                f"{folder} already holds runs of something else; delete it, or choose another "
                "folder with --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, mine, indent=2)
        return

    different = _differences(json.loads(path.read_text()), mine)
    if different:
        raise ValueError(
            f"{folder} holds a comparison with other options: {'; '.join(different)}. "
            "Choose another folder with --out, or delete it"
        )


def _differences(known: Mapping, mine: Mapping) -> list[str]:
    """Return the options that differ, with both values."""
    found = []
    for part in mine:
        there_part = known.get(part, {})
        for name in sorted({*mine[part], *there_part}):
            there, now = there_part.get(name), mine[part].get(name)
            if there != now:
                found.append(f"{name} ({there} there, {now} now)")
    return found
