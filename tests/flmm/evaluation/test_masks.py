"""Scores of data sets: counts, resuming, what is left out, pictures, and the commands."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from clim_data import expression_items, narrative_items, write_shards
from clim_eval import MaskScores, narrative_scores, read_report, referring_scores
from conftest import GOLDEN
from flmm.commands.main import main
from flmm.evaluation.masks import GroundingEvaluation, mean_iou, ranked_keys, report_scores
from flmm.grounders.heads import HeadsGrounder
from flmm.samples import SampleMaker
from tiny_grounding import Pictures, tiny_grounded

DATA = GOLDEN / "flmm" / "data"
COUNTS = (2, 1, 3, None, 1)


@pytest.fixture(scope="module")
def model():
    return tiny_grounded().eval()


def test_counts_are_those_of_every_mask_by_itself(model):
    data = Pictures(COUNTS)
    evaluation = GroundingEvaluation(HeadsGrounder(model), data, batch_size=2)
    scores = MaskScores()
    skipped = evaluation.run(scores, bar=False)
    assert skipped.counts == {"unreadable image": 1}
    assert len(scores) == 4
    maker = SampleMaker(model.lmm)
    for number in (0, 2):
        record = data[number]
        image, masks = record.load()
        with torch.no_grad():
            (found,) = model([maker(record, image)], [image])
        predicted = found.refined.numpy() > 0
        row = scores.rows[record.key]
        assert row["intersections"] == (predicted & masks).sum((1, 2)).tolist()
        assert row["unions"] == (predicted | masks).sum((1, 2)).tolist()
        assert row["is_plural"] == [phrase.is_plural for phrase in record.phrases]
        expected = np.mean(
            [i / u for i, u in zip(row["intersections"], row["unions"], strict=True)]
        )
        assert mean_iou(row) == pytest.approx(expected)
    assert narrative_scores(scores)["AR"] >= 0
    assert [mean_iou(scores.rows[key]) for key in ranked_keys(scores)] == sorted(
        map(mean_iou, scores.rows.values())
    )


def test_an_evaluation_goes_on_where_it_was(model, tmp_path, monkeypatch):
    data = Pictures(COUNTS)
    part = MaskScores(tmp_path, config={"a": 1})
    GroundingEvaluation(HeadsGrounder(model), data, limit=2).run(part, bar=False)
    assert len(part) == 2
    seen = []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda m, s, i: seen.append(len(s)) or forward(m, s, i)
    )
    scores = MaskScores(tmp_path, config={"a": 1})
    GroundingEvaluation(HeadsGrounder(model), data).run(scores, bar=False)
    assert seen == [1, 1]
    whole = MaskScores()
    GroundingEvaluation(HeadsGrounder(model), data).run(whole, bar=False)
    assert scores.rows == whole.rows


def test_an_image_is_embedded_once_for_samples_in_a_row(model, monkeypatch):
    data = Pictures((1, 1, 1))
    records = [data[0], data[0], data[1]]
    calls = []
    embed = model.sam.embed
    monkeypatch.setattr(
        model.sam, "embed", lambda images: calls.append(len(images)) or embed(images)
    )
    GroundingEvaluation(HeadsGrounder(model), records).run(MaskScores(), bar=False)
    assert calls == [1, 1]


def test_report_shows_the_best_the_middle_and_the_worst(model, tmp_path):
    evaluation = GroundingEvaluation(HeadsGrounder(model), Pictures(COUNTS))
    scores = MaskScores()
    evaluation.run(scores, bar=False)
    report = report_scores(
        tmp_path,
        evaluation,
        scores,
        title="tiny",
        metrics=narrative_scores(scores),
        config={},
        pictures=1,
    )
    assert report["metrics"]["not_scored"] == 1
    assert set(report["figures"]) == {"best", "median", "worst"}
    assert all((tmp_path / path).stat().st_size > 1000 for path in report["figures"].values())
    assert "unreadable image" in (tmp_path / "report.md").read_text()


@pytest.fixture(scope="module")
def command(golden, tmp_path_factory):
    """Arguments that name a tiny LLaVA, SAM and heads as files."""
    from golden_lmms import golden_grounded, golden_sam, released, tokenizer_of
    from tiny_lmms import FAMILIES

    case = golden("forward", "flmm/llava")
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(case.folder / "hf", folder / "lmm")
    tokenizer_of(case, "llava").save_pretrained(folder / "lmm")
    side = json.loads((folder / "lmm" / "config.json").read_text())["vision_config"]["image_size"]
    FAMILIES["llava"]()[1].__class__(size={"shortest_edge": side}).save_pretrained(folder / "lmm")
    assert golden_grounded(case).sam.square == golden_sam(case).square
    torch.save(released(case), folder / "heads.pth")
    _save_sam(case, folder / "sam")
    write_shards(
        narrative_items(
            DATA / "images", DATA / "png.json", DATA / "panoptic.json", DATA / "panoptic"
        ),
        folder / "png",
    )
    refs = next((DATA / "refcoco").glob("refs*.json"))
    split = max(ref["split"] for ref in json.loads(refs.read_text()))  # "val", where there is one
    write_shards(
        expression_items(DATA / "images", refs, DATA / "refcoco" / "instances.json", split=split),
        folder / "refcoco",
    )
    named = [
        f"--lmm={folder / 'lmm'}",
        f"--sam={folder / 'sam'}",
        f"--checkpoint={folder / 'heads.pth'}",
    ]
    return folder, [*named, "--device=cpu", "--precision=fp32"]


def _save_sam(case, folder):
    from flmm.refiners.sam.weights import load_sam
    from golden_lmms import decoder_heads

    load_sam(
        case.folder.parent / "sam" / "sam_tiny.safetensors", decoder_heads=decoder_heads(case)
    ).save_pretrained(folder)


def test_golden_narratives_by_command(command, tmp_path, capsys):
    folder, named = command
    arguments = ["eval", "png", f"--images={folder / 'png'}", *named, "--workers=0", "--pictures=0"]
    assert main([*arguments, f"-o={tmp_path / 'png'}"]) == 0, capsys.readouterr().err
    report = read_report(tmp_path / "png")
    assert 0 <= report["metrics"]["AR"] <= 1
    assert report["metrics"]["original.AR"] == pytest.approx(report["metrics"]["AR"], abs=2e-5)
    assert list((tmp_path / "png" / "samples").glob("scores-0000.jsonl"))
    capsys.readouterr()
    assert main([*arguments, f"-o={tmp_path / 'png'}"]) == 0
    assert "samples are scored already" in capsys.readouterr().err
    assert main([*arguments, f"-o={tmp_path / 'png'}", "--limit=1"]) == 2
    assert "another configuration" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["standard", "original"])
def test_golden_expressions_by_command(command, tmp_path, capsys, protocol):
    folder, named = command
    arguments = [
        "eval",
        "refcoco",
        f"--images={folder / 'refcoco'}",
        f"--protocol={protocol}",
        *named,
    ]
    assert main([*arguments, "--workers=0", "--pictures=0", f"-o={tmp_path}"]) == 0, (
        capsys.readouterr().err
    )
    metrics = read_report(tmp_path)["metrics"]
    assert {f"{protocol}.cIoU", f"{protocol}.mIoU", f"{protocol}.Pr@0.5"} <= set(metrics)
    scores = MaskScores(
        tmp_path / "samples", config=json.loads((tmp_path / "samples" / "config.json").read_text())
    )
    assert (
        referring_scores(scores, protocol=protocol)[f"{protocol}.cIoU"]
        == metrics[f"{protocol}.cIoU"]
    )


def test_expressions_for_nothing_by_command(command, tmp_path, capsys):
    _, named = command
    refs = DATA / "refcoco"
    (source,) = refs.glob("refs(*.p")
    expressions = [
        {**ref, "ann_id": [ref["ann_id"] if number % 3 else -1]}
        for number, ref in enumerate(pickle.loads(source.read_bytes()))
    ]
    for number, ref in enumerate(expressions):
        ref["ref_id"] = number
    (tmp_path / "grefs(unc).json").write_text(json.dumps(expressions))
    arguments = ["eval", "grefcoco", f"--images={DATA / 'images'}", f"--split={ref['split']}"]
    arguments += [f"--refs={tmp_path / 'grefs(unc).json'}", *named, "--min-score=0.4"]
    arguments += [f"--instances-json={refs / 'instances.json'}", "--workers=0", "--pictures=0"]
    assert main([*arguments, f"-o={tmp_path / 'out'}"]) == 0, capsys.readouterr().err

    found = read_report(tmp_path / "out")["metrics"]
    rows = [
        json.loads(line)
        for path in (tmp_path / "out" / "samples").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    absent = [row for row in rows if not row["is_present"][0]]
    present = [row for row in rows if row["is_present"][0]]
    assert absent
    assert present
    assert all(row["is_found"][0] <= (row["scores"][0] >= 0.4) for row in rows)
    assert found["N-acc"] == pytest.approx(np.mean([not row["is_found"][0] for row in absent]))
    assert found["T-acc"] == pytest.approx(np.mean([row["is_found"][0] for row in present]))
    pairs = [(p["scores"][0], a["scores"][0]) for p in present for a in absent]
    assert found["AUROC"] == pytest.approx(np.mean([(p > a) + 0.5 * (p == a) for p, a in pairs]))
    assert {"gIoU", "cIoU", "IL_MCC", "cgF1", "ECE", "Pr@0.7"} <= set(found)


def test_data_has_to_be_named(command, tmp_path, capsys):
    _, named = command
    assert main(["eval", "png", *named, f"-o={tmp_path}"]) == 2
    assert "pass --images with shards, or all of --images, --narr" in capsys.readouterr().err
    assert main(["eval", "refcoco", "--images=x", "--split=val", *named, f"-o={tmp_path}"]) == 2
    assert "which data? --refs, --instances-json is missing" in capsys.readouterr().err
