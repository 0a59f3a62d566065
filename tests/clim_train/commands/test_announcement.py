"""What a run says before it starts."""

from clim_train.commands.main import main
from clim_train.config import TrainConfig
from tiny_training import small_command


def test_a_run_announces_model_data_machine_and_length(shards, tmp_path, capsys):
    options = [
        word
        for word in small_command("clim_coco_vitb16", shards, tmp_path / "run")
        if not word.startswith(("--data.batch-size", "--schedule", "--run.log-every"))
    ]
    assert main([*options, "--schedule.epochs=1"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "CLIM · tiny-train-vit (random weights) · last 6 blocks"
    assert lines[1].startswith("40 images with captions in ")
    assert lines[1].endswith(", 0 skipped")
    assert lines[2].startswith("CPU, 1 thread: fp32, images of 48 px, batch 32")
    assert lines[3] == "1 epoch = 2 steps, no warm-up (the recipe's 1,000 would never end)"
    assert lines[4].startswith("40 images are enough to see it run")

    chosen = TrainConfig.load(tmp_path / "run")
    assert (chosen.engine.precision, chosen.schedule.warmup_share) == ("fp32", 0.1)


def test_a_resumed_run_chooses_nothing_anew(shards, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(small_command("clim_coco_vitb16", shards, folder, "--run.save-every=1")) == 0
    before = (folder / "config.json").read_text()
    capsys.readouterr()

    assert main(["resume", str(folder)]) == 0
    assert (folder / "config.json").read_text() == before
    assert "the recipe" not in capsys.readouterr().out
