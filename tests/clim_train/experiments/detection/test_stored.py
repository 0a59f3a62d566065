"""Stored maps of a frozen tower, and the order of scenes."""

from itertools import chain

import numpy as np
import pytest
import torch
from clim_models.detection import (
    Annotations,
    ClassSet,
    EnsembleRules,
    FViTOptions,
    build_fvit,
    prepare_images,
)
from clim_train.experiments.detection.stored import (
    SceneBatch,
    SceneLoader,
    StoredMaps,
    StoredMapsTask,
)
from PIL import Image
from tiny_training import tiny_model

SIDE = 32


@pytest.fixture
def detector():
    model = tiny_model()
    rows = torch.nn.functional.normalize(torch.randn(3, model.embed_dim), dim=1)
    options = FViTOptions(
        image_size=SIDE,
        ensemble=EnsembleRules(0.1, 0.8, 75),
        blocks=(0, 1, 1, 2),
        channels=8,
    )
    classes = ClassSet(["cat", "dog"], rows[:2], [0, 1])
    return build_fvit(model, classes, options, background=rows[2])


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    return paths


def test_stored_maps_are_those_of_the_tower(detector, files):
    maps = StoredMaps.of(detector, files, with_clip=True)
    assert len(maps) == 3
    pictures = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in files]
    images, frames = prepare_images(pictures, detector.rules.images)
    tower = detector.backbone.run_tower(images[[2, 0]], with_clip=True)
    found = maps.at(torch.tensor([2, 0]), torch.device("cpu"))
    assert maps.frame == frames[0]
    # float16 has 11 binary digits.
    for mine, theirs in zip([*found.pyramid, found.clip], [*tower.pyramid, tower.clip]):
        torch.testing.assert_close(mine, theirs, rtol=2**-10, atol=2**-10)


def test_losses_are_those_of_the_detector(detector, files):
    maps = StoredMaps.of(detector, files, with_clip=False)
    boxes, labels = [torch.tensor([[2.0, 3, 20, 25]])] * 2, [torch.tensor([1])] * 2
    rows = torch.tensor([1, 2])
    task = StoredMapsTask(detector.train(), maps)
    torch.manual_seed(1)
    scalars = task.loss(SceneBatch(rows, boxes, labels))

    torch.manual_seed(1)
    losses = detector.losses(
        torch.zeros(2, 3, SIDE, SIDE),
        torch.full((2, 2), float(SIDE)),
        [Annotations(*one) for one in zip(boxes, labels)],
        tower=maps.at(rows, torch.device("cpu")),
    )
    total = sum(value.sum() for name, value in losses.items() if name != "acc")
    torch.testing.assert_close(scalars["loss"], total)
    assert scalars["acc"].equal(losses["acc"].sum())
    tower = {id(p) for p in detector.backbone.model.parameters()}
    assert not any(id(p) in tower for p in task.trainable_parameters().values())


def make_loader():
    boxes = [torch.full((1, 4), float(number)) for number in range(7)]
    labels = [torch.tensor([number]) for number in range(7)]
    return SceneLoader(boxes, labels, batch_size=2, seed=3)


def test_scenes_come_once_in_an_epoch_and_a_place_can_be_continued():
    loader = make_loader()
    epochs = [[batch.rows.tolist() for batch in loader] for _ in range(2)]
    assert len(loader) == len(epochs[0]) == 3
    assert epochs[0] != epochs[1]
    assert len(set(chain.from_iterable(epochs[0]))) == 6

    loader, other = make_loader(), make_loader()
    iterator = iter(loader)
    first = next(iterator)
    assert first.labels[0].item() == first.rows[0] == first.boxes[0][0, 0]
    other.load_state_dict(loader.state_dict())
    assert [batch.rows.tolist() for batch in other] == epochs[0][1:]
    assert [batch.rows.tolist() for batch in other] == epochs[1]
