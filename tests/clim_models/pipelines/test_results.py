"""Results as COCO, as supervision's Detections and as drawings."""

import json

import numpy as np
import pytest
from clim_data.pixels import encode_mask as pycocotools_encode
from clim_models.pipelines import DenseResult, PictureResult, RegionResult, coco_of_results
from clim_models.pipelines.run_lengths import encode_mask
from PIL import Image

SIZE = (40, 60)


def mask_of(box):
    mask = np.zeros(SIZE, dtype=bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


def result(masks=True, **changes):
    box, other = (10, 5, 30, 25), (0, 0, 60, 40)
    regions = (
        RegionResult("cat", 0.75, box, 0, mask_of(box) if masks else None),
        RegionResult(None, 0.5, other, -1, mask_of((0, 0, 2, 40)) if masks else None),
        RegionResult("dog", 0.25, other, 1, mask_of(other) if masks else None),
    )
    picture = np.full((*SIZE, 3), 128, dtype=np.uint8)
    values = {"labels": ("cat", "dog"), "size": SIZE, "name": "a.jpg", "source": picture}
    return PictureResult(regions, **{**values, **changes})


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_are_those_of_pycocotools(seed):
    generator = np.random.default_rng(seed)
    masks = [generator.random((37, 53)) < share for share in (0, 0.01, 0.5, 1)]
    blob = np.zeros((500, 700), dtype=bool)
    blob[100:400, 50 + seed : 600] = True
    for mask in [*masks, blob]:
        assert encode_mask(mask) == pycocotools_encode(mask)


def test_a_result_is_the_sequence_of_its_regions():
    found = result()
    assert len(found) == 3
    assert [region.label for region in found] == ["cat", None, "dog"]
    assert found[0].box == (10, 5, 30, 25)
    assert found == result(masks=False)


def test_coco_has_boxes_in_its_own_order_and_leaves_out_what_has_no_label():
    tables = result().to_coco(image_id=7)
    json.dumps(tables)
    assert tables["images"] == [{"id": 7, "file_name": "a.jpg", "width": 60, "height": 40}]
    assert tables["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    cat, dog = tables["annotations"]
    assert cat["bbox"] == [10, 5, 20, 20]
    assert cat["area"] == 400
    assert cat["score"] == 0.75
    assert (dog["category_id"], dog["image_id"], dog["id"]) == (2, 7, 2)
    assert cat["segmentation"] == pycocotools_encode(mask_of((10, 5, 30, 25)))


def test_several_pictures_share_one_coco_json():
    tables = coco_of_results([result(masks=False), result(masks=False, name="b.jpg")])
    assert [image["id"] for image in tables["images"]] == [1, 2]
    assert [one["image_id"] for one in tables["annotations"]] == [1, 1, 2, 2]
    assert [one["id"] for one in tables["annotations"]] == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="different labels"):
        coco_of_results([result(), result(labels=("cat", "cow"))])
    assert coco_of_results([]) == {"images": [], "categories": [], "annotations": []}


@pytest.mark.parametrize("compact", [False, True])
def test_supervision_gets_boxes_names_and_masks(compact):
    pytest.importorskip("supervision", reason="an optional library")
    found = result().to_supervision(compact=compact)
    assert found.xyxy.tolist()[0] == [10, 5, 30, 25]
    assert found.class_id.tolist() == [0, -1, 1]
    assert found.data["class_name"].tolist() == ["cat", "", "dog"]
    np.testing.assert_allclose(found.confidence, [0.75, 0.5, 0.25])
    masks = np.stack([region.mask for region in result()])
    assert np.array_equal(np.asarray(found.mask), masks)


def test_supervision_keeps_masks_that_reach_beyond_their_box():
    pytest.importorskip("supervision", reason="an optional library")
    region = RegionResult("cat", 1.0, (0, 0, 5, 5), 0, mask_of((20, 20, 50, 35)))
    one = PictureResult((region,), ("cat",), SIZE, "a", b"")
    assert np.array_equal(np.asarray(one.to_supervision().mask)[0], region.mask)
    empty = PictureResult((), ("cat",), SIZE, "a", b"").to_supervision()
    assert len(empty) == 0
    assert empty.mask is None


def test_a_drawing_shows_every_region(tmp_path):
    drawn = np.asarray(result().plot(tmp_path / "out" / "a.png"))
    times = drawn.shape[0] // SIZE[0]
    assert times > 1  # of so small a picture nothing could be read
    assert drawn.shape == (times * SIZE[0], times * SIZE[1], 3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), drawn)
    inside = drawn[15 * times : 20 * times, 22 * times : 28 * times].reshape(-1, 3)
    # The cat's blue lies over the dog's mask.
    assert (inside[:, 2] > inside[:, 0]).all()
    with pytest.raises(ValueError, match="end it with"):
        result().plot(tmp_path / "a.txt")


def test_boxes_without_extent_are_drawn():
    region = RegionResult("зонт", 1.0, (5.0, 0.0, 5.0, 3.0), 0)
    PictureResult((region,), ("зонт",), SIZE, "a", np.zeros((*SIZE, 3), np.uint8)).plot()


def test_maps_are_drawn_on_one_scale_with_their_peaks():
    maps = np.zeros((2, 4, 6), dtype=np.float32)
    maps[0, 1, 2] = 1
    picture = np.full((*SIZE, 3), 128, dtype=np.uint8)
    found = DenseResult(
        (), ("cat", "dog"), SIZE, "a", picture, maps=maps, peaks=((25.0, 15.0), (5.0, 5.0))
    )
    drawn = np.asarray(found.plot(), dtype=int)
    times = 480 // SIZE[1]  # small pictures are enlarged
    left, right = drawn[22:, :480], drawn[22:, 486:]
    warm = left[..., 0] - left[..., 2]
    y, x = np.unravel_index(warm.argmax(), warm.shape)
    assert abs(x / times - 25) < 10
    assert abs(y / times - 15) < 10
    # The second map is low everywhere: its panel stays grey.
    assert (right[..., 0] - right[..., 2]).max() < 10
