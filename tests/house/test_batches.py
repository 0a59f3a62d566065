"""The first batches of every loader are those of the record, whatever the number of workers."""

import pytest
from house import batches, machine


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return batches.write_data(tmp_path_factory.mktemp("loaders") / "data")


@pytest.mark.parametrize("workers", batches.WORKERS)
@pytest.mark.parametrize("rank", range(batches.RANKS))
@pytest.mark.parametrize("name", batches.LOADERS)
def test_first_batches_are_those_of_the_record(name, rank, workers, data):
    recorded, is_same_machine = machine.load("batches")
    expected = recorded["batches"][f"{name}-rank{rank}"]
    found = batches.collect(name, data, rank=rank, workers=workers)

    assert [batch["keys"] for batch in found] == [batch["keys"] for batch in expected]
    if is_same_machine:
        assert [batch["sha256"] for batch in found] == [batch["sha256"] for batch in expected]

    # Other decoders and resizers round to a neighbouring grey level, here and there.
    for batch, wanted in zip(found, expected, strict=True):
        assert [size for size, _ in batch["tensors"]] == [size for size, _ in wanted["tensors"]]
        means = [mean for _, mean in batch["tensors"]]
        assert means == pytest.approx([mean for _, mean in wanted["tensors"]], rel=0.01, abs=0.01)


def test_a_changed_pixel_changes_the_hash(data):
    loader = batches.make_loader("BoxLoader", data, rank=0, workers=0)
    batch = next(iter(loader))
    before = batches.digest(batch)
    batch.images[0, 0, 0, 0] += 1
    assert batches.digest(batch) != before
