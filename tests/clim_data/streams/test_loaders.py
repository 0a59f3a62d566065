import json
import sys

import numpy as np
import pytest
import torch
from clim_data import MosaicConfig, MosaicLoader
from clim_data.streams.epochs import global_steps, rank_share

SMALL = MosaicConfig(canvas_px=32, single_px=16)


def same(a, b):
    return (
        a.keys == b.keys
        and a.captions == b.captions
        and torch.equal(a.mosaics, b.mosaics)
        and torch.equal(a.singles, b.singles)
        and all(torch.equal(x, y) for x, y in zip(a.boxes, b.boxes, strict=True))
    )


def test_batches_have_the_documented_fields(make_shards):
    loader = MosaicLoader(make_shards([20, 12]), batch_size=32, mosaic=SMALL)
    (batch,) = list(loader)
    assert batch.mosaics.shape == (3, 3, 32, 32)
    assert batch.mosaics.dtype == batch.singles.dtype == torch.uint8
    assert batch.singles.shape == (3, 3, 16, 16)
    assert [tuple(b.shape) for b in batch.boxes] == [(4, 4), (9, 4), (16, 4)]
    assert sorted(batch.keys) == [f"{i:06d}" for i in range(32)]
    assert batch.captions == [f"caption 0 of {key}" for key in batch.keys]
    assert torch.equal(batch.to("cpu").mosaics, batch.mosaics)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_sample_exactly_once_per_epoch(make_shards, world_size, workers):
    shards = make_shards([7, 1, 12, 5, 10])
    orders = []
    for _epoch in range(1):
        seen, counts = [], []
        for rank in range(world_size):
            loader = MosaicLoader(
                shards,
                batch_size=4,
                mosaic=SMALL,
                rank=rank,
                world_size=world_size,
                workers=workers,
                seed=3,
            )
            batches = list(loader)
            counts.append(len(batches))
            assert len(batches) == len(loader)
            seen += [key for batch in batches for key in batch.keys]
        assert len(set(counts)) == 1
        assert sorted(seen) == [f"{i:06d}" for i in range(35)]
        orders.append(seen)


def test_batches_do_not_depend_on_workers_and_change_with_seed_and_epoch(make_shards):
    shards = make_shards([9, 8], captions=5)
    streams = []
    for workers in (0, 2):
        loader = MosaicLoader(shards, batch_size=5, mosaic=SMALL, workers=workers, seed=1)
        streams.append([batch for _ in range(2) for batch in loader])
    assert all(same(a, b) for a, b in zip(*streams, strict=True))
    epochs = streams[0][:4], streams[0][4:]
    assert [b.keys for b in epochs[0]] != [b.keys for b in epochs[1]]
    chosen = [{k: c for b in epoch for k, c in zip(b.keys, b.captions)} for epoch in epochs]
    assert chosen[0] != chosen[1]
    assert all(key in caption for key, caption in chosen[0].items())
    other = MosaicLoader(shards, batch_size=5, mosaic=SMALL, seed=2)
    assert [b.keys for b in other] != [b.keys for b in epochs[0]]


