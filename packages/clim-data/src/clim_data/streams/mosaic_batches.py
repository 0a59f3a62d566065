"""Raw samples to one MosaicBatch: choose captions, plan, decode each image once into its tile,
assemble."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clim_data.faults import BrokenSample
from clim_data.pixels.decode import decode_rgb, open_image, oriented_size
from clim_data.pixels.transforms import crop_resize, sample_crop_window
from clim_data.sources.captions import read_captions
from clim_data.sources.shards import RawSample
from clim_data.streams.draw import SampleRandom, background_colour
from clim_data.streams.mosaics import MosaicBatch, MosaicConfig, assemble_mosaics, plan_mosaics


def decode_tile(
    sample: RawSample,
    size: tuple[int, int],
    draw: SampleRandom,
    *,
    config: MosaicConfig,
    background: str = "white",
    max_pixels: int | None = None,
) -> Tensor:
    """Decode a random resized crop of one image at its final size: uint8 (3, height, width).

    The window is drawn on the size after the EXIF rotation, before anything is decoded, so the
    decoder already knows how few pixels suffice (JPEG DCT scaling).

    Raises:
        BrokenSample: the image cannot be decoded, or has more than `max_pixels` (see `open_image`).
    """
    image = open_image(sample.image, sample.name, max_pixels=max_pixels)
    full_width, full_height = oriented_size(image)
    window = sample_crop_window(
        (full_height, full_width),
        draw.rng(sample.name, "crop"),
        scale=config.crop_scale,
        ratio=config.crop_ratio,
    )
    shrink = min((window[2] - window[0]) / size[1], (window[3] - window[1]) / size[0])
    enough = (full_width / shrink, full_height / shrink) if shrink > 1 else None
    colour = background_colour(sample, draw, background)
    decoded = decode_rgb(image, at_least=enough, background=colour, name=sample.name, oriented=True)
    across, down = decoded.shape[2] / full_width, decoded.shape[1] / full_height
    left, top = round(window[0] * across), round(window[1] * down)
    right, bottom = max(left + 1, round(window[2] * across)), max(top + 1, round(window[3] * down))
    return crop_resize(decoded, (left, top, right, bottom), size)


def _with_captions(
    samples: Sequence[RawSample], draw: SampleRandom
) -> tuple[list[tuple[RawSample, str]], list[BrokenSample]]:
    """Choose a caption for each sample; a sample without one is a fault."""
    good: list[tuple[RawSample, str]] = []
    faults: list[BrokenSample] = []
    for sample in samples:
        try:
            captions = read_captions(sample)
        except BrokenSample as fault:
            faults.append(fault)
            continue
        chosen = int(draw.rng(sample.name, "caption").random() * len(captions))
        good.append((sample, captions[chosen]))
    return good, faults


def build_batch(
    samples: Sequence[RawSample],
    draw: SampleRandom,
    config: MosaicConfig,
    *,
    background: str = "white",
    max_pixels: int | None = None,
) -> tuple[MosaicBatch | None, list[BrokenSample]]:
    """Build one batch of the samples that can be used, and name the faults of the others.

    A sample that turns out to be broken leaves the batch smaller and the rest laid out anew; it is
    never replaced. Images are decoded once, but those whose tile changes size because of a broken
    neighbour twice.

    Returns:
        The batch (None when no sample is left) and the faults.
    """
    good, faults = _with_captions(samples, draw)

    # Without a broken image the tiles of later ones may change size: those are decoded again.
    done: dict[tuple[int, tuple[int, int]], Tensor] = {}
    while True:
        plan = plan_mosaics(len(good), config)
        sizes = plan.tile_sizes(config)
        broken = set()
        for i, ((sample, _), size) in enumerate(zip(good, sizes)):
            if (id(sample), size) in done:
                continue
            try:
                done[id(sample), size] = decode_tile(
                    sample, size, draw, config=config, background=background, max_pixels=max_pixels
                )
            except BrokenSample as fault:
                faults.append(fault)
                broken.add(i)
        if not broken:
            break
        good = [pair for i, pair in enumerate(good) if i not in broken]
    if not good:
        return None, faults

    tiles = [done[id(sample), size] for (sample, _), size in zip(good, sizes)]
    singles = torch.empty(
        plan.num_singles, config.single_px, config.single_px, 3, dtype=torch.uint8
    ).permute(0, 3, 1, 2)
    for target, tile in zip(singles, tiles[plan.num_tiles :]):
        target.copy_(tile)

    mosaics = assemble_mosaics(tiles, plan, config)
    captions, keys = [caption for _, caption in good], [sample.key for sample, _ in good]
    return MosaicBatch(mosaics, plan.boxes(config), singles, captions, keys), faults


@dataclass(frozen=True)
class MosaicBuilder:
    """`build_batch` with its options, as a loader's workers call it."""

    config: MosaicConfig
    background: str
    max_pixels: int | None

    def __call__(
        self, samples: Sequence[RawSample], draw: SampleRandom
    ) -> tuple[MosaicBatch | None, list[BrokenSample]]:
        return build_batch(
            samples, draw, self.config, background=self.background, max_pixels=self.max_pixels
        )
