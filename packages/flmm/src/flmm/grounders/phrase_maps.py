"""The attention that an LMM pays to an image while it reads phrases, for people to look at.

It takes one forward pass with the LMM's own fused attention; only the rows of the phrases' words
are computed in addition, see `flmm.attention`. Letters: N phrases, L layers, H heads of a layer
(times the views of the image), K heads that are chosen, h w the grid of a map.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from clim_data.files import write_whole
from torch import Tensor

from flmm.adapters.features import PhraseFeatures, join_phrases
from flmm.adapters.frozen import FrozenLMM
from flmm.grounders.heads import Reading, samples_of_image
from flmm.pictures.files import Picture, read_image
from flmm.pictures.mean_attention import FINER
from flmm.text.phrases import check_phrases
from flmm.text.prompts import DESCRIBE

FOCUSED = 6


@dataclass(frozen=True)
class PhraseMaps:
    """Attention of phrases to the upright image, float32 on the CPU.

    The maps lie on the image without padding. Each head's map is divided by its sum before maps are
    averaged: heads that look at nothing but the image would hide the others.

    phrases: N texts. mean: (N, h, w), of all heads. layers: (N, L, h, w), of the heads of a layer.
    focused: (N, K, h, w), the heads with the least entropy among the half that looks at the image
    most. heads: int64 (N, K, 2), layer and head of each, from 0 on; a model that sees the image in
    several views has the heads of a layer once for each. shares: (N, L, H), what each head gives to
    the image of its attention, which sums to 1 over all tokens (views that were enlarged: about).
    """

    phrases: tuple[str, ...]
    mean: Tensor
    layers: Tensor
    focused: Tensor
    heads: Tensor
    shares: Tensor

    def save(self, path: str | Path) -> Path:
        """Write the maps as npz, under the names of the fields."""
        path = Path(path)
        arrays = {name: getattr(self, name).numpy() for name in MAPS}
        with write_whole(path) as draft, open(draft, "wb") as out:
            np.savez_compressed(out, phrases=np.array(self.phrases), **arrays)
        return path


MAPS = ("mean", "layers", "focused", "heads", "shares")


@torch.no_grad()
def phrase_maps(
    lmm: FrozenLMM,
    image: Picture,
    phrases: str | Iterable[str],
    *,
    heads: int = FOCUSED,
    request: str = DESCRIBE,
) -> PhraseMaps:
    """Compute the attention of phrases to an image, each phrase read by itself.

    No trained heads and no SAM take part. The LMM reads the phrases as if it had written them in
    answer to `request`.

    Args:
        lmm: of `load_lmm` or `build_lmm`.
        image: a picture in memory, an array, or a file; it is turned upright.
        heads: K, how many of the most focused heads.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no picture, no phrase, more text than the LMM's context holds, or `heads` is
            below 1.
    """
    if heads < 1:
        raise ValueError(f"heads={heads}: ask for 1 or more")
    wanted = check_phrases(phrases)
    samples = samples_of_image(
        lmm, read_image(image), wanted, Reading(request, each_alone=True), name="the image"
    )
    features = join_phrases([lmm([sample])[0] for sample in samples])
    return maps_of_features(features, wanted, layers=lmm.layers, heads=heads)


def maps_of_features(
    features: PhraseFeatures, phrases: Iterable[str], *, layers: int, heads: int = FOCUSED
) -> PhraseMaps:
    """Summarise the maps of phrases, of an LMM with this number of layers."""
    maps = _by_layer(features, layers).float().cpu()  # (N, L, H, h, w)
    maps = _on_image(maps, features)
    shares = _shares(features, layers)  # (N, L, H)
    sums = maps.sum((-2, -1), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    even = maps / sums

    entropy = -torch.special.xlogy(even, even).sum((-2, -1))  # (N, L, H)
    flat = shares.flatten(1)
    looks = flat >= flat.median(dim=1, keepdim=True).values
    order = entropy.flatten(1).masked_fill(~looks, float("inf")).argsort(dim=1)
    chosen = order[:, : min(heads, order.shape[1])]  # (N, K)
    rows = torch.arange(len(chosen))[:, None]
    return PhraseMaps(
        tuple(phrases),
        mean=even.mean((1, 2)),
        layers=even.mean(2),
        focused=even.flatten(1, 2)[rows, chosen],
        heads=torch.stack([chosen // shares.shape[2], chosen % shares.shape[2]], dim=-1),
        shares=shares,
    )


def _by_layer(features: PhraseFeatures, layers: int) -> Tensor:
    """Arrange maps (N, C, h, w) as (N, L, H, h, w): all heads of a layer, view after view."""
    maps, layout = features.maps, features.layout
    if layout.heads is not None:  # the views of each layer stand together already
        return maps.unflatten(1, (layers, -1))
    views = max(len(layout.grids), 1)
    by_view = maps.unflatten(1, (views, layers, -1))  # (N, V, L, H / V, h, w)
    return by_view.transpose(1, 2).flatten(2, 3)


def _shares(features: PhraseFeatures, layers: int) -> Tensor:
    """Sum the attention of each head to the cells of its view -> (N, L, H).

    Coarser views were enlarged, which multiplies their sums by the ratio of their cells.
    """
    sums = _by_layer(features, layers).float().cpu().sum((-2, -1))
    grids = features.layout.grids
    if len(grids) < 2:
        return sums
    ratios = torch.tensor([grids[-1].numel() / grid.numel() for grid in grids])
    return sums / ratios.repeat_interleave(sums.shape[2] // len(grids))


def _on_image(maps: Tensor, features: PhraseFeatures) -> Tensor:
    """Cut padding off maps (N, L, H, h, w). It can end within a token, so the grid is made
    finer."""
    if features.layout.padding is None:
        return maps
    flat = maps.flatten(0, 2)[:, None]
    finer = torch.nn.functional.interpolate(
        flat, scale_factor=FINER, mode="bilinear", align_corners=False
    )
    return features.layout.crop(finer[:, 0]).unflatten(0, maps.shape[:3])
