"""Absent phrases of composed scenes: none is there, and hard ones are close."""

import numpy as np
import pytest
import torch
from flmm.demo.scenes import COLUMNS, CONCEPTS, ROWS, compose_demo_scenes
from flmm.experiments.presence import presence_figures, presence_note, presence_table
from flmm.experiments.probed_scenes import ANIMALS, probed_scenes
from flmm.experiments.quickstart import main
from flmm.pictures.reliability import reliability_figure
from flmm.training.presence import ProbedPhrases


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return compose_demo_scenes(tmp_path_factory.mktemp("probed"), "val", count=30, seed=3).read()


PLACES = {f"{row} {column}" for row in ROWS for column in COLUMNS}


def place_of(text):
    return next((place for place in PLACES if text.endswith(f" {place}")), "")


def kind_of(text):
    word = text.removesuffix(place_of(text)).split()[-1]
    return next(name for name in CONCEPTS if word in (name, f"{name}s"))


def test_absent_phrases_are_not_there(scenes):
    changes = []
    for number, probed in enumerate(probed_scenes(scenes, seed=5)):
        own = [phrase.text for phrase in scenes[number].phrases]
        kinds = {kind_of(text) for text in own}
        probes = [probe for text in probed.texts for probe in text]
        present = [probe.text for probe in probes if probe.kind == "present"]
        assert sorted(text for text in present if not place_of(text)) == sorted(own)
        assert all(1 <= len(text) <= 3 for text in probed.texts)
        for probe in probes:
            if probe.kind == "easy":
                assert kind_of(probe.text) not in kinds
            if probe.change == "count":
                assert kind_of(probe.text) in kinds
                assert probe.text.startswith("two ")
                assert probe.text not in own
            if probe.change == "sibling":
                assert kind_of(probe.text) not in kinds
                assert (kind_of(probe.text) in ANIMALS) in {kind in ANIMALS for kind in kinds}
            changes.append(probe.change)
    assert {*changes} == {"", "count", "side", "sibling"}


def test_a_place_is_right_where_the_phrase_is_present(scenes):
    kinds = []
    for number, probed in enumerate(probed_scenes(scenes, seed=5)):
        masks = dict(
            zip([p.text for p in scenes[number].phrases], scenes[number].load()[1], strict=True)
        )
        for probe in (probe for text in probed.texts for probe in text):
            if place := place_of(probe.text):
                thing = masks[probe.text.removesuffix(f" {place}")]
                centre = np.argwhere(thing).mean(0)
                column = COLUMNS[min(int(3 * centre[1] / thing.shape[1]), 2)]
                assert (place.split()[1] == column) == (probe.kind == "present")
                kinds.append(probe.kind)
    assert {*kinds} == {"present", "hard"}


def test_the_same_seed_gives_the_same_phrases(scenes):
    def texts(seed):
        return [[[p.text for p in t] for t in i.texts] for i in probed_scenes(scenes, seed=seed)]

    assert texts(1) == texts(1) != texts(2)


def test_figures_and_their_table():
    found = ProbedPhrases(
        torch.zeros(4, 1),
        np.array([0.9, 0.8, 0.0, 0.0]),
        np.array([0.9, 0.6, 0.7, 0.1]),
        np.array(["present", "present", "hard", "easy"]),
        np.array(["", "", "side", ""]),
        np.arange(4),
        np.zeros(4, dtype=bool),
    )
    figures = presence_figures(found, 0.5)
    assert figures.scores["AUROC easy"] == 1
    assert figures.scores["AUROC hard"] == figures.scores["AUROC side"] == 0.5
    assert (figures.scores["N-acc"], figures.scores["N-acc easy"]) == (0.5, 1.0)
    assert figures.scores["T-acc"] == 1
    assert "100.0" in presence_table({"presence head": figures}).splitlines()[-1]
    assert len(reliability_figure(figures.bins).axes) == 1
    low, high = figures.intervals["N-acc"]
    assert low == 0
    assert high == 1
    assert "T-acc 100.0 % (100.0 to 100.0)" in presence_note({"presence head": figures})


def test_options_of_a_training_need_train(capsys):
    with pytest.raises(SystemExit):
        main(["--steps", "3", "--seed", "0"])
    assert "--seed, --steps: only with --train" in capsys.readouterr().err


def test_a_folder_holds_one_quick_start(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="choose another folder with --out"):
        main(["--out", str(tmp_path)])
