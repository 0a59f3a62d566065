"""Composed scenes: masks, boxes, labels and layout, read back by the ordinary COCO reader."""

import json

import numpy as np
import pytest
from clim_data import PanopticRegions
from clim_data.drawings.emoji import load_emoji
from clim_data.drawings.scenes import (
    BACKGROUNDS,
    SceneOptions,
    background,
    compose,
    compose_scenes,
    fit_cutout,
)
from PIL import Image
from pycocotools import mask as rle

CONCEPTS = ("cat", "castle", "hot-dog", "banana", "rocket", "tent", "violin", "bus")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return compose_scenes(
        tmp_path_factory.mktemp("scenes"), vendor="twemoji", concepts=CONCEPTS, count=8, seed=3
    )


def test_reader_finds_every_drawing_with_its_label(folder):
    data = PanopticRegions(
        folder.images, folder.panoptic_json, folder.panoptic, image_px=192, stride=16, crop_px=64
    )
    assert data.class_names == [name.replace("-", " ") for name in CONCEPTS]
    labels = []
    for sample in data:
        assert sample.image.shape == (3, 192, 192)
        assert len(sample.labels) == 5
        assert sample.is_thing.all()
        assert len(set(sample.labels.tolist())) == 5
        sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]).amax(1) * 192
        assert (sides >= 15).all()
        assert (sides <= 65).all()
        labels += sample.labels.tolist()
    # 8 scenes x 5 drawings over 8 names.
    assert np.bincount(labels).tolist() == [5] * len(CONCEPTS)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # inside pycocotools
def test_png_ids_areas_boxes_and_rle_agree(folder):
    panoptic = json.loads(folder.panoptic_json.read_text())
    instances = json.loads(folder.instances_json.read_text())["annotations"]
    for annotation in panoptic["annotations"]:
        png = np.asarray(Image.open(folder.panoptic / annotation["file_name"])).astype(int)
        ids = png[..., 0] + 256 * png[..., 1] + 65536 * png[..., 2]
        mine = [i for i in instances if i["image_id"] == annotation["image_id"]]
        assert len(mine) == len(annotation["segments_info"])
        for info, instance in zip(annotation["segments_info"], mine, strict=True):
            mask = ids == info["id"]
            y, x = np.nonzero(mask)
            assert info["area"] == mask.sum() > 0
            assert info["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert np.array_equal(rle.decode(instance["segmentation"]).astype(bool), mask)
            assert instance["category_id"] == info["category_id"]


def test_captions_name_what_is_shown(folder):
    captions = json.loads(folder.captions_json.read_text())["annotations"]
    names = {c["id"]: c["name"] for c in json.loads(folder.panoptic_json.read_text())["categories"]}
    panoptic = json.loads(folder.panoptic_json.read_text())["annotations"]
    for caption, annotation in zip(captions, panoptic, strict=True):
        assert all(
            names[info["category_id"]] in caption["caption"] for info in annotation["segments_info"]
        )


def test_same_seed_same_scenes(folder, tmp_path):
    again = compose_scenes(tmp_path / "a", vendor="twemoji", concepts=CONCEPTS, count=8, seed=3)
    other = compose_scenes(tmp_path / "b", vendor="twemoji", concepts=CONCEPTS, count=8, seed=4)
    first = (folder.images / "000000000001.png").read_bytes()
    assert first == (again.images / "000000000001.png").read_bytes()
    assert first != (other.images / "000000000001.png").read_bytes()


def test_cutout_shows_where_its_segment_is():
    red = np.zeros((64, 64, 4), np.uint8)
    red[16:48, 8:56] = (255, 0, 0, 255)
    assert fit_cutout(red, 30).shape == (20, 30, 4)
    scene = compose([red], ["red"], np.random.default_rng(0), image_px=96, object_px=(30, 30))
    assert (scene.segments == 1).sum() == 600
    assert (scene.image[scene.segments == 1] == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_backgrounds_have_pixel_values(kind):
    image = background(np.random.default_rng(1), 48, kind)
    assert image.shape == (48, 48, 3)
    assert 0 <= image.min() <= image.max() <= 255
    assert (np.ptp(image, axis=(0, 1)).max() == 0) == (kind == "plain")


def test_impossible_wishes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="give more concepts"):
        compose_scenes(tmp_path, vendor="twemoji", concepts=CONCEPTS[:3], count=1)
    with pytest.raises(ValueError, match="must fit in 64 px"):
        compose_scenes(
            tmp_path,
            vendor="twemoji",
            concepts=CONCEPTS,
            count=1,
            options=SceneOptions(image_px=64),
        )
    with pytest.raises(ValueError, match="legal values"):
        background(np.random.default_rng(0), 8, "plaid")


def test_several_vendors_share_a_set(tmp_path):
    emoji = load_emoji()
    target = compose_scenes(
        tmp_path, vendor=emoji.split().train_vendors, concepts=CONCEPTS, count=2, emoji=emoji
    )
    assert len(list(target.images.iterdir())) == 2
