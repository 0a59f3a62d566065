"""Released detectors of Detic + CLIM: their weights under our names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from clim_models.checkpoints.layouts import rename_key

TEXT_TOWER = "roi_head.clip.text_encoder."

C4_NAMES = (
    (r"^rpn_head\.rpn_conv\.", "rpn.convs.0.conv."),
    (r"^rpn_head\.rpn_cls\.", "rpn.objectness."),
    (r"^rpn_head\.rpn_reg\.", "rpn.deltas."),
    (r"^roi_head\.shared_head\.layer4\.", "box_head.layer4."),
    (r"^roi_head\.bbox_head\.fc_cls\.", "box_head.classifier.project."),
    (r"^roi_head\.bbox_head\.cls_bias$", "box_head.classifier.bias"),
    (r"^roi_head\.bbox_head\.cls_embeddings$", "classes.embeddings"),
    (r"^roi_head\.bbox_head\.fc_reg\.", "box_head.deltas."),
    (r"^roi_head\.detic_caption\.bce_bias$", "image_level.captions.bias"),
    (r"^roi_head\.detic_tags\.bce_bias$", "image_level.tags.bias"),
)


def c4_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of an OV-COCO release of Detic + CLIM.

    Its background (zeros) and tag embeddings (those of the classes) are not needed, and its text
    tower is CLIP's.

    Args:
        tensors: the state dict of the release.

    Returns:
        The same tensors under the names of `C4Detector`.
    """
    left_out = (TEXT_TOWER, "roi_head.bbox_head.bg_embedding", "roi_head.detic_tags.tag_embeddings")
    renamed = {}
    for key, value in tensors.items():
        if key.startswith(left_out) or key.endswith(".num_batches_tracked"):
            continue
        renamed[rename_key(key, C4_NAMES)] = value
    return renamed


CASCADE_NAMES = (
    (r"^neck\.lateral_convs\.(\d)\.conv\.", r"neck.laterals.\1."),
    (r"^neck\.fpn_convs\.([012])\.conv\.", r"neck.outputs.\1."),
    (r"^neck\.fpn_convs\.3\.conv\.", "neck.coarser.0."),
    (r"^neck\.fpn_convs\.4\.conv\.", "neck.coarser.1."),
    (r"^rpn_head\.conv_cls\.", "centres.heat."),
    (r"^rpn_head\.conv_reg\.", "centres.distances."),
    (r"^roi_head\.bbox_head\.(\d)\.shared_fcs\.0\.", r"stages.\1.shared.0."),
    (r"^roi_head\.bbox_head\.(\d)\.shared_fcs\.1\.", r"stages.\1.shared.2."),
    (r"^roi_head\.bbox_head\.(\d)\.fc_cls\.linear\.", r"stages.\1.classifier.project."),
    (r"^roi_head\.bbox_head\.(\d)\.fc_reg\.", r"stages.\1.deltas."),
    (r"^roi_head\.mask_head\.conv_logits\.", "mask_head.logits."),
    (r"^roi_head\.mask_head\.", "mask_head."),
)
CASCADE_CLASSES = "roi_head.bbox_head.0.fc_cls.zs_weight"


def cascade_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of an OV-LVIS release of Detic + CLIM.

    Its three stages share their classes. The frequencies of classes are those of the data set, and
    the text tower is CLIP's: both are dropped.

    Args:
        tensors: the state dict of the release.

    Returns:
        The same tensors under the names of `CascadeDetector`.
    """
    left_out = (TEXT_TOWER, "roi_head.detic_tags.tag_embeddings")
    endings = (".num_batches_tracked", ".freq_weight", ".fc_cls.zs_weight")
    renamed, scales = {}, {}
    for key, value in tensors.items():
        if key.startswith(left_out) or key.endswith(endings):
            continue
        layer = re.fullmatch(r"rpn_head\.reg_convs\.(\d)\.(conv|gn)\.(weight|bias)", key)
        if key.startswith("rpn_head.scales."):
            scales[key] = value
            continue
        if layer is not None:
            place = 3 * int(layer[1]) + (layer[2] == "gn")
            key = f"centres.convs.{place}.{layer[3]}"
        renamed[rename_key(key, CASCADE_NAMES)] = value
    if scales:
        renamed["centres.scales"] = torch.stack([scales[key] for key in sorted(scales)])
    if CASCADE_CLASSES in tensors:
        # (C, K + 1), the background last.
        renamed["classes.embeddings"] = tensors[CASCADE_CLASSES][:, :-1].T.contiguous()
    return renamed
