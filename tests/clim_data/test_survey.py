import json

import pytest
from clim_data.commands.main import main
from clim_data.survey import survey_folder


@pytest.fixture
def photos(tmp_path, images):
    """Three images, two with a caption, the second the smallest."""
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    for name, height, width in (("a", 40, 60), ("cats/b", 20, 30), ("c", 50, 50)):
        (folder / f"{name}.jpg").write_bytes(images.encoded(images.pixels(1, height, width)))
    for name in ("a", "cats/b"):
        (folder / f"{name}.txt").write_text("a cat\n")
    return folder


def add_boxes(folder):
    boxes = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "boxes.json").write_text(json.dumps(boxes))


def test_images_captions_sizes_and_annotations_are_counted(photos):
    add_boxes(photos)
    (photos / "other.json").write_text("[1, 2]")
    found = survey_folder(photos)
    assert (found.images, found.captioned, found.caption_source) == (3, 2, "txt")
    assert found.smallest == (30, 20)
    assert [(file.kind, file.entries, file.classes) for file in found.annotations] == [
        ("boxes", 1, 1)
    ]
    assert found.faults.total == 0


def test_what_cannot_be_used_is_named_and_not_counted(photos, images):
    (photos / "empty.png").write_bytes(b"")
    (photos / "phone.heic").write_bytes(b"x")
    whole = images.encoded(images.pixels(2, 80, 80))
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    by_headers = survey_folder(photos)
    assert by_headers.images == 4
    assert set(by_headers.faults.counts) == {"unreadable image", "unsupported format"}
    assert survey_folder(photos, check_images=True).images == 3


def test_the_doctor_begins_with_the_folder_and_says_what_it_is_enough_for(photos, capsys):
    add_boxes(photos)
    assert main(["doctor", str(photos)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{photos}: 3 images, 2 with captions (txt), smallest 30x20"
    for method in ("CLIM ", "CLIPSelf ", "RegionCLIP-style "):
        assert any(line.strip().startswith(method) for line in lines), method
    assert [line for line in lines if "coco-captions" in line] == lines[-1:]
    assert len(lines) < 12


def test_official_data_sets_are_judged_without_the_survey(photos, capsys):
    (photos / "annotations").mkdir()
    (photos / "annotations" / "captions_train2017.json").write_text("{}")
    main(["doctor", str(photos)])
    out = capsys.readouterr().out
    assert out.startswith("incomplete  coco-captions")
    assert "3 images" not in out


def test_images_without_captions_are_enough_for_clipself_alone(photos, capsys):
    for text in photos.rglob("*.txt"):
        text.unlink()
    main(["doctor", str(photos)])
    out = capsys.readouterr().out
    assert "0 with captions, smallest" in out
    assert "CLIPSelf" in out
    assert "clim_coco_vitb16" not in out


def test_shards_and_a_missing_folder(tmp_path, tar, capsys):
    folder = tmp_path / "packs"
    folder.mkdir()
    (folder / "0.tar").write_bytes(b"\0" * 1024)
    main(["doctor", str(folder)])
    out = capsys.readouterr().out
    assert "no images of its own, 1 shards" in out
    assert f"--data.shards '{folder}/*.tar'" in out
    assert main(["doctor", str(tmp_path / "none")]) == 2
