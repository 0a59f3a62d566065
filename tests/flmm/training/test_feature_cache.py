"""Kept features: the same losses without LMM and image encoder, and when they are not used."""

import os
from pathlib import Path

import pytest
import torch
from clim_data.files import write_whole
from clim_train import read_metrics
from flmm.training.data import GroundingLoader
from flmm.training.feature_cache import FeatureCache, frozen_facts
from flmm.training.task import GroundingTask
from tiny_grounding import Pictures, tiny_config, tiny_grounded, tiny_trainer

COUNTS = (1, 2, 3, 1)
REQUESTS = {"pictures": "Please give"}


def facts_of(model, data=None, requests=None) -> dict:
    return frozen_facts(
        model, data={"pictures": (data or Pictures(COUNTS)).stamp()}, requests=requests or REQUESTS
    )


def cache_in(folder, model=None, **options) -> FeatureCache:
    return FeatureCache(folder, facts_of(model or tiny_grounded()), **options)


def loader_of(model, cache, **options) -> GroundingLoader:
    options = {"batch_size": 1, "square": model.sam.square, **options}
    return GroundingLoader({"pictures": Pictures(COUNTS)}, model.lmm, cache=cache, **options)


def fill(model, cache, **options) -> list[dict]:
    """Losses of one epoch."""
    task = GroundingTask(model, cache=cache)
    return [
        {name: value.item() for name, value in task.loss(batch).items()}
        for batch in loader_of(model, cache, **options)
    ]


