import json
import os
from pathlib import Path

import pytest
import torch
from clim_data import PanopticRegions
from clim_eval.commands.main import main
from clim_eval.embeddings import embed_with_bar
from clim_eval.evaluators.regions import RegionClassification
from clim_eval.model_loading import templates_of_run
from clim_eval.reports.report import read_report
from clim_models import create_model, save_model
from clim_models.text import embed_classes
from PIL import Image
from safetensors import safe_open


@pytest.fixture
def data(golden):
    return golden("case07_panoptic").folder / "case07_data"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def region_options(data):
    return [
        "--images",
        str(data / "images"),
        "--panoptic-json",
        str(data / "panoptic.json"),
        "--image-px",
        "96",
    ]


def test_regions_write_what_the_evaluator_finds(model_options, data, tmp_path, capsys):
    out = tmp_path / "out"
    outputs = ["--outputs", "boxes", "boxes_attention", "masks"]
    argv = [
        "regions",
        *model_options,
        *region_options(data),
        *outputs,
        "--crops",
        "--templates",
        "photo",
    ]
    assert main([*argv, "--out", str(out)]) == 0
    report = read_report(out)
    model = create_model(model_options[1], pretrained=model_options[3])
    regions = PanopticRegions(
        data / "images",
        data / "panoptic.json",
        data / "panoptic",
        image_px=96,
        stride=16,
        crop_px=32,
    )
    classes = embed_classes(model, regions.class_names, templates=("a photo of {article} {}.",))
    evaluator = RegionClassification(model, classes, outputs=outputs[1:])
    rows = evaluator.collect(regions)
    assert report["metrics"] == evaluator.summarize(rows)
    assert report["data"]["counts"] == rows.counts()
    assert list(report["data"]["files"]) == ["panoptic.json"]
    assert report["config"]["model"] == model_options[1]
    assert (out / "figures" / "accuracy.png").stat().st_size > 1000
    shown = capsys.readouterr().out
    assert "boxes_attention" in shown
    assert str(out / "report.md") in shown
    assert list((tmp_path / "cache").rglob("classes-*.safetensors"))

    # The published protocol differs in rounding and mask resizing, and says so.
    assert main([*argv, "--protocol", "published", "--no-cache", "--out", str(out)]) == 0
    assert read_report(out)["config"]["protocol"] == "published"


def test_templates_are_those_of_the_run(tmp_path):
    assert templates_of_run(None) is None
    assert templates_of_run(tmp_path) is None
    config = tmp_path / "config.json"
    for content, found in (
        ({"evaluation": {"templates": "name"}, "task": {"name": "clim"}}, "name"),
        ({"evaluation": {"templates": "vild"}, "task": {"templates": "photo"}}, "photo"),
        ({"evaluation": {"templates": 3}}, None),
        ([], None),
    ):
        config.write_text(json.dumps(content))
        assert templates_of_run(tmp_path) == found


def test_many_prompts_are_a_choice_that_is_said(model_options, monkeypatch, capsys):
    monkeypatch.setattr("clim_eval.embeddings.MANY_PROMPTS", 100)
    model = create_model(model_options[1], pretrained=model_options[3])
    embed_with_bar(model, ["cat", "dog"], "vild", cache=None, show=True)
    said = capsys.readouterr().err
    assert "126 prompts: 2 classes x 63 templates; --templates photo makes 2 of them" in said

    embed_with_bar(model, ["cat", "dog"], "photo", cache=None, show=True)
    assert "prompts:" not in capsys.readouterr().err


def test_instances_are_regions_too(model_options, data, tmp_path):
    argv = [
        "regions",
        *model_options,
        "--images",
        str(data / "images"),
        "--image-px",
        "96",
        "--templates",
        "name",
    ]
    argv += [
        "--instances-json",
        str(data / "instances.json"),
        "--outputs",
        "boxes",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(argv) == 0
    assert {name.split(".")[1] for name in read_report(tmp_path / "out")["metrics"]} == {
        "thing",
        "all",
    }


def test_embed_then_regions_with_the_file(model_options, data, tmp_path, capsys):
    out, run = tmp_path / "classes.safetensors", tmp_path / "run"
    argv = [
        "embed",
        *model_options,
        "--categories-json",
        str(data / "panoptic.json"),
        "--templates",
        "photo",
    ]
    assert main([*argv, "--out", str(out)]) == 0
    with safe_open(out, framework="pt") as file:
        names = json.loads(file.metadata()["names"])
        rows = file.get_tensor("embeddings")
    assert (
        names
        == PanopticRegions(
            data / "images", data / "panoptic.json", data / "panoptic", image_px=96, stride=16
        ).class_names
    )
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(names)))

    argv = [
        "regions",
        *model_options,
        *region_options(data),
        "--templates",
        "photo",
        "--out",
        str(run),
    ]
    assert main([*argv, "--class-embeddings", str(out)]) == 0
    from_file = read_report(run)["metrics"]
    assert main(argv) == 0
    assert read_report(run)["metrics"] == from_file


