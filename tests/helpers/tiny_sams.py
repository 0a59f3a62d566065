"""A tiny model with random weights of each SAM of transformers.

Tests import them as `from tiny_sams import SAMS` (pytest puts this folder on the path).
"""

import torch
import transformers as hf

WIDTH = 32
PROMPTS = {"hidden_size": WIDTH, "mask_input_channels": 8}
DECODER = {
    "hidden_size": WIDTH,
    "mlp_dim": 24,
    "num_attention_heads": 4,
    "iou_head_hidden_dim": 12,
}


def _vit(config_class, **options):
    return config_class(
        hidden_size=16,
        output_channels=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=128,
        patch_size=16,
        window_size=3,
        global_attn_indexes=[1],
        num_pos_feats=WIDTH // 2,
        mlp_dim=24,
        **options,
    )


def sam():
    config = hf.SamConfig(
        vision_config=_vit(hf.SamVisionConfig),
        prompt_encoder_config=hf.SamPromptEncoderConfig(**PROMPTS, image_size=128, patch_size=16),
        mask_decoder_config=hf.SamMaskDecoderConfig(**DECODER),
    )
    return hf.SamModel(config)


def sam_hq():
    config = hf.SamHQConfig(
        vision_config=_vit(hf.SamHQVisionConfig),
        prompt_encoder_config=hf.SamHQPromptEncoderConfig(**PROMPTS, image_size=128, patch_size=16),
        mask_decoder_config=hf.SamHQMaskDecoderConfig(**DECODER, vit_dim=16),
    )
    return hf.SamHQModel(config)


def sam2(config_class=hf.Sam2Config, model_class=hf.Sam2Model, **options):
    tower = hf.Sam2HieraDetConfig(
        hidden_size=12,
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[12, 24, 48, 96],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 4],
        window_positional_embedding_background_size=[7, 7],
        global_attention_blocks=[3],
        image_size=[128, 128],
    )
    vision = hf.Sam2VisionConfig(
        backbone_config=tower,
        backbone_channel_list=[96, 48, 24, 12],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=WIDTH,
    )
    config = config_class(
        vision_config=vision,
        prompt_encoder_config={**PROMPTS, "image_size": 128, "patch_size": 16},
        mask_decoder_config=DECODER,
        **options,
    )
    return model_class(config)


def sam3_tracker():
    tower = hf.Sam3ViTConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=112,
        pretrain_image_size=56,
        window_size=4,
        global_attn_indexes=[1],
    )
    vision = hf.Sam3VisionConfig(
        backbone_config=tower,
        fpn_hidden_size=WIDTH,
        scale_factors=[4.0, 2.0, 1.0],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )
    config = hf.Sam3TrackerConfig(
        vision_config=vision,
        prompt_encoder_config={**PROMPTS, "image_size": 112, "patch_size": 14},
        mask_decoder_config=DECODER,
    )
    return hf.Sam3TrackerModel(config)


def edgetam():
    tower = hf.TimmWrapperConfig(
        architecture="repvit_m1.dist_in1k",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        num_classes=0,
        label_names=[],
    )
    vision = hf.EdgeTamVisionConfig(
        backbone_config=tower,
        backbone_channel_list=[384, 192, 96, 48],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=WIDTH,
    )
    config = hf.EdgeTamConfig(
        vision_config=vision,
        prompt_encoder_config={**PROMPTS, "image_size": 128, "patch_size": 16},
        mask_decoder_config=DECODER,
    )
    return hf.EdgeTamModel(config)


SAMS = {
    "sam": sam,
    "sam_hq": sam_hq,
    "sam2": sam2,
    "sam3_tracker": sam3_tracker,
    "edgetam": edgetam,
}


def tiny(name, seed=0):
    """A model of this kind, far from the start, where many numbers are zero."""
    torch.manual_seed(seed)
    model = SAMS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if hasattr(model, "no_memory_embedding"):  # zeros at the start
            model.no_memory_embedding.normal_()
    return model
