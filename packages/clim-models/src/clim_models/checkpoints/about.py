"""The small JSON files next to exported weights."""

import json
from pathlib import Path
from typing import Any

ABOUT_FILE = "config.json"
OPEN_CLIP_FILE = "open_clip_config.json"
# Pixels of a side; larger pictures than any tower is read at are a damaged number.
LARGEST_PX = 1 << 14


def read_object(path: Path) -> dict[str, Any]:
    """Read an object of a file that may be missing: then it is empty.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}): write it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no object, but {str(content)[:60]!r}: write it again")
    return content


def eval_px_of(folder: Path) -> int | None:
    """Return the size at which the regions of an export are read, if its config.json says it.

    Raises:
        ValueError: the value there is not a size.
    """
    path = folder / ABOUT_FILE
    eval_px = read_object(path).get("eval_px")
    if eval_px is not None and (type(eval_px) is not int or not 1 <= eval_px <= LARGEST_PX):
        shown = repr(eval_px)[:60]
        raise ValueError(f"{path} has eval_px={shown}: write a number of pixels, or remove it")
    return eval_px
