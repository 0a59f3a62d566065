"""Other names of the concepts that no part is trained on.

They were chosen with help from emojilib's keyword lists, before any detector was measured. None
of them is the name of another drawing.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from clim_data.drawings import caption_of

FILE = Path(__file__).with_name("other_names.json")


def other_names(concepts: Sequence[str]) -> dict[str, list[str]] | None:
    """Return caption -> other names of the concept.

    None where a concept has no other name: those of the validation split have none.
    """
    known: dict[str, list[str]] = json.loads(FILE.read_text(encoding="utf-8"))
    if not set(concepts) <= set(known):
        return None
    return {caption_of(concept): known[concept] for concept in concepts}
