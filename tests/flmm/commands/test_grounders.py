"""Grounders on the command line: without heads, several in one table, options that do not go
together."""

import json

import pytest
from clim_data import PanopticNarratives
from flmm.commands.main import main
from flmm.demo.model_files import write_demo_model
from flmm.demo.sam import build_demo_sam
from flmm.demo.scenes import compose_demo_scenes
from flmm.grounders import AttentionHead, ChosenHeads
from flmm.web import command
from flmm.web.makers import refiner_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo LMM and SAM, chosen heads, and scenes."""
    root = tmp_path_factory.mktemp("demo")
    write_demo_model(root / "lmm")
    build_demo_sam().save_pretrained(root / "sam")
    compose_demo_scenes(root / "scenes", "val", count=3)
    ChosenHeads((AttentionHead(1, 1), AttentionHead(0, 1))).save(root / "heads.json")
    return root


def data_options(folder) -> list[str]:
    notes = folder / "scenes" / "annotations"
    return [
        *("--images", str(folder / "scenes" / "images")),
        *("--narratives-json", str(notes / "narratives.json")),
        *("--panoptic-json", str(notes / "panoptic.json")),
        *("--panoptic-dir", str(notes / "panoptic")),
    ]


def test_attention_grounds_without_heads_and_without_sam(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CLIM_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("flmm.grounders.chosen_heads.SCENES", 4)
    image = folder / "scenes" / "images" / "000000000001.png"
    arguments = ["ground", str(image), "a frog", "a pig", "--lmm", str(folder / "lmm")]
    arguments += ["--grounder", "attention", "-o", str(tmp_path / "out.png")]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "choosing attention heads on" in said
    assert "masks stay coarse" in said
    (kept,) = (tmp_path / "cache" / "attention-heads").iterdir()
    assert str(kept) in said
    assert all(
        phrase["found"] for phrase in json.loads((tmp_path / "out.json").read_text())["phrases"]
    )

    assert main(arguments) == 0
    assert "choosing" not in capsys.readouterr().err


def test_answers_without_a_box_are_said(folder, tmp_path, capsys):
    image = folder / "scenes" / "images" / "000000000001.png"
    arguments = ["ground", str(image), "a frog", "--lmm", str(folder / "lmm"), "--grounder", "box"]
    assert main([*arguments, "-o", str(tmp_path / "out.png")]) == 0
    printed = capsys.readouterr()
    assert "not found  score 0.00  a frog" in printed.out
    assert "not found: 'a frog': no box in the answer: the LMM wrote" in printed.err


def test_several_grounders_are_compared_in_one_table(folder, tmp_path, capsys):
    arguments = ["eval", "png", *data_options(folder), "--lmm", str(folder / "lmm")]
    arguments += ["--refiner", str(folder / "sam"), "--workers", "0", "--pictures", "0"]
    arguments += ["--grounder", "attention", "box", "-o", str(tmp_path)]
    arguments += ["--attention-heads", str(folder / "heads.json")]
    assert main(arguments) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["metrics"]) == ["attention", "box"]
    assert report["metrics"]["box"]["AR"] == 0 < report["metrics"]["attention"]["AR"]
    for kind, figures in report["metrics"].items():
        assert figures["seconds_per_phrase"] > 0
        own = json.loads((tmp_path / kind / "report.json").read_text())
        assert own["metrics"] == figures
        assert own["config"].get("grounder") == kind
    phrases = sum(len(sample.phrases) for sample in narratives(folder))
    notes = json.loads((tmp_path / "box" / "report.json").read_text())["notes"]
    assert notes[-1].startswith(f"{phrases} phrases have no mask, such as 00000000000")

    assert main(arguments) == 0  # all is scored; nothing is timed
    again = json.loads((tmp_path / "report.json").read_text())["metrics"]["attention"]
    assert again.pop("seconds_per_phrase") is None
    assert again.items() <= report["metrics"]["attention"].items()


def narratives(folder):
    notes = folder / "scenes" / "annotations"
    data = PanopticNarratives(
        folder / "scenes" / "images",
        notes / "narratives.json",
        notes / "panoptic.json",
        notes / "panoptic",
    )
    return [data[number] for number in range(len(data))]


def test_the_page_offers_the_grounders_that_are_named(folder, monkeypatch):
    offered = []
    monkeypatch.setattr(
        command, "serve", lambda app, *_: offered.append(app.state.endpoints.demo.makers)
    )
    arguments = ["demo", "--lmm", str(folder / "lmm"), "--refiner", str(folder / "sam")]
    arguments += ["--grounder", "attention", "box", "--port", "0"]
    arguments += ["--attention-heads", str(folder / "heads.json"), "--device", "cpu"]
    assert main(arguments) == 0
    (makers,) = offered
    assert makers.offered() == {
        "grounders": ["attention", "box"],
        "outlines": ["refined", "coarse"],
    }
    assert makers.heads is None
    choice, grounder = makers.chosen("box", "coarse")
    assert (choice.grounder, refiner_of(grounder).square.edge) == ("box", 0)
    assert refiner_of(makers.chosen("box")[1]).square.edge > 0
    assert grounder.lmm is makers.lmm


MISTAKES = {
    "no LMM": (["--grounder", "attention"], "which LMM? Pass --lmm"),
    "no heads": (["--lmm", "x"], "masks need trained heads"),
    "heads of attention": (
        ["--lmm", "x", "--grounder", "box", "--attention-heads", "x.json"],
        "no effect with --grounder box",
    ),
    "each alone": (["--lmm", "x", "--grounder", "box", "--each-alone"], "leave out --each-alone"),
}


@pytest.mark.parametrize(("options", "says"), MISTAKES.values(), ids=MISTAKES)
def test_options_that_do_not_go_together(folder, capsys, options, says):
    image = folder / "scenes" / "images" / "000000000001.png"
    assert main(["ground", str(image), "a frog", *options]) == 2
    assert says in capsys.readouterr().err
