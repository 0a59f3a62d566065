"""The composed scenes that the demo LMM describes: 72 px, up to three kinds of things drawn as
emoji, known masks."""

from pathlib import Path

from clim_data.drawings import (
    NarrativeOptions,
    NarrativeScenes,
    compose_narrative_scenes,
    load_emoji,
    narrative_words,
    scene_vendors,
)

# Distinct in colour and shape, drawn by every vendor, and not among the held-out concepts.
_CONCEPTS = "anchor bear carrot crown elephant frog guitar penguin pig rose"
CONCEPTS = tuple(_CONCEPTS.split())
IMAGE_PX = 72
OBJECT_PX = (22, 34)
PAIRS = 0.2
# The place of a thing's centre: thirds of the picture from the top and from the left.
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")


def compose_demo_scenes(
    folder: str | Path,
    which: str,
    *,
    count: int,
    objects: tuple[int, int] = (2, 3),
    seed: int = 0,
    image_px: int = IMAGE_PX,
) -> NarrativeScenes:
    """Write `count` scenes with narratives.

    Args:
        which: "train" or "val" (the training vendors' drawings), or "test" (a vendor that is never
            trained on).
        objects: fewest and most kinds of things in a scene.
        seed: scenes of "train", "val" and "test" differ for the same seed.
        image_px: side of a scene; its things are as large in proportion.

    Raises:
        ValueError: an option is out of range.
    """
    emoji = load_emoji()
    vendor = scene_vendors(emoji.split(), which)
    smallest, largest = (edge * image_px // IMAGE_PX for edge in OBJECT_PX)
    return compose_narrative_scenes(
        folder,
        vendor=vendor,
        concepts=CONCEPTS,
        count=count,
        emoji=emoji,
        options=NarrativeOptions(
            objects=objects, pairs=PAIRS, object_px=(smallest, largest), image_px=image_px
        ),
        seed=1000 * seed + ("train", "val", "test").index(which),
    )


def demo_words() -> tuple[str, ...]:
    """Every word that the demo LMM can read or say."""
    return tuple(sorted({*narrative_words(CONCEPTS), "at", *ROWS, *COLUMNS}))
