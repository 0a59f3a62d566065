import random
import re

import numpy as np
import pytest
import torch
from clim_data.pixels import transforms as T
from clim_data.pixels.decode import pixels
from clim_data.pixels.masks import masks_to_grid
from golden_pixels import same_pillow
from PIL import Image


def normalized(image, config):
    mean, std = (torch.tensor(config[k])[:, None, None] for k in ("mean", "std"))
    return (image.float() / 255 - mean) / std


def sources(case):
    """The images of the golden case, as PIL images, with the modes they were drawn in."""
    names = sorted(key.removeprefix("in/") for key in case.arrays if re.fullmatch(r"in/\w+", key))
    return {n: Image.fromarray(case.arrays[f"in/{n}"]) for n in names if not n.startswith("mask")}


@same_pillow
def test_golden_letterbox_crops_and_scales(golden):
    case = golden("case08_transforms")
    for name, image in sources(case).items():
        det = case.tensor(f"out/{name}/det")
        size = det.shape[-1]
        boxed = T.letterbox(image, size)
        torch.testing.assert_close(normalized(boxed, case.meta["config"]), det, atol=5e-6, rtol=0)
        reference = case.arrays[f"out/{name}/resize_longest_pixels"]
        reference = reference[..., None] if reference.ndim == 2 else reference[..., :3]
        whole = T.letterbox(image, reference.shape[0]).permute(1, 2, 0).numpy()
        assert np.array_equal(np.broadcast_to(reference, whole.shape), whole)
        for key, transform in (
            ("crop_longest", T.letterbox_centred),
            ("eval_center_crop", T.center_crop),
        ):
            expected = case.tensor(f"out/{name}/{key}")
            result = normalized(transform(image, expected.shape[-1]), case.meta["config"])
            torch.testing.assert_close(result, expected, atol=5e-6, rtol=0)


@same_pillow
def test_golden_training_crop(golden):
    case = golden("case08_transforms")
    cropped = 0
    for name, image in sources(case).items():
        if f"in/{name}/rrc_params" in case.arrays:
            top, left, height, width = case.arrays[f"in/{name}/rrc_params"].tolist()
            expected = case.tensor(f"out/{name}/train_transform")
            result = T.crop_resize(
                image, (left, top, left + width, top + height), tuple(expected.shape[-2:])
            )
            torch.testing.assert_close(
                normalized(result, case.meta["config"]), expected, atol=5e-6, rtol=0
            )
            cropped += 1
    assert cropped


def assert_near_pillow(fast, exact):
    """One grey level, and two for less than one value in 1,000 (both round between their two
    passes)."""
    difference = (fast.int() - exact.int()).abs()
    assert difference.max() <= 2
    assert (difference > 1).sum() <= 1e-3 * difference.numel()


def pattern(formula, width, height):
    """The picture that the sidecar describes by a formula of x, y and c."""
    expression = re.fullmatch(r"pixel\[y,x,c\] = (.*), uint8", formula)[1]
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    channels = [eval(expression, {"__builtins__": {}}, {"x": x, "y": y, "c": c}) for c in range(3)]
    return np.stack(channels, -1).astype(np.uint8)


def test_golden_big_letterbox_by_pillow_and_by_torchvision(golden):
    case = golden("case08_transforms")
    for name, facts in case.meta["big"].items():
        image = Image.fromarray(pattern(case.meta["pattern_formula"], facts["w"], facts["h"]))
        exact = T.letterbox(image, facts["size"])
        result = normalized(exact, case.meta["config"])
        note = case.meta["keys"][f"out/{name}/subsample"]["description"]
        top, down, left, across = map(
            int, re.search(r"\[:, (\d+)::(\d+), (\d+)::(\d+)\]", note).groups()
        )
        sample = result[:, top::down, left::across]
        torch.testing.assert_close(sample, case.tensor(f"out/{name}/subsample"), atol=5e-6, rtol=0)
        step = int(
            re.search(r"\[:, ::(\d+)\]", case.meta["keys"][f"out/{name}/row_sums"]["description"])[
                1
            ]
        )
        rows = result.double().sum(-1)[:, ::step]
        torch.testing.assert_close(rows, case.tensor(f"out/{name}/row_sums"), atol=1e-2, rtol=0)
        assert_near_pillow(T.letterbox(pixels(image), facts["size"]), exact)
        assert T.longest_side_size(facts["h"], facts["w"], facts["size"]) == tuple(
            facts["content_hw"]
        )


def test_golden_masks_with_and_without_antialias(golden):
    case = golden("case08_transforms")
    names = sorted(k.split("/")[1] for k in case.arrays if k.startswith("in/mask"))
    assert names
    for name in names:
        mask = case.tensor(f"in/{name}")
        for antialias in (True, False):
            expected = case.tensor(f"out/{name}/resized_antialias_{str(antialias).lower()}")
            result = T.letterbox(mask.float(), expected.shape[-1], antialias=antialias)
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
            grid = masks_to_grid(mask, expected.shape[-1], antialias=antialias)
            assert torch.equal(grid, (expected > 0).to(torch.uint8))


@pytest.mark.parametrize("size", [(73, 97), (130, 40), (9, 120), (1, 500), (64, 64)])
def test_tensor_path_is_within_one_grey_level_of_pillow(size):
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    tensor = pixels(image)
    for transform in (T.letterbox, T.letterbox_centred, T.center_crop):
        assert_near_pillow(transform(tensor, 48), transform(image, 48))
    window = (0.4, 0.6, size[1] - 0.4, size[0] - 0.2)
    assert_near_pillow(
        T.crop_resize(tensor, window, (20, 30)), T.crop_resize(image, window, (20, 30))
    )


def test_letterboxed_photographs_are_within_one_grey_level_of_pillow(coco_cc):
    for path in sorted((coco_cc / "val2017").glob("*.jpg"))[:6]:
        image = Image.open(path).convert("RGB")
        assert_near_pillow(T.letterbox(pixels(image), 1024), T.letterbox(image, 1024))


def test_crop_window_stays_inside_and_keeps_area_and_ratio():
    rng = random.Random(0)
    for height, width in [(480, 640), (100, 100), (90, 100)]:
        for _ in range(200):
            left, top, right, bottom = T.sample_crop_window(
                (height, width), rng, scale=(0.3, 0.6), ratio=(0.5, 2.0)
            )
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            share = (right - left) * (bottom - top) / (height * width)
            assert 0.27 < share < 0.63
            assert 0.48 < (right - left) / (bottom - top) < 2.1


def test_crop_window_of_a_thin_image_is_central_and_legal():
    assert T.sample_crop_window((9, 120), random.Random(0)) == (54, 0, 66, 9)
    assert T.sample_crop_window((120, 9), random.Random(0)) == (0, 54, 9, 66)
    assert T.sample_crop_window((1, 1), random.Random(0)) == (0, 0, 1, 1)
