"""Which tower class reads a given open_clip image tower."""

from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import nn

from clim_models.towers.latent_pool import LatentPooledViT
from clim_models.towers.modified_resnet import ResNetTower
from clim_models.towers.open_clip_vit import OpenClipViT
from clim_models.towers.timm_cnn import TimmCNN
from clim_models.towers.timm_vit import TimmViT
from clim_models.towers.tower import Tower

SUPPORTED = (
    "open_clip VisionTransformer (ViT-B-32, ViT-B-16-quickgelu, ViT-L-14, ...)",
    "open_clip ModifiedResNet (RN50 ... RN50x64)",
    "timm Eva (EVA02-B-16, EVA02-L-14, EVA02-L-14-336, ...)",
    "timm VisionTransformer with class token, average or attention pool, also hybrid "
    "(ViT-B-16-SigLIP, ...)",
    "timm CNN with average pool and linear projection (convnext_base, EfficientNet, ...)",
)


def find_tower(visual: nn.Module, *, antialias: bool = False) -> Tower:
    """The reader for an image tower.

    Args:
        visual: the `visual` of an open_clip model.
        antialias: resample position embeddings with antialiasing (False in the papers).

    Raises:
        ValueError: a tower that is not supported; the message lists those that are.
    """
    if isinstance(visual, VisionTransformer):
        return OpenClipViT(visual, antialias=antialias)
    if isinstance(visual, ModifiedResNet):
        return ResNetTower(visual, antialias=antialias)
    if isinstance(visual, TimmModel):
        trunk = visual.trunk
        if isinstance(trunk, Eva | TimmVisionTransformer):
            tower = LatentPooledViT if trunk.attn_pool is not None else TimmViT
            return tower(visual, antialias=antialias)
        has_pool_head = "pool" in dict(visual.head.named_children())
        if (
            hasattr(trunk, "forward_head")
            and not has_pool_head
            and not hasattr(trunk, "num_prefix_tokens")
        ):
            return TimmCNN(visual, antialias=antialias)
    inner = f" with trunk {type(visual.trunk).__name__}" if isinstance(visual, TimmModel) else ""
    listing = "\n  - ".join(SUPPORTED)
    raise ValueError(
        f"no region features for {type(visual).__name__}{inner}; supported towers are\n  - "
        f"{listing}"
    )
