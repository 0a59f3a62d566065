"""Choose the reader of an open_clip image tower; users register their own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from clim_models.towers.latent_pool import LatentPooledViT
from clim_models.towers.modified_resnet import ResNetTower
from clim_models.towers.open_clip_pool import AttentionPooledViT
from clim_models.towers.open_clip_vit import OpenClipViT
from clim_models.towers.timm_cnn import TimmCNN
from clim_models.towers.timm_vit import TimmViT
from clim_models.towers.tower import Tower


class TowerFactory(Protocol):
    """Builds the reader of an image tower, usually a class."""

    def __call__(self, visual: nn.Module, *, antialias: bool) -> Tower: ...


@dataclass(frozen=True)
class _Entry:
    """One kind of tower: how to recognise it, how to build its reader, and its line in errors."""

    matches: Callable[[nn.Module], bool]
    factory: TowerFactory
    description: str


# The first entry that matches wins. `register_tower` puts towers from outside in front.
_ENTRIES = [
    _Entry(
        OpenClipViT.matches,
        OpenClipViT,
        "open_clip VisionTransformer (ViT-B-32, ViT-B-16-quickgelu, ViT-L-14, ...)",
    ),
    _Entry(
        AttentionPooledViT.matches,
        AttentionPooledViT,
        "open_clip VisionTransformer with CoCa's attentional pooler (coca_ViT-B-32, coca_ViT-L-14)",
    ),
    _Entry(ResNetTower.matches, ResNetTower, "open_clip ModifiedResNet (RN50 ... RN50x64)"),
    _Entry(
        LatentPooledViT.matches,
        LatentPooledViT,
        "timm VisionTransformer, NaFlexVit or Eva with attention pool (ViT-B-16-SigLIP, "
        "ViT-B-16-SigLIP2, PE-Core-B-16, ...)",
    ),
    _Entry(
        TimmViT.matches,
        TimmViT,
        "timm Eva (EVA02-B-16, EVA02-L-14, EVA02-E-14, DINOv3, ...), NaFlexVit and "
        "VisionTransformer (MobileCLIP-B, ViTamin-L, ...) with class token or average pool",
    ),
    _Entry(
        TimmCNN.matches,
        TimmCNN,
        "timm CNN with average pool and linear projection (convnext_base, MobileCLIP2-S2, ...)",
    ),
]


def register_tower(
    matches: Callable[[nn.Module], bool], factory: TowerFactory, *, description: str = ""
) -> None:
    """Add a kind of image tower; it is asked before those that are there.

    Args:
        matches: True for an open_clip `visual` that `factory` can read.
        factory: `factory(visual, antialias=...)` builds a `Tower`, usually a class.
        description: its name in the error that lists supported towers; default: the factory's.
    """
    name = description or getattr(factory, "__name__", repr(factory))
    _ENTRIES.insert(0, _Entry(matches, factory, name))


def find_tower(visual: nn.Module, *, antialias: bool = False) -> Tower:
    """Build the reader of an image tower.

    Args:
        visual: the `visual` of an open_clip model.
        antialias: resample position embeddings with antialiasing (False in the papers).

    Raises:
        ValueError: a tower that is not supported; the message lists those that are.
    """
    for entry in _ENTRIES:
        if entry.matches(visual):
            return entry.factory(visual, antialias=antialias)

    trunk = getattr(visual, "trunk", None)
    inner = "" if trunk is None else f" with trunk {type(trunk).__name__}"
    listing = "; ".join(entry.description for entry in _ENTRIES)
    raise ValueError(
        f"no region features for {type(visual).__name__}{inner}: take one of the supported towers "
        f"({listing}), or add yours with register_tower"
    )
