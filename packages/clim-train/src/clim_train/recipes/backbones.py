"""Backbones and optimizers that recipes share."""

from clim_train.options.sections import ModelConfig, OptimConfig

COCO_IMAGES, LVIS_IMAGES, CC3M_IMAGES = 118_287, 100_170, 3_318_333
"""Images of train2017, of lvis_v1_train, and links of the CC3M training list (not all of them still
work)."""

OPENAI_VIT = OptimConfig(lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
EVA02 = OptimConfig(lr=1e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)

EVA_B16 = ModelConfig(name="EVA02-B-16", pretrained="merged2b_s8b_b131k", unlocked_blocks=12)
EVA_L14 = ModelConfig(name="EVA02-L-14-336", pretrained="merged2b_s6b_b61k", unlocked_blocks=24)
