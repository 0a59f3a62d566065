"""Released detectors of Detic + CLIM: their names, and loading, strictly."""

import re
from collections.abc import Mapping

from torch import Tensor

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
    tower is that of CLIP.

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
        for pattern, name in C4_NAMES:
            key = re.sub(pattern, name, key)
        renamed[key] = value
    return renamed
