"""The region loaders on photographs and official annotations, where there are any (see the fixture
`coco_cc`)."""

import json

import numpy as np
import pytest
import torch
from clim_data import BoxLoader, CropLoader, DetectionLoader
from clim_data.pixels.decode import decode_rgb
from clim_data.pixels.segmentations import decode_segmentation
from clim_data.pixels.transforms import crop, letterbox, letterbox_centred
from clim_data.streams import StreamOptions, ViewRules
from PIL import Image


def test_crops_of_a_folder_of_photographs(coco_cc):
    folder = coco_cc / "val2017"
    names = sorted(path.name for path in folder.glob("*.jpg"))
    # 640 px is the longest side of these photographs, so none is decoded smaller than it is.
    loader = CropLoader(folder, batch_size=4, image_px=640, crop_px=48, seed=1)
    seen, differing, total = [], 0, 0
    for batch in loader:
        seen += batch.keys
        if len(seen) > 8:
            continue  # enough was compared
        crops = batch.crops.split([len(boxes) for boxes in batch.boxes])
        for key, image, boxes, cut in zip(
            batch.keys, batch.images, batch.boxes, crops, strict=True
        ):
            whole = decode_rgb(folder / key)
            side = max(whole.shape[1:])
            assert torch.equal(image, letterbox(whole, 640))
            for box, one in zip(boxes.double() * side, cut, strict=True):
                # Half a pixel of a cell's edge may be rounded otherwise; nearly none of them are.
                single = letterbox_centred(crop(whole, box.tolist()), 48)
                differing += not torch.equal(one, single)
                total += 1
    assert sorted(seen) == names
    assert total > 20
    assert differing < total / 10
    assert loader.skipped.total == 0


def test_proposals_and_labelled_boxes_of_photographs(coco_cc):
    path = coco_cc / "annotations" / "instances_val2017.json"
    record = json.loads(path.read_text())
    name_of = {c["id"]: c["name"] for c in record["categories"]}
    stated = {}
    for image in record["images"]:
        rows = [
            a
            for a in record["annotations"]
            if a["image_id"] == image["id"] and not a.get("iscrowd")
        ]
        stated[image["file_name"]] = (max(image["height"], image["width"]), rows)
    loader = BoxLoader(coco_cc / "val2017", batch_size=3, image_px=160, boxes=path, max_boxes=200)
    found = {}
    for batch in loader:
        labels = batch.labels.split([len(boxes) for boxes in batch.boxes])
        for key, boxes, label in zip(batch.keys, batch.boxes, labels, strict=True):
            side, rows = stated[key]
            assert [loader.class_names[i] for i in label] == [
                name_of[a["category_id"]] for a in rows
            ]
            x, y, w, h = torch.tensor([a["bbox"] for a in rows]).T
            expected = torch.stack([x, y, x + w, y + h], dim=1) / side
            torch.testing.assert_close(boxes, expected, atol=2e-3, rtol=0)  # clipped to the image
            found[key] = len(boxes)
    assert found == {name: len(rows) for name, (_, rows) in stated.items() if rows}
    proposals = CropLoader(coco_cc / "val2017", batch_size=3, image_px=160, crop_px=32, boxes=path)
    assert sum(len(batch) for batch in proposals) == proposals.num_samples >= 1
    assert set(proposals.skipped.counts) <= {"no usable box"}


def test_masks_of_an_official_lvis_file(coco_cc, tmp_path):
    path = coco_cc.parent / "lvis_val_100" / "lvis_v0.5_val_100.json"
    if not path.is_file():
        pytest.skip(f"no LVIS annotations at {path}")
    record = json.loads(path.read_text())
    # Its photographs are not free: blank images of their sizes stand in for them.
    for image in record["images"]:
        name = tmp_path / image["file_name"]
        Image.new("L", (image["width"], image["height"])).save(name, compress_level=1)

    rules = ViewRules(masks=True, frequencies=("f", "c"), repeat_below=0.02)
    stream = StreamOptions(batch_size=8)
    loader = DetectionLoader(tmp_path, image_px=64, boxes=path, rules=rules, stream=stream)
    assert len(loader.class_names) == 1230
    rare = {c["name"] for c in record["categories"] if c["frequency"] == "r"}
    assert not rare & set(loader.trained_names)
    assert loader.num_samples > len(loader._batches.build.table) > 90

    # The masks of an image, from polygons, are those that are drawn for evaluation.
    table = loader._batches.build.table
    frequent = {c["id"] for c in record["categories"] if c["frequency"] != "r"}
    compared = 0
    for row, (image_id, _) in enumerate(table.images):
        height, width = table.sizes[row].tolist()
        own = [a for a in record["annotations"] if a["image_id"] == image_id]
        own = [a for a in own if a["category_id"] in frequent and min(a["bbox"][2:]) >= 1]
        masks = table.masks_of_image(row)
        assert len(masks) == len(own)
        for mask, annotation in zip(masks, own, strict=True):
            expected = decode_segmentation(annotation["segmentation"], height, width)
            left, top, right, bottom = mask.box
            assert np.array_equal(mask.pixels, expected[top:bottom, left:right])
            assert mask.pixels.sum() == expected.sum()
            compared += 1
    assert compared > 500
    assert sum(len(batch) for batch in loader) == loader.num_samples