def test_caption_and_crop_follow_the_sample_not_its_batch(make_shards):
    shards = make_shards([12], captions=5)
    config = MosaicConfig(canvas_px=32, single_px=16, mix={})
    pictures = []
    for batch_size in (3, 12):
        found = {}
        for batch in MosaicLoader(shards, batch_size=batch_size, mosaic=config):
            found |= {k: (c, p) for k, c, p in zip(batch.keys, batch.captions, batch.singles)}
        pictures.append(found)
    for key, (caption, single) in pictures[0].items():
        assert pictures[1][key][0] == caption
        assert torch.equal(pictures[1][key][1], single)


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6])
@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_stream_equals_the_uninterrupted_one(make_shards, stop_after, workers):
    shards = make_shards([9, 11], captions=3)
    options = {"batch_size": 3, "mosaic": SMALL, "world_size": 2, "rank": 1, "workers": workers}
    whole = MosaicLoader(shards, **options)
    expected = [batch for _ in range(3) for batch in whole]
    per_epoch = len(whole)
    assert per_epoch == 4
    first = MosaicLoader(shards, **options)
    taken = []
    while len(taken) < stop_after:
        for batch in first:
            taken.append(batch)
            if len(taken) == stop_after:
                break
    state = json.loads(json.dumps(first.state_dict()))
    second = MosaicLoader(shards, **options)
    second.load_state_dict(state)
    while len(taken) < len(expected):
        taken += list(second)
    assert all(same(a, b) for a, b in zip(taken, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_random_state_of_training_is_left_alone(make_shards, workers):
    loader = MosaicLoader(make_shards([8]), batch_size=4, mosaic=SMALL, workers=workers)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_resume_reads_nothing_of_what_is_skipped(make_shards, monkeypatch):
    shards = make_shards([10])
    loader = MosaicLoader(shards, batch_size=2, mosaic=SMALL)
    batches = list(loader)
    position = {**loader.state_dict(), "epoch": 0, "consumed": 6}
    resumed = MosaicLoader(shards, batch_size=2, mosaic=SMALL)
    resumed.load_state_dict(position)
    store, read = resumed._batches.store, []
    original = store.read
    monkeypatch.setattr(store, "read", lambda i: read.append(i) or original(i))
    assert [b.keys for b in resumed] == [b.keys for b in batches[3:]]
    assert len(read) == 4


def test_position_carries_over_to_another_world_size(make_shards):
    shards = make_shards([24])
    first = iter(loader := MosaicLoader(shards, batch_size=4, mosaic=SMALL, world_size=2, rank=0))
    twin = iter(MosaicLoader(shards, batch_size=4, mosaic=SMALL, world_size=2, rank=1))
    seen = next(first).keys + next(twin).keys
    for rank in range(3):
        other = MosaicLoader(shards, batch_size=2, mosaic=SMALL, world_size=3, rank=rank)
        other.load_state_dict(loader.state_dict())
        seen += [key for batch in other for key in batch.keys]
    assert sorted(seen) == [f"{i:06d}" for i in range(24)]


def test_state_of_other_data_or_seed_is_refused(make_shards):
    loader = MosaicLoader(make_shards([6]), batch_size=2, mosaic=SMALL)
    other = MosaicLoader(make_shards([7], folder="other"), batch_size=2, mosaic=SMALL)
    assert loader.fingerprint() != other.fingerprint()
    with pytest.raises(ValueError, match=r"fingerprint .* resume with the shards"):
        other.load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="seed 0, this loader 5"):
        MosaicLoader(make_shards([6]), batch_size=2, mosaic=SMALL, seed=5).load_state_dict(
            loader.state_dict()
        )


def test_global_steps_lose_nothing_and_give_every_rank_something():
    for n in range(1, 60):
        for world_size in (1, 2, 3, 5):
            for batch in (1, 2, 4):
                steps = global_steps(n, batch * world_size, world_size)
                if n < world_size:
                    assert steps == []
                    continue
                assert [i for start, stop in steps for i in range(start, stop)] == list(range(n))
                for step in steps:
                    shares = [rank_share(*step, r, world_size) for r in range(world_size)]
                    sizes = [stop - start for start, stop in shares]
                    assert min(sizes) >= 1
                    assert max(sizes) <= batch + 1
                    assert max(sizes) - min(sizes) <= 1
                    assert shares[0][0] == step[0]
                    assert shares[-1][1] == step[1]
                dropped = global_steps(n, batch * world_size, world_size, drop_last=True)
                assert all(stop - start == batch * world_size for start, stop in dropped)
                assert n - len(dropped) * batch * world_size < batch * world_size


def test_shuffle_off_keeps_the_order_of_the_shards(make_shards):
    loader = MosaicLoader(make_shards([3, 4]), batch_size=3, mosaic=SMALL, shuffle=False)
    for _ in range(2):
        assert [key for batch in loader for key in batch.keys] == [f"{i:06d}" for i in range(7)]


def test_img2dataset_shards_are_read(make_shards):
    loader = MosaicLoader(make_shards([6], layout="img2dataset"), batch_size=6, mosaic=SMALL)
    (batch,) = list(loader)
    assert batch.captions == [f"caption 0 of {key}" for key in batch.keys]


@pytest.mark.parametrize("remote", ["pipe", "memory"])
def test_remote_shards_are_the_same_stream(make_shards, tmp_path, remote):
    shards = make_shards([5, 4, 6, 2])
    if remote == "pipe":
        urls = f"pipe:cat {tmp_path}/shards/part-{{00000..00003}}.tar"
    else:
        import fsspec

        memory = fsspec.filesystem("memory")
        for shard in shards:
            memory.put_file(shard, f"/bucket/{shard.rpartition('/')[2]}")
        urls = "memory://bucket/part-{00000..00003}.tar"
    seen = []
    for rank in range(2):
        loader = MosaicLoader(
            urls, batch_size=3, mosaic=SMALL, world_size=2, rank=rank, cache_shards=1
        )
        epoch = list(loader)
        seen += [key for batch in epoch for key in batch.keys]
        loader.load_state_dict({**loader.state_dict(), "epoch": 0, "consumed": 6})
        assert all(same(a, b) for a, b in zip(loader, epoch[1:], strict=True))
    assert sorted(seen) == [f"{i:06d}" for i in range(17)]
    assert len(list((tmp_path / "cache" / "shards").glob("*.tar"))) <= 2


def test_failing_remote_shard_is_named(make_shards, tmp_path):
    good = make_shards([5])
    bad = f"pipe:cat {tmp_path}/nowhere.tar"
    loader = MosaicLoader([*good, bad], batch_size=5, mosaic=SMALL)
    assert len(list(loader)) == 1
    assert loader.skipped.names == {"unreachable shard": [bad]}
    assert not list((tmp_path / "cache" / "shards").glob("*.tar"))
    with pytest.raises(ValueError, match="unreachable shard"):
        MosaicLoader([*good, bad], batch_size=5, mosaic=SMALL, on_error="raise")


def test_remote_shard_that_changed_is_not_misread(make_shards, tmp_path):
    (shard,) = make_shards([4])
    MosaicLoader(f"pipe:cat {shard}", batch_size=2, mosaic=SMALL)
    for copy in (tmp_path / "cache" / "shards").glob("*.tar"):
        copy.unlink()
    make_shards([9])
    loader = MosaicLoader(f"pipe:cat {shard}", batch_size=2, mosaic=SMALL)
    with pytest.raises(ValueError, match="has changed since it was counted: empty the cache"):
        list(loader)


def test_half_uploaded_remote_shard_is_asked_for_again(make_shards, tmp_path):
    (shard,) = make_shards([4])
    with open(shard, "rb") as stream:
        whole = stream.read()
    (tmp_path / "remote.tar").write_bytes(whole[: len(whole) // 2])
    url = f"pipe:cat {tmp_path}/remote.tar"
    assert MosaicLoader(url, batch_size=1, mosaic=SMALL).skipped.total
    (tmp_path / "remote.tar").write_bytes(whole)
    loader = MosaicLoader(url, batch_size=4, mosaic=SMALL)
    assert (loader.num_samples, loader.skipped.total) == (4, 0)


def test_background_of_transparent_images(tmp_path, tar, images):
    clear = np.zeros((20, 20, 4), dtype=np.uint8)
    members = []
    for i in range(8):
        members += [(f"{i}.png", images.encoded(clear, "PNG")), (f"{i}.txt", b"nothing")]
    shard = tar(tmp_path / "clear.tar", members)
    config = MosaicConfig(canvas_px=16, single_px=8, mix={})
    (white,) = list(MosaicLoader(shard, batch_size=8, mosaic=config))
    assert torch.all(white.singles == 255)
    loader = MosaicLoader(shard, batch_size=8, mosaic=config, background="random")
    (first,), (second,) = list(loader), list(loader)
    colours = {tuple(single[:, 0, 0].tolist()) for single in first.singles}
    assert len(colours) == 8
    assert torch.all(first.singles == first.singles[:, :, :1, :1])
    assert colours.isdisjoint({tuple(single[:, 0, 0].tolist()) for single in second.singles})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, "rank=2"),
        ({"batch_size": 2, "on_error": "ignore"}, "on_error='ignore'"),
        ({"batch_size": 2, "background": "pink"}, "background='pink'"),
        ({"batch_size": 2, "workers": -1}, "workers=-1"),
        ({"batch_size": 2, "seed": -1}, "seed=-1"),
        ({"batch_size": 2, "world_size": 9}, "9 ranks need at least 9"),
        ({"batch_size": 9, "drop_last": True}, "need at least 9"),
    ],
)
def test_bad_options_are_rejected(make_shards, options, message):
    with pytest.raises(ValueError) as caught:
        MosaicLoader(make_shards([4]), mosaic=SMALL, **options)
    assert message in str(caught.value)


def test_missing_source_names_the_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match="matches no file: check the path; name shards"):
        MosaicLoader(tmp_path / "*.tar", batch_size=2)


def test_every_exported_name_can_be_loaded():
    import clim_data

    for name in clim_data.__all__:
        assert getattr(clim_data, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        clim_data.nothing  # noqa: B018


def test_import_of_the_package_is_lazy():
    import subprocess

    code = "import clim_data, sys; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
