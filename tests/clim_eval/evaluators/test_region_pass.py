import numpy as np
import pytest
import torch
from clim_eval import RegionClassification, WordsInScenes, collect_in_one_pass


@pytest.fixture(scope="module")
def model(tiny_towers):
    return tiny_towers.build_vit()


@pytest.fixture(scope="module")
def rows():
    return torch.randn(8, 24, generator=torch.Generator().manual_seed(8))


class Reads:
    """A data set that counts how often each image is read."""

    def __init__(self, data):
        self.data, self.reads = data, []

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        self.reads.append(index)
        return self.data[index]


def test_evaluators_share_one_pass_and_answer_as_alone(toy, model, rows, monkeypatch):
    classes = RegionClassification(model, rows, outputs=("boxes", "masks"), batch_size=4)
    words = WordsInScenes(model, 2 * rows, crops=True)
    alone = classes.collect(toy.Regions(10)), words.collect(toy.Regions(10))

    counts = {"encode": 0, "encode_image": 0}
    for name in counts:
        method = getattr(type(model), name)

        def counted(self, *args, name=name, method=method, **options):
            counts[name] += 1
            return method(self, *args, **options)

        monkeypatch.setattr(type(model), name, counted)
    data = Reads(toy.Regions(10))
    together = collect_in_one_pass(data, [classes, words])

    assert data.reads == list(range(10))
    # Three batches of at most four images, each with one pass of its crops, which is one of
    # `encode` in turn.
    assert counts == {"encode": 6, "encode_image": 3}
    for name, values in alone[0].ranks.items():
        assert np.array_equal(values, together[0].ranks[name]), name
    assert alone[0].counts() == together[0].counts()
    assert words.summarize(alone[1]) == words.summarize(together[1])


def test_evaluators_of_several_models_are_refused(toy, model, rows, tiny_towers):
    others = [WordsInScenes(one, rows) for one in (model, tiny_towers.build_vit())]
    for evaluators in ([], others):
        with pytest.raises(ValueError, match="all of the same model"):
            collect_in_one_pass(toy.Regions(3), evaluators)
