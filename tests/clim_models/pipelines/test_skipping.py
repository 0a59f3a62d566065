"""A list with pictures that cannot be read: the others have their results, and each is named."""

import io
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clim_models.detection.rules import Detections
from clim_models.pipelines import (
    DensePipeline,
    DetectionPipeline,
    PipelineOptions,
    RegionPipeline,
    coco_of_results,
)
from clim_models.text import EmbeddedVocabulary, Vocabulary
from PIL import Image
from tiny_towers import build_vit

BOX = [(4, 4, 30, 30)]


class Finder:
    """A detector that finds nothing, and remembers how many pictures it saw."""

    names = ("cat",)

    def __init__(self):
        self.seen = 0

    def detect(self, pictures):
        self.seen += len(pictures)
        empty = torch.zeros(0)
        return [Detections(torch.zeros(0, 4), empty, empty.long(), None) for _ in pictures]


def make(kind, **options):
    if kind == "detection":
        return DetectionPipeline(Finder(), PipelineOptions(**options))
    rows = F.normalize(torch.randn(2, 24, generator=torch.Generator().manual_seed(1)), dim=-1)
    vocabulary = EmbeddedVocabulary(Vocabulary.of(["cat", "dog"]), rows, rows[:0])
    pipeline = {"regions": RegionPipeline, "dense": DensePipeline}[kind]
    return pipeline(build_vit(), vocabulary, PipelineOptions(image_px=32, **options))


def photo(number):
    generator = np.random.default_rng(number)
    return generator.integers(0, 256, (40, 64, 3), dtype=np.uint8)


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def mixed(tmp_path):
    """Seven pictures, of which the second, fourth, fifth and last cannot be read."""
    whole = png(Image.fromarray(photo(2)))
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    gone = tmp_path / "gone.jpg"
    return [photo(0), tmp_path / "cut.png", photo(1), gone, tmp_path / "page.jpg", photo(2), None]


@pytest.mark.parametrize("kind", ["dense", "regions", "detection"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_others_have_their_results_and_each_is_named(kind, batch_size, mixed):
    find = make(kind, batch_size=batch_size)
    with pytest.warns(UserWarning, match="skipped 4 of 7 pictures: .*cut.png.*gone.jpg.*page.jpg"):
        results = find(mixed)
    assert [bool(one.error) for one in results] == [False, True, False, True, True, False, True]
    assert "gone.jpg" in results[3].error
    for place in (0, 2, 5):
        alone = make(kind)(mixed[place])
        assert [one.label for one in results[place]] == [one.label for one in alone]
        assert results[place].size == (40, 64)
    assert len(results[1]) == 0
    content = coco_of_results(results)
    assert [one["id"] for one in content["images"]] == [1, 3, 6]
    if kind == "detection":
        assert find.detector.seen == 3


def test_boxes_stay_with_their_pictures(mixed):
    find = make("regions", batch_size=2)
    others = [(10, 10, 20, 20)]
    boxes = [BOX, others, BOX + others, [(0, 0, 9999, 9)], BOX, others, BOX]
    with pytest.warns(UserWarning, match="skipped 4 of 7"):
        results = find(mixed, boxes)
    assert [len(one) for one in results] == [1, 0, 2, 0, 0, 1, 0]
    assert results[5][0].box == pytest.approx(others[0])


@pytest.mark.parametrize("kind", ["dense", "detection"])
def test_the_first_stops_where_that_is_asked_for(kind, mixed):
    find = make(kind, on_error="raise")
    with pytest.raises(ValueError, match=r"cut\.png"):
        find(mixed)
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        find([mixed[3]])


@pytest.mark.parametrize("kind", ["dense", "regions", "detection"])
def test_one_picture_and_none_that_can_be_read_are_errors(kind, mixed):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        make(kind)(mixed[3])
    with pytest.raises(ValueError, match=r"none of 2 pictures can be used: .*gone\.jpg"):
        make(kind)([mixed[3], mixed[4]])
    assert make(kind)([]) == []


def test_a_long_list_of_broken_pictures_is_counted_and_shortened(tmp_path):
    broken = [tmp_path / f"{number}.jpg" for number in range(12)]
    with pytest.warns(UserWarning, match="skipped 12 of 13 pictures: .*; and 2 more"):
        list(make("dense", batch_size=2).stream([*broken, photo(0)]))


def test_whole_lists_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = make("dense")([photo(0), photo(1)])
    assert not any(one.error for one in results)


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="on_error='ignore': choose \"skip\""):
        PipelineOptions(on_error="ignore")
