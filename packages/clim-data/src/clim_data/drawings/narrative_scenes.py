"""Composed scenes with narratives: their things from left to right, each phrase with its mask.

"a cat left of two rockets and an anchor ." is written for a picture in which the centres lie in
that order. The files have the layout of Panoptic Narrative Grounding, so its reader reads them. The
words are few and the order is systematic: a small multimodal model learns to caption such scenes in
minutes.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clim_data.drawings.emoji import EmojiSet, EmojiSplit, load_emoji, vendors_by_concept
from clim_data.drawings.scenes import (
    Scene,
    SceneFolder,
    check_drawings,
    check_sizes,
    compose,
    draw_cutouts,
    write_scenes,
)
from clim_data.readers.narratives import PanopticNarratives

# Countable, of one word with a regular plural, and of different shapes and colours.
_CONCEPTS = """
accordion airplane anchor bear bicycle broom bucket bus cactus camera candle carrot castle cat
chair cow crab crayon crown door doughnut dragon duck elephant frog guitar hamburger horse key kite
ladder lion lollipop mushroom octopus owl pear penguin pig pineapple pizza robot rocket rose snail
"""
CONCEPTS = tuple(_CONCEPTS.split())
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class NarrativeScenes:
    """Paths of a composed set: `scenes` in COCO layout, and the narratives of its pictures."""

    scenes: SceneFolder

    @property
    def narratives_json(self) -> Path:
        return self.scenes.root / "annotations" / "narratives.json"

    def read(self) -> PanopticNarratives:
        """Read the set through the reader of Panoptic Narrative Grounding."""
        return PanopticNarratives(
            self.scenes.images,
            self.narratives_json,
            self.scenes.panoptic_json,
            self.scenes.panoptic,
        )


def scene_vendors(split: EmojiSplit, which: str) -> tuple[str, ...]:
    """Return the vendors of the scenes of "train", "val" (training vendors) or "test" (held-out).

    The same words are used in all three, because a model cannot say a word that it has never read.
    """
    if which not in SPLITS:
        raise ValueError(f"which={which!r} is not known: choose from {', '.join(SPLITS)}")
    return (split.test_vendor,) if which == "test" else split.train_vendors


def narrative_words(concepts: Sequence[str]) -> tuple[str, ...]:
    """List every word that a narrative about these concepts can hold, sorted.

    It is the vocabulary of a word tokenizer.
    """
    nouns = {form for name in concepts for form in (name, plural(name))}
    return tuple(sorted({"a", "an", "two", "left", "of", "and", ",", ".", *nouns}))


@dataclass(frozen=True)
class NarrativeOptions:
    """Sizes and layout of scenes with a narrative.

    Attributes:
        objects: smallest and largest number of kinds in a scene.
        pairs: fraction of scenes in which one kind appears twice, as one plural phrase.
        object_px: range of the longer side of an object.
        image_px: side of a scene.
        gap_px: smallest distance from left to right between the centres of neighbours in the
            narrative, if one of 40 tries has it; otherwise the widest of them is taken.

    Raises:
        ValueError: one is out of range, or the objects do not fit.
    """

    objects: tuple[int, int] = (2, 4)
    pairs: float = 0.0
    object_px: tuple[int, int] = (24, 40)
    image_px: int = 112
    gap_px: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.objects[0] <= self.objects[1]:
            raise ValueError(f"objects={self.objects} must rise from at least 1: such as (2, 4)")
        if not 0 <= self.pairs <= 1:
            raise ValueError(f"pairs={self.pairs} must be a share between 0 and 1")
        check_sizes(self.object_px, self.image_px, self.objects[1] + (self.pairs > 0))


def compose_narrative_scenes(
    folder: str | Path,
    *,
    vendor: str | Sequence[str],
    concepts: Sequence[str] = CONCEPTS,
    count: int = 500,
    emoji: EmojiSet | None = None,
    options: NarrativeOptions = NarrativeOptions(),
    seed: int = 0,
) -> NarrativeScenes:
    """Write scenes with a narrative each and return where they are.

    Scene i depends on (seed, i) only.

    Args:
        folder: gets `images/`, and under `annotations/` what `compose_scenes` writes and
            `narratives.json`.
        vendor: whose drawings, one name or several; see `scene_vendors`.
        concepts: names without hyphens that take a plural s, at most one kind of each in a scene.
        count: number of scenes.
        emoji: the drawings; None for the set that comes with the package.
        options: sizes and layout.

    Raises:
        ValueError: the vendors draw too few of the concepts, or objects are larger than drawings.
    """
    emoji = emoji or load_emoji()
    vendors = (vendor,) if isinstance(vendor, str) else tuple(vendor)
    check_drawings(options.object_px, emoji)
    drawn = vendors_by_concept(emoji, vendors, concepts)
    if options.objects[1] > len(drawn):
        raise ValueError(
            f"objects={options.objects} must rise within 1..{len(drawn)}, the concepts that "
            f"{vendors} draw"
        )

    target = NarrativeScenes(SceneFolder(Path(folder), tuple(concepts)))
    narratives: list[dict] = []

    def scenes() -> Iterator[Scene]:
        for i in range(count):
            rng = np.random.default_rng((seed, i))
            names = _names(rng, list(drawn), options.objects, options.pairs)
            scene = _spread(draw_cutouts(emoji, names, drawn, rng), names, rng, options)
            narratives.append(narrative(scene, image_id=i + 1))
            yield scene

    write_scenes(target.scenes, scenes())
    target.narratives_json.write_text(json.dumps(narratives))
    return target


def narrative(scene: Scene, *, image_id: int) -> dict:
    """Write the narrative of a scene in the layout of Panoptic Narrative Grounding.

    Kinds are named from left to right by their centre. Cut-outs of one name are one phrase. A kind
    that is covered completely is not mentioned.
    """
    kinds: dict[str, list[int]] = {}
    for segment, name in enumerate(scene.names, start=1):
        if (scene.segments == segment).any():
            kinds.setdefault(name, []).append(segment)
    order = sorted(kinds, key=lambda name: _centre(scene, kinds[name]))
    segments = []
    for place, name in enumerate(order):
        if place:
            link = "left of" if place == 1 else "and" if place == len(order) - 1 else ","
            segments.append(_segment(link, []))
        segments.append(_segment(noun_phrase(name, len(kinds[name])), kinds[name]))
    segments.append(_segment(".", []))
    caption = " ".join(segment["utterance"] for segment in segments)
    return {"annotator_id": 0, "image_id": str(image_id), "caption": caption, "segments": segments}


def noun_phrase(name: str, count: int) -> str:
    """Return "a cat", "an anchor" or "two cats"."""
    if count > 1:
        return f"two {plural(name)}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    """Return the regular English plural."""
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


def _segment(utterance: str, ids: list[int]) -> dict:
    return {
        "utterance": utterance,
        "segment_ids": [str(i) for i in ids],
        "plural": len(ids) > 1,
        "noun": bool(ids),
    }


def _names(
    rng: np.random.Generator, names: list[str], objects: tuple[int, int], pairs: float
) -> tuple[str, ...]:
    chosen = [
        names[i] for i in rng.permutation(len(names))[: rng.integers(objects[0], objects[1] + 1)]
    ]
    return (*chosen, chosen[0]) if rng.random() < pairs else tuple(chosen)


def _spread(
    cutouts: Sequence[np.ndarray],
    names: tuple[str, ...],
    rng: np.random.Generator,
    options: NarrativeOptions,
) -> Scene:
    """Compose a scene whose kinds are apart from left to right.

    It is the first of 40 that is wide enough, or the widest.
    """
    kinds: dict[str, list[int]] = {}
    for segment, name in enumerate(names, start=1):
        kinds.setdefault(name, []).append(segment)

    widest = -1.0
    for _ in range(40):
        scene = compose(cutouts, names, rng, image_px=options.image_px, object_px=options.object_px)
        centres = np.sort([_centre(scene, kind) for kind in kinds.values()])
        gap = float(np.diff(centres).min()) if len(centres) > 1 else float("inf")
        if gap > widest:
            best = scene
            widest = gap
        if widest >= options.gap_px:
            break
    return best


def _centre(scene: Scene, segments: Sequence[int]) -> float:
    """Mean column of the visible pixels of some cut-outs; 0 when nothing of them is visible."""
    columns = np.flatnonzero(np.isin(scene.segments, segments)) % scene.segments.shape[1]
    return float(columns.mean()) if len(columns) else 0.0
