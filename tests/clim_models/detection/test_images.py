"""Preparation of pictures, against golden case 14."""

import pytest
import torch
from clim_models.detection import (
    ImageFrame,
    ImageRules,
    fitted_size,
    prepare_images,
    prepare_views,
)
from clim_models.detection.assembly import original_images
from clim_models.detection.images import IMAGENET_MEAN, IMAGENET_STD
from golden_detectors import FAMILY, close
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

KINDS = ["coco", "lvis"]


def test_golden_sizes(golden):
    case = golden("case14_pipeline", FAMILY)
    names = [key.removeprefix("out/resize/") for key in case.arrays if "out/resize/" in key]
    targets = [int(name) for name in names if name.isdecimal()]
    assert targets
    sizes = case.tensor("in/resize/sizes").tolist()
    for target in targets:
        found = [fitted_size((int(h), int(w)), target) for h, w in sizes]
        close(case, f"out/resize/{target}", torch.tensor(found))
        scales = [
            ImageFrame((int(h), int(w)), new, new).scale
            for (h, w), new in zip(sizes, found, strict=True)
        ]
        close(case, f"out/scale_factor/{target}", torch.tensor(scales))


def test_golden_sizes_of_drawn_ratios(golden):
    case = golden("case14_pipeline", FAMILY)
    sizes = case.tensor("in/resize/sizes").tolist()
    ratios = case.tensor("in/resize/ratios").tolist()
    for key in case.arrays:
        if key.startswith("out/resize/ratio_"):
            target = int(key.rpartition("_")[2])
            found = [
                fitted_size((h, w), int(target * ratio))
                for (h, w), ratio in zip(sizes, ratios, strict=True)
            ]
            close(case, key, torch.tensor(found))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["fvit", "ovdet"])
def test_golden_test_pictures(golden, family, kind):
    case = golden("case14_pipeline", FAMILY)
    for i in case.numbers(f"out/{family}/{kind}/test"):
        expected = f"out/{family}/{kind}/test{i}"
        side = case.arrays[expected].shape[-1]
        if family == "fvit":
            rules = ImageRules(side, IMAGENET_MEAN, IMAGENET_STD)
        else:
            rules = original_images(ImageRules(side, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
            padding = case.meta["pad_value_after_normalising_ovdet"]
            assert rules.padding == pytest.approx(padding, abs=1e-5)
        picture = case.tensor(f"in/ovdet/{kind}/image{i}").permute(2, 0, 1)
        images, (frame,) = prepare_images([picture], rules)
        close(case, expected, images[0])

        about = case.meta[f"test_meta_{family}"][f"{kind}{i}"]
        limit = frame.padded if rules.clip_to_padding else frame.content
        assert list(limit) == about["img_shape"][:2]
        assert frame.scale == pytest.approx(about["scale_factor"][:2], abs=1e-6)


def test_boxes_go_to_the_network_and_back():
    frame = ImageFrame((200, 100), (64, 32), (64, 64))
    boxes = torch.tensor([[10.0, 20, 50, 100]])
    there = frame.to_network(boxes)
    torch.testing.assert_close(there, torch.tensor([[3.2, 6.4, 16, 32]]))
    torch.testing.assert_close(frame.to_picture(there), boxes)


def test_wrong_pictures_are_refused():
    rules = ImageRules(32, IMAGENET_MEAN, IMAGENET_STD)
    with pytest.raises(ValueError, match="at least one picture"):
        prepare_images([], rules)
    with pytest.raises(ValueError, match=r"picture 0 is torch.float32 of shape \(3, 5, 5\)"):
        prepare_images([torch.zeros(3, 5, 5)], rules)
    with pytest.raises(ValueError, match="at least 1"):
        ImageRules(0, IMAGENET_MEAN, IMAGENET_STD)
    assert fitted_size((1, 1000), 32) == (1, 32)


def test_views_are_normalised_as_pictures_are():
    """A view that fills its window as a prepared picture does becomes the same input."""
    rules = ImageRules(32, IMAGENET_MEAN, IMAGENET_STD, padding=(0.5, -1.0, 2.0))
    picture = torch.randint(0, 256, (3, 32, 20), dtype=torch.uint8)
    expected, (frame,) = prepare_images([picture], rules)
    view = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    view[0, :, :, :20] = picture
    found, limits = prepare_views(view, torch.tensor([[0, 0, 20, 32]]), rules)
    torch.testing.assert_close(found, expected)
    assert limits.tolist() == [list(frame.content)]

    # A mirrored view may have its padding at the left.
    found, limits = prepare_views(view.flip(-1), torch.tensor([[12, 0, 32, 32]]), rules)
    torch.testing.assert_close(found, expected.flip(-1))
    assert limits.tolist() == [[32, 32]]
