import json
import threading

import numpy as np
import pytest
import torch
from clim_data.commands.main import main
from clim_data.derive.proposal_boxes import BoxChoice, box_records
from clim_data.derive.proposals import (
    ProposalJob,
    _identities,
    convert_results,
    find_proposals,
)
from clim_data.sources.items import folder_items
from clim_data.sources.store import SampleStore
from clim_data.sources.write import write_shards
from torchvision.ops import box_iou


class Corners:
    """A finder without randomness: the quarters of an image and its whole, the whole with the best
    score."""

    batch_size, in_processes = 2, False

    def __init__(self, stop_after=None):
        self.seen, self.stop_after = 0, stop_after

    def options(self):
        return {"method": "corners"}

    def __call__(self, images):
        self.seen += len(images)
        if self.stop_after is not None and self.seen > self.stop_after:
            raise RuntimeError("killed")
        found = []
        for image in images:
            w, h = image.width, image.height
            quarters = [
                [0, 0, w / 2, h / 2],
                [w / 2, 0, w, h / 2],
                [0, h / 2, w / 2, h],
                [w / 2, h / 2, w, h],
            ]
            found.append((np.array([*quarters, [0, 0, w, h]]), np.array([0.5, 0.4, 0.3, 0.2, 0.9])))
        return found


@pytest.fixture
def photos(tmp_path, images):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for i in range(7):
        name = f"more/{i}.png" if i == 6 else f"{i}.jpg"
        kind = "PNG" if i == 6 else "JPEG"
        (folder / name).write_bytes(images.encoded(images.pixels(i, 40, 60 + i), kind))
    return folder


def test_an_image_that_was_repaired_is_searched_by_the_same_command(photos, tmp_path):
    output, broken = tmp_path / "boxes.json", ("1.jpg", "4.jpg")
    whole = (photos / "1.jpg").read_bytes()
    for name in broken:
        (photos / name).write_bytes(b"<html>403</html>")

    first = find_proposals(photos, output, Corners())
    assert (first.images, first.skipped.total) == (5, 2)
    before = read(output)
    finder = Corners()
    assert find_proposals(photos, output, finder).images == finder.seen == 0

    (photos / "1.jpg").write_bytes(whole)
    again = find_proposals(photos, output, finder)
    assert (finder.seen, again.repaired, again.images) == (1, 1, 6)
    record = read(output)
    assert record["images"] == [
        *before["images"],
        {**before["images"][0], "id": 2} | {"file_name": "1.jpg", "width": 61},
    ]
    assert [entry["name"] for entry in record["skipped"]] == ["photos/4.jpg"]
    boxes = record["annotations"]
    assert [box["id"] for box in boxes] == list(range(1, again.boxes + 1))
    assert boxes[: first.boxes] == before["annotations"]
    assert {box["image_id"] for box in boxes[first.boxes :]} == {2}


def read(path):
    return json.loads(path.read_bytes())


def slow_choice(boxes, scores, size, choice):
    """Greedy non-maximum suppression as it is usually written, one box at a time."""
    height, width = size
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        x1, y1, x2, y2 = (
            round(min(max(v, 0), m), 1) for v, m in zip(boxes[i], (width, height, width, height))
        )
        if x2 - x1 < choice.min_px or y2 - y1 < choice.min_px or scores[i] < choice.min_score:
            continue
        box = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float64)
        if all(box_iou(box, other)[0, 0] <= choice.nms for other, _ in kept):
            kept.append((box, scores[i]))
    return np.array([b[0].tolist() for b, _ in kept[: choice.top]]), np.array(
        [s for _, s in kept[: choice.top]]
    )


@pytest.mark.parametrize(
    "choice", [BoxChoice(top=10), BoxChoice(top=100, nms=0.3, min_px=20, min_score=0.2)]
)
def test_the_choice_is_the_slow_one(choice):
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(-20, 90, (200, 2)), rng.uniform(2, 60, (200, 2))
    boxes, scores = np.concatenate([corner, corner + side], 1), rng.integers(0, 20, 200) / 20
    expected = slow_choice(boxes, scores, (80, 100), choice)
    found = choice(boxes, scores, (80, 100))
    assert len(found[0]) > 5
    np.testing.assert_allclose(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1])


