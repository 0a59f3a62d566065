import re
from itertools import pairwise

import pytest
import torch
from clim_data.streams.mosaics import (
    MosaicConfig,
    assemble_mosaics,
    cell_edges,
    plan_mosaics,
    stitch_tiles,
    tile_boxes,
)


@pytest.mark.parametrize(
    ("n", "sides", "singles"),
    [
        (0, (), 0),
        (1, (), 1),
        (3, (), 3),
        (4, (2,), 0),
        (12, (3,), 3),
        (28, (3, 4), 3),
        (29, (2, 3, 4), 0),
        (32, (2, 3, 4), 3),
        (58, (2, 2, 3, 3, 4, 4), 0),
        (86, (2, 2, 3, 3, 4, 4), 28),
    ],
)
def test_plan_places_every_image(n, sides, singles):
    plan = plan_mosaics(n, MosaicConfig())
    assert (plan.sides, plan.num_singles) == (sides, singles)
    assert plan.num_tiles + plan.num_singles == n


def test_plan_for_any_n_mix_and_min_singles():
    for mix in ({}, {2: 1}, {2: 3, 5: 1}, {4: 1, 2: 2}, {2: 0}):
        for min_singles in (0, 1, 7):
            for n in range(80):
                config = MosaicConfig(mix=mix, min_singles=min_singles)
                plan = plan_mosaics(n, config)
                assert plan.num_tiles + plan.num_singles == n
                assert plan.num_singles >= min(n, min_singles)
                assert list(plan.sides) == sorted(plan.sides)
                assert len(plan.tile_sizes(config)) == n


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"mix": {1: 1}}, "mix={1: 1}"),
        ({"mix": {2: -1}}, "mix={2: -1}"),
        ({"mix": {2.5: 1}}, "mix={2.5: 1}"),
        ({"canvas_px": 3}, "canvas_px=3"),
        ({"canvas_px": 64.0}, "canvas_px=64.0"),
        ({"single_px": 0}, "single_px=0"),
        ({"min_singles": -1}, "min_singles=-1"),
        ({"tile_source_px": 0}, "tile_source_px=0"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale=(0.0, 1.0)"),
        ({"crop_scale": (0.5, 1.5)}, "crop_scale=(0.5, 1.5)"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio=(2.0, 1.0)"),
    ],
)
def test_bad_config_is_rejected_with_value_and_legal_values(options, quoted):
    with pytest.raises(ValueError, match=r"must be|use whole") as caught:
        MosaicConfig(**options)
    assert quoted in str(caught.value)


@pytest.mark.parametrize("canvas", [64, 100, 250, 7])
@pytest.mark.parametrize("side", [2, 3, 4, 5])
def test_cells_cover_the_canvas_and_boxes_are_their_true_extent(canvas, side):
    edges = cell_edges(canvas, side)
    assert edges[0] == 0
    assert edges[-1] == canvas
    lengths = [b - a for a, b in pairwise(edges)]
    assert max(lengths) - min(lengths) <= 1
    config = MosaicConfig(canvas_px=canvas, mix={side: 1}, single_px=8)
    plan = plan_mosaics(side * side, config)
    tiles = [
        torch.full((3, h, w), i + 1, dtype=torch.uint8)
        for i, (h, w) in enumerate(plan.tile_sizes(config))
    ]
    mosaic = assemble_mosaics(tiles, plan, config)[0]
    boxes = tile_boxes(side, config)
    for i, box in enumerate((boxes * canvas).round().long().tolist()):
        inside = torch.zeros(canvas, canvas, dtype=torch.bool)
        inside[box[1] : box[3], box[0] : box[2]] = True
        assert torch.equal(mosaic[0] == i + 1, inside)


def test_mosaics_from_upsampled_tiles_have_equal_boxes():
    config = MosaicConfig(canvas_px=100, tile_source_px=8)
    assert torch.allclose(tile_boxes(3, config)[4], torch.tensor([1 / 3, 1 / 3, 2 / 3, 2 / 3]))


def test_too_few_tiles_is_an_error():
    with pytest.raises(ValueError, match="needs 4 tiles, got 3"):
        assemble_mosaics(
            [torch.zeros(3, 4, 4)] * 3, plan_mosaics(4, MosaicConfig()), MosaicConfig()
        )


def test_golden_split_order_boxes_and_mosaics(golden):
    case = golden("case04_clim_split")
    batches = {key.split("/")[1] for key in case.arrays if key.startswith("in/")}
    assert batches
    for name in batches:
        images = case.tensor(f"in/{name}/images")
        canvas = int(case.arrays[f"in/{name}/train_image_size"])
        config = MosaicConfig(canvas_px=canvas, tile_source_px=images.shape[-1])
        plan = plan_mosaics(len(images), config)
        assert plan.num_singles == int(case.arrays[f"out/{name}/num_single"])
        boxes = plan.boxes(config)
        assert [len(b) for b in boxes] == case.arrays[f"out/{name}/boxes_per_mosaic"].tolist()
        torch.testing.assert_close(
            torch.cat(boxes), case.tensor(f"out/{name}/pseudo_boxes"), atol=1e-6, rtol=0
        )
        mosaics = assemble_mosaics(images, plan, config)
        torch.testing.assert_close(
            mosaics, case.tensor(f"out/{name}/mosaicked_images"), atol=5e-5, rtol=0
        )
    plain = [
        re.fullmatch(r"out/(\w+)/mosaic_a_minibatch_(\d+)x\2_of_first_\d+", key)
        for key in case.arrays
    ]
    for match in filter(None, plain):
        images, side = case.tensor(f"in/{match[1]}/images"), int(match[2])
        for i, mosaic in enumerate(case.tensor(match[0])):
            assert torch.equal(
                stitch_tiles(images[side * side * i : side * side * (i + 1)], side), mosaic
            )
    assert any(plain)
