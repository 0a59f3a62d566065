"""What the user gave on the command line."""

import pytest
from clim_train.commands import configure, given_options


def test_names_of_options():
    words = ["--data.batch_size=8", "--data.images", "--photos", "a", "--run.no-bar"]
    assert given_options(words) == {"data.batch-size", "data.images", "photos", "run.bar"}


def test_epochs_of_the_user_replace_the_steps_of_the_recipe():
    assert configure("clim_quickstart", []).schedule.steps == 250
    schedule = configure("clim_quickstart", ["--schedule.epochs", "10"]).schedule
    assert (schedule.epochs, schedule.steps) == (10, None)
    assert configure("clim_coco_vitb16", ["--schedule.steps=7"]).schedule.steps == 7


def test_two_lengths_are_refused():
    with pytest.raises(ValueError, match="two lengths of one run"):
        configure("clim_quickstart", ["--schedule.epochs=3", "--schedule.steps=9"])
    explicit = ["--schedule.epochs=3", "--schedule.steps=None"]
    assert configure("clim_quickstart", explicit).schedule.steps is None
