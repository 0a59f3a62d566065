"""The criteria of attention heads, compared with slow and obvious versions."""

import math

import pytest
import torch
from flmm.grounders.localization import (
    elbow,
    largest_region,
    regions,
    smoothed,
    spatial_entropy,
    vote,
)


def flooded(inside) -> list[set]:
    """The 8-connected regions of one mask, cell by cell."""
    left = {tuple(cell) for cell in inside.nonzero().tolist()}
    found = []
    while left:
        region, border = set(), [left.pop()]
        while border:
            y, x = border.pop()
            region.add((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            border += near
        found.append(region)
    return found


@pytest.fixture
def maps():
    made = torch.rand(12, 7, 9, generator=torch.Generator().manual_seed(2))
    made[:6] **= 6
    made[0, -1] = 1  # the whole bottom row
    made[1] = 0.25
    made[2] = 0
    made[2, 2:4, 3:6] = 1
    return made


def test_regions_are_those_of_a_flood(maps):
    for mask, labels in zip(maps > 0.6, regions(maps > 0.6)):
        assert not labels[~mask].any()
        for region in flooded(mask):
            numbers = {int(labels[cell]) for cell in region}
            assert len(numbers) == 1
        assert len(labels.unique()) == len(flooded(mask)) + bool((~mask).any())


def test_entropy_is_that_of_the_mass_of_regions(maps):
    found = spatial_entropy(maps)
    assert found[0] == found[1] == math.inf  # the bottom row; nothing above the mean
    assert found[2] == 0
    for one, entropy in zip(maps[3:], found[3:]):
        above = (one - one.mean()).clamp(min=0)
        mass = [sum(float(above[cell]) for cell in region) for region in flooded(above > 0)]
        shares = [m / sum(mass) for m in mass]
        wanted = -sum(share * math.log(share) for share in shares)
        assert float(entropy) == pytest.approx(wanted, abs=1e-5)


def test_the_elbow_is_farthest_from_the_chord():
    values = torch.tensor([0.9, 0.01, 0.0, 0.02, 0.03, 0.8, 0.04])
    assert elbow(values) == pytest.approx(0.04)
    assert elbow(torch.ones(5)) == 1


def test_votes_go_to_compact_heads_that_look_at_the_image():
    attention = torch.full((5, 12), 0.01)
    attention[:, [2, 5, 7, 8]] = torch.tensor([0.5, 0.4, 0.6, 0.5])
    entropy = torch.full((5, 12), 3.0)
    entropy[:, 0] = 0  # compact, but it does not look
    entropy[:, 7], entropy[:, 2], entropy[:, 5] = 1.0, 1.5, 2.0
    assert vote(attention, entropy, 2) == [7, 2]
    entropy[:, 8] = math.inf
    assert vote(attention, entropy, 12) == [7, 2, 5]


def test_the_largest_region_and_the_blur():
    inside = torch.zeros(1, 6, 8, dtype=torch.bool)
    inside[0, 0, 0] = inside[0, 4:, 5:] = True
    weights = torch.ones(1, 6, 8)
    assert torch.equal(
        largest_region(inside, weights)[0].nonzero().min(0).values, torch.tensor([4, 5])
    )
    weights[0, 0, 0] = 20
    assert largest_region(inside, weights).sum() == 1

    spot = torch.zeros(1, 9, 9)
    spot[0, 4, 4] = 1
    blurred = smoothed(spot)[0]
    torch.testing.assert_close(blurred.sum(), torch.tensor(1.0))
    assert blurred[4, 5] / blurred[4, 4] == pytest.approx(math.exp(-0.5))
    torch.testing.assert_close(smoothed(torch.ones(1, 3, 2)), torch.ones(1, 3, 2))
