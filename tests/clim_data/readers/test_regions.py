import json

import numpy as np
import pytest
import torch
from clim_data import InstanceRegions, PanopticRegions
from clim_data.pixels.crops import crop_window
from clim_data.pixels.segmentations import decode_segmentation
from golden_pixels import same_pillow
from PIL import Image
from pycocotools import mask as coco_mask


def normalized(image, config):
    mean, std = (torch.tensor(config[k])[:, None, None] for k in ("mean", "std"))
    return (image.float() / 255 - mean) / std


def golden_readers(case, **options):
    config = case.meta["config"]
    data = case.folder / "case07_data"
    shared = {
        "image_px": config["det_image_size"],
        "stride": config["downsample_factor"],
        "crop_px": config["crop_size"],
        "resize": "pil",
    }
    return PanopticRegions(
        data / "images", data / "panoptic.json", data / "panoptic", **{**shared, **options}
    )


@same_pillow
@pytest.mark.parametrize("antialias", [True, False])
def test_golden_panoptic_items(golden, antialias):
    case = golden("case07_panoptic")
    config = case.meta["config"]
    data = golden_readers(case, antialias=antialias, stuff_box="inclusive", max_regions=100)
    assert [image.id for image in data.images] == case.meta["image_ids"]
    assert data.label_of == {int(k): v for k, v in case.meta["cat_id2label"].items()}
    for i in range(len(data)):
        sample = data[i]
        rows = case.tensor(f"out/item{i}/boxes")
        valid = rows[:, 5] > 0
        rows = rows[valid]
        assert sample.image_id == case.meta["image_ids"][i]
        torch.testing.assert_close(
            normalized(sample.image, config), case.tensor(f"out/item{i}/image"), atol=5e-6, rtol=0
        )
        torch.testing.assert_close(sample.boxes, rows[:, :4], atol=1e-6, rtol=0)
        assert torch.equal(sample.labels, rows[:, 4].long())
        torch.testing.assert_close(sample.areas, rows[:, 6])
        assert torch.equal(sample.is_thing, rows[:, 7] > 0)
        masks = case.tensor(f"out/item{i}/gt_masks" + ("" if antialias else "_no_antialias"))[valid]
        assert torch.equal(sample.masks.float(), masks)
        crops = case.tensor(f"out/item{i}/image_crops")[valid]
        torch.testing.assert_close(normalized(sample.crops, config), crops, atol=5e-6, rtol=0)
        pixels = np.asarray(Image.open(data.images_dir / data.images[i].name).convert("RGB"))
        stored = case.arrays[f"in/item{i}/decoded_pixels"]
        assert np.abs(pixels.astype(int) - stored).max() <= 1
        windows = [
            crop_window(tuple(box), pixels.shape[:2], 1.5 if thing else 1.0)
            for box, thing in zip(
                (sample.boxes.double() * max(pixels.shape)).tolist(), sample.is_thing
            )
        ]
        np.testing.assert_allclose(windows, case.arrays[f"out/item{i}/crop_windows"], atol=1e-4)


def test_golden_items_by_the_fast_path_differ_by_rounding_only(golden):
    case = golden("case07_panoptic")
    for exact, fast in zip(golden_readers(case), golden_readers(case, resize="torch"), strict=True):
        assert torch.equal(exact.boxes, fast.boxes)
        assert torch.equal(exact.masks, fast.masks)
        for a, b in ((exact.image, fast.image), (exact.crops, fast.crops)):
            difference = (a.int() - b.int()).abs()
            assert difference.max() <= 2
            assert (difference > 1).float().mean() < 1e-3


def test_golden_stuff_boxes_hold_every_pixel_by_default(golden):
    case = golden("case07_panoptic")
    short, exact = golden_readers(case, stuff_box="inclusive"), golden_readers(case)
    for before, after in zip(short, exact, strict=True):
        for box, thing, label in zip(before.boxes, before.is_thing, before.labels):
            same_label = after.boxes[(after.labels == label) & (after.is_thing == thing)]
            if thing:
                assert any(torch.equal(box, other) for other in same_label)
            else:
                assert any(
                    torch.equal(box[:2], o[:2]) and torch.all(o[2:] > box[2:]) for o in same_label
                )


