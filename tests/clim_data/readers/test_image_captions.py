import json

import pytest
import torch
from clim_data import ImageCaptions


@pytest.fixture
def folder(tmp_path, images):
    for i in (1, 2, 3):
        (tmp_path / f"{i}.jpg").write_bytes(images.encoded(images.pixels(i, 40 + 10 * i, 60)))
    return tmp_path


def coco(folder, captions):
    annotations = [{"id": k, "image_id": i, "caption": c} for k, (i, c) in enumerate(captions)]
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2, 3)]
    path = folder / "captions.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_all_captions_of_an_image_with_its_central_square(folder):
    data = ImageCaptions(folder, coco(folder, [(1, "a"), (2, "b"), (1, " c "), (3, "d")]), 32)
    assert [(s.captions, s.image_id) for s in data] == [(["a", "c"], 1), (["b"], 2), (["d"], 3)]
    image, _, _ = data[0]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.uint8
    exact = ImageCaptions(folder, folder / "captions.json", 32, resize="pil")[0].image
    assert (exact.int() - image.int()).abs().max() <= 1


def test_cc3m_layout(folder):
    record = {"images": [{"id": 7, "file_name": "2.jpg", "captions": ["x", "y"]}]}
    (folder / "cc3m.json").write_text(json.dumps(record))
    assert ImageCaptions(folder, folder / "cc3m.json", 16)[0][1:] == (["x", "y"], 7)


def test_broken_images_and_empty_captions_are_named(folder):
    path = coco(folder, [(1, "a"), (2, "  "), (3, "d")])
    (folder / "3.jpg").write_bytes((folder / "3.jpg").read_bytes()[:400])
    data = ImageCaptions(folder, path, 32)
    assert [s.captions for s in data] == [["a"], []]
    assert data.skipped.counts == {"empty caption": 1, "unreadable image": 1}
    (folder / "3.jpg").unlink()
    assert len(ImageCaptions(folder, path, 32)) == 1
    with pytest.raises(ValueError, match="empty caption"):
        ImageCaptions(folder, path, 32, on_error="raise")


def test_names_that_leave_the_folder_are_refused(folder):
    (folder / "inner").mkdir()
    record = {"images": [{"id": 1, "file_name": "../1.jpg", "captions": ["x"]}]}
    (folder / "c.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="path outside the folder"):
        ImageCaptions(folder / "inner", folder / "c.json", 16, on_error="raise")
    with pytest.raises(ValueError, match="names no image"):
        ImageCaptions(folder / "inner", folder / "c.json", 16)


def test_wrong_files_name_the_fix(folder):
    (folder / "plain.json").write_text(json.dumps({"images": [{"id": 1}]}))
    with pytest.raises(ValueError, match="neither"):
        ImageCaptions(folder, folder / "plain.json", 16)
    (folder / "list.json").write_text("[]")
    with pytest.raises(ValueError, match='no list "images"'):
        ImageCaptions(folder, folder / "list.json", 16)


def test_photographs(coco_cc):
    data = ImageCaptions(coco_cc / "val2017", coco_cc / "annotations" / "captions_val2017.json", 64)
    assert all(len(captions) >= 5 for _, captions, _ in data)
    assert not data.skipped.total
