"""Images of an annotation file, in the frame of its boxes."""

import pytest
from clim_data import BrokenSample
from clim_data.annotations import CocoRecords
from clim_data.readers import AnnotatedImages, OpenedImage
from PIL import Image

CONTENTS = {
    "images": [
        {"id": 4, "file_name": "turned.jpg", "width": 40, "height": 30},
        {"id": 2, "file_name": "other.png", "width": 30, "height": 40},
        {"id": 3, "file_name": "missing.png", "width": 30, "height": 40},
    ],
    "annotations": [{"id": 1, "image_id": 4, "category_id": 1, "bbox": [1, 1, 9, 9]}],
    "categories": [{"id": 1, "name": "cat"}],
}


def test_images_are_opened_as_stored_and_others_say_why_not(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=turned)
    Image.new("RGB", (40, 30)).save(tmp_path / "other.png")
    records = CocoRecords.of(CONTENTS, "boxes.json")

    images = AnnotatedImages(tmp_path, list(records.images.values()))

    assert len(images) == 3
    first = images[0]
    assert isinstance(first, OpenedImage)
    assert (first.image_id, first.name, first.image.size) == (4, "turned.jpg", (40, 30))
    assert first.warning.reason == "EXIF orientation"
    faults = [images[1], images[2]]
    assert all(isinstance(fault, BrokenSample) for fault in faults)
    assert [fault.reason for fault in faults] == ["size mismatch", "missing image"]
    with pytest.raises(FileNotFoundError, match="give the folder"):
        AnnotatedImages(tmp_path / "no", [])
