"""Training and test data of the demo SAM: composed scenes with masks of things, and rough masks of
them.

A rough mask imitates a mask head's result from the attention of an LMM: logits on a grid of its
image tokens, blurred, shifted, too large or too small, without a part of the thing and with a part
of other things.

Letters: B scenes, K masks of a scene, N = B K, P side of a scene in pixels, g side of the grid of
rough logits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from clim_data.drawings import compose, load_emoji, scene_vendors
from torch import Tensor
from torch.nn import functional as F

from flmm.demo.scenes import IMAGE_PX, OBJECT_PX
from flmm.experiments.captions import vary_brightness

TOKEN_PX = 8
MARGIN_PX = 4  # sizes of things go beyond those of the demo scenes by this
MOST_THINGS = 4
PAIRS = 0.3
LEAST_PX = 20  # a thing of which less is visible is no target


@dataclass(frozen=True)
class ObjectBatch:
    """Scenes with masks to be found.

    images: 0..255 (B, 3, P, P). masks: bool (B, K, P, P). others: bool (B, K, P, P), of each mask
    the thing of the same scene that it may be confused with, empty where there is none. things:
    bool (B, P, P), all things.
    """

    images: Tensor
    masks: Tensor
    others: Tensor
    things: Tensor


class ObjectScenes:
    """Composes scenes of one to four things without end, from all training drawings of the training
    vendors.

    Three in ten scenes have a second thing of the kind of the first, and the two together are a
    target, too, as of a plural phrase. No name is given. The same seed gives the same scenes.
    """

    def __init__(self, seed: int = 0):
        self.emoji = load_emoji()
        split = self.emoji.split()
        vendors = scene_vendors(split, "train")
        self.drawn: dict[str, list[str]] = {}
        for name in split.train_concepts:
            if by := [vendor for vendor in vendors if self.emoji.has(vendor, name)]:
                self.drawn[name] = by
        self.rng = np.random.default_rng(seed)

    def batch(self, scenes: int, masks: int) -> ObjectBatch:
        """Return the next `scenes` scenes, with `masks` targets each, chosen at random with
        repetition."""
        found = [self._scene(masks) for _ in range(scenes)]
        images, wanted, others, things = (
            torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True)
        )
        bright = vary_brightness(images.permute(0, 3, 1, 2), self.rng)
        return ObjectBatch(bright, wanted, others, things)

    def _scene(self, masks: int) -> tuple[np.ndarray, ...]:
        rng = self.rng
        chosen = rng.choice(len(self.drawn), rng.integers(1, MOST_THINGS + 1), replace=False)
        names = [list(self.drawn)[i] for i in chosen]
        if rng.random() < PAIRS:
            names = [names[0], *names[: MOST_THINGS - 1]]

        cutouts = [
            self.emoji.image(self.drawn[n][rng.integers(len(self.drawn[n]))], n) for n in names
        ]
        sizes = (OBJECT_PX[0] - MARGIN_PX, OBJECT_PX[1] + MARGIN_PX)
        scene = compose(cutouts, names, rng, image_px=IMAGE_PX, object_px=sizes)

        visible = [i for i in range(len(names)) if (scene.segments == i + 1).sum() >= LEAST_PX]
        if not visible:
            return self._scene(masks)

        targets: list[tuple[int, ...]] = [(i,) for i in visible]
        if names[0] in names[1:] and {0, 1} <= set(visible):
            targets += [(0, 1)] * 2

        picked = [targets[rng.integers(len(targets))] for _ in range(masks)]

        confused = []
        for target in picked:
            rest = [i for i in visible if i not in target]
            confused.append((rest[rng.integers(len(rest))],) if rest else ())

        wanted = _masks_of(scene.segments, picked)
        others = _masks_of(scene.segments, confused)
        return scene.image, wanted, others, scene.segments > 0


def _masks_of(segments: np.ndarray, targets: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return bool (N, S, S): where each target is visible; thing i is segment i + 1."""
    return np.stack([np.isin(segments, np.asarray(things, int) + 1) for things in targets])


