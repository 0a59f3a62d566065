import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from clim_eval.pictures.bars import accuracy_bars
from clim_eval.reports.report import combine_reports, read_report, write_report
from clim_eval.reports.tables import metric_table, to_jsonable


@dataclass(frozen=True)
class Options:
    path: Path
    side: int = 64


FLAT = {
    "boxes.thing.mAcc1": 0.25,
    "boxes.stuff.mAcc1": 0.5,
    "crops.thing.mAcc1": 1 / 3,
    "crops.stuff.mAcc1": None,
}


def test_a_report_holds_what_was_given(tmp_path):
    written = write_report(
        tmp_path / "run",
        title="A title",
        metrics=FLAT,
        config={"options": Options(Path("a/b")), "dtype": torch.bfloat16, "lr": np.float32(0.5)},
        figures={"bars of arms": accuracy_bars({"a": {"top1": 0.5}})},
        data={"fingerprint": "abc", "counts": {"images": 3}},
        notes=["A remark."],
    )
    read = read_report(tmp_path / "run")
    assert read == written == json.loads((tmp_path / "run" / "report.json").read_text())
    assert read["metrics"] == FLAT
    assert read["config"] == {
        "options": {"path": "a/b", "side": 64},
        "dtype": "torch.bfloat16",
        "lr": 0.5,
    }
    assert torch.__version__.startswith(read["versions"]["torch"].split("+")[0])
    picture = tmp_path / "run" / read["figures"]["bars of arms"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "run" / "report.md").read_text()
    for part in (
        "# A title",
        "25.00 %",
        "33.33 %",
        "A remark.",
        "abc",
        "options.side",
        f"<{read['figures']['bars of arms']}>",
    ):
        assert part in page


def test_rewriting_replaces_files_and_leaves_others(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for value in (0.1, 0.9):
        write_report(tmp_path, title="t", metrics={"top1": value}, config={})
    assert read_report(tmp_path)["metrics"]["top1"] == 0.9
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "report.json", "report.md"]


def test_a_failed_figure_leaves_the_old_report(tmp_path):
    write_report(tmp_path, title="old", metrics={"top1": 0.1}, config={})
    with pytest.raises(FileNotFoundError, match="PNG"):
        write_report(
            tmp_path,
            title="new",
            metrics={"top1": 0.2},
            config={},
            figures={"x": tmp_path / "no.png"},
        )
    assert read_report(tmp_path / "report.json")["title"] == "old"


def test_nan_is_written_as_null(tmp_path):
    write_report(tmp_path, title="t", metrics={"top1": float("nan")}, config={})
    assert read_report(tmp_path)["metrics"] == {"top1": None}
    assert "nan" not in (tmp_path / "report.md").read_text()


def test_tables():
    rows = [line.split("|")[1:-1] for line in metric_table(FLAT).splitlines()]
    assert [[cell.strip() for cell in row] for row in rows if "-:" not in row[-1]] == [
        ["", "thing.mAcc1", "stuff.mAcc1"],
        ["boxes", "25.00 %", "50.00 %"],
        ["crops", "33.33 %", "-"],
    ]
    arms = metric_table({"start": {"top1": 0.5}, "a | b": {"top1": 0.25, "loss": 1.23456}})
    assert [cell.strip() for cell in arms.splitlines()[2].split("|")[1:-1]] == [
        "top1",
        "50.00 %",
        "25.00 %",
    ]
    assert [cell.strip() for cell in arms.splitlines()[3].split("|")[1:-1]] == [
        "loss",
        "-",
        "1.235",
    ]
    assert "a \\| b" in arms


def test_reports_combine_to_arms():
    flat, nested = {"metrics": {"top1": 0.5}}, {"metrics": {"x": {"top1": 0.1}, "y": {"top1": 0.2}}}
    assert combine_reports({"one": flat, "two": nested}) == {
        "one": {"top1": 0.5},
        "two / x": {"top1": 0.1},
        "two / y": {"top1": 0.2},
    }


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ValueError, match="number"):
        write_report(tmp_path, title="t", metrics={"a": "high"}, config={})
    with pytest.raises(ValueError, match="mixes"):
        write_report(tmp_path, title="t", metrics={"a": 1.0, "b": {"c": 1.0}}, config={})
    with pytest.raises(ValueError, match="cannot hold"):
        to_jsonable({"a": object()})
    with pytest.raises(FileNotFoundError, match=r"report\.json"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ValueError, match="JSON"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(ValueError, match="not a report"):
        read_report(tmp_path)
