"""Open-vocabulary detectors: on a frozen CLIP tower, and after Detic.

The table "Public names" of the package's README says what each name is.
"""

from typing import TYPE_CHECKING

from clim_models.lazy import lazy_names

if TYPE_CHECKING:
    from clim_models.detection.batches import (
        BatchRules as BatchRules,
        content_limits as content_limits,
        prepare_batch as prepare_batch,
        prepare_padded as prepare_padded,
        stack_images as stack_images,
    )
    from clim_models.detection.boxes.masks import (
        BoxMasks as BoxMasks,
    )
    from clim_models.detection.c4 import (
        CAFFE_IMAGES as CAFFE_IMAGES,
        C4Detector as C4Detector,
        C4Options as C4Options,
    )
    from clim_models.detection.cascade import (
        CascadeDetector as CascadeDetector,
    )
    from clim_models.detection.cascade_options import (
        LVIS_LEVEL as LVIS_LEVEL,
        RGB_IMAGES as RGB_IMAGES,
        CascadeOptions as CascadeOptions,
    )
    from clim_models.detection.checkpoints import (
        DetectorLoadReport as DetectorLoadReport,
        frozen_clip_names as frozen_clip_names,
        fvit_names as fvit_names,
        load_detector as load_detector,
    )
    from clim_models.detection.detector import (
        TwoStageDetector as TwoStageDetector,
    )
    from clim_models.detection.detic_checkpoints import (
        load_detic as load_detic,
        load_resnet as load_resnet,
    )
    from clim_models.detection.detic_names import (
        c4_names as c4_names,
        cascade_names as cascade_names,
    )
    from clim_models.detection.detic_tracing import (
        largest_detic_losses as largest_detic_losses,
        largest_image_losses as largest_image_losses,
    )
    from clim_models.detection.features.backbone import (
        BackboneMaps as BackboneMaps,
    )
    from clim_models.detection.features.resnet import (
        ResNetRules as ResNetRules,
    )
    from clim_models.detection.folders import (
        open_detector as open_detector,
        save_detector as save_detector,
    )
    from clim_models.detection.frozen_clip import (
        FROZEN_CLIP_PRESETS as FROZEN_CLIP_PRESETS,
        FrozenClipOptions as FrozenClipOptions,
        build_frozen_clip as build_frozen_clip,
    )
    from clim_models.detection.fvit import (
        FVIT_PRESETS as FVIT_PRESETS,
        FViTOptions as FViTOptions,
        build_fvit as build_fvit,
        transfer_fvit as transfer_fvit,
    )
    from clim_models.detection.heads.cascade_losses import (
        CascadeLossRules as CascadeLossRules,
    )
    from clim_models.detection.heads.centres import (
        CentreRules as CentreRules,
    )
    from clim_models.detection.heads.classes import (
        embed_class_set as embed_class_set,
    )
    from clim_models.detection.heads.ensemble import (
        EnsembleRules as EnsembleRules,
    )
    from clim_models.detection.heads.heatmap import (
        HeatmapRules as HeatmapRules,
    )
    from clim_models.detection.heads.rpn import (
        ProposalRules as ProposalRules,
    )
    from clim_models.detection.heads.sigmoid import (
        SigmoidClassifier as SigmoidClassifier,
        SigmoidRules as SigmoidRules,
        federated_classes as federated_classes,
        federated_keys as federated_keys,
        sigmoid_loss as sigmoid_loss,
    )
    from clim_models.detection.heads.targets import (
        Annotations as Annotations,
    )
    from clim_models.detection.heads.text_classifier import (
        Background as Background,
        ClassSet as ClassSet,
    )
    from clim_models.detection.image_level.captions import (
        CaptionLoss as CaptionLoss,
        CaptionRules as CaptionRules,
        Captions as Captions,
    )
    from clim_models.detection.image_level.regions import (
        TileRules as TileRules,
        draw_groups as draw_groups,
        largest_proposals as largest_proposals,
        with_group_boxes as with_group_boxes,
    )
    from clim_models.detection.image_level.step import (
        CaptionedImage as CaptionedImage,
        ImageLevelRules as ImageLevelRules,
    )
    from clim_models.detection.image_level.tags import (
        TagLoss as TagLoss,
        TagRules as TagRules,
        tag_targets as tag_targets,
    )
    from clim_models.detection.images import (
        ImageFrame as ImageFrame,
        ImageRules as ImageRules,
        fitted_size as fitted_size,
        prepare_images as prepare_images,
        prepare_views as prepare_views,
    )
    from clim_models.detection.rules import (
        DetectionRules as DetectionRules,
        Detections as Detections,
        DetectorOptions as DetectorOptions,
        DetectorRules as DetectorRules,
        Priorities as Priorities,
    )
    from clim_models.detection.tracing import (
        largest_losses as largest_losses,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "Annotations": "clim_models.detection.heads.targets",
            "BackboneMaps": "clim_models.detection.features.backbone",
            "Background": "clim_models.detection.heads.text_classifier",
            "BatchRules": "clim_models.detection.batches",
            "BoxMasks": "clim_models.detection.boxes.masks",
            "C4Detector": "clim_models.detection.c4",
            "C4Options": "clim_models.detection.c4",
            "CAFFE_IMAGES": "clim_models.detection.c4",
            "CaptionLoss": "clim_models.detection.image_level.captions",
            "CaptionRules": "clim_models.detection.image_level.captions",
            "CaptionedImage": "clim_models.detection.image_level.step",
            "Captions": "clim_models.detection.image_level.captions",
            "CascadeDetector": "clim_models.detection.cascade",
            "CascadeLossRules": "clim_models.detection.heads.cascade_losses",
            "CascadeOptions": "clim_models.detection.cascade_options",
            "CentreRules": "clim_models.detection.heads.centres",
            "ClassSet": "clim_models.detection.heads.text_classifier",
            "DetectionRules": "clim_models.detection.rules",
            "Detections": "clim_models.detection.rules",
            "DetectorLoadReport": "clim_models.detection.checkpoints",
            "DetectorOptions": "clim_models.detection.rules",
            "DetectorRules": "clim_models.detection.rules",
            "EnsembleRules": "clim_models.detection.heads.ensemble",
            "FROZEN_CLIP_PRESETS": "clim_models.detection.frozen_clip",
            "FVIT_PRESETS": "clim_models.detection.fvit",
            "FViTOptions": "clim_models.detection.fvit",
            "FrozenClipOptions": "clim_models.detection.frozen_clip",
            "HeatmapRules": "clim_models.detection.heads.heatmap",
            "ImageFrame": "clim_models.detection.images",
            "ImageLevelRules": "clim_models.detection.image_level.step",
            "ImageRules": "clim_models.detection.images",
            "LVIS_LEVEL": "clim_models.detection.cascade_options",
            "Priorities": "clim_models.detection.rules",
            "ProposalRules": "clim_models.detection.heads.rpn",
            "RGB_IMAGES": "clim_models.detection.cascade_options",
            "ResNetRules": "clim_models.detection.features.resnet",
            "SigmoidClassifier": "clim_models.detection.heads.sigmoid",
            "SigmoidRules": "clim_models.detection.heads.sigmoid",
            "TagLoss": "clim_models.detection.image_level.tags",
            "TagRules": "clim_models.detection.image_level.tags",
            "TileRules": "clim_models.detection.image_level.regions",
            "TwoStageDetector": "clim_models.detection.detector",
            "build_frozen_clip": "clim_models.detection.frozen_clip",
            "build_fvit": "clim_models.detection.fvit",
            "c4_names": "clim_models.detection.detic_names",
            "cascade_names": "clim_models.detection.detic_names",
            "content_limits": "clim_models.detection.batches",
            "draw_groups": "clim_models.detection.image_level.regions",
            "embed_class_set": "clim_models.detection.heads.classes",
            "federated_classes": "clim_models.detection.heads.sigmoid",
            "federated_keys": "clim_models.detection.heads.sigmoid",
            "fitted_size": "clim_models.detection.images",
            "frozen_clip_names": "clim_models.detection.checkpoints",
            "fvit_names": "clim_models.detection.checkpoints",
            "largest_detic_losses": "clim_models.detection.detic_tracing",
            "largest_image_losses": "clim_models.detection.detic_tracing",
            "largest_losses": "clim_models.detection.tracing",
            "largest_proposals": "clim_models.detection.image_level.regions",
            "load_detector": "clim_models.detection.checkpoints",
            "load_detic": "clim_models.detection.detic_checkpoints",
            "load_resnet": "clim_models.detection.detic_checkpoints",
            "open_detector": "clim_models.detection.folders",
            "prepare_batch": "clim_models.detection.batches",
            "prepare_images": "clim_models.detection.images",
            "prepare_padded": "clim_models.detection.batches",
            "prepare_views": "clim_models.detection.images",
            "save_detector": "clim_models.detection.folders",
            "sigmoid_loss": "clim_models.detection.heads.sigmoid",
            "stack_images": "clim_models.detection.batches",
            "tag_targets": "clim_models.detection.image_level.tags",
            "transfer_fvit": "clim_models.detection.fvit",
            "with_group_boxes": "clim_models.detection.image_level.regions",
        },
    )
