"""Regions of images without boxes, against the golden cases 09 and 10."""

import pytest
import torch
from clim_models.detection.image_level.regions import (
    NO_TILE,
    TileRules,
    draw_groups,
    group_rectangles,
    largest_proposals,
    side_of,
    tiles_of_boxes,
    with_group_boxes,
)
from golden_detectors import close
from golden_detic import FAMILY, as_groups


def inputs(case, name):
    parts = ("image_boxes", "proposals", "scores")
    return [case.tensor(f"in/{name}/{part}") for part in parts]


def test_golden_largest_proposals(golden):
    case = golden("case09_image_losses", FAMILY)
    config = case.meta["config"]
    rules = TileRules(config["iof_thr"], config["topk"])
    names = sorted({key.split("/")[2] for key in case.arrays if key.startswith("out/tags/")})
    for name in names:
        tiles, proposals, scores = inputs(case, name)
        before = proposals.clone()
        owners = tiles_of_boxes(proposals, tiles, rules.overlap)
        assigned = owners != NO_TILE
        close(case, f"out/tags/{name}/assigned_boxes", proposals[assigned])
        close(case, f"out/tags/{name}/box_ids", owners[assigned])
        found = largest_proposals(tiles, proposals, scores, rules)
        close(case, f"out/tags/{name}/boxes", found)
        without = largest_proposals(tiles, proposals, None, rules)
        close(case, f"out/tags/{name}/boxes_no_scores", without)
        assert torch.equal(proposals, before)


def test_golden_group_boxes(golden):
    case = golden("case10_groups", FAMILY)
    config, data = case.meta["config"], case.meta["data"]
    rules = TileRules(config["iof_thr"], config["topk"])
    for name, calls in data["groups"].items():
        tiles, proposals, scores = inputs(case, name)
        first, following, of_captions = (as_groups(groups, len(tiles)) for groups in calls)

        found = with_group_boxes(largest_proposals(tiles, proposals, scores, rules), first)
        close(case, f"out/{name}/tag_boxes", found)
        later = with_group_boxes(largest_proposals(tiles, found, None, rules), following)
        close(case, f"out/{name}/tag_boxes_next_stage", later)
        close(case, f"out/{name}/caption_boxes", with_group_boxes(tiles, of_captions))


def test_golden_group_probabilities(golden):
    case = golden("case10_groups", FAMILY)
    keys = [key for key in case.arrays if key.startswith("out/group_probability")]
    for key in keys:
        rectangles, probabilities = group_rectangles(int(key.removeprefix("out/group_probability")))
        found = torch.cat([rectangles.float(), probabilities[:, None]], 1).tolist()
        expected = case.tensor(key).tolist()
        assert len(found) == len(expected)
        for ours, theirs in zip(sorted(found), sorted(expected), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-6)


def test_drawn_groups_are_different_rectangles_of_several_tiles():
    groups = draw_groups(3, 20)
    assert groups.shape == (20, 9)
    assert len(set(map(tuple, groups.tolist()))) == 20
    for group in groups.view(-1, 3, 3):
        rows, columns = group.any(1).sum(), group.any(0).sum()
        assert group.sum() == rows * columns > 1

    same = [draw_groups(4, 4, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*same)
    assert draw_groups(1, 0).shape == (0, 1)
    with pytest.raises(ValueError, match="6 groups of a 2 x 2 mosaic, which has 5"):
        draw_groups(2, 6)


def test_draws_are_in_proportion_to_the_probabilities():
    rectangles, probabilities = group_rectangles(2)
    generator = torch.Generator().manual_seed(0)
    firsts = torch.stack([draw_groups(2, 1, generator)[0] for _ in range(1000)])
    whole = firsts.all(1).float().mean().item()
    is_whole = ((rectangles[:, 1] - rectangles[:, 0]) * (rectangles[:, 3] - rectangles[:, 2])) == 1
    expected = probabilities[is_whole].sum().item()
    # Four standard deviations of 1000 draws.
    assert abs(whole - expected) < 4 * (expected * (1 - expected) / 1000) ** 0.5


def test_tiles_without_proposals_stand_for_themselves():
    tiles = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10]])
    assert torch.equal(largest_proposals(tiles, torch.zeros(0, 4), None, TileRules()), tiles)
    # A proposal without area belongs nowhere; the other one is clamped to the first tile.
    proposals = torch.tensor([[12.0, 2, 12, 9], [-5, 1, 9, 8]])
    found = largest_proposals(tiles, proposals, torch.tensor([0.9, 0.1]), TileRules())
    assert found.tolist() == [[0, 1, 9, 8], tiles[1].tolist()]


def test_mosaics_are_square():
    assert side_of(9) == 3
    with pytest.raises(ValueError, match="6 tiles"):
        side_of(6)
    with pytest.raises(ValueError, match="overlap=2"):
        TileRules(overlap=2)