def test_golden_instance_boxes_and_windows(golden):
    case = golden("case05_datasets")
    data = case.folder / "case07_data"
    size = case.meta["config"]["det_image_size"]
    reader = InstanceRegions(
        data / "images",
        data / "instances.json",
        image_px=size,
        stride=1,
        crop_px=32,
        resize="pil",
        masks=False,
    )
    for i in range(len(reader)):
        if f"in/proposals/item{i}/order" not in case.arrays:
            continue
        rows = case.tensor(f"out/proposals/item{i}/boxes")
        order = case.arrays[f"in/proposals/item{i}/order"]
        shown = order[: len(rows)]
        in_file_order = rows[: len(shown)][np.argsort(shown)]
        expected = in_file_order[in_file_order[:, 4] > 0, :4]
        boxes = reader[i].boxes
        if len(shown) < len(order):  # the reference left out some: ours has those as well
            nearest = (boxes[None] - expected[:, None]).abs().amax(-1).argmin(1)
            assert (nearest.diff() > 0).all()
            boxes = boxes[nearest]
        torch.testing.assert_close(boxes, expected, atol=1e-6, rtol=0)
        assert reader[i].masks is None


def coco_folder(tmp_path, images):
    """Two images with instances, polygons, both RLE kinds, a crowd and LVIS-style names."""
    folder = tmp_path / "train2017"
    folder.mkdir()
    for i in (1, 2):
        (folder / f"{i}.jpg").write_bytes(images.encoded(images.pixels(i, 40, 60)))
    disc = np.zeros((40, 60), dtype=np.uint8)
    disc[5:25, 10:50] = 1
    packed = coco_mask.encode(np.asfortranarray(disc))
    compressed = {"size": packed["size"], "counts": packed["counts"].decode()}
    flat = disc.flatten(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat])) != 0)
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    polygon = [[10, 5, 50, 5, 50, 25, 10, 25]]
    shared = {"bbox": [10, 5, 40, 20], "iscrowd": 0}
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 9, "segmentation": polygon, **shared},
        {"id": 2, "image_id": 1, "category_id": 4, "segmentation": compressed, **shared},
        {
            "id": 3,
            "image_id": 2,
            "category_id": 4,
            "segmentation": {"size": [40, 60], "counts": counts},
            **shared,
        },
        {"id": 4, "image_id": 2, "category_id": 9, "segmentation": polygon, **shared, "iscrowd": 1},
        {
            "id": 5,
            "image_id": 2,
            "category_id": 9,
            "segmentation": polygon,
            **shared,
            "bbox": [0, 0, 7, 9],
        },
    ]
    record = {
        "images": [
            {"id": i, "coco_url": f"http://images.cocodataset.org/train2017/{i}.jpg"}
            for i in (1, 2)
        ],
        "annotations": annotations,
        "categories": [{"id": 9, "name": "nine"}, {"id": 4, "name": "four"}],
    }
    (tmp_path / "lvis.json").write_text(json.dumps(record))
    return disc


def test_instances_of_every_segmentation_kind(tmp_path, images):
    disc = coco_folder(tmp_path, images)
    for folder in (tmp_path, tmp_path / "train2017"):
        data = InstanceRegions(folder, tmp_path / "lvis.json", image_px=60, stride=1, crop_px=16)
        assert data.class_names == ["four", "nine"]
        assert data.class_is_thing == [True, True]
        first, second = data
        assert first.labels.tolist() == [1, 0]
        assert second.labels.tolist() == [0, 1]
        for mask in (*first.masks, *second.masks):
            assert torch.equal(mask[:40], torch.from_numpy(disc))
            assert not mask[40:].any()
        assert torch.allclose(first.boxes[0] * 60, torch.tensor([10.0, 5, 50, 25]))
        assert first.areas.tolist() == [800, 800]
        assert first.crops.shape == (2, 3, 16, 16)
    assert data[1].labels.tolist() == [0, 1]
    without = InstanceRegions(tmp_path, tmp_path / "lvis.json", image_px=60, stride=1, crowd="skip")
    assert without[1].labels.tolist() == [0]
    assert without[1].crops is None
    assert (
        len(
            InstanceRegions(tmp_path, tmp_path / "lvis.json", image_px=60, stride=1, max_regions=1)[
                0
            ].labels
        )
        == 1
    )


@pytest.mark.parametrize(
    "segmentation", [{"size": [48, 64], "counts": [48 * 64]}, [[70.0, 2, 90, 2, 90, 30]]]
)
def test_a_mask_without_a_pixel_is_left_out(tmp_path, images, segmentation):
    (tmp_path / "1.jpg").write_bytes(images.encoded(images.pixels(1, 48, 64)))
    whole = [[2.0, 2, 40, 2, 40, 40, 2, 40]]
    boxes = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": [2, 2, 38, 38], "segmentation": one}
        for n, one in enumerate((whole, segmentation))
    ]
    record = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 48, "width": 64}],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "i.json").write_text(json.dumps(record))
    data = InstanceRegions(tmp_path, tmp_path / "i.json", image_px=64, stride=16)
    assert len(data[0].labels) == 1
    assert data.skipped.names == {"empty segmentation": ["i.json, annotation 2 (id 1)"]}


