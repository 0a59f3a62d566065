"""Options of the streams: both spellings are one, and a mistake is named before data are read."""

import dataclasses

import pytest
from clim_data import CropLoader, MosaicConfig, MosaicLoader
from clim_data.processes import Ranks
from clim_data.streams import CropRules, StreamOptions, choose_stream


def test_keywords_spell_out_the_options():
    keywords = {"batch_size": 4, "seed": 2, "rank": 1, "world_size": 3, "drop_last": True}
    options = StreamOptions(batch_size=4, seed=2, ranks=Ranks(1, 3), drop_last=True)
    assert choose_stream(None, keywords) == options
    assert choose_stream(options, {}) is options


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        StreamOptions(batch_size=1).batch_size = 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 2.0),
        ("seed", -1),
        ("workers", True),
        ("ranks", Ranks(2, 2)),
        ("on_error", "ignore"),
        ("background", "black"),
        ("max_pixels", 0),
        ("cache_shards", 0),
    ],
)
def test_an_option_out_of_range_is_named(option, value):
    name = "rank" if option == "ranks" else option
    with pytest.raises(ValueError, match=f"{name}="):
        StreamOptions(**{"batch_size": 1, option: value})


@pytest.mark.parametrize("rule", [{"max_split": 0}, {"max_cells": 1.5}, {"context": 0.5}])
def test_a_rule_out_of_range_is_named(rule):
    with pytest.raises(ValueError, match=next(iter(rule))):
        CropRules(**rule)


def test_a_loader_takes_an_object_or_keywords_not_both():
    stream = StreamOptions(batch_size=2)
    with pytest.raises(ValueError, match="seed given next to stream: set it in"):
        MosaicLoader("nowhere.tar", stream=stream, seed=1)
    with pytest.raises(ValueError, match="max_cells given next to regions: set it in"):
        CropLoader(
            "nowhere", image_px=8, crop_px=8, regions=CropRules(), stream=stream, max_cells=1
        )


def test_a_loader_refuses_unknown_keywords_and_no_batch_size():
    with pytest.raises(TypeError, match="batchsize"):
        MosaicLoader("nowhere.tar", batch_size=1, batchsize=2)
    with pytest.raises(TypeError, match="no batch size"):
        MosaicLoader("nowhere.tar")


def test_both_spellings_give_the_same_batches(make_shards):
    mosaic = MosaicConfig(canvas_px=32, single_px=16, mix={2: 1})
    shards = make_shards([12])

    for rank in range(2):
        stream = StreamOptions(batch_size=5, seed=1, ranks=Ranks(rank, 2))
        new = MosaicLoader(shards, mosaic=mosaic, stream=stream)
        old = MosaicLoader(shards, mosaic=mosaic, batch_size=5, seed=1, rank=rank, world_size=2)
        assert [batch.keys for batch in new] == [batch.keys for batch in old]