@pytest.mark.parametrize("family", ["llava", "llava_next_mistral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_are_the_same_without_lmm_and_image_encoder(tmp_path, family, dtype, monkeypatch):
    model = tiny_grounded(family)
    model.lmm.to(dtype)
    cache = cache_in(tmp_path, model)
    expected = fill(model, cache)
    assert [line.pop("kept") for line in expected] == [0] * len(COUNTS)
    cache = cache_in(tmp_path, model)  # as another process finds it
    assert len(cache) == 0  # less than a shard, and nobody wrote it
    assert [line["loss"] for line in fill(model, cache)] == [line["loss"] for line in expected]
    cache.flush()
    again = cache_in(tmp_path, model)
    assert len(again) == len(COUNTS)
    for part in (model.lmm, model.sam):
        monkeypatch.setattr(part, "forward" if part is model.lmm else "embed", None)
    found = fill(model, again)
    assert [line.pop("kept") for line in found] == [1] * len(COUNTS)
    assert found == expected


def test_runs_with_and_without_kept_features_are_the_same(tmp_path):
    lines = {}
    for name in ("without", "with"):
        cache = cache_in(tmp_path / "cache") if name == "with" else None
        config = tiny_config(tmp_path / name, steps=8, batch_size=1)
        tiny_trainer(config, Pictures(COUNTS), cache=cache).fit()
        lines[name] = read_metrics(tmp_path / name)
    assert [line["kept"] for line in lines["with"]] == [0] * 4 + [1] * 4
    assert [line["loss"] for line in lines["with"]] == [line["loss"] for line in lines["without"]]


def test_other_weights_precision_prompts_or_data_are_another_cache(tmp_path):
    model = tiny_grounded()
    facts = [facts_of(model), facts_of(model, Pictures((1, 1)))]
    facts.append(facts_of(model, requests={"pictures": "a dog"}))
    model.heads.merge = "max"
    facts.append(facts_of(model))
    model.heads.merge = "mean"
    with torch.no_grad():
        next(model.lmm.parameters()).view(-1)[0] += 1
    facts.append(facts_of(model))
    with torch.no_grad():
        next(model.sam.image_encoder.parameters()).view(-1)[0] += 1
    facts.append(facts_of(model))
    model.lmm.to(torch.bfloat16)
    facts.append(facts_of(model))
    folders = {FeatureCache(tmp_path, f).folder for f in facts}
    assert len(folders) == len(facts)
    assert facts_of(tiny_grounded()) == facts[0]


def test_shards_of_all_ranks_are_found_and_limits_hold(tmp_path):
    model = tiny_grounded()
    first, second = (cache_in(tmp_path, model, rank=rank, shard_bytes=1) for rank in (0, 1))
    fill(model, first)
    assert len(second) == 0
    second.refresh()
    assert len(second) == len(first) == len(COUNTS)
    assert len(list(first.folder.glob("*.safetensors"))) == len(COUNTS)
    fill(model, second)  # nothing is written twice
    assert len(list(first.folder.glob("*.safetensors"))) == len(COUNTS)
    limited = cache_in(tmp_path / "small", model, max_bytes=first.written_bytes / 2, shard_bytes=1)
    fill(model, limited)
    assert 0 < len(limited) < len(COUNTS)
    assert limited.written_bytes <= limited.max_bytes


def test_damaged_shards_and_other_texts_are_computed_again(tmp_path, caplog):
    model = tiny_grounded()
    cache = cache_in(tmp_path, model, shard_bytes=1)
    fill(model, cache)
    data = Pictures(COUNTS)
    assert cache.find("pictures/0000", data[0]) is not None
    assert cache.find("pictures/0000", data[1]) is None
    damaged = min(cache.folder.glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:20])
    again = cache_in(tmp_path, model, shard_bytes=1)
    assert len(again) == len(COUNTS) - 1
    assert f"{damaged} is damaged" in caplog.text
    kept = [line["kept"] for line in fill(model, again)]
    assert sorted(kept) == [0, 1, 1, 1]
    assert not list(cache.folder.glob(".*"))


def zeros(path):
    end = path.stat().st_size - 64
    return path.read_bytes()[:end] + bytes(64)


def foreign_end(path):
    start = int.from_bytes(path.read_bytes()[:8], "little") + 8
    content = path.read_bytes()
    return content[:start] + bytes(255 - byte for byte in content[start:])


def cut(path):
    return path.read_bytes()[:-64]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", [zeros, foreign_end, cut])
def test_damaged_features_are_never_used_and_are_stored_anew(tmp_path, damage, workers):
    model = tiny_grounded()
    cache = cache_in(tmp_path, model)
    expected = [line["loss"] for line in fill(model, cache)]
    cache.flush()
    (shard,) = cache.folder.glob("*.safetensors")

    # The cache has looked at the shard before it is damaged.
    cache = cache_in(tmp_path, model)
    shard.write_bytes(damage(shard))
    assert [line["loss"] for line in fill(model, cache, workers=workers)] == expected
    assert not shard.exists()
    cache.flush()

    # Samples of the shard that were read before the damage was found are stored in the next epoch.
    cache = cache_in(tmp_path, model)
    assert [line["loss"] for line in fill(model, cache, workers=workers)] == expected
    cache.flush()
    assert [line["kept"] for line in fill(model, cache_in(tmp_path, model))] == [1] * len(COUNTS)


def test_runs_that_share_a_cache_do_not_overwrite_each_other(tmp_path):
    model = tiny_grounded()
    first, second = (cache_in(tmp_path, model, shard_bytes=1) for _ in range(2))
    fill(model, first)
    gone = min(first.folder.glob("*.safetensors"))
    gone.unlink()
    fill(model, second)
    third = cache_in(tmp_path, model)
    assert [line["kept"] for line in fill(model, third)] == [1] * len(COUNTS)


def test_drafts_of_dead_processes_are_removed(tmp_path):
    model = tiny_grounded()
    folder = cache_in(tmp_path, model).folder
    with write_whole(folder / "features-0000-x.safetensors") as draft:
        living = Path(draft)
        dead = living.with_name(living.name.replace(f"-{os.getpid()}-", "-99999999-"))
        dead.touch()
        cache_in(tmp_path, model)
        assert living.exists()
        assert not dead.exists()
