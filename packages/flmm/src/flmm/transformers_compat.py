"""The one place for what flmm uses of transformers beyond its documented interface.

Tried with the versions in `TRIED`. `tests/flmm/test_transformers_compat.py` has one test for each
function, so that a new version of transformers shows which of them it broke. transformers takes
seconds to import, so each function imports what it needs.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

OLDEST_TRANSFORMERS = (5, 6)
TRIED = ("5.23.0",)

Size = tuple[int, int]


def check_transformers() -> None:
    """Check that transformers is there and new enough for the classes that the adapters use.

    Raises:
        ValueError: it is missing or too old.
    """
    wanted = ".".join(map(str, OLDEST_TRANSFORMERS))
    try:
        found = version("transformers")
    except PackageNotFoundError:
        raise ValueError(
            f"flmm needs transformers {wanted}: pip install 'transformers>={wanted}'"
        ) from None
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST_TRANSFORMERS:
        raise ValueError(
            f"transformers {found} is too old for flmm's attention capture and model classes; "
            f"run: pip install 'transformers>={wanted}'"
        )


# -- the parts of a model ----------------------------------------------------------------------

# Where the decoder is in `model` of an image-text model; SmolVLM and Idefics3 have the second name.
_DECODERS = ("language_model", "text_model")


@runtime_checkable
class ImageTextModel(Protocol):
    """What flmm calls on a whole image-text model."""

    config: Any
    generation_config: Any

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def generate(self, **inputs: Any) -> Tensor: ...


@dataclass(frozen=True)
class DecoderParts:
    """The parts of a language model whose attention and states are captured.

    layers: the decoder's blocks. attentions: the self-attention of each. norm: follows the last
    block. config: the language model's own configuration.
    """

    layers: list[nn.Module]
    attentions: list[nn.Module]
    norm: nn.Module
    config: Any


@dataclass(frozen=True)
class LmmParts:
    """An image-text model, taken apart.

    whole: generates text. core: runs without the vocabulary layer. language_model: the decoder.
    """

    whole: ImageTextModel
    core: nn.Module
    language_model: nn.Module
    decoder: DecoderParts


def decoder_parts(language_model: nn.Module) -> DecoderParts:
    """Find the parts of a decoder of transformers.

    Raises:
        ValueError: it has no `layers[i].self_attn` or no `norm`.
    """
    kind = type(language_model).__name__
    try:
        stack = language_model.get_submodule("layers")
        layers = list(stack.children())
        attentions = [layer.get_submodule("self_attn") for layer in layers]
        norm = language_model.get_submodule("norm")
    except AttributeError as missing:
        raise ValueError(
            f"{kind} is no decoder that flmm can listen to ({missing}): pass a language model of "
            "transformers with `layers[i].self_attn` and `norm`"
        ) from None
    return DecoderParts(layers, attentions, norm, getattr(language_model, "config", None))


def lmm_parts(model: nn.Module) -> LmmParts:
    """Find the parts of an image-text model of transformers.

    Raises:
        ValueError: it is no such model.
    """
    core = getattr(model, "model", None)
    language_model = None
    for name in _DECODERS:
        language_model = language_model or getattr(core, name, None)
    if not isinstance(core, nn.Module) or not isinstance(language_model, nn.Module):
        raise ValueError(
            f"{type(model).__name__} is no image-text model that flmm can run: pass one of "
            "transformers, with `model.language_model`"
        )
    if not isinstance(model, ImageTextModel):
        raise ValueError(
            f"{type(model).__name__} cannot generate text: pass an image-text model of "
            "transformers, such as LlavaForConditionalGeneration"
        )
    return LmmParts(model, core, language_model, decoder_parts(language_model))


# -- attention ---------------------------------------------------------------------------------


def register_attention(name: str, attention: Callable[..., tuple[Tensor, None]]) -> None:
    """Make an attention function known to transformers under a name, with the masks of SDPA."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(name, attention)
    # Without a mask function of the same name, padded batches get no mask at all.
    AttentionMaskInterface.register(name, sdpa_mask)


def sdpa_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Run transformers' own SDPA attention."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)


def attention_in_use(module: nn.Module) -> str | None:
    """Return the name of the attention that a model or a layer runs, None where it has none."""
    return getattr(getattr(module, "config", None), "_attn_implementation", None)


def choose_attention(language_model: nn.Module, name: str) -> None:
    """Make a language model run the registered attention of this name.

    Raises:
        ValueError: it does not go through transformers' attention interface.
    """
    choose = getattr(language_model, "set_attn_implementation", None)
    if choose is not None:
        choose(name)
    used = attention_in_use(language_model)
    if used != name:
        raise ValueError(
            f"{type(language_model).__name__} keeps attn_implementation={used!r}: it does not use "
            "transformers' attention interface, so its attention cannot be captured; use an LMM "
            "whose language model does"
        )


# -- grids of image tokens ---------------------------------------------------------------------


def unpadded_grid(grid: Size, image: Size) -> Size:
    """Return the (rows, columns) that LLaVA-NeXT and LLaVA-OneVision keep of a padded grid.

    Args:
        grid: (rows, columns) of features of the padded image.
        image: (H, W) of the image in pixels.
    """
    from transformers.models.llava_next.modeling_llava_next import unpad_image

    _, rows, columns = unpad_image(torch.empty(1, *grid), image).shape
    return rows, columns


def best_canvas(image: Size, canvases: Sequence[Size]) -> Size:
    """Choose the (height, width) of a canvas for an image (H, W) as LLaVA-NeXT does."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution(image, [list(canvas) for canvas in canvases])
    return height, width


def best_tiles(image: Size, tile: int, *, least: int, most: int) -> Size:
    """Choose the (rows, columns) of tiles for an image (H, W) as InternVL does."""
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    columns, rows = get_optimal_tiled_canvas(image, (tile, tile), least, most)
    return rows, columns
