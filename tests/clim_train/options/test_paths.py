"""Relative paths are stored so that they mean the same from another directory."""

from dataclasses import replace

import pytest
from clim_train.config import TrainConfig
from clim_train.methods.fvit import FViTConfig
from clim_train.methods.pairs import PairDataConfig
from clim_train.methods.views import DetectionDataConfig
from clim_train.options.paths import with_absolute_paths
from clim_train.options.sections import EvaluationConfig, ModelConfig


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("data/{0..3}.tar", "{here}/data/{0..3}.tar"),
        ("../x/*.tar", "{parent}/x/*.tar"),
        ("/abs/a.tar", "/abs/a.tar"),
        ("https://host/a.tar", "https://host/a.tar"),
        ("pipe:cat a.tar", "pipe:cat a.tar"),
        ("~/a.tar", "~/a.tar"),
    ],
)
def test_data(here, given, stored):
    stored = stored.replace("{here}", str(here)).replace("{parent}", str(here.parent))
    found = with_absolute_paths(TrainConfig(data=PairDataConfig(shards=(given,))))
    assert found.data.shards == (stored,)


def test_nested_sections(here):
    evaluation = EvaluationConfig(images="val", captions_json="c.json")
    found = with_absolute_paths(replace(TrainConfig(), evaluation=evaluation))
    assert found.evaluation.images == str(here / "val")
    assert found.evaluation.panoptic_json is None


def test_files_of_a_detector(here):
    data = DetectionDataConfig(boxes="boxes.json", classes="base.txt")
    task = FViTConfig(embeddings="names.safetensors")
    found = with_absolute_paths(TrainConfig(data=data, task=task))
    assert found.data.boxes == str(here / "boxes.json")
    assert found.data.classes == str(here / "base.txt")
    assert found.task.embeddings == str(here / "names.safetensors")


def test_a_tag_stays_a_tag_and_a_file_becomes_absolute(here):
    (here / "openai").mkdir()  # a folder by chance
    (here / "w.pt").touch()
    for given, stored in (("openai", "openai"), ("w.pt", str(here / "w.pt")), (None, None)):
        assert with_absolute_paths(ModelConfig(pretrained=given)).pretrained == stored