def test_broken_image_gives_an_empty_item_or_raises(tmp_path, images):
    coco_folder(tmp_path, images)
    path = tmp_path / "train2017" / "1.jpg"
    path.write_bytes(path.read_bytes()[:300])
    (tmp_path / "train2017" / "2.jpg").unlink()
    data = InstanceRegions(tmp_path, tmp_path / "lvis.json", image_px=60, stride=4, crop_px=8)
    for i, reason in enumerate(["unreadable image", "missing image"]):
        sample = data[i]
        assert reason in sample.error
        assert sample.image.shape == (3, 60, 60)
        assert not sample.image.any()
        assert sample.boxes.shape == (0, 4)
        assert sample.masks.shape == (0, 15, 15)
        assert sample.crops.shape == (0, 3, 8, 8)
    assert data.skipped.counts == {"unreadable image": 1, "missing image": 1}
    strict = InstanceRegions(
        tmp_path, tmp_path / "lvis.json", image_px=60, stride=4, on_error="raise"
    )
    with pytest.raises(ValueError, match=r"1\.jpg: unreadable image"):
        strict[0]


def test_malformed_segmentation_is_named():
    with pytest.raises(ValueError, match="bad segmentation"):
        decode_segmentation([[1, 2]], 10, 10)
    with pytest.raises(ValueError, match="size mismatch"):
        decode_segmentation({"size": [4, 4], "counts": "`0"}, 10, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_px": 50, "stride": 16}, "image_px=50 must be a positive multiple of stride=16"),
        ({"crop_px": 0}, "crop_px=0"),
        ({"resize": "cv2"}, "resize='cv2'"),
        ({"crowd": "drop"}, "crowd='drop'"),
        ({"on_error": "no"}, "on_error='no'"),
    ],
)
def test_bad_options_are_rejected(tmp_path, images, options, message):
    coco_folder(tmp_path, images)
    with pytest.raises(ValueError) as caught:
        InstanceRegions(
            tmp_path, tmp_path / "lvis.json", **{"image_px": 64, "stride": 16, **options}
        )
    assert message in str(caught.value)


def test_missing_segmentations_and_files_name_the_fix(tmp_path, images):
    coco_folder(tmp_path, images)
    record = json.loads((tmp_path / "lvis.json").read_text())
    for annotation in record["annotations"]:
        del annotation["segmentation"]
    (tmp_path / "boxes.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"ask for boxes only .*masks=False"):
        InstanceRegions(tmp_path, tmp_path / "boxes.json", image_px=64, stride=16)
    (tmp_path / "cut.json").write_text(json.dumps(record)[:100])
    with pytest.raises(ValueError, match="not valid json"):
        InstanceRegions(tmp_path, tmp_path / "cut.json", image_px=64, stride=16)
    with pytest.raises(FileNotFoundError, match="clim-data doctor"):
        InstanceRegions(tmp_path, tmp_path / "none.json", image_px=64, stride=16)
    with pytest.raises(FileNotFoundError, match="no image folder"):
        InstanceRegions(tmp_path / "nowhere", tmp_path / "lvis.json", image_px=64, stride=16)


def test_panoptic_png_of_another_size_or_missing_is_named(tmp_path, golden):
    case = golden("case07_panoptic")
    data = golden_readers(case)
    other = PanopticRegions(
        data.images_dir,
        case.folder / "case07_data" / "panoptic.json",
        tmp_path,
        image_px=96,
        stride=16,
    )
    name = other.records.annotations[data.keys[0]].png
    Image.new("RGB", (5, 5)).save(tmp_path / name)
    assert "size mismatch" in other[0].error
    assert "missing image" in other[1].error


def test_photographs_of_both_kinds(coco_cc):
    notes = coco_cc / "annotations"
    panoptic = PanopticRegions(
        coco_cc / "val2017",
        notes / "panoptic_val2017.json",
        notes / "panoptic_val2017",
        image_px=224,
        stride=16,
        crop_px=64,
    )
    sample = panoptic[0]
    assert len(sample.labels) == len(sample.masks) == len(sample.crops) > 0
    assert sample.masks.flatten(1).any(dim=1).all()
    assert sample.boxes.min() >= 0
    assert sample.boxes.max() <= 1
    instances = InstanceRegions(
        coco_cc / "val2017", notes / "instances_val2017.json", image_px=224, stride=16
    )
    found = instances[0]
    assert len(found.labels) == len(found.masks) > 0
    assert not panoptic.skipped.total
    assert not instances.skipped.total
