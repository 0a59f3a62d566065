"""Readouts side by side: hand-made maps with known figures, and a real tower against a loop."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from clim_data import RegionSample
from clim_eval.evaluators.readouts import ReadoutComparison
from clim_models import Dense, Pooled, Readout
from tiny_towers import build_vit


def sample(masks: list[torch.Tensor], labels: list[int], px: int = 32) -> RegionSample:
    """An image whose regions have these masks (h, w) on the grid, and the boxes around them."""
    stacked = torch.stack(masks).to(torch.uint8)
    side = stacked.shape[-1]
    boxes = []
    for mask in stacked:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        x0, x1 = columns.min() / side, (columns.max() + 1) / side
        y0, y1 = rows.min() / side, (rows.max() + 1) / side
        boxes.append([float(x0), float(y0), float(x1), float(y1)])
    return RegionSample(
        image=torch.randint(1, 255, (3, px, px), dtype=torch.uint8),
        boxes=torch.tensor(boxes),
        labels=torch.tensor(labels),
        areas=torch.ones(len(labels)),
        is_thing=torch.ones(len(labels), dtype=torch.bool),
        masks=stacked,
        crops=None,
        image_id=0,
    )


class MapModel:
    """A model whose map is given: one channel for each class."""

    training = False

    def __init__(self, unit_map: torch.Tensor):
        self.map = F.normalize(unit_map, dim=0)[None]

    def train(self, mode=True):
        return self

    def normalize_pixels(self, pixels):
        return pixels.float()

    def encode(self, images, requests, *, boxes=None, masks=None):
        found = {}
        for request in requests:
            if isinstance(request, Dense):
                found[request] = self.map
            else:
                inside = masks[0].float().flatten(1)
                rows = inside @ self.map[0].flatten(1).T / inside.sum(1, keepdim=True)
                found[request] = F.normalize(rows, dim=-1)
        return found


def rectangle(rows: slice, columns: slice, side: int = 4) -> torch.Tensor:
    mask = torch.zeros(side, side)
    mask[rows, columns] = 1
    return mask


def test_figures_of_a_map_that_is_known():
    left, right = rectangle(slice(0, 4), slice(0, 2)), rectangle(slice(0, 4), slice(2, 4))
    seen = torch.zeros(3, 4, 4)
    seen[0, :, :2] = 1  # class 0 is seen where it is
    seen[2, :2, 2:] = 1  # the upper half of class 1 is taken for class 2
    seen[1, 2:, 2:] = 1
    data = [sample([left, right], [0, 1])]
    metrics = ReadoutComparison(MapModel(seen), torch.eye(3), readouts=[Readout.VALUE]).run(data)
    # Class 0: 8 of 8. Class 1: 4 of 8. The tie of classes 1 and 2 in the region is no success.
    assert metrics["value.mIoU"] == pytest.approx((1.0 + 0.5) / 2)
    assert metrics["value.masks.mAcc1"] == pytest.approx(0.5)
    assert metrics["value.sign"] == 1.0


def test_a_map_that_is_upside_down_has_no_sign():
    middle = rectangle(slice(1, 3), slice(1, 3))
    seen = torch.stack([1 - middle + 0.1, middle + 0.1])
    metrics = ReadoutComparison(MapModel(seen), torch.eye(2), readouts=[Readout.VALUE]).run(
        [sample([middle], [0])]
    )
    assert metrics["value.sign"] == 0.0
    assert metrics["value.mIoU"] == 0.0


def test_the_smallest_mask_counts_where_several_overlap():
    whole, part = torch.ones(4, 4), rectangle(slice(0, 2), slice(0, 4))
    seen = torch.stack([1 - part, part]) + 0.01
    metrics = ReadoutComparison(MapModel(seen), torch.eye(2), readouts=[Readout.VALUE]).run(
        [sample([part, whole], [1, 0])]
    )
    assert metrics["value.mIoU"] == 1.0


def test_padding_is_no_surrounding():
    """Class 0 is highest in the padding below; only the image around the region counts."""
    region = rectangle(slice(1, 2), slice(1, 3))
    seen = torch.zeros(2, 4, 4)
    seen[1] = 1
    seen[0] = 0.1
    seen[0, 1, 1:3] = 0.2
    seen[0, 2:] = 5.0
    item = sample([region], [0])
    padded = item.image.clone()
    padded[:, 16:] = 0
    run = ReadoutComparison(MapModel(seen), torch.eye(2), readouts=[Readout.VALUE]).run
    assert run([dataclasses.replace(item, image=padded)])["value.sign"] == 1.0
    assert run([item])["value.sign"] == 0.0


def test_a_tower_gives_what_single_calls_give():
    model = build_vit()
    torch.manual_seed(3)
    classes = F.normalize(torch.randn(5, model.embed_dim), dim=-1)
    data = [
        sample([(torch.rand(4, 4) > 0.4).float(), torch.ones(4, 4)], [i % 5, (i + 2) % 5])
        for i in range(3)
    ]
    metrics = ReadoutComparison(model, classes, readouts=list(Readout), batch_size=2).run(data)

    labels = torch.cat([item.labels for item in data])
    for readout in Readout:
        right = []
        for item in data:
            pixels = model.normalize_pixels(item.image[None])
            rows = model.encode(pixels, [Pooled("boxes", readout)], boxes=[item.boxes])
            scores = rows[Pooled("boxes", readout)] @ classes.T
            right += (scores.argmax(1) == item.labels).tolist()
        of_class = [torch.tensor(right)[labels == name].float().mean() for name in labels.unique()]
        expected = float(torch.stack(of_class).mean())
        assert metrics[f"{readout.value}.boxes.mAcc1"] == pytest.approx(expected)
        assert 0 <= metrics[f"{readout.value}.mIoU"] <= 1


def test_mistakes_are_answered_with_the_fix():
    model = build_vit()
    with pytest.raises(ValueError, match="no readouts: pass some of value_residual, value"):
        ReadoutComparison(model, torch.eye(3), readouts=[])
    item = dataclasses.replace(sample([torch.ones(4, 4)], [0]), masks=None)
    with pytest.raises(ValueError, match="build it with masks=True"):
        ReadoutComparison(model, torch.eye(24), readouts=[Readout.VALUE]).run([item])
