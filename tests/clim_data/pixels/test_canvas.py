"""Mosaics of whole pictures, against the golden case 11."""

import random

import pytest
import torch
from clim_data.pixels.canvas import CanvasDraw, lay_canvas
from clim_data.pixels.jitter import resize_bilinear
from clim_data.pixels.transforms import short_side_size
from golden_detectors import close
from golden_detic import FAMILY


def draw_of(draws, side, cell, widths):
    """The draws of a sidecar: "choice" is a row at the top, "randint" where a middle one starts."""
    tops = [value for kind, value in draws if kind == "choice"]
    starts = [value for kind, value in draws if kind == "randint"]
    at_top = {2: [False, True], 3: [False, *tops, True], 4: tops}[side]
    shift = [0.5] * side
    for row, start in enumerate(starts):
        # The middle of a whole number's share of [0, 1].
        width = widths[row * side + 1]
        shift[row] = (start - cell + 0.5) / (cell - width + 1)
    return CanvasDraw(side, tuple(at_top), tuple(shift))


def check_pixels(case, key, found):
    close(case, key, found.permute(1, 2, 0))


def test_golden_canvas_and_its_resized_form(golden):
    case = golden("case11_mosaic", FAMILY)
    cell, height = case.meta["config"]["img_scale_wh"]
    # Width and height.
    final = case.meta["config"]["final_resize"]
    names = sorted(case.meta["data"]["draws"])
    sides = {side for side, _ in case.meta["config"]["choices"]}
    assert {int(name[1]) for name in names} == sides

    for name in names:
        side = int(name[1])
        pictures = [case.tensor(f"in/img{i}").permute(2, 0, 1) for i in range(side * side)]
        factors = [min(cell / p.shape[2], height / p.shape[1]) for p in pictures]
        widths = [int(p.shape[2] * f) for p, f in zip(pictures, factors, strict=True)]
        draw = draw_of(case.meta["data"]["draws"][name], side, cell, widths)

        canvas, boxes = lay_canvas(pictures, (height, cell), draw)
        check_pixels(case, f"out/{name}/canvas", canvas)
        close(case, f"out/{name}/boxes", boxes)

        size = short_side_size(tuple(canvas.shape[1:]), min(final), max(final))
        assert list(size) == case.arrays[f"out/{name}/resized_shape"].tolist()
        check_pixels(case, f"out/{name}/resized", resize_bilinear(canvas, size))
        scale = [new / old for new, old in zip(size[::-1], canvas.shape[:0:-1], strict=True)]
        close(case, f"out/{name}/resized_boxes", boxes * torch.tensor(scale * 2))


def test_draws_follow_their_seed_and_pictures_stay_in_their_cells():
    draws = [CanvasDraw.of(random.Random(seed)) for seed in range(60)]
    assert draws[4] == CanvasDraw.of(random.Random(4))
    assert {draw.side for draw in draws} == {2, 3, 4}
    pictures = [torch.full((3, 5 + i, 20 - i), 7 * i, dtype=torch.uint8) for i in range(16)]
    for draw in draws:
        canvas, boxes = lay_canvas(pictures[: draw.side**2], (10, 12), draw)
        assert canvas.shape == (3, 10 * draw.side, 12 * draw.side)
        for place, box in enumerate(boxes):
            row, column = divmod(place, draw.side)
            low = torch.tensor([column * 12, row * 10]).float()
            assert (box[:2] >= low).all()
            # A box is at most a pixel larger than its picture.
            assert (box[2:] < low + torch.tensor([13, 11])).all()
            x, y = ((box[:2] + box[2:]) / 2).long().tolist()
            assert canvas[0, y, x] == 7 * place


def test_canvas_refuses_other_numbers():
    with pytest.raises(ValueError, match="one of"):
        CanvasDraw(5, (True,) * 5, (0.0,) * 5)
    with pytest.raises(ValueError, match="one of each per row"):
        CanvasDraw(2, (True,), (0.0,))
    with pytest.raises(ValueError, match="3 pictures"):
        lay_canvas([torch.zeros(3, 2, 2)] * 3, (4, 4), CanvasDraw.of(random.Random(0)))
