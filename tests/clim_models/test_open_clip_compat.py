"""What we take from open_clip that it does not promise: each test says what broke."""

import logging

import open_clip
import pytest
import torch
from clim_models.open_clip_compat import (
    ImageStatistics,
    check_open_clip,
    no_weights_yet,
    register_config,
    set_statistics,
)
from clim_models.survey import survey_tower
from open_clip import factory
from tiny_towers import build_vit


def test_a_registered_configuration_is_found_by_name():
    register_config("test-registered", {"embed_dim": 8})
    try:
        assert open_clip.get_model_config("test-registered") == {"embed_dim": 8}
    finally:
        del factory._MODEL_CONFIGS["test-registered"]


def test_statistics_are_those_that_preprocessing_uses():
    clip = build_vit().clip
    clip.visual.preprocess_cfg = {"size": (32, 32), "mean": (0.1,) * 3, "std": (0.2,) * 3}
    assert ImageStatistics.of(clip) == ImageStatistics((32, 32), (0.1,) * 3, (0.2,) * 3)

    set_statistics(clip, (0.5,) * 3, (0.4,) * 3)
    assert open_clip.get_model_preprocess_cfg(clip)["mean"] == (0.5,) * 3
    assert ImageStatistics.of(clip).std == (0.4,) * 3


def test_only_the_warning_about_random_weights_is_silent(caplog):
    with no_weights_yet():
        logging.warning("No pretrained weights loaded. Model initialized randomly.")
        logging.warning("something else")
    logging.warning("Model initialized randomly.")
    assert caplog.messages == ["something else", "Model initialized randomly."]


@pytest.mark.parametrize("name", ["open_clip.factory", "root"])
def test_the_loggers_of_both_versions_are_silent(caplog, name):
    with no_weights_yet():
        logging.getLogger(name).warning("No weights loaded. Model initialized randomly.")
    assert caplog.messages == []


def test_models_without_an_image_tower_are_refused_in_the_survey():
    # As version 4 lists them.
    register_config("CLAP-test", {"embed_dim": 8, "audio_cfg": {}, "text_cfg": {}})
    register_config("test-captioner", {"text_cfg": {}})
    try:
        assert "hears audio and has no image tower" in survey_tower("CLAP-test").refusal
        assert survey_tower("test-captioner").refusal.endswith("it has no image tower")
    finally:
        del factory._MODEL_CONFIGS["CLAP-test"], factory._MODEL_CONFIGS["test-captioner"]


def test_what_is_no_open_clip_model_is_refused():
    with pytest.raises(ValueError, match="Linear is not an open_clip model"):
        check_open_clip(torch.nn.Linear(2, 2))