def test_candidates_that_are_no_boxes_go():
    boxes = np.array(
        [[0, 0, np.nan, 9], [5, 5, 5, 30], [30, 30, 5, 5], [0, 0, 20, 20], [50, 50, 90, 90]]
    )
    kept, scores = BoxChoice(min_px=0, nms=1)(boxes, np.array([5, 4, 3, 2, np.inf]), (40, 40))
    assert kept.tolist() == [[0, 0, 20, 20]]
    assert scores.tolist() == [2]
    assert BoxChoice()(np.zeros((0, 4)), np.zeros(0), (40, 40))[0].shape == (0, 4)


@pytest.mark.parametrize("option", [{"top": 0}, {"nms": 0}, {"nms": 1.5}, {"min_px": -1}])
def test_choices_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))}="):
        BoxChoice(**option)


def test_records_are_coco_annotations():
    (record,) = box_records(7, np.array([[1.5, 2, 4.1, 12]]), np.array([0.25]))
    assert record == {
        "image_id": 7,
        "category_id": 1,
        "bbox": [1.5, 2, 2.6, 10],
        "area": 26,
        "iscrowd": 0,
        "score": 0.25,
    }


def test_a_folder_is_searched_in_order_and_read_by_pycocotools(photos, tmp_path, capsys):
    report = find_proposals(
        photos,
        tmp_path / "boxes.json",
        Corners(),
        choice=BoxChoice(top=3),
        job=ProposalJob(workers=2),
    )
    record = read(tmp_path / "boxes.json")
    assert [image["file_name"] for image in record["images"]] == [
        *(f"{i}.jpg" for i in range(6)),
        "more/6.png",
    ]
    assert [image["id"] for image in record["images"]] == list(range(1, 8))
    assert record["images"][3]["width"] == 63
    assert [a["id"] for a in record["annotations"]] == list(range(1, 22))
    assert record["annotations"][3]["bbox"] == [0, 0, 61, 40]
    assert [a["score"] for a in record["annotations"][:3]] == [0.9, 0.5, 0.4]
    assert [(c["id"], c["name"]) for c in record["categories"]] == [(1, "object")]
    assert (report.images, report.boxes, report.complete, report.skipped.total) == (7, 21, True, 0)

    from pycocotools.coco import COCO

    coco = COCO(tmp_path / "boxes.json")
    assert len(coco.loadAnns(coco.getAnnIds(imgIds=[4]))) == 3


def test_shards_give_names_whose_stems_are_the_keys(make_shards, tmp_path):
    find_proposals(make_shards([3, 2]), tmp_path / "boxes.json", Corners())
    assert [image["file_name"] for image in read(tmp_path / "boxes.json")["images"]] == [
        f"{i:06d}.jpg" for i in range(5)
    ]


def test_the_training_loader_reads_the_boxes(photos, tmp_path):
    from clim_data import CropLoader

    find_proposals(photos, tmp_path / "boxes.json", Corners())
    loader = CropLoader(photos, batch_size=7, image_px=32, crop_px=8, boxes=tmp_path / "boxes.json")
    (batch,) = list(loader)
    assert sorted(batch.keys) == [*(f"{i}.jpg" for i in range(6)), "more/6.png"]
    assert all(len(boxes) == 5 for boxes in batch.boxes)


def test_the_ids_and_names_of_an_annotation_file_are_kept(photos, tmp_path):
    listed = [
        {"id": 77, "file_name": "4.jpg"},
        {"id": 5, "file_name": "0.jpg"},
        {"id": 6, "file_name": "gone.jpg"},
    ]
    (tmp_path / "instances.json").write_text(json.dumps({"images": listed, "annotations": []}))
    report = find_proposals(
        photos, tmp_path / "boxes.json", Corners(), annotations=tmp_path / "instances.json"
    )
    record = read(tmp_path / "boxes.json")
    assert [(image["id"], image["file_name"]) for image in record["images"]] == [
        (5, "0.jpg"),
        (77, "4.jpg"),
    ]
    assert {a["image_id"] for a in record["annotations"]} == {5, 77}
    assert report.skipped.names == {"missing image": ["gone.jpg"]}


def test_images_that_cannot_be_read_are_counted_and_named(photos, tmp_path):
    (photos / "2.jpg").write_bytes(b"no image")
    (photos / "3.jpg").write_bytes((photos / "3.jpg").read_bytes()[:300])
    report = find_proposals(photos, tmp_path / "boxes.json", Corners())
    record = read(tmp_path / "boxes.json")
    assert len(record["images"]) == report.images == 5
    assert report.skipped.names == {"unreadable image": ["photos/2.jpg", "photos/3.jpg"]}
    assert record["skipped"] == [
        {"reason": "unreadable image", "name": f"photos/{i}.jpg"} for i in (2, 3)
    ]
    with pytest.raises(ValueError, match=r"photos/2\.jpg: unreadable image"):
        find_proposals(
            photos, tmp_path / "other.json", Corners(), job=ProposalJob(on_error="raise")
        )
    for path in photos.rglob("*.*g"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="no image can be read: skipped 7"):
        find_proposals(photos, tmp_path / "none.json", Corners())
    assert not list(tmp_path.glob("none.json*"))


