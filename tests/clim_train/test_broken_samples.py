"""Shards with pictures that cannot be read, in the middle of a training."""

import json
import logging
import os
import shutil
import tarfile

import pytest
from clim_train.commands.main import main
from clim_train.run.metrics import read_metrics
from tiny_training import small_command


@pytest.fixture
def broken_shards(shards, tmp_path):
    """Three pictures of the second shard have no content, and it ends in the middle of its last
    sample."""
    folder = shutil.copytree(shards, tmp_path / "shards")
    path = folder / "00001.tar"
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
    with path.open("r+b") as file:
        for key in ("00021", "00025", "00030"):
            file.seek(members[f"{key}.png"].offset_data)
            file.write(b"\0" * members[f"{key}.png"].size)
    os.truncate(path, members["00039.png"].offset_data + 10)
    return folder


def test_broken_shard_is_survived_counted_and_named(broken_shards, tmp_path, caplog):
    options = ["--data.batch-size=8", "--schedule.steps=6"]
    with caplog.at_level(logging.WARNING, "clim_train"):
        assert (
            main(small_command("clim_coco_vitb16", broken_shards, tmp_path / "run", *options)) == 0
        )
    counts = [line["skipped"] for line in read_metrics(tmp_path / "run")]
    report = json.loads((tmp_path / "run" / "skipped.json").read_text())
    named = [name for names in report["names"].values() for name in names]
    assert counts[-1] == report["total"] == len(named)
    assert counts == sorted(counts)
    assert {f"00001.tar/{key}" for key in ("00021", "00025", "00030")} <= set(named)
    assert any("00039" in name or name == "00001.tar" for name in named)
    assert "00001.tar/00021" in caplog.text


def test_broken_shard_ends_the_run_if_asked_to(broken_shards, tmp_path, capsys):
    options = ["--data.batch-size=8", "--data.on-error=raise"]
    assert main(small_command("clim_coco_vitb16", broken_shards, tmp_path / "run", *options)) == 2
    assert "00001.tar" in capsys.readouterr().err
