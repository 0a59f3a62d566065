"""The loader of the heads' training: what a batch holds, order, ranks, resuming, and what is left
out."""

import json

import pytest
import torch
from clim_data import PanopticNarratives, ReferringExpressions
from conftest import GOLDEN
from flmm.training.data import GroundingLoader
from tiny_grounding import Pictures, tiny_grounded

DATA = GOLDEN / "flmm" / "data"


def flat(batches: list[list[str]]) -> list[str]:
    return [key for batch in batches for key in batch]


@pytest.fixture(scope="module")
def model():
    return tiny_grounded()


def loader_of(model, sources=None, **options) -> GroundingLoader:
    options = {"batch_size": 2, "seed": 4, **options}
    return GroundingLoader(
        sources or {"pictures": Pictures()}, model.lmm, square=model.sam.square, **options
    )


def keys(batches) -> list[list[str]]:
    return [batch.keys for batch in batches]


def test_items_hold_what_the_models_and_the_losses_need(model):
    data = Pictures([2])
    (batch,) = loader_of(model, {"one": data})
    (item,) = batch.items
    image, masks = data[0].load()
    assert item.key == "one/0000"
    assert item.sample.text.phrases == len(item.masks) == batch.phrases == 2
    assert item.sample.text.input_ids.tolist().count(model.lmm.family.image_token_id) == 64
    frame = item.sample.image.frame
    assert item.masks.shape[1:] == frame.content_size
    assert torch.equal(item.masks, frame.resize_masks(torch.from_numpy(masks)))
    assert item.image.size == (image.height, image.width)
    assert max(item.image.pixels.shape) == model.sam.square.edge
    assert len(model.lmm([item.sample])[0].lengths) == 2


def test_order_depends_on_seed_and_epoch_only_and_ranks_share_it(model):
    sources = {"a": Pictures([1] * 5), "b": Pictures([2] * 6, first=20)}
    alone = loader_of(model, sources, batch_size=4)
    epochs = [keys(alone), keys(alone)]
    assert sorted(flat(epochs[0])) == sorted(flat(epochs[1]))
    assert epochs[0] != epochs[1]
    assert {key.split("/")[0] for key in flat(epochs[0])} == {"a", "b"}
    shares = [keys(loader_of(model, sources, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == epochs[0]
    assert len(shares[0]) == len(loader_of(model, sources, world_size=2)) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_continues_exactly(model, workers):
    whole = loader_of(model, workers=workers)
    expected = keys(whole) + keys(whole)
    first = loader_of(model)
    batches = iter(first)
    seen = keys([next(batches), next(batches)])
    state = first.state_dict()
    second = loader_of(model, workers=workers)
    second.load_state_dict(state)
    assert seen + keys(second) + keys(second) == expected
    other = loader_of(model, {"pictures": Pictures([1, 1])})
    with pytest.raises(ValueError, match="fingerprint"):
        other.load_state_dict(state)


def test_unusable_samples_are_named_and_leave_an_empty_batch(model):
    loader = loader_of(model, {"pictures": Pictures([1, None, 2, None])}, batch_size=1)
    batches = list(loader)
    assert sorted(len(batch) for batch in batches) == [0, 0, 1, 1]
    assert loader.skipped.counts == {"unreadable image": 2}
    assert loader.skipped.names["unreadable image"][0].startswith("pictures/")
    with pytest.raises(ValueError, match="unreadable image"):
        list(loader_of(model, {"pictures": Pictures([1, None])}, on_error="raise"))


def test_texts_longer_than_the_context_are_left_out(model, monkeypatch):
    (batch,) = loader_of(model, {"pictures": Pictures([1])})
    length = len(batch.items[0].sample.text.input_ids)
    monkeypatch.setattr(model.lmm.language_model.config, "max_position_embeddings", length)
    loader = loader_of(model, {"pictures": Pictures([1, 3])}, batch_size=2)
    assert [batch.keys for batch in loader] == [["pictures/0000"]]
    assert loader.skipped.counts == {"longer than the context": 1}
    assert f"the context has {length}" in loader.skipped.summary()


def test_golden_data_sets_together(model):
    """Narratives and expressions; narratives without a phrase are counted."""
    narratives = PanopticNarratives(
        DATA / "images", DATA / "png.json", DATA / "panoptic.json", DATA / "panoptic"
    )
    refs = DATA / "refcoco"
    expressions = ReferringExpressions(
        DATA / "images", next(refs.glob("refs*.json")), refs / "instances.json", split="train", sentences="random",
        together=True, bad_masks="empty",
    )  # fmt: skip
    loader = loader_of(
        model, {"png": narratives, "refcoco": expressions}, requests={"png": "What is shown ?"}
    )
    batches = list(loader)
    assert (
        sum(len(batch) for batch in batches)
        == len(narratives) + len(expressions)
        == loader.num_samples
    )
    texts = json.loads((DATA / "png.json").read_text())
    empty = sum(not any(segment["segment_ids"] for segment in text["segments"]) for text in texts)
    assert loader.skipped.counts["no phrase"] == empty
    for item in (item for batch in batches for item in batch.items):
        assert len(item.masks) == item.sample.text.phrases
    with pytest.raises(ValueError, match="unknown data sets"):
        loader_of(model, requests={"else": "?"})
