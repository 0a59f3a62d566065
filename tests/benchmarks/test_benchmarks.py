"""Every benchmark runs on tiny sizes, writes what it promises, and refuses sides that do different
things."""

import importlib
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_training import register_tiny_towers

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = (
    "input_path",
    "crop_input",
    "dense_attention",
    "region_evaluation",
    "pipeline_list",
    "mask_pooling",
    "png_metric",
    "training_step",
    "plain_step",
    "attention_capture",
    "attention_memory",
    "sam_decoder",
    "grounding_epoch",
    "grounding_batches",
    "detection_metric",
    "detector_heads",
    "detection_stream",
)
TINY = {
    "input_path": ["--images", "5", "--source-px", "48", "64", "--canvas-px", "128"],
    "crop_input": [
        "--images",
        "2",
        "--source-px",
        "48",
        "64",
        "--image-px",
        "96",
        "--crop-px",
        "24",
    ],
    "dense_attention": ["--model", "tiny-train-eva", "--image-px", "32", "--batch", "2"],
    "region_evaluation": [
        "--model",
        "tiny-train-vit",
        "--image-px",
        "32",
        "--images",
        "3",
        "--batch",
        "2",
    ],
    "pipeline_list": [
        "--model",
        "tiny-train-vit",
        "--images",
        "3",
        "--batch",
        "2",
        "--file-px",
        "64",
        "--image-px",
        "32",
        "--labels",
        "2",
    ],
    "png_metric": [
        "--phrases",
        "50",
        "--step",
        "0.01",
        "--images",
        "2",
        "--image-phrases",
        "3",
        "--image-px",
        "24",
        "32",
    ],
    "mask_pooling": ["--batch", "2", "--masks", "3", "--grid", "8", "--channels", "16"],
    "attention_capture": [
        "--layers",
        "2",
        "--heads=2",
        "--tokens",
        "60",
        "--image-tokens=30",
        "--phrases",
        "2",
    ],
    "attention_memory": [
        *("--layers", "1", "--heads", "2", "--head-width", "8", "--tokens", "40"),
        *("--image-tokens", "10"),
    ],
    "sam_decoder": ["--phrases", "3", "--image-px", "48", "64", "--sam-px", "128"],
    "grounding_epoch": [
        *(
            "--images",
            "2",
            "--phrases",
            "1",
            "--image-px",
            "48",
            "64",
            "--base",
            "2",
            "--sam-px",
            "128",
        ),
        *("--tower", "32", "1", "2", "--llama", "32", "2", "2", "--sam", "16", "1", "2"),
    ],
    "grounding_batches": [
        *("--images", "2", "--phrases", "2", "--image-px", "48", "64"),
        *("--base", "2", "--sam-px", "128", "--tower", "32", "1", "2"),
        *("--llama", "32", "2", "2", "--sam", "16", "1", "2"),
    ],
    "detection_metric": ["--images", "4", "--detections", "6"],
    "detector_heads": [
        *("--model", "tiny-train-vit", "--blocks", "0", "1", "1", "2"),
        *("--image-px", "64", "--batch", "2", "--channels", "8"),
    ],
    "detection_stream": ["--images", "3", "--source-px", "48", "64", "--image-px", "64"],
    "plain_step": ["--model", "tiny-train-vit", "--image-px", "32", "--unlocked-blocks", "3"],
    "training_step": [
        "--model",
        "tiny-train-vit",
        "--canvas-px",
        "32",
        "--single-px",
        "16",
        "--unlocked-blocks",
        "1",
    ],
}
COMPARISONS = {
    "plain_step": 2,
    "input_path": 3,
    "crop_input": 2,
    "mask_pooling": 2,
    "png_metric": 2,
    "detector_heads": 2,
}


@pytest.fixture(scope="module")
def benchmarks():
    """The scripts as modules, imported by their bare names as they import each other."""
    sys.path.insert(0, str(BENCHMARKS))
    shared = ("side_by_side", "memory", "table")
    modules = {name: importlib.import_module(name) for name in (*NAMES, *shared)}
    yield modules
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("name", NAMES)
def test_writes_ratio_and_memory(benchmarks, name, tmp_path, capsys, monkeypatch):
    register_tiny_towers()
    # The tiny towers are registered in this process only, so here memory is measured in it as well.
    monkeypatch.setattr(
        benchmarks["side_by_side"], "peak_memory", in_this_process(benchmarks["memory"])
    )
    benchmarks[name].main(
        [*TINY[name], "--pairs", "2", "--threads", "1", "--results", str(tmp_path)]
    )
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["benchmark"] == name
    assert record["machine"]["threads"] == 1
    assert len(record["comparisons"]) == COMPARISONS.get(name, 1)
    printed = capsys.readouterr().out
    for measured in record["comparisons"]:
        assert measured["ratio_low"] <= measured["ratio"] <= measured["ratio_high"]
        assert measured["pairs"] == 2
        for side in ("ours", "other"):
            assert measured[side]["median_s"] > 0
            assert measured[side]["process_mib"] >= measured[side]["call_mib"] >= 0
        assert measured["name"] in printed
        assert measured["sizes"] in printed
    rows = benchmarks["table"].table(tmp_path).splitlines()
    assert sum(line.startswith(f"| `{name}`") for line in rows) == len(record["comparisons"])
    assert len({line.count("|") for line in rows if line.startswith("|")}) == 1


def in_this_process(memory):
    def measure(candidate, settings):
        call = candidate.build()
        try:
            return memory.peak_of_first_call(call, settings.device)
        finally:
            getattr(call, "close", lambda: None)()

    return measure


def test_memory_of_a_fresh_process_is_that_of_the_call(benchmarks):
    sbs = benchmarks["side_by_side"]
    mib = 64
    vector = sbs.Candidate(
        "vector", partial(partial, torch.ones, mib * 2**18)
    )  # build() returns a function
    measured = sbs.peak_memory(vector, sbs.Settings(threads=1))
    assert mib <= measured["call_mib"] < mib + 16
    assert measured["process_mib"] > measured["call_mib"]


def test_sides_that_differ_are_refused(benchmarks):
    sbs = benchmarks["side_by_side"]
    agree = partial(sbs.largest_difference, tolerance=1e-6)
    comparison = sbs.Comparison(
        "unequal",
        "one number",
        ours=sbs.Candidate("one", partial(partial, torch.ones, 1)),
        other=sbs.Candidate("zero", partial(partial, torch.zeros, 1)),
        agree=agree,
    )
    with pytest.raises(ValueError, match="not the same work"):
        sbs.compare(comparison, sbs.Settings(pairs=1, memory=False))
    with pytest.raises(ValueError, match="shapes"):
        agree(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="not the same work"):
        agree(torch.ones(1), torch.full((1,), float("nan")))


def test_table_of_the_readme_is_that_of_the_results(benchmarks):
    assert benchmarks["table"].main(["--check"]) == 0


def test_table_without_results_says_so_and_a_page_without_marks_is_refused(benchmarks, tmp_path):
    assert "Nothing has been measured" in benchmarks["table"].table(tmp_path)
    with pytest.raises(ValueError, match="add them"):
        benchmarks["table"].insert("no marks", "table")
