"""Peaks and the connected regions around them."""

import numpy as np
import torch
from clim_models.pipelines import find_peaks
from clim_models.pipelines.peaks import boxes_of_regions


def region_around(values):
    """A slow, obvious version: walk from the peak to neighbours above the middle."""
    height, width = values.shape
    start = tuple(int(v) for v in np.unravel_index(values.argmax(), values.shape))
    middle = (values.mean() + values.max()) / 2
    seen, todo = {start}, [start]
    while todo:
        y, x = todo.pop()
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                there = (y + dy, x + dx)
                inside = 0 <= there[0] < height and 0 <= there[1] < width
                if inside and there not in seen and values[there] >= middle:
                    seen.add(there)
                    todo.append(there)
    region = np.zeros(values.shape, dtype=bool)
    for place in seen:
        region[place] = True
    return start, region


def test_peaks_and_regions_are_those_of_a_walk():
    maps = torch.nn.functional.avg_pool2d(
        torch.rand(12, 1, 11, 15, generator=torch.Generator().manual_seed(0)), 3, 1
    )[:, 0]
    found = find_peaks(maps)
    boxes = boxes_of_regions(found.regions)
    for row, values in enumerate(maps.double().numpy()):
        start, region = region_around(values)
        assert (int(found.rows[row]), int(found.columns[row])) == start
        assert np.array_equal(found.regions[row].numpy(), region)
        assert bool(found.useful[row]) == (region.mean() <= 1 / 3)
        ys, xs = np.nonzero(region)
        box = [xs.min() / 13, ys.min() / 9, (xs.max() + 1) / 13, (ys.max() + 1) / 9]
        np.testing.assert_allclose(boxes[row].numpy(), box, atol=1e-6)


def test_a_flat_map_has_a_peak_and_no_useful_region():
    found = find_peaks(torch.ones(1, 4, 4))
    assert not found.useful[0]
    assert found.regions.all()