def test_embed_names_from_a_list(model_options, tmp_path):
    (tmp_path / "names.txt").write_text("cat\n\n traffic light \n")
    out = tmp_path / "c.safetensors"
    assert (
        main(
            [
                "embed",
                *model_options,
                "--names",
                str(tmp_path / "names.txt"),
                "--no-cache",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    with safe_open(out, framework="pt") as file:
        assert json.loads(file.metadata()["names"]) == ["cat", "traffic light"]


def test_retrieval_names_what_it_leaves_out(model_options, data, tmp_path, capsys):
    images = json.loads((data / "panoptic.json").read_text())["images"][:4]
    captions = [
        {"id": i, "image_id": image["id"], "caption": f"scene {i}"}
        for i, image in enumerate(images)
    ]
    (tmp_path / "captions.json").write_text(
        json.dumps({"images": images, "annotations": captions[1:]})
    )
    argv = ["retrieval", *model_options, "--images", str(data / "images")]
    argv += ["--captions-json", str(tmp_path / "captions.json"), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    report = read_report(tmp_path / "out")
    assert set(report["metrics"]) == {f"{way}.R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)}
    assert report["metrics"]["i2t.R@5"] == 1.0  # fewer than five captions
    assert report["data"]["counts"] == {"images": len(images) - 1}
    shown = capsys.readouterr().out
    scored = len(images) - 1
    assert f"scored {scored} of {len(images)} images, left out 1: empty caption 1" in shown
    assert str(images[0]["id"]) in shown


def test_reports_side_by_side(model_options, data, tmp_path, capsys):
    for name, size in (("a", "96"), ("b", "64")):
        argv = ["regions", *model_options, *region_options(data)[:-1], size, "--templates", "name"]
        assert main([*argv, "--out", str(tmp_path / name)]) == 0
    argv = [
        "report",
        str(tmp_path / "a"),
        str(tmp_path / "b" / "report.json"),
        "--out",
        str(tmp_path / "both"),
    ]
    assert main(argv) == 0
    both = read_report(tmp_path / "both")
    assert both["metrics"] == {name: read_report(tmp_path / name)["metrics"] for name in ("a", "b")}
    assert both["config"]["b"]["image_px"] == 64
    assert (tmp_path / "both" / "figures" / "comparison.png").exists()
    regions = both["coverage"]["a: regions"]
    assert regions == read_report(tmp_path / "a")["coverage"]["regions"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--images", "nowhere"), "pass the right one with --images"),
        (("--panoptic-json", "nowhere.json"), "pass the right one with --panoptic-json"),
        (("--panoptic-dir", "nowhere"), "pass the right one with --panoptic-dir"),
        (("--model", "ViT-B-17"), "did you mean"),
        (("--class-embeddings", "nowhere.npy"), "clim-eval embed"),
        (("--image-px", "100"), "stride"),
        (("--pretrained", "nowhere.pt"), "nowhere.pt"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(model_options, data, capsys, change, message):
    argv = [
        "regions",
        *model_options,
        *region_options(data),
        "--panoptic-dir",
        str(data / "panoptic"),
    ]
    assert main([*argv, *change]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("clim-eval regions: ")
    assert message in error


def test_a_run_folder_knows_its_model_and_the_size_of_its_training(
    model_options, data, tmp_path, capsys
):
    model = create_model(model_options[1], pretrained=model_options[3])
    model.eval_px = 96
    save_model(model, tmp_path / "run" / "model")
    # A training's own configuration names no export.
    (tmp_path / "run" / "config.json").write_text("{}")
    argv = ["regions", *region_options(data)[:-2], "--templates", "name", "--out"]
    run = ["--pretrained", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*argv, str(tmp_path / "a"), *run]) == 0
    assert "reading at 96 px, the canvas of this training" in capsys.readouterr().err
    assert main([*argv, str(tmp_path / "b"), *model_options, "--image-px", "96"]) == 0
    assert "reading at" not in capsys.readouterr().err
    a, b = (read_report(tmp_path / name)["metrics"] for name in ("a", "b"))
    assert a == b
    assert main([*argv, str(tmp_path / "c")]) == 2
    assert "which model? pass --model and --pretrained" in capsys.readouterr().err


def test_missing_reports_and_images_exit_2(model_options, tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert main(["show", str(tmp_path / "no.jpg"), "a cat", *model_options]) == 2
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    assert main(["show", str(tmp_path / "bad.jpg"), "a cat", *model_options]) == 2
    assert capsys.readouterr().err.count("\n") == 3


def photos() -> Path:
    """Folder of real COCO photos: CLIM_DATA/coco_cc, or ../shared/data/coco_cc beside the
    repository."""
    root = os.environ.get("CLIM_DATA") or Path(__file__).parents[4] / "shared" / "data"
    return Path(root) / "coco_cc"


@pytest.mark.skipif(
    not photos().is_dir(), reason="no real photos: set CLIM_DATA to a folder with coco_cc"
)
def test_real_photos(model_options, tmp_path, capsys):
    folder = photos()
    argv = [
        "regions",
        *model_options,
        "--images",
        str(folder / "val2017"),
        "--image-px",
        "256",
        "--templates",
        "name",
    ]
    argv += [
        "--panoptic-json",
        str(folder / "annotations" / "panoptic_val2017.json"),
        "--out",
        str(tmp_path / "r"),
    ]
    assert main(argv) == 0
    report = read_report(tmp_path / "r")
    record = json.loads((folder / "annotations" / "panoptic_val2017.json").read_text())
    segments = sum(len(annotation["segments_info"]) for annotation in record["annotations"])
    counts = report["data"]["counts"]
    assert counts["images"] == len(record["annotations"])
    assert 0.8 * segments < counts["regions"] <= segments
    assert report["metrics"]["boxes.thing.mAcc1"] < 0.3  # random weights know nothing

    argv = ["retrieval", *model_options, "--images", str(folder / "val2017")]
    argv += [
        "--captions-json",
        str(folder / "annotations" / "captions_val2017.json"),
        "--out",
        str(tmp_path / "t"),
    ]
    assert main(argv) == 0
    assert read_report(tmp_path / "t")["metrics"]["t2i.R@1"] < 0.5


@pytest.mark.parametrize(
    ("out", "fix"),
    [
        ("e.txt", "should end in .safetensors or .npy"),
        ("names.txt/e.npy", "names.txt': check that path"),
    ],
)
def test_where_embeddings_go_is_checked_before_they_are_computed(out, fix, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("dog\n")
    assert (
        main(
            [
                "embed",
                "--model",
                "no-such-model",
                "--names",
                str(names),
                "--out",
                str(tmp_path / out),
            ]
        )
        == 2
    )
    assert fix in capsys.readouterr().err


def test_random_weights_are_said(model_options, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("dog\n")
    argv = [
        "embed",
        "--names",
        str(tmp_path / "names.txt"),
        "--templates",
        "name",
        "--out",
        str(tmp_path / "e.npy"),
    ]
    assert main([*argv, *model_options[:2]]) == 0
    assert "the weights of the model are random" in capsys.readouterr().err
    assert main([*argv, *model_options]) == 0
    assert "random" not in capsys.readouterr().err


@pytest.fixture
def hostile(tmp_path):
    """An export whose model is a folder with a tokenizer of its own Python, and what that makes."""
    folder, proof = tmp_path / "export", tmp_path / "proof"
    model = folder / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"name": f"local-dir:{model}"}))
    text = {"hf_tokenizer_name": "any", "tokenizer_kwargs": {"trust_remote_code": True}}
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": text}}
    (model / "open_clip_config.json").write_text(json.dumps(config))
    names = {"tokenizer_class": "Words", "auto_map": {"AutoTokenizer": ["words.Words", None]}}
    (model / "tokenizer_config.json").write_text(json.dumps(names))
    (model / "words.py").write_text(f"open({str(proof)!r}, 'w')\n")
    (model / "model.safetensors").touch()
    return folder, proof


@pytest.mark.parametrize("command", ["show", "embed", "alpha"])
def test_a_model_that_a_folder_names_is_not_run(hostile, tmp_path, capsys, command):
    folder, proof = hostile
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "names.txt").write_text("a cat\n")
    words = {
        "show": [str(tmp_path / "a.png"), "a cat", "--pretrained", str(folder)],
        "embed": ["--names", str(tmp_path / "names.txt"), "--pretrained", str(folder)],
        "alpha": ["--student", str(folder), "--teacher", str(folder), "--class-images", "x"],
    }
    ending = {"show": ".png", "embed": ".npy", "alpha": ""}[command]
    out = tmp_path / f"out{ending}"
    assert main([command, *words[command], "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "look at it, and if you trust it, say so with --trust" in said
    assert not proof.exists()
    assert not out.exists() or not os.listdir(out)
