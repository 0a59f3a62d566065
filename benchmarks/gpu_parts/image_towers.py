"""Image models of each family with random weights, and images with boxes and masks for them.

The weights are drawn so that a check can fail: at the scale at which libraries start a training,
attention is nearly uniform and patches come out nearly equal. Here products keep the size of what
goes in, norms have gains and biases, and images have structure at every scale.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from clim_models import RegionModel
from open_clip import get_model_config
from open_clip.model import CLIP, CustomTextCLIP
from timm.models import register_model
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# The text tower is not what is measured; a small one is built in no time.
TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}


@dataclass(frozen=True)
class ImageTower:
    """A model to build and the side of the images that go in.

    Args:
        name: for the lines of the report.
        model: open_clip's name of the architecture.
        image_px: side of an image.
        images: in a batch.
        changes: of open_clip's `vision_cfg` (and of "embed_dim"), for smaller towers of the same
            kind.
    """

    name: str
    model: str
    image_px: int
    images: int = 1
    changes: tuple[tuple[str, Any], ...] = ()

    def with_changes(self, **changes: Any) -> "ImageTower":
        """Make a tower that differs in these entries of its configuration."""
        return replace(self, changes=(*self.changes, *changes.items()))

    def build(self, device: torch.device, *, seed: int = 0) -> RegionModel:
        """Build the model in float32 on the device; the same seed and device give the same
        weights."""
        config = get_model_config(self.model)
        changes = dict(self.changes)
        width = changes.pop("embed_dim", config["embed_dim"])
        parts = {"embed_dim": width, "vision_cfg": config["vision_cfg"] | changes, "text_cfg": TEXT}
        with _NothingDrawn():
            if config.get("custom_text", False):
                clip = CustomTextCLIP(**parts)
            else:
                clip = CLIP(**parts, quick_gelu=config.get("quick_gelu", False))
        draw_weights(clip.to(device), seed)
        model = RegionModel(clip).eval()
        model.name = self.model
        return model


# What users train and evaluate, at the resolutions of the papers.
EVA_B = ImageTower("EVA02-B/16 at 1024 px", "EVA02-B-16", 1024, images=2)
EVA_L = ImageTower("EVA02-L/14-336 at 896 px", "EVA02-L-14-336", 896)
VIT_B = ImageTower("ViT-B/16 at 1024 px", "ViT-B-16-quickgelu", 1024)
RESNET = ImageTower("RN50 at 1024 px", "RN50", 1024, images=2)
SIGLIP = ImageTower("SigLIP-B/16 at 512 px", "ViT-B-16-SigLIP", 512, images=2)
FULL = (EVA_B, EVA_L, VIT_B, RESNET, SIGLIP)


def tiny() -> tuple[ImageTower, ...]:
    """Make the smallest towers of the same kinds, in the same order."""
    eva = {
        "embed_dim": 64,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "qkv_fused": False,
        "swiglu_mlp": True,
        "scale_mlp": True,
    }
    eva |= {"scale_attn_inner": True, "use_rot_pos_emb": True, "ref_feat_shape": (16, 16)}
    _register("gpu_tiny_eva", Eva, img_size=32, patch_size=8, depth=3, **eva)
    _register("gpu_tiny_eva_large", Eva, img_size=28, patch_size=7, depth=4, **eva)
    siglip = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}
    _register(
        "gpu_tiny_siglip", partial(timm.create_model, "vit_base_patch16_siglip_224"), **siglip
    )

    vit = {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8}
    resnet = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
    small = {"embed_dim": 64}
    return (
        ImageTower("EVA02-B/16, tiny", "EVA02-B-16", 64, 2).with_changes(
            timm_model_name="gpu_tiny_eva", **small
        ),
        ImageTower("EVA02-L/14-336, tiny", "EVA02-L-14-336", 56, 2).with_changes(
            timm_model_name="gpu_tiny_eva_large", **small
        ),
        ImageTower("ViT-B/16, tiny", "ViT-B-16-quickgelu", 64, 2).with_changes(**vit, **small),
        ImageTower("RN50, tiny", "RN50", 128, 2).with_changes(**resnet, **small),
        ImageTower("SigLIP-B/16, tiny", "ViT-B-16-SigLIP", 64, 2).with_changes(
            timm_model_name="gpu_tiny_siglip", **small
        ),
    )


def with_blocks(tower: ImageTower, blocks: int) -> ImageTower:
    """Make a tower of the same widths with fewer blocks (EVA and open_clip ViTs)."""
    vision = get_model_config(tower.model)["vision_cfg"] | dict(tower.changes)
    base = vision.get("timm_model_name")
    if base is None:
        return tower.with_changes(layers=blocks)
    name = f"{base}_{blocks}_blocks"
    _register(name, partial(timm.create_model, base), depth=blocks)
    return tower.with_changes(timm_model_name=name)


def draw_weights(module: nn.Module, seed: int) -> None:
    """Draw every weight anew, on its device: products keep the size of their input, gains lie
    around 1."""
    device = next(module.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)

    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.ndim == 0:
                continue  # temperatures
            noise = torch.randn(weight.shape, generator=generator, device=device)
            leaf = name.rpartition(".")[2]
            if any(word in leaf for word in ("pos", "token", "latent", "class")):
                weight.copy_(0.3 * noise)  # positions, class tokens, queries
            elif weight.ndim == 1:
                gains = leaf == "weight" or leaf.startswith("gamma")
                weight.copy_(0.1 * noise + (1.0 if gains else 0.0))
            else:
                # A projection stands as (D, C), every other weight as (out, in, ...).
                fan_in = weight.shape[0] if leaf == "proj" else weight[0].numel()
                weight.copy_(noise * fan_in**-0.5)


def structured_images(tower: ImageTower, device: torch.device, *, seed: int = 1) -> Tensor:
    """Normalised pixels (B, 3, H, W): patches and objects of several sizes, and noise; drawn on the
    CPU."""
    generator = torch.Generator().manual_seed(seed)
    side = tower.image_px
    images = 0.3 * torch.randn(tower.images, 3, side, side, generator=generator)
    for cells in (3, 8, 24):
        coarse = torch.randn(tower.images, 3, cells, cells, generator=generator)
        images += F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    return (images / 2).to(device)


def random_boxes(images: int, count: int, device: torch.device, *, seed: int = 2) -> list[Tensor]:
    """XYXY boxes in [0, 1], `count` for the first image and one less for each further one."""
    generator = torch.Generator().manual_seed(seed)
    boxes = []
    for image in range(images):
        corner, size = torch.rand(2, max(count - image, 1), 2, generator=generator)
        start = 0.8 * corner
        end = (start + 0.05 + 0.5 * size).clamp(max=1.0)
        boxes.append(torch.cat([start, end], 1).to(device))
    return boxes


def random_masks(
    model: RegionModel, tower: ImageTower, device: torch.device, *, count: int = 3
) -> list[Tensor]:
    """bool (n, h, w) on the patch grid for each image: blobs, none of them empty."""
    h, w = model.grid_size(tower.image_px, tower.image_px)
    generator = torch.Generator().manual_seed(3)
    masks = []
    for image in range(tower.images):
        coarse = torch.randn(1, max(count - image, 1), 4, 4, generator=generator)
        heights = F.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=False)[0]
        masks.append((heights > heights.mean((1, 2), keepdim=True)).to(device))
    return masks


class _NothingDrawn(TorchDispatchMode):
    """Inside, modules get no random weights: drawing 300 million numbers on a CPU takes ten
    seconds."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        drawing = (torch.ops.aten.uniform_, torch.ops.aten.normal_, torch.ops.aten.erfinv_)
        return args[0] if func.overloadpacket in drawing else func(*args, **(kwargs or {}))


def _register(name: str, build: Callable[..., nn.Module], **sizes: Any) -> None:
    """Make timm know a model by name; a name that it knows stays as it is."""
    if timm.is_model(name):
        return

    def entry(pretrained: bool = False, **options: Any) -> nn.Module:
        own = {k: v for k, v in options.items() if not k.startswith(("pretrained", "cache"))}
        return build(**{**sizes, **own})

    entry.__name__, entry.__module__ = name, __name__
    register_model(entry)
