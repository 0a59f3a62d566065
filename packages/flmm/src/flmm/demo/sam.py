"""A small SAM with random weights, whose image encoder stays random: it tells colours and edges, and no objects."""

from typing import Any

import torch

from flmm.demo.scenes import IMAGE_PX

PATCH_PX = 4
WIDTH = 32


def build_demo_sam(seed: int = 0) -> Any:
    """A SamModel for images of `IMAGE_PX`, the same for the same seed. Its image encoder is 48 wide and one layer deep.

    No SAM can be pretrained in minutes. What its refiner learns on top of random features is little; it is there so
    that the same code runs as with a real one.
    """
    from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

    vision = SamVisionConfig(
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=IMAGE_PX,
        patch_size=PATCH_PX,
        output_channels=WIDTH,
        window_size=IMAGE_PX // PATCH_PX,
        global_attn_indexes=[0],
        mlp_dim=96,
        num_pos_feats=WIDTH // 2,
    )
    prompts = SamPromptEncoderConfig(hidden_size=WIDTH, image_size=IMAGE_PX, patch_size=PATCH_PX, mask_input_channels=8)
    decoder = SamMaskDecoderConfig(hidden_size=WIDTH, mlp_dim=64, num_attention_heads=4, iou_head_hidden_dim=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder))
