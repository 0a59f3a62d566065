"""What the parts about flmm run on: a grounded LLaVA with random weights."""

from argparse import Namespace

import torch
from flmm import GroundedLMM
from grounding_epoch import WORDS, grounded

from gpu_parts.record import Part

# Width, layers and heads; pixels of SAM's square; channels of the mask head's first stage.
FEW_LAYERS = {
    "tower": (1024, 2, 16),
    "llama": (4096, 2, 32),
    "sam": (768, 4, 12),
    "sam_px": 1024,
    "base": 64,
}
SEVEN_B_WIDE = {
    "tower": (1024, 24, 16),
    "llama": (4096, 4, 32),
    "sam": (1024, 24, 16),
    "sam_px": 1024,
    "base": 64,
}
TINY = {"tower": (32, 1, 2), "llama": (32, 2, 4), "sam": (32, 1, 2), "sam_px": 128, "base": 4}


def grounded_llava(part: Part, sizes: dict) -> GroundedLMM:
    """A LLaVA, a SAM and heads on the part's device, in float32 and evaluation mode.

    SAM's weights are enlarged: transformers' first ones, which wait to be loaded, make masks of
    nothing.
    """
    args = Namespace(**(TINY if part.tiny else sizes), device=part.device)
    with torch.device(
        part.device
    ):  # random numbers of billions of weights: made where they are used
        model = grounded(args).eval()
    with torch.no_grad():
        for parameter in model.sam.mask_decoder.parameters():
            parameter.mul_(2)
        for parameter in model.sam.image_encoder.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.02)
    return model


def never_ends(model: GroundedLMM) -> None:
    """Change the vocabulary layer so that a greedy answer has neither an end nor an image token."""
    weight = model.lmm.model.lm_head.weight
    with torch.no_grad():
        weight[[i for i in range(len(weight)) if not _is_plain(i)]] = 0
        # One of two opposite rows is above 0, whatever the state is.
        weight[WORDS.index("tree")] = -weight[WORDS.index("dog")]


def _is_plain(token: int) -> bool:
    return token < len(WORDS) and not WORDS[token].startswith("<")
