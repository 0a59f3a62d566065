"""Everything that flmm uses of transformers beyond its documented interface, in one place.

Tried with the versions in `TRIED`. `tests/flmm/test_transformers_compat.py` has one test for each
function, so that a new version of transformers shows which of them it broke. transformers takes
seconds to import, so each function imports what it needs.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
    """The interface of a whole image-text model."""

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

    layers: the decoder's blocks with a softmax attention; blocks of other kinds (the linear ones of
    Qwen3.5) are left out. attentions: the self-attention of each. outputs: the module of each that
    returns the states after it, which is the norm for the last block of all. norm: the last norm,
    whose states the vocabulary layer reads. config: the language model's own configuration.
    """

    layers: list[nn.Module]
    attentions: list[nn.Module]
    outputs: list[nn.Module]
    norm: nn.Module
    config: Any


@dataclass(frozen=True)
class LmmParts:
    """An image-text model, taken apart.

    whole: generates text. core: runs without the vocabulary layer, or with it for the last token
    only. language_model: the decoder. vocabulary: the layer from its states to logits, if the model
    names it.
    """

    whole: ImageTextModel
    core: Callable[..., Any]
    language_model: nn.Module
    decoder: DecoderParts
    vocabulary: nn.Module | None


def decoder_parts(language_model: nn.Module) -> DecoderParts:
    """Find the parts of a decoder of transformers.

    Raises:
        ValueError: it has no `layers[i].self_attn` or no `norm`.
    """
    stack, norm = getattr(language_model, "layers", None), getattr(language_model, "norm", None)
    every = list(stack.children()) if isinstance(stack, nn.ModuleList) else []
    layers = [layer for layer in every if hasattr(layer, "self_attn")]
    if not layers or not isinstance(norm, nn.Module):
        raise ValueError(
            f"{type(language_model).__name__} is no decoder that flmm can listen to: pass a "
            "language model of transformers with `layers[i].self_attn` and `norm`"
        )

    attentions = [layer.get_submodule("self_attn") for layer in layers]
    outputs = [norm if layer is every[-1] else layer for layer in layers]
    config = getattr(language_model, "config", None)
    return DecoderParts(layers, attentions, outputs, norm, config)


def lmm_parts(model: nn.Module) -> LmmParts:
    """Find the parts of an image-text model of transformers.

    Raises:
        ValueError: it is no such model.
    """
    core: Any = getattr(model, "model", None)
    language_model = None
    for name in _DECODERS:
        language_model = language_model or getattr(core, name, None)
    if core is None:  # Llama 4 has its causal language model where others have `model`
        language_model = getattr(getattr(model, "language_model", None), "model", None)
        core = partial(model, logits_to_keep=1)
    if not isinstance(language_model, nn.Module):
        raise ValueError(
            f"{type(model).__name__} is no image-text model that flmm can run: pass one of "
            "transformers, with `model.language_model`"
        )
    if not isinstance(model, ImageTextModel):
        raise ValueError(
            f"{type(model).__name__} cannot generate text: pass an image-text model of "
            "transformers, such as LlavaForConditionalGeneration"
        )
    output_layer = getattr(model, "get_output_embeddings", None)
    vocabulary = None if output_layer is None else output_layer()
    return LmmParts(model, core, language_model, decoder_parts(language_model), vocabulary)


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


def own_attention(config: Any) -> str | dict[str, str]:
    """Choose the attention that a model is loaded with, which its language model then changes.

    SDPA, but not for a language model whose scores are capped (Gemma 2): transformers refuses that.
    """
    text = getattr(config, "text_config", None)
    if getattr(text, "attn_logit_softcapping", None) is None:
        return "sdpa"
    return {"": "sdpa", "text_config": "eager"}


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


def padded_canvas(image: Size, tile: int, *, most: int, largest: bool) -> tuple[Size, Size]:
    """Place an image (H, W) on a canvas of tiles as Llama 4 does.

    Args:
        most: tiles of the canvas. largest: take the largest canvas that fits, not the tightest one.

    Returns:
        The (height, width) of the resized image, which lies at the top left, and of the canvas.
    """
    from transformers.image_utils import SizeDict
    from transformers.models.llama4 import image_processing_llama4 as llama4

    canvases = llama4.find_supported_resolutions(most, SizeDict(height=tile, width=tile))
    found = llama4.get_best_fit(image, torch.tensor(canvases), resize_to_max_canvas=largest)
    tall, wide = (int(edge) for edge in found)
    target = (tall, wide)
    if not largest:  # the processor enlarges an image to no more than one tile
        target = (min(max(image[0], tile), tall), min(max(image[1], tile), wide))
    height, width = llama4.get_max_res_without_distortion(image, target)
    return (max(height, 1), max(width, 1)), (tall, wide)
