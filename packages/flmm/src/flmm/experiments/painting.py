"""Scenes for pretraining the demo LMM, painted while it trains: no two steps see the same picture.

They look like the scenes of `clim_data.drawings.narrative_scenes`, drawn by the training vendors
alone. There are few drawings of each kind. So each cut-out is tilted, mirrored, stretched and
tinted, or the model would learn a kind as a handful of pictures.

Letters: S side of a scene in pixels, h w size of a cut-out, K cut-outs of a scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from clim_data.drawings import (
    BACKGROUNDS,
    Scene,
    background,
    fit_cutout,
    load_emoji,
    narrative,
    scene_vendors,
)
from PIL import Image

from flmm.demo.scenes import CONCEPTS, IMAGE_PX, OBJECT_PX

VARIANTS = 96  # of each drawing
GROUNDS = 600
PAIRS = 0.4  # more often than in the scenes of tests: counting is the hardest part
GAP_PX = 8
LAYOUTS = 24

Place = tuple[int, int]


@dataclass(frozen=True)
class PaintedScene:
    """A picture and its narrative.

    pixels: uint8 (S, S, 3). segments: its narrative, (text, phrase or -1). places: for each phrase
    the (row, column) of its things' centres, in thirds of the picture, from left to right.
    """

    pixels: np.ndarray
    segments: tuple[tuple[str, int], ...]
    places: tuple[tuple[Place, ...], ...]


class ScenePainter:
    """Paints scenes of one to three kinds of things; the same generator paints the same scenes.

    Args:
        vendors: whose drawings; None: the training vendors'.
        seed: of cut-outs and backgrounds, which are made once and used again and again.
    """

    def __init__(
        self,
        vendors: Sequence[str] | None = None,
        *,
        variants: int = VARIANTS,
        grounds: int = GROUNDS,
        seed: int = 0,
    ):
        emoji = load_emoji()
        rng = np.random.default_rng(seed)
        drawn = vendors or scene_vendors(emoji.split(), "train")
        self.cutouts: dict[str, list[np.ndarray]] = {}
        for name in CONCEPTS:
            drawings = [emoji.image(vendor, name) for vendor in drawn if emoji.has(vendor, name)]
            cutouts = self.cutouts[name] = []
            for drawing in drawings:
                cutouts += [vary_drawing(drawing, rng) for _ in range(variants)]
        kinds = [BACKGROUNDS[i % len(BACKGROUNDS)] for i in range(grounds)]
        self.grounds = np.stack(
            [background(rng, IMAGE_PX, kind).astype(np.uint8) for kind in kinds]
        )

    def paint(
        self, rng: np.random.Generator, *, most: int = 3, pairs: float = PAIRS, side: int = IMAGE_PX
    ) -> PaintedScene:
        """Paint a scene of one to `most` kinds with its narrative; in a share of `pairs` one kind
        is there twice."""
        names = [CONCEPTS[i] for i in rng.permutation(len(CONCEPTS))[: rng.integers(1, most + 1)]]
        if rng.random() < pairs:
            names.append(names[0])
        cutouts = [self.cutouts[name][rng.integers(len(self.cutouts[name]))] for name in names]
        corners = layout(rng, [cutout.shape[:2] for cutout in cutouts], names, side)
        image = _shift_ground(self.grounds[rng.integers(len(self.grounds))], rng)[
            :side, :side
        ].astype(np.float32)
        segments = np.zeros((side, side), np.int32)
        for number, (patch, (y, x)) in enumerate(zip(cutouts, corners), start=1):
            alpha = patch[..., 3:].astype(np.float32) / 255
            window = (slice(y, y + patch.shape[0]), slice(x, x + patch.shape[1]))
            image[window] += (patch[..., :3] - image[window]) * alpha
            segments[window][alpha[..., 0] > 0.5] = number
        return _with_narrative(Scene(image.round().astype(np.uint8), segments, tuple(names)))


def _with_narrative(scene: Scene) -> PaintedScene:
    parts: list[tuple[str, int]] = []
    places: list[tuple[Place, ...]] = []
    for part in narrative(scene, image_id=0)["segments"]:
        parts.append((part["utterance"], len(places) if part["noun"] else -1))
        if part["noun"]:
            centres = [_centre(scene.segments == int(number)) for number in part["segment_ids"]]
            centres.sort(key=lambda yx: yx[1])
            places.append(tuple(_third(y, x, side=len(scene.image)) for y, x in centres))
    return PaintedScene(scene.image, tuple(parts), tuple(places))


def _third(y: float, x: float, *, side: int) -> Place:
    """Return the (row, column) of a point, in thirds of the picture."""
    return min(int(3 * y / side), 2), min(int(3 * x / side), 2)


def _centre(mask: np.ndarray) -> tuple[float, float]:
    y, x = np.nonzero(mask)
    return float(y.mean()), float(x.mean())


def vary_drawing(drawing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an RGBA drawing at a random size, mirrored or not, tilted, stretched and tinted: uint8
    (h, w, 4)."""
    image = Image.fromarray(drawing[:, ::-1] if rng.random() < 0.5 else drawing)
    image = image.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
    stretch = rng.uniform(0.85, 1.18)
    image = image.resize(
        (max(round(image.width * stretch), 2), image.height), Image.Resampling.BICUBIC
    )
    patch = fit_cutout(np.asarray(image), int(rng.integers(OBJECT_PX[0], OBJECT_PX[1] + 1))).astype(
        np.float32
    )
    colour = patch[..., :3]
    grey = colour.mean(-1, keepdims=True)
    colour = grey + (colour - grey) * rng.uniform(0.6, 1.3)
    colour = 255 * (colour.clip(0, 255) / 255) ** np.exp(rng.uniform(-0.35, 0.35))
    colour = colour * rng.uniform(0.85, 1.15, 3) + rng.uniform(-15, 15)
    return np.concatenate([colour.clip(0, 255), patch[..., 3:]], -1).round().astype(np.uint8)


def layout(
    rng: np.random.Generator, sizes: Sequence[tuple[int, int]], names: Sequence[str], side: int
) -> np.ndarray:
    """Return (K, 2) corners (y, x) of cut-outs: of `LAYOUTS` random ones the one with least overlap
    and kinds apart."""
    sides = np.array(sizes)  # (K, 2)
    corners = (rng.random((LAYOUTS, len(sides), 2)) * (side - sides + 1)).astype(int)
    low = np.maximum(corners[:, :, None], corners[:, None])
    high = np.minimum((corners + sides)[:, :, None], (corners + sides)[:, None])
    shared = (high - low).clip(min=0).prod(-1)  # (layouts, K, K)
    cost = np.triu(shared.reshape(-1, len(sides), len(sides)), 1).sum((1, 2)).astype(float)
    middle = corners[..., 1] + sides[:, 1] / 2
    kinds: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        kinds.setdefault(name, []).append(place)
    if len(kinds) > 1:
        centres = np.sort(np.stack([middle[:, kind].mean(1) for kind in kinds.values()], 1), 1)
        cost += 40 * (GAP_PX - np.diff(centres, axis=1).min(1)).clip(min=0)
    return corners[cost.argmin()]


def _shift_ground(ground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mirrored = ground[:, ::-1] if rng.random() < 0.5 else ground
    return np.roll(mirrored, rng.integers(IMAGE_PX), 1)
