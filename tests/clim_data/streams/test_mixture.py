"""Samples of several sources in each step, against the golden case 07."""

import numpy as np
import pytest
from clim_data.streams.mixture import UPRIGHT, WIDE, Mixture, is_wide
from golden_detic import FAMILY


def steps_of(mixture, steps, rank=0, world_size=1):
    """Sample numbers of each step: a list per step, source by source."""
    drawn, found = mixture.start(), []
    for group in mixture.groups(steps).tolist():
        found.append(mixture.numbers(drawn, group, rank, world_size))
        drawn = mixture.after(drawn, group, world_size)
    return found


def mixture_of(sizes, per_rank, seed=3, **options):
    return Mixture([is_wide(np.array(size)) for size in sizes], per_rank, seed, **options)


def test_golden_steps_of_the_original(golden):
    case = golden("case07_sampler", FAMILY)
    for config in case.meta["config"]["configs"]:
        name, steps = config["name"], config["steps"]
        count = len(config["num_per_source"])
        sizes = [case.arrays[f"in/{name}/wh{i}"][:, ::-1] for i in range(count)]
        # The released code seeds the groups and the streams apart.
        groups = mixture_of(sizes, config["num_per_source"], config["numpy_seed"], original=True)
        assert groups.groups(steps).tolist() == case.arrays[f"out/{name}/groups"].tolist()
        np.testing.assert_allclose(groups.shares, case.arrays[f"out/{name}/group_ratio"], rtol=1e-6)

        streams = mixture_of(sizes, config["num_per_source"], config["seed"], original=True)
        starts = np.cumsum([0, *map(len, sizes[:-1])])
        drawn, found = streams.start(), []
        for group in groups.groups(steps).tolist():
            parts = streams.numbers(drawn, group, config["rank"], config["world_size"])
            numbers = [start + part for start, part in zip(starts, parts, strict=True)]
            found.append(np.concatenate(numbers).tolist())
            drawn = streams.after(drawn, group, config["world_size"])
        assert found == case.arrays[f"out/{name}/indices"].tolist()


SIZES = [[[2, 3]] * 5 + [[3, 2]] * 4, [[2, 3]] * 7 + [[3, 2]] * 3, [[2, 3]] * 7 + [[3, 2]] * 3]


def test_original_repeats_the_images_of_equal_sources_and_the_default_does_not():
    same = steps_of(mixture_of(SIZES, (2, 2, 2), original=True), 12)
    assert all((captions == mosaics).all() for _, captions, mosaics in same)
    other = steps_of(mixture_of(SIZES, (2, 2, 2)), 12)
    assert sum((captions == mosaics).all() for _, captions, mosaics in other) < 6


def test_a_step_is_of_one_group_and_a_round_has_every_sample_once():
    mixture = mixture_of(SIZES, (1, 2, 3))
    groups = mixture.groups(60).tolist()
    assert set(groups) == {UPRIGHT, WIDE}
    assert mixture.groups(20).tolist() == groups[:20]
    seen = {group: [] for group in set(groups)}
    for group, parts in zip(groups, steps_of(mixture, 60), strict=True):
        for numbers, wide in zip(parts, mixture.wide, strict=True):
            assert (wide[numbers] == (group == WIDE)).all()
        seen[group] += parts[1].tolist()
    assert sorted(seen[WIDE][:7]) == list(range(7))
    assert sorted(seen[WIDE][7:14]) == list(range(7))
    assert seen[WIDE][:7] != seen[WIDE][7:14]


def test_ranks_share_what_one_process_would_take():
    alone = steps_of(mixture_of(SIZES, (2, 4, 2)), 9)
    both = [steps_of(mixture_of(SIZES, (1, 2, 1)), 9, rank, 2) for rank in (0, 1)]
    for whole, first, second in zip(alone, *both, strict=True):
        for one, *halves in zip(whole, first, second, strict=True):
            assert sorted(one) == sorted(np.concatenate(halves))


def test_groups_do_not_count_where_a_source_lacks_one():
    mixture = mixture_of([[[2, 3]] * 4, [[3, 2], [2, 3]]], (2, 2))
    assert mixture.groups(5).tolist() == [WIDE] * 5
    assert sorted(steps_of(mixture, 1)[0][1]) == [0, 1]


def test_sources_without_samples_are_refused():
    with pytest.raises(ValueError, match="leave out sources without samples"):
        mixture_of([SIZES[0], np.zeros((0, 2))], (1, 1))
    with pytest.raises(ValueError, match="2 sources"):
        mixture_of(SIZES[:2], (1,))
