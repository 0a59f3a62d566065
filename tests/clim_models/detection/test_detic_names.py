"""Names of released detectors of Detic + CLIM, against the golden case 13."""

import pytest
import torch
from clim_models.detection import ClassSet, c4_names, cascade_names
from clim_models.detection.c4 import C4Detector, C4Options
from clim_models.detection.cascade import CascadeDetector, CascadeOptions
from golden_detic import FAMILY


def layout_of(golden, kind):
    """Entries of a published detector, without memory."""
    keys = golden("case13_layout", FAMILY).meta[kind]["keys"]
    return {key: torch.empty(tuple(shape), device="meta") for key, shape in keys.items()}


@pytest.mark.parametrize("kind", ["ovcoco_base", "ovcoco_w_tags", "ovlvis_boxsup", "ovlvis_clim"])
def test_golden_names_and_shapes(golden, kind):
    is_coco = kind.startswith("ovcoco")
    renamed = (c4_names if is_coco else cascade_names)(layout_of(golden, kind))
    count, width = renamed["classes.embeddings"].shape
    classes = ClassSet([f"class {i}" for i in range(count)], torch.ones(count, width), [0])
    with torch.device("meta"):
        if is_coco:
            detector = C4Detector(classes, C4Options())
        else:
            detector = CascadeDetector(classes, torch.ones(count), CascadeOptions())
    own = {key: value.shape for key, value in detector.state_dict().items()}
    # What a release does not hold: constants, queues, and biases before the fine-tuning.
    for key in own.keys() - renamed.keys():
        base = key.startswith("image_level.") and kind in ("ovcoco_base", "ovlvis_boxsup")
        assert key.endswith("temperature") or ".queue." in key or base, key
    assert {key: own.get(key) for key in renamed} == {key: v.shape for key, v in renamed.items()}
