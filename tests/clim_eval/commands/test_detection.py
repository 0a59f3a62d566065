"""`clim-eval detection` on a tiny detector with random weights, and on results of others."""

import json

import pytest
from clim_data.pixels import encode_mask
from clim_eval.commands.main import main
from clim_eval.evaluators.detections import detect_pictures
from clim_eval.metrics import category_precision
from PIL import Image
from pycocotools.coco import COCO

SIZE = {"width": 60, "height": 40}


def truth(categories=("dog", "cat"), **fields):
    """Five pictures with a box each; ids of categories have gaps and another order."""
    ids = [9, 3, 7, 1][: len(categories)]
    annotations = []
    for number in range(1, 6):
        box = [number, 2, 20 + number, 15]
        left, top, width, height = box
        polygon = [left, top, left + width, top, left + width, top + height, left, top + height]
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": ids[number % len(ids)],
                "bbox": box,
                "area": width * height,
                "iscrowd": 0,
                "segmentation": [polygon],
            }
        )
    return {
        "images": [{"id": n, "file_name": f"{n}.png", **SIZE, **fields} for n in range(1, 6)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in zip(ids, categories, strict=True)],
    }


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(1, 5):
        Image.effect_noise((60, 40), 90).convert("RGB").save(folder / f"{number}.png")
    (folder / "5.png").write_bytes(b"no image")
    (tmp_path / "truth.json").write_text(json.dumps(truth()))
    return tmp_path


@pytest.fixture(autouse=True)
def one_figure(monkeypatch):
    """A report draws one picture instead of six, which takes a second each."""
    monkeypatch.setattr("clim_eval.detection.report.PICTURES", 1)


def command(data, run, *more, annotations="truth.json"):
    fixed = ["--annotations", str(data / annotations), "--images", str(data / "images")]
    detector = [str(run), "--device", "cpu", "--trust", "--no-cache", "--templates", "name"]
    return main(["detection", *detector, *fixed, *map(str, more)])


def test_a_detector_gets_results_a_report_and_figures(detector_run, data, capsys):
    out = data / "report"

    assert command(data, detector_run, "--out", out, "--part-images", "2") == 0

    shown = capsys.readouterr().out
    assert "scored 4 of 5 images, left out 1: unreadable image 1" in shown
    assert "scored 4 of 5 annotations" in shown
    results = json.loads((out / "detections.json").read_text())
    assert {one["image_id"] for one in results} == {1, 2, 3, 4}
    assert {one["category_id"] for one in results} <= {3, 9}
    report = json.loads((out / "report.json").read_text())
    assert list(report["figures"]) == ["1.png"]
    assert {"coco.bbox.AP", "coco.segm.AP50", "coco.bbox.APs"} <= set(report["metrics"])
    assert "| dog" in (out / "report.md").read_text()
    # The picture that cannot be read does not count.
    kept = truth()
    kept["images"], kept["annotations"] = kept["images"][:4], kept["annotations"][:4]
    expected = category_precision(kept, results)
    rows = {row["name"]: row for row in json.loads((out / "classes.json").read_text())["bbox"]}
    for name, average in zip(expected.names, expected.average.mean(axis=0), strict=True):
        assert rows[name]["ap"] == pytest.approx(average)
    assert rows["dog"]["annotations"] == 2
    # Other tools read the results.
    COCO(str(data / "truth.json")).loadRes(str(out / "detections.json"))


def test_a_detector_finds_categories_by_name(detector_run, data):
    swapped = truth()
    for one in swapped["categories"]:
        one["id"] = {9: 3, 3: 9}[one["id"]]
    (data / "swapped.json").write_text(json.dumps(swapped))

    for name in ("truth", "swapped"):
        out = data / name
        assert command(data, detector_run, "--out", out, annotations=f"{name}.json") == 0

    first, second = (
        json.loads((data / name / "detections.json").read_text()) for name in ("truth", "swapped")
    )
    assert [one["category_id"] for one in second] == [
        {9: 3, 3: 9}[one["category_id"]] for one in first
    ]
    assert [one["score"] for one in second] == [one["score"] for one in first]


