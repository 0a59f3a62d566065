"""Image geometry of every family: pixels and padding records of the original processors, masks that
follow."""

import json

import numpy as np
import pytest
import torch
from flmm.adapters.frames import ImageFrame
from flmm.adapters.preparers import AnyResolutionTiles, HybridSquare, PadToSquare
from golden_pixels import same_pillow
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaNextImageProcessorPil

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def golden_folder(golden):
    return golden("demo/text_logic", "flmm").folder


def picture(height: int, width: int) -> Image.Image:
    """A smooth picture, the same for the same size."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * 0.05 * k + y * 0.03 + k) for k in (1, 2, 3)]
    return Image.fromarray(((np.stack(waves, -1) * 0.45 + 0.5) * 255).astype(np.uint8))


def preparer(family: str, meta: dict):
    """Ours for the processor of a sidecar."""
    size = meta["T"]
    if family == "llava_next":
        return AnyResolutionTiles(
            size, CLIP_MEAN, CLIP_STD, [tuple(p) for p in meta["grid_pinpoints"]]
        )
    if family == "mgm":
        return PadToSquare(None, CLIP_MEAN, CLIP_STD)
    if family == "deepseek":
        return PadToSquare(size, HALF, HALF, scale_first=True, least_px=14)
    return PadToSquare(size, *((HALF, HALF) if family == "hpt15" else (CLIP_MEAN, CLIP_STD)))


def cases(folder):
    return sorted(path.stem for path in folder.glob("*.json"))


def record(frame: ImageFrame) -> dict:
    """The frame in the words of the sidecars."""
    (height, width), (tall, wide) = frame.content_size, frame.padded_size
    return {
        "padding": {
            "before_height": frame.top,
            "after_height": tall - height - frame.top,
            "before_width": frame.left,
            "after_width": wide - width - frame.left,
        },
        "image_shape": {"height": height, "width": width},
        "padded_shape": {"height": tall, "width": wide},
    }


@same_pillow
def test_golden_processors_pixels_and_frames(golden_folder):
    seen = set()
    for name in cases(golden_folder / "processors"):
        meta = json.loads((golden_folder / "processors" / f"{name}.json").read_text())
        arrays = np.load(golden_folder / "processors" / f"{name}.npz")
        family = name.rpartition("_T")[0]
        prepare = preparer(family, meta)
        seen.add(family)
        for i, result in enumerate(meta["results"]):
            image = Image.open(golden_folder / "data" / "images" / result["image"])
            if family == "mgm":
                canvas, frame = prepare.padded(image)
                assert np.array_equal(np.asarray(canvas), arrays[f"pixel_values_{i}"])
            else:
                prepared = prepare(image)
                frame = prepared.frame
                expected = torch.from_numpy(arrays[f"pixel_values_{i}"])
                torch.testing.assert_close(prepared.pixel_values, expected, atol=2e-6, rtol=0)
            assert list(frame.image_size) == result["image_sizes"]
            theirs = result["meta_data"]
            assert record(frame) == {key: theirs[key] for key in record(frame)}
            if "grid_shape" in theirs:
                rows, columns = (edge // meta["T"] for edge in frame.padded_size)
                assert {"height": rows, "width": columns} == theirs["grid_shape"]
    assert seen


def test_a_model_folders_processor_decides_size_and_colours():
    clip = CLIPImageProcessorPil(
        size={"shortest_edge": 56}, image_mean=list(HALF), image_std=[0.25, 0.5, 1.0]
    )
    square = PadToSquare.of_processor(clip)
    assert (square.size, square.mean, square.std) == (56, HALF, (0.25, 0.5, 1.0))
    assert square.colour == (127, 127, 127)
    with pytest.raises(ValueError, match="not a square"):
        PadToSquare.of_processor(CLIPImageProcessorPil(size={"height": 56, "width": 28}))
    with pytest.raises(ValueError, match="not bicubic"):
        PadToSquare.of_processor(
            CLIPImageProcessorPil(size={"height": 56, "width": 56}, resample=2)
        )


@pytest.mark.parametrize("size", [(150, 200), (97, 131), (64, 21), (31, 400)])
def test_tiles_are_those_of_transformers(size):
    points = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
    theirs = LlavaNextImageProcessorPil(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=points,
    )
    image = picture(*size)
    ours = AnyResolutionTiles.of_processor(theirs)(image)
    expected = theirs(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(ours.pixel_values, expected, atol=2e-6, rtol=0)


def test_hybrid_shows_both_towers_the_same_square():
    image = picture(60, 90)
    prepared = HybridSquare(PadToSquare(96, None, None), 32, HALF, HALF)(image)
    fine, coarse = prepared.inputs["high_res_pixel_values"], prepared.pixel_values
    assert (fine.shape, coarse.shape) == ((3, 96, 96), (3, 32, 32))
    assert fine[:, 0, 0].tolist() == pytest.approx([127 / 255] * 3)
    assert coarse[:, 0, 0].tolist() == pytest.approx([2 * 127 / 255 - 1] * 3, abs=1e-6)
    assert prepared.frame == ImageFrame((60, 90), (64, 96), (96, 96), 16, 0)
    mean = fine.unflatten(1, (32, 3)).unflatten(3, (32, 3)).mean((2, 4))
    assert (coarse - (2 * mean - 1)).abs()[:, 7:25].max() < 0.1


def test_cropping_a_map_follows_the_content():
    frame = ImageFrame.centred((150, 199), (253, 336), (336, 336))
    assert (frame.top, frame.left) == (41, 0)
    # 41 / 336 * 24 = 2.93 is truncated, 253 / 336 * 24 = 18.07 rounded.
    assert frame.window((24, 24)) == (2, 0, 18, 24)
    maps = torch.arange(2 * 24 * 24).view(2, 24, 24)
    assert torch.equal(frame.crop(maps), maps[:, 2:20])
    whole = ImageFrame.whole((30, 50))
    assert torch.equal(whole.crop(maps), maps)


def test_masks_are_resized_by_nearest_neighbour():
    masks = torch.zeros(1, 4, 6, dtype=torch.uint8)
    masks[0, 1:3, 2:5] = 1
    frame = ImageFrame((4, 6), (2, 3), (3, 3))
    assert frame.resize_masks(masks).tolist() == [[[0, 0, 0], [0, 1, 1]]]
    assert frame.resize_masks(masks).dtype == torch.uint8
    assert ImageFrame.whole((4, 6)).resize_masks(masks) is masks


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="at least 1 pixel"):
        PadToSquare(0, None, None)
    with pytest.raises(ValueError, match="three numbers each"):
        PadToSquare(8, HALF, None)
    with pytest.raises(ValueError, match="multiples of the tile side 8"):
        AnyResolutionTiles(8, HALF, HALF, [(8, 12)])
    thin = PadToSquare(64, None, None, scale_first=True, least_px=14).frame(5, 500)
    assert thin.content_size == (14, 64)
