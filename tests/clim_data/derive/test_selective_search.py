import json
import sys

import numpy as np
import pytest
import torch
from clim_data.commands.main import main
from clim_data.derive.selective_search import SelectiveSearch, agreement
from clim_data.drawings.emoji import load_emoji
from clim_data.drawings.scenes import compose_scenes
from PIL import Image
from torchvision.ops import box_iou

# Any OpenCV has the module, but only its contrib packages have the search.
cv2 = pytest.importorskip("cv2", reason='pip install "clim-data[proposals]"')
if not hasattr(cv2, "ximgproc"):
    pytest.skip('pip install "clim-data[proposals]"', allow_module_level=True)


def test_agreement_is_the_share_of_boxes_on_the_same_place():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [50, 50, 60, 60]], float)
    assert agreement(boxes).tolist() == pytest.approx([1, 1, 1, 1 / 3])
    assert agreement(boxes, 0.85).tolist() == pytest.approx([2 / 3, 1, 2 / 3, 1 / 3])
    assert agreement(np.zeros((0, 4))).shape == (0,)


def test_most_drawings_of_a_scene_are_found_the_same_in_any_number_of_workers(tmp_path, capsys):
    split = load_emoji().split()
    scenes = compose_scenes(
        tmp_path, vendor=split.test_vendor, concepts=split.test_concepts, count=4
    )
    command = [
        "proposals",
        "--images",
        str(scenes.images),
        "--images-json",
        str(scenes.instances_json),
    ]
    for workers in (1, 2):
        assert (
            main([*command, "--out", str(tmp_path / f"{workers}.json"), "--workers", str(workers)])
            == 0
        )
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    found, truth = (
        json.loads(p.read_bytes()) for p in (tmp_path / "1.json", scenes.instances_json)
    )
    hits = []
    for image in found["images"]:
        boxes, drawn = (
            torch.tensor([a["bbox"] for a in record["annotations"] if a["image_id"] == image["id"]])
            for record in (found, truth)
        )
        assert len(boxes) <= 50
        boxes[:, 2:] += boxes[:, :2]
        drawn[:, 2:] += drawn[:, :2]
        assert boxes.min() >= 0
        assert boxes.max() <= image["width"]
        hits += (box_iou(drawn, boxes).amax(1) > 0.5).tolist()
    assert len(hits) == 20
    assert np.mean(hits) > 0.8


def test_boxes_come_back_in_pixels_of_the_image():
    pixels = np.full((400, 1000, 3), 255, np.uint8)
    pixels[100:300, 500:900] = (200, 30, 30)
    for search_px in (100, 250):
        ((boxes, scores),) = SelectiveSearch(search_px=search_px)([Image.fromarray(pixels)])
        target = torch.tensor([[500, 100, 900, 300]], dtype=torch.float64)
        assert box_iou(target, torch.from_numpy(boxes)).max() > 0.9
        assert len(scores) == len(boxes)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 5), (17, 17)])
def test_tiny_and_plain_images_have_few_boxes_or_none(size):
    ((boxes, scores),) = SelectiveSearch()([Image.new("RGB", size, (90, 90, 90))])
    assert boxes.shape == (len(scores), 4)


def test_options_are_checked_and_a_missing_opencv_is_named(monkeypatch):
    with pytest.raises(ValueError, match="search_px=3 must be"):
        SelectiveSearch(search_px=3)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="pip install opencv-contrib"):
        SelectiveSearch()


def test_the_launchers_arguments_and_environment_are_understood(
    tmp_path, images, capsys, monkeypatch
):
    (tmp_path / "photos").mkdir()
    for i in range(3):
        (tmp_path / "photos" / f"{i}.jpg").write_bytes(images.encoded(images.pixels(i, 40, 60)))
    command = [
        "proposals",
        "--images",
        str(tmp_path / "photos"),
        "--out",
        str(tmp_path / "boxes.json"),
    ]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert main([f"--local_rank={rank}", *command, "--workers", "1"]) == 0
        assert (tmp_path / "boxes.json").exists() == (rank == "0")
    printed = capsys.readouterr().out
    assert "rank 1 of 2: 1 images searched" in printed
    assert "in 3 images" in printed