def test_a_run_that_is_there_is_not_repeated(detector_run, data, capsys, monkeypatch):
    out = data / "report"
    assert command(data, detector_run, "--out", out) == 0
    before = (out / "detections.json").read_bytes()

    def of_the_broken_image(detector, pictures, places, loading):
        assert list(places) == [4], "a finished run was done again"
        return detect_pictures(detector, pictures, places, loading)

    with monkeypatch.context() as patch:
        patch.setattr("clim_eval.detection.run.detect_pictures", of_the_broken_image)
        assert command(data, detector_run, "--out", out) == 0
    assert (out / "detections.json").read_bytes() == before
    capsys.readouterr()
    assert command(data, detector_run, "--out", out, "--class-embeddings", data / "no.npy") == 2
    assert "does not exist" in capsys.readouterr().err
    (data / "names.json").write_text(json.dumps({"dog": {}, "cat": {"phrases": ["kitten"]}}))
    assert command(data, detector_run, "--out", out, "--vocabulary", data / "names.json") == 2
    assert "--overwrite" in capsys.readouterr().err
    (out / "detections.json").write_text("[]")
    assert command(data, detector_run, "--out", out) == 2
    assert "was changed after it was made" in capsys.readouterr().err


def test_an_image_that_was_repaired_is_added(detector_run, data, capsys):
    out = data / "report"
    assert command(data, detector_run, "--out", out) == 0
    before = json.loads((out / "detections.json").read_text())
    Image.effect_noise((60, 40), 90).convert("RGB").save(data / "images" / "5.png")

    assert command(data, detector_run, "--out", out) == 0

    assert "scored 5 of 5 images" in capsys.readouterr().out
    after = json.loads((out / "detections.json").read_text())
    assert after[: len(before)] == before
    assert {one["image_id"] for one in after[len(before) :]} == {5}


def test_processes_share_the_images_and_a_stopped_run_goes_on(
    detector_run, data, monkeypatch, capsys
):
    parts = ("--part-images", "2")
    assert command(data, detector_run, "--out", data / "whole", *parts) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    shared = ("--out", data / "shared", *parts)
    assert command(data, detector_run, *shared, "--patience", "0.1") == 2
    assert "nothing came from rank 1" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert command(data, detector_run, *shared) == 0
    assert not (data / "shared" / "detections.json").exists()
    monkeypatch.setenv("RANK", "0")
    assert command(data, detector_run, *shared) == 0
    whole, both = (data / name / "detections.json" for name in ("whole", "shared"))
    assert both.read_bytes() == whole.read_bytes()


def results_of_others(contents, *, masks=False):
    found = []
    for one in contents["annotations"]:
        record = {name: one[name] for name in ("image_id", "category_id", "bbox")}
        record["score"] = 0.5
        if masks:
            import numpy as np

            mask = np.zeros((40, 60), dtype=bool)
            left, top, width, height = one["bbox"]
            mask[top : top + height, left : left + width] = True
            record["segmentation"] = encode_mask(mask)
        found.append(record)
    return found


def scored(data, *more):
    out = data / "scored"
    fixed = ["--annotations", data / "truth.json", "--detections", data / "results.json"]
    status = main(["detection", *map(str, [*fixed, "--out", out, *more])])
    return json.loads((out / "report.json").read_text())["metrics"] if status == 0 else status


