"""Absent phrases of composed scenes: none is there, and hard ones are close."""

import pytest
from flmm.demo.scenes import CONCEPTS, compose_demo_scenes
from flmm.experiments.presence import presence_figures, presence_table
from flmm.experiments.probed_scenes import ANIMALS, probed_scenes
from flmm.experiments.quickstart import main
from flmm.pictures.reliability import reliability_figure
from flmm.training.presence import ProbedPhrases


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return compose_demo_scenes(tmp_path_factory.mktemp("probed"), "val", count=30, seed=3).read()


def kind_of(text):
    word = text.split()[-1]
    return next(name for name in CONCEPTS if word in (name, f"{name}s"))


def test_absent_phrases_are_not_there(scenes):
    counted = 0
    for number, probed in enumerate(probed_scenes(scenes, seed=5)):
        own = [phrase.text for phrase in scenes[number].phrases]
        kinds = {kind_of(text) for text in own}
        probes = [probe for text in probed.texts for probe in text]
        assert sorted(p.text for p in probes if p.kind == "present") == sorted(own)
        assert all(1 <= len(text) <= 3 for text in probed.texts)
        for probe in probes:
            if probe.kind == "easy":
                assert kind_of(probe.text) not in kinds
            if probe.kind == "hard" and kind_of(probe.text) in kinds:
                assert probe.text.startswith("two ")
                assert probe.text not in own
                counted += 1
            elif probe.kind == "hard":
                assert (kind_of(probe.text) in ANIMALS) in {kind in ANIMALS for kind in kinds}
    assert counted


def test_the_same_seed_gives_the_same_phrases(scenes):
    def texts(seed):
        return [[[p.text for p in t] for t in i.texts] for i in probed_scenes(scenes, seed=seed)]

    assert texts(1) == texts(1) != texts(2)


def test_figures_and_their_table():
    import numpy as np
    import torch

    found = ProbedPhrases(
        torch.zeros(4, 1),
        np.array([0.9, 0.8, 0.0, 0.0]),
        np.array([0.9, 0.6, 0.7, 0.1]),
        np.array(["present", "present", "hard", "easy"]),
        np.arange(4),
    )
    figures = presence_figures(found, 0.5)
    assert figures.scores["AUROC easy"] == 1
    assert figures.scores["AUROC hard"] == 0.5
    assert (figures.scores["N-acc"], figures.scores["N-acc easy"]) == (0.5, 1.0)
    assert figures.scores["T-acc"] == 1
    assert "100.0" in presence_table({"presence head": figures}).splitlines()[-1]
    assert len(reliability_figure(figures.bins).axes) == 1


def test_options_of_a_training_need_train(capsys):
    with pytest.raises(SystemExit):
        main(["--steps", "3", "--seed", "0"])
    assert "--seed, --steps: only with --train" in capsys.readouterr().err


def test_a_folder_holds_one_quick_start(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="choose another folder with --out"):
        main(["--out", str(tmp_path)])
