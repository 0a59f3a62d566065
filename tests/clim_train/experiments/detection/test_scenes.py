"""What is drawn in the scenes of the detectors, and what its classes are called."""

import json

import pytest
import torch
from clim_data.drawings import caption_of, load_emoji
from clim_train.experiments.detection.names import FILE, other_names
from clim_train.experiments.detection.options import DetectionOptions
from clim_train.experiments.detection.scenes import Concepts, scene_boxes


@pytest.fixture(scope="module")
def split():
    return load_emoji().split()


def test_novel_concepts_and_their_vendor_are_never_trained_on(split):
    concepts = Concepts.of(split, DetectionOptions())
    assert not set(concepts.novel) & {*concepts.base, *split.train_names}
    assert not set(concepts.vendors) & set(split.train_vendors)
    assert len(concepts.shown) == len(concepts.novel)

    choices = Concepts.of(split, DetectionOptions(split="val", classes=5))
    assert len(choices.base) == len(choices.novel) == 5
    assert not set(choices.novel) & {*concepts.novel, *concepts.base}


def test_other_names_are_other_names(split):
    """Every novel concept has some; none is the name of a drawing, or stands for two concepts."""
    found = other_names(split.test_concepts)
    assert set(found) == {caption_of(concept) for concept in split.test_concepts}
    drawn = {caption_of(name) for name in load_emoji().names}
    listed = [name for names in found.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert not set(listed) & drawn
    assert all(len(names) >= 2 for names in found.values())
    assert not any(own in name for own, names in found.items() for name in names)
    assert other_names(split.val_concepts) is None
    assert list(json.loads(FILE.read_text())) == sorted(json.loads(FILE.read_text()))


def test_boxes_are_corners_in_pixels(tmp_path):
    class Folder:
        instances_json = tmp_path / "instances.json"

    annotation = {"image_id": 4, "category_id": 3, "bbox": [1.0, 2.0, 10.0, 20.0]}
    content = {"images": [{"id": 4}, {"id": 5}], "annotations": [annotation]}
    Folder.instances_json.write_text(json.dumps(content))
    boxes, labels = scene_boxes(Folder)
    assert boxes[0].tolist() == [[1, 2, 11, 22]]
    assert labels[0].tolist() == [2]
    assert boxes[1].shape == (0, 4)
    assert labels[1].dtype == torch.int64