def test_results_of_any_detector_are_scored(data, capsys):
    contents = truth(("cat", "dog", "cup"))
    for one, side in zip(contents["categories"], ("base", "novel", "novel"), strict=True):
        one["split"] = side
    (data / "truth.json").write_text(json.dumps(contents))
    found = results_of_others(contents, masks=True)
    found[0]["bbox"] = [50, 30, 5, 5]
    for written in (found, {"annotations": found}):
        (data / "results.json").write_text(json.dumps(written))
        metrics = scored(data)
        assert metrics["fvit.segm.AP50_novel"] == pytest.approx(1)
        assert metrics["fvit.bbox.AP50_base"] == pytest.approx(1)
        # One of two dogs, after a wrong one.
        assert metrics["fvit.bbox.AP50_novel"] == pytest.approx((1 + 51 * 0.5 / 101) / 2)
        assert metrics["coco.bbox.AP50"] == pytest.approx(metrics["fvit.bbox.AP50_all"])

    (data / "base.txt").write_text("cat\n")
    (data / "novel.txt").write_text("dog\n")
    groups = ("--base", data / "base.txt", "--novel", data / "novel.txt")
    metrics = scored(data, *groups, "--iou-types", "bbox")
    assert "ovdet.bbox.AP50_novel" in metrics
    assert not any("segm" in name for name in metrics)
    capsys.readouterr()
    assert scored(data, *groups, "--protocol", "fvit") == 2
    assert "['cup'] are neither base nor novel" in capsys.readouterr().err
    assert scored(data, "--protocol", "lvis") == 2
    assert "is no LVIS file" in capsys.readouterr().err
    assert scored(data, "--vocabulary", data / "names.json") == 2
    assert "leave out --vocabulary" in capsys.readouterr().err
    found[1]["category_id"] = 77
    (data / "results.json").write_text(json.dumps(found))
    assert scored(data) == 2
    assert "map labels to category ids by name" in capsys.readouterr().err
    (data / "results.json").write_text('{"boxes": [[1, 2, 3, 4]]}')
    assert scored(data) == 2
    assert "has boxes, and no results" in capsys.readouterr().err


def test_lvis_files_give_ap_by_frequency_and_fixed_ap(data):
    contents = truth(neg_category_ids=[], not_exhaustive_category_ids=[])
    for one, frequency in zip(contents["categories"], "rf", strict=True):
        one["frequency"] = frequency
    (data / "truth.json").write_text(json.dumps(contents))
    (data / "results.json").write_text(json.dumps(results_of_others(contents)))
    metrics = scored(data)
    assert metrics["lvis.bbox.APr"] == pytest.approx(1)
    assert metrics["lvis_fixed.bbox.APf"] == pytest.approx(1)
    assert metrics["lvis.bbox.APc"] is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--detections", "x.json"], "and not both"),
        ([], "needs --images DIR to look at and --out DIR"),
        (["--base", "x.txt", "--out", "out"], "not"),
        (["--transfer", "other", "--out", "out", "--vocabulary", "v.json"], "leave out"),
    ],
)
def test_mistakes_end_with_status_2(detector_run, data, more, message, capsys):
    assert command(data, detector_run, *more) == 2
    assert message in capsys.readouterr().err


def test_a_vocabulary_without_a_category_is_refused(detector_run, data, capsys):
    (data / "names.json").write_text('["dog"]')
    out = ("--out", data / "out", "--vocabulary", data / "names.json")
    assert command(data, detector_run, *out) == 2
    assert "has no class 'cat'" in capsys.readouterr().err


def test_an_f_vit_is_judged_on_another_data_set(detector_run, data):
    (data / "other.json").write_text(json.dumps(truth(("bed", "dog", "cat"))))
    for name, more in (("plain", ()), ("moved", ("--transfer", "other"))):
        out = data / name
        assert command(data, detector_run, "--out", out, *more, annotations="other.json") == 0
    plain, moved = (
        json.loads((data / name / "detections.json").read_text()) for name in ("plain", "moved")
    )
    assert moved
    # All classes trust CLIP alike, and the mask head is left out.
    assert {one["score"] for one in moved} != {one["score"] for one in plain}
    assert "segmentation" in plain[0]
    assert "segmentation" not in moved[0]
