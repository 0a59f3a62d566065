"""Configurations and run folders that users have on their disks are read and continued."""

import json

import pytest
from house import access, machine, recipes, run_folder

CONFIGS = machine.RECORDS / "configs"
TOLERANCE = 1000 * 2**-24  # as in test_losses

# Options whose value in a recipe was changed on purpose since the files were written.
CHANGED_SINCE = {
    # One process has nothing to shard; several use the same stage as before, which is checked.
    ("engine", "zero_stage"),
    ("engine", "sharded_stage"),
    # The quick start embeds names alone: clim-tiny has learned no prompts of photographs.
    ("evaluation", "templates"),
}


def unchanged_options(config):
    """(section, option) -> value of all options that should be as they were."""
    sections = json.loads(config.to_json())
    found = {}
    for section, options in sections.items():
        for option, value in options.items():
            if (section, option) not in CHANGED_SINCE:
                found[section, option] = value
    return found


@pytest.mark.parametrize("kind", recipes.KINDS)
def test_configs_of_recipes_load_and_say_what_the_recipes_say(kind):
    reader = recipes.KINDS[kind][2]
    found = recipes.collect(kind)
    stored = {path.stem: path.read_text() for path in (CONFIGS / kind).glob("*.json")}
    assert set(stored) <= set(found)
    assert len(stored) >= 5

    for name, text in stored.items():
        config = reader.from_json(text)
        now = reader.from_json(found[name])
        assert unchanged_options(config) == unchanged_options(now), name
        assert config.engine.for_ranks(8).zero_stage == now.engine.for_ranks(8).zero_stage, name
        assert reader.from_json(config.to_json()) == config, name


def test_stored_run_resumes(tmp_path):
    recorded, is_same_machine = machine.load("run")
    run = run_folder.place(tmp_path)
    assert len(run_folder.losses_of(run)) == run_folder.STOPPED_AT

    assert access.programs()["clim-train"](["resume", str(run)]) == 0

    found = run_folder.losses_of(run)
    assert len(found) == run_folder.STEPS
    if is_same_machine:
        assert found == recorded["losses"]
    expected = [float.fromhex(value) for value in recorded["losses"]]
    assert [float.fromhex(value) for value in found] == pytest.approx(expected, rel=TOLERANCE)
    assert (run / "model" / "model.safetensors").exists()


def test_stored_run_is_small():
    sizes = [path.stat().st_size for path in run_folder.RECORDED.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) < 1_000_000
