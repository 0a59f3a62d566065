"""The demo SAM that ships with flmm: a SamModel of half a million parameters, pretrained on
composed scenes."""

from pathlib import Path
from typing import Any

import torch

from flmm.demo.scenes import IMAGE_PX
from flmm.hub import without_bars

PATCH_PX = 4
WINDOW_PX = 36
VISION_WIDTH = 96
VISION_LAYERS = 3
WIDTH = 64
HEADS = 4
WEIGHTS = Path(__file__).parent / "weights" / "demo_sam.safetensors"
COMMAND = "hatch run pretrain-demo-sam"


def random_demo_sam(seed: int = 0) -> Any:
    """Build a SamModel for images of `IMAGE_PX` with random weights, the same for the same seed:
    where pretraining starts."""
    from transformers import (
        SamConfig,
        SamMaskDecoderConfig,
        SamModel,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )

    extra: dict[str, Any] = {"scale": 1.0}  # is not among the declared fields
    vision = SamVisionConfig(
        hidden_size=VISION_WIDTH,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=HEADS,
        image_size=IMAGE_PX,
        patch_size=PATCH_PX,
        output_channels=WIDTH,
        window_size=WINDOW_PX // PATCH_PX,
        global_attn_indexes=[VISION_LAYERS - 1],
        mlp_dim=2 * VISION_WIDTH,
        num_pos_feats=WIDTH // 2,
        # As the original initialises them; transformers' defaults are for weights that will be
        # loaded.
        initializer_range=0.1,
        **extra,
    )
    prompts = SamPromptEncoderConfig(
        hidden_size=WIDTH, image_size=IMAGE_PX, patch_size=PATCH_PX, mask_input_channels=16
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=WIDTH, mlp_dim=2 * WIDTH, num_attention_heads=HEADS, iou_head_hidden_dim=WIDTH
    )
    config = SamConfig(
        vision_config=vision,
        prompt_encoder_config=prompts,
        mask_decoder_config=decoder,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SamModel(config)


def build_demo_sam(weights: str | Path = WEIGHTS) -> Any:
    """Build the pretrained demo SAM, in float32 and evaluation mode.

    Raises:
        FileNotFoundError: there is no file of weights.
        ValueError: the weights are of another model.
    """
    from flmm.demo.model_files import load_weights

    model = random_demo_sam()
    load_weights(model, weights, what="demo SAM", command=COMMAND)
    return model.eval()


def write_demo_sam(folder: Path) -> None:
    """Write the demo SAM as transformers' `from_pretrained` reads it."""
    with without_bars():
        build_demo_sam().save_pretrained(folder)
