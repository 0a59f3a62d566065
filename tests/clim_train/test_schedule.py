"""Learning rates against the original schedules, and the number of steps."""

import pytest
from clim_train.options.sections import OptimConfig, ScheduleConfig
from clim_train.schedule import (
    const_cooldown_lr,
    const_lr,
    cosine_lr,
    learning_rate,
    total_steps,
    warmup_note,
)


def golden_sets(case):
    for i, config in enumerate(case.meta["configs"]):
        steps = case.tensor(f"in/s{i}/steps").tolist()
        yield i, steps, {"base": config["base"], "warmup": config["warm"]}, config


def test_golden_cosine_and_const(golden):
    case = golden("case09_schedule")
    for i, steps, common, config in golden_sets(case):
        cosine = [cosine_lr(step, total=config["total"], **common) for step in steps]
        assert cosine == pytest.approx(
            case.tensor(f"out/s{i}/cosine").tolist(), rel=1e-12, abs=1e-18
        )
        const = [const_lr(step, **common) for step in steps]
        assert const == pytest.approx(case.tensor(f"out/s{i}/const").tolist(), rel=1e-12)


def test_golden_cooldown(golden):
    case = golden("case09_schedule")
    for i, steps, common, config in golden_sets(case):
        keys = [key for key in case.arrays if key.startswith(f"out/s{i}/cooldown")]
        assert keys
        for key in keys:
            words = case.meta["keys"][key]["description"].split()
            power, end = (
                float(words[words.index("power") + 1]),
                float(words[words.index("end") + 1]),
            )
            options = {
                "total": config["total"],
                "cooldown": config["cooldown_steps"],
                "power": power,
                "end": end,
            }
            rates = [const_cooldown_lr(step, **options, **common) for step in steps]
            assert rates == pytest.approx(case.tensor(key).tolist(), rel=1e-12, abs=1e-18), key


def test_configuration_chooses_the_schedule():
    optim = OptimConfig(lr=2.0)
    cosine = ScheduleConfig(kind="cosine", warmup_steps=2)
    assert [learning_rate(s, 6, optim, cosine) for s in (0, 1, 2, 4, 6)] == pytest.approx(
        [1, 2, 2, 1, 0]
    )
    const = ScheduleConfig(kind="const", warmup_steps=0)
    assert [learning_rate(s, 6, optim, const) for s in (0, 5)] == [2, 2]
    cooldown = ScheduleConfig(
        kind="const_cooldown", warmup_steps=0, cooldown_steps=4, cooldown_end_lr=1.0
    )
    assert [learning_rate(s, 8, optim, cooldown) for s in (3, 4, 6, 8)] == pytest.approx(
        [2, 2, 1.5, 1]
    )


def test_the_rate_falls_at_shares_of_the_run():
    step = ScheduleConfig(kind="step", warmup_steps=0, decay_at=(2 / 3, 0.75), decay_factor=0.5)
    rates = [learning_rate(s, 12, OptimConfig(lr=2.0), step) for s in (0, 7, 8, 9, 11)]
    assert rates == [2, 2, 1, 0.5, 0.5]
    # A shorter run falls at the same shares.
    assert [learning_rate(s, 3, OptimConfig(lr=2.0), step) for s in (1, 2)] == [2, 0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "step"}, "rising shares of the run"),
        ({"kind": "step", "decay_at": (0.9, 0.8)}, "rising shares of the run"),
        ({"kind": "step", "decay_at": (0.5, 1.0)}, "between 0 and 1"),
        ({"kind": "step", "decay_at": (0.5,), "decay_factor": 1.5}, "decay_factor=1.5 .* 0 and 1"),
        ({"kind": "const", "decay_at": (0.5,)}, "together with schedule.kind 'step'"),
    ],
)
def test_wrong_shares_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**options)


def test_total_steps_counts_whole_accumulations():
    assert total_steps(11, 4, ScheduleConfig(epochs=3)) == 6
    assert total_steps(11, 4, ScheduleConfig(epochs=3, steps=100)) == 100
    with pytest.raises(ValueError, match="less accumulation"):
        total_steps(3, 4, ScheduleConfig())


def test_runs_that_end_within_their_warm_up_are_said():
    optim = OptimConfig(lr=1e-5)
    note = warmup_note(120, optim, ScheduleConfig(epochs=6, warmup_steps=1000))
    assert "after 120 steps" in note
    assert "1.2e-06 of 1.0e-05; use --schedule.warmup-share 0.1" in note
    assert warmup_note(1000, optim, ScheduleConfig(epochs=6, warmup_steps=1000)) is None
    assert warmup_note(120, optim, ScheduleConfig(epochs=6, warmup_share=0.1)) is None


@pytest.mark.parametrize(
    ("options", "highest"),
    [
        ({"kind": "whole_cosine"}, "1.6e-06"),
        ({"kind": "step", "decay_at": (0.5,)}, "3.0e-06"),
    ],
)
def test_the_note_has_the_highest_rate_where_the_last_is_lower(options, highest):
    schedule = ScheduleConfig(steps=600, warmup_steps=1000, **options)
    note = warmup_note(600, OptimConfig(lr=1e-5), schedule)
    assert f"will not exceed {highest} of" in note
    assert note.endswith("or more --schedule.steps")