def rough_logits(masks: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Make rough masks of true ones, as a mask head might: float (N, g, g) logits of the whole
    scene.

    Args:
        masks: bool (N, P, P). others: bool (N, P, P), what each may be confused with.
        generator: of the errors.
    """
    count, side = masks.shape[0], masks.shape[-1]

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    def chance(probability: float) -> Tensor:
        return (torch.rand(count, 1, 1, generator=generator) < probability).float()

    seen = masks.float() * (1 - chance(0.35) * uniform(0.4, 1) * _half(masks, generator))
    seen = torch.maximum(seen, others.float() * chance(0.5) * uniform(0, 0.7))
    scale = 1 + 0.15 * torch.randn(count, generator=generator).clamp(-2, 2)
    shift = 2 * 2 / side * torch.randn(count, 2, generator=generator)
    seen = _move_maps(seen, _centres(masks), scale=scale, shift=shift)
    cells = math.ceil(side / TOKEN_PX)
    seen = F.interpolate(seen[:, None], size=(cells, cells), mode="area")
    blurred = F.avg_pool2d(seen, 3, stride=1, padding=1, count_include_pad=False)
    seen = F.interpolate(
        seen + (blurred - seen) * uniform(0, 0.8)[..., None], scale_factor=2, mode="bilinear"
    )[:, 0]
    seen = seen / seen.amax((1, 2), keepdim=True).clamp(
        min=1e-6
    )  # a mask head trusts the best it has
    low, high = uniform(-7, -2), uniform(2, 5)
    coarse = torch.randn(count, 1, cells, cells, generator=generator)
    noise = F.interpolate(coarse, scale_factor=2, mode="bilinear")[:, 0]
    noise = noise + 0.5 * torch.randn(noise.shape, generator=generator)
    return low + (high - low) * seen ** uniform(0.5, 1) + uniform(0, 1) * noise


def jittered_boxes(boxes: Tensor, generator: torch.Generator, *, limit: int) -> Tensor:
    """Return boxes (N, 4) XYXY with every edge moved by about a tenth of the side, clipped to 0 ..
    limit."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + 0.1 * sides * torch.randn(boxes.shape, generator=generator).clamp(-2, 2)
    return moved.clamp(0, limit)


def _half(masks: Tensor, generator: torch.Generator) -> Tensor:
    """float (N, P, P): 1 on one side of a line of random direction, near the centre of each
    mask."""
    angle = 2 * math.pi * torch.rand(len(masks), 1, 1, generator=generator)
    offset = 0.15 * torch.randn(len(masks), 1, 1, generator=generator)
    at = torch.linspace(-1, 1, masks.shape[-1])
    x0, y0 = _centres(masks)[:, :, None, None].unbind(1)
    return (
        (at[None, None] - x0) * angle.cos() + (at[None, :, None] - y0) * angle.sin() > offset
    ).float()


def _centres(masks: Tensor) -> Tensor:
    """(N, 2) x and y of the masks' centres, -1 .. 1 from the first to the last pixel."""
    at = torch.linspace(-1, 1, masks.shape[-1])
    area = masks.sum((1, 2)).clamp(min=1)
    return torch.stack([(masks.sum(1) * at).sum(1) / area, (masks.sum(2) * at).sum(1) / area], 1)


def _move_maps(maps: Tensor, centres: Tensor, *, scale: Tensor, shift: Tensor) -> Tensor:
    """Maps (N, P, P) enlarged by `scale` (N,) about `centres` (N, 2) and moved by `shift` (N, 2),
    both in -1 .. 1."""
    theta = torch.zeros(len(maps), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = centres - (centres + shift) / scale[:, None]
    grid = F.affine_grid(theta, [len(maps), 1, *maps.shape[-2:]], align_corners=True)
    return F.grid_sample(maps[:, None], grid, align_corners=True)[:, 0]