def test_a_killed_search_goes_on_where_it_was(photos, tmp_path):
    find_proposals(photos, tmp_path / "whole.json", Corners(), job=ProposalJob(part_images=2))
    with pytest.raises(RuntimeError, match="killed"):
        find_proposals(
            photos, tmp_path / "boxes.json", Corners(stop_after=5), job=ProposalJob(part_images=2)
        )
    assert not (tmp_path / "boxes.json").exists()
    again = Corners()
    find_proposals(photos, tmp_path / "boxes.json", again, job=ProposalJob(part_images=2))
    assert again.seen == 3
    assert (tmp_path / "boxes.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert not list(tmp_path.glob("boxes.json.*"))
    finished = Corners()
    assert find_proposals(
        photos, tmp_path / "boxes.json", finished, job=ProposalJob(part_images=2)
    ).complete
    assert finished.seen == 0
    with pytest.raises(ValueError, match="use --overwrite"):
        find_proposals(photos, tmp_path / "boxes.json", Corners(), choice=BoxChoice(top=2))
    find_proposals(
        photos,
        tmp_path / "boxes.json",
        Corners(),
        choice=BoxChoice(top=2),
        job=ProposalJob(overwrite=True),
    )
    assert len(read(tmp_path / "boxes.json")["annotations"]) == 14


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_images_and_rank_0_writes_what_one_process_would(
    photos, tmp_path, world_size
):
    (photos / "3.jpg").write_bytes(b"no image")
    find_proposals(photos, tmp_path / "whole.json", Corners(), job=ProposalJob(part_images=1))
    finders, reports = [Corners() for _ in range(world_size)], {}

    def run(rank):
        job = ProposalJob(rank=rank, world_size=world_size, part_images=1)
        reports[rank] = find_proposals(photos, tmp_path / "boxes.json", finders[rank], job=job)

    ranks = [threading.Thread(target=run, args=(rank,)) for rank in range(1, world_size)]
    for rank in ranks:
        rank.start()
    run(0)
    for rank in ranks:
        rank.join()
    assert (tmp_path / "boxes.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert sum(finder.seen for finder in finders) == 6
    assert [reports[rank].complete for rank in range(world_size)] == [True] + [False] * (
        world_size - 1
    )
    assert (reports[0].images, reports[0].skipped.total) == (6, 1)


def test_rank_0_names_the_rank_that_fails_and_forgets_it_when_started_again(photos, tmp_path):
    def run(rank, finder):
        job = ProposalJob(rank=rank, world_size=2, part_images=2)
        return find_proposals(photos, tmp_path / "boxes.json", finder, job=job)

    class Meanwhile(Corners):
        """Rank 0, during whose work rank 1 fails."""

        def __call__(self, images):
            if not self.seen:
                with pytest.raises(RuntimeError, match="killed"):
                    run(1, Corners(stop_after=2))
            return super().__call__(images)

    with pytest.raises(
        ValueError,
        match=r"rank 1 stopped \(RuntimeError: killed\); 3 of 4 parts .* same command again",
    ):
        run(0, Meanwhile())
    assert not (tmp_path / "boxes.json").exists()
    late = threading.Timer(0.3, run, (1, Corners()))
    late.start()
    assert run(0, Corners()).images == 7
    late.join()


def test_sources_that_cannot_be_told_apart_are_refused(photos, tmp_path, images):
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "0.jpg").write_bytes(images.encoded(images.pixels(1, 20, 20)))
    with pytest.raises(ValueError, match=r"0\.jpg is there twice"):
        find_proposals([photos, tmp_path / "second"], tmp_path / "boxes.json", Corners())
    with pytest.raises(ValueError, match="part_images=0"):
        find_proposals(photos, tmp_path / "boxes.json", Corners(), job=ProposalJob(part_images=0))


@pytest.fixture
def results(tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in (3, 1)]
    images.append({"id": 9, "file_name": "../out.jpg", "height": 40, "width": 60})
    (tmp_path / "images.json").write_text(
        json.dumps({"images": images, "annotations": [], "categories": []})
    )
    found = [
        {"image_id": 1, "bbox": [0, 0, 20, 20], "score": 0.5, "category_id": 4},
        {"image_id": 3, "bbox": [5.25, 5, 60, 20], "score": 0.7},
        {"image_id": 1, "bbox": [1, 0, 20, 20], "score": 0.6, "category_id": 2, "segmentation": []},
        {"image_id": 1, "bbox": [30, 0, 20, 20], "score": 0.1},
        {"image_id": 4, "bbox": [30, 0, 20, 20], "score": 0.1},
        {"image_id": 1, "bbox": [30, 0, 20], "score": 0.1},
        {"image_id": 1, "bbox": [30, 0, 20, 20]},
    ]
    (tmp_path / "results.json").write_text(json.dumps(found))
    return tmp_path


def test_results_of_a_detector_become_proposals(results, capsys):
    out = results / "boxes.json"
    command = [
        "proposals",
        "--from",
        str(results / "results.json"),
        "--images-json",
        str(results / "images.json"),
    ]
    assert main([*command, "--out", str(out), "--top", "1", "--min-score", "0.3"]) == 0
    record = read(out)
    assert [image["file_name"] for image in record["images"]] == ["3.jpg", "1.jpg"]
    assert [(a["id"], a["image_id"], a["bbox"], a["score"]) for a in record["annotations"]] == [
        (1, 3, [5.2, 5, 54.8, 20], 0.7),
        (2, 1, [1, 0, 20, 20], 0.6),
    ]
    printed = capsys.readouterr().out
    assert "2 boxes in 2 images" in printed
    assert "skipped 1, path outside the folder: ../out.jpg" in printed
    assert "skipped 1, box without image: results.json, result 5 (id None) of image 4" in printed
    assert "skipped 1, bad box: results.json, result 6 (id None) of image 1" in printed
    assert "skipped 1, no score: results.json, result 7 (id None) of image 1" in printed


def test_results_that_do_not_fit_are_refused(results):
    def convert(record):
        (results / "bad.json").write_text(json.dumps(record))
        convert_results(results / "bad.json", results / "images.json", results / "boxes.json")

    with pytest.raises(ValueError, match=r"no COCO results file: give a json list"):
        convert({"annotations": [{"image_id": 1}]})
    with pytest.raises(ValueError, match=r"has no box for .*images\.json"):
        convert([{"image_id": 8, "bbox": [0, 0, 9, 9], "score": 1}])
    with pytest.raises(FileNotFoundError, match="no json file"):
        convert_results(results / "none.json", results / "images.json", results / "boxes.json")
    assert not (results / "boxes.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "r.json"], "give --images-json"),
        (
            ["--from", "r.json", "--images-json", "a.json", "--workers", "2"],
            "--workers belong to a search",
        ),
        (
            ["--images", "x", "--weights", "w.pt"],
            "--weights belong to --method rpn, not selective-search",
        ),
        (
            ["--images", "x", "--method", "rpn", "--quality"],
            "--quality belong to --method selective-search",
        ),
        (["--images", "x", "--top", "0"], "top=0 must be at least 1"),
        (["--images", "no-such-folder"], "no-such-folder matches no file"),
    ],
)
def test_the_command_names_the_fix(options, message, tmp_path, capsys, monkeypatch):
    if not hasattr(pytest.importorskip("cv2"), "ximgproc"):
        pytest.skip('pip install "clim-data[proposals]"')
    monkeypatch.chdir(tmp_path)
    assert main(["proposals", "--out", "boxes.json", *options]) == 2
    assert message in capsys.readouterr().err


def test_the_store_of_a_folder_is_the_one_that_training_uses(photos):
    assert len(SampleStore(photos, texts=False)) == 7


def test_images_of_shards_are_named_by_their_file(tmp_path, images):
    """Two images of one base name, and one whose key is encoded, are named as in their folder."""
    names = ["cats/a b.png", "dogs/a b.png"]
    for number, name in enumerate(names):
        (tmp_path / "im" / name).parent.mkdir(parents=True)
        data = images.encoded(images.pixels(number, 40, 40), "PNG")
        (tmp_path / "im" / name).write_bytes(data)
        (tmp_path / "im" / name).with_suffix(".txt").write_text("x")
    write_shards(folder_items(tmp_path / "im"), tmp_path / "shards")
    for source in ("im", "shards"):
        store = SampleStore(tmp_path / source, texts=False)
        _, found = _identities(store, None)
        keys = [str(key) for key in store.indexes[0].keys]
        assert [name or key for name, key in zip(found, keys, strict=True)] == names
