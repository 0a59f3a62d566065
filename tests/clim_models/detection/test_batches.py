"""Training views as a batch, against the golden case 12."""

import pytest
import torch
from clim_models.detection.batches import prepare_padded, short_side_size, stack_images
from clim_models.detection.c4 import CAFFE_IMAGES
from clim_models.detection.cascade_options import RGB_IMAGES
from golden_detectors import close
from golden_detic import FAMILY


def test_golden_sizes_of_a_short_side(golden):
    case = golden("case12_augment", FAMILY)
    sizes = []
    for *scale, height, width in case.arrays["in/resize/scale_h_w"].tolist():
        sizes.append(short_side_size((height, width), min(scale), max(scale)))
    assert sizes == [tuple(size) for size in case.arrays["out/resize/new_h_w"].tolist()]


@pytest.mark.parametrize(("kind", "rules"), [("coco", CAFFE_IMAGES), ("lvis", RGB_IMAGES)])
def test_golden_normalised_and_padded_batch(golden, kind, rules):
    case = golden("case12_augment", FAMILY)
    expected = case.tensor(f"out/preprocess/{kind}")
    pictures = [
        case.tensor(f"in/preprocess/image{i}").permute(2, 0, 1).flip(0)
        for i in range(len(expected))
    ]
    close(case, f"out/preprocess/{kind}", stack_images(pictures, rules))

    padded = torch.full(expected.shape, 77, dtype=torch.uint8)
    for place, picture in zip(padded, pictures, strict=True):
        place[:, : picture.shape[1], : picture.shape[2]] = picture
    sizes = torch.tensor([picture.shape[1:] for picture in pictures])
    windows = torch.cat([torch.zeros_like(sizes), sizes.flip(1)], 1)
    images, limits = prepare_padded(padded, windows, rules)
    close(case, f"out/preprocess/{kind}", images)
    assert limits.tolist() == sizes.tolist()
