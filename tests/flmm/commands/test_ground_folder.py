"""`flmm ground FOLDER`: one COCO json, resumed and shared, with what could not be read."""

import json
import shutil

import numpy as np
import pytest
import torch
from clim_data.annotations import CocoRecords
from clim_data.pixels import decode_segmentation
from clim_data.sources import SampleStore
from flmm import ground_phrases
from flmm.commands.main import main
from flmm.grounders.batches import BatchGrounder
from flmm.heads.facts import KEY
from flmm.heads.presence import PresenceHead
from flmm.pictures.files import read_image
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_grounding import save_tiny_grounded
from tiny_lmms import picture

PHRASES = ["a red car", "the sky"]
SHAPES = [(60, 90), (100, 40), (56, 56), (40, 40), (60, 80)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(model, folder of its files, folder of five images, one of them turned, and two broken)."""
    root = tmp_path_factory.mktemp("folder")
    model = save_tiny_grounded(root)
    photos = root / "photos"
    (photos / "more").mkdir(parents=True)
    for number, shape in enumerate(SHAPES):
        image = picture(*shape, seed=number)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 1 else 1
        image.save(photos / ("more" if number == 4 else "") / f"{number}.png", exif=exif)
    (photos / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (10, 10)).save(photos / "other.bmp")
    return model, root, photos


def ground(files, out, *more):
    _, root, photos = files
    heads = ["--checkpoint", str(root / "heads"), "--device", "cpu", "--workers", "0"]
    return main(["ground", str(photos), *heads, "-o", str(out), *map(str, more)])


def entries(path):
    """The output without what depends on the form of the phrases."""
    content = json.loads(path.read_text())
    return {name: value for name, value in content.items() if name != "info"}


def test_masks_of_a_folder_are_those_of_each_picture(files, tmp_path, capsys):
    model, _, photos = files
    lines = tmp_path / "phrases.txt"
    lines.write_text("\n".join(PHRASES))
    out = tmp_path / "found.json"
    pictures = tmp_path / "pictures"
    assert ground(files, out, "--phrases", lines, "--batch-size", 3, "--pictures", pictures) == 0
    said = capsys.readouterr().out
    assert "phrases of 5 images" in said
    assert "broken.jpg" in said
    assert "other.bmp" in said
    content = entries(out)
    assert {fault["reason"] for fault in content["skipped"]} == {
        "unreadable image",
        "unsupported format",
    }
    assert [category["name"] for category in content["categories"]] == PHRASES
    assert [image["file_name"] for image in content["images"]] == [
        *(f"{n}.png" for n in range(4)),
        "more/4.png",
    ]
    assert len(list(pictures.rglob("*.png"))) == 5

    by_image = {}
    for entry in content["annotations"]:
        by_image.setdefault(entry["image_id"], {})[entry["category_id"]] = entry
    checked = 0
    for image in content["images"]:
        given = Image.open(photos / image["file_name"])  # in memory: masks lie as it is stored
        assert (given.width, given.height) == (image["width"], image["height"])
        expected = ground_phrases(model, given, PHRASES)
        for place, mask in enumerate((expected.refined > 0).numpy()):
            entry = by_image.get(image["id"], {}).get(place + 1)
            assert (entry is not None) == mask.any()
            if entry is not None:
                found = decode_segmentation(entry["segmentation"], image["height"], image["width"])
                assert (np.asarray(found) != mask).mean() < 1e-3
                assert entry["score"] == pytest.approx(expected.scores[place].item(), abs=1e-3)
                checked += 1
    assert checked == len(content["annotations"]) > 0
    # The reader of annotations takes the file as it is.
    records = CocoRecords.read(out, on_error="raise")
    for image, own in by_image.items():
        assert len(records.boxes_of(image)) == len(own)


def test_each_entry_says_whether_its_phrase_is_in_the_picture(files, tmp_path, monkeypatch, capsys):
    model, root, photos = files
    torch.manual_seed(0)
    head = PresenceHead(model.heads.evidence_size, hidden=4, threshold=0.5)
    model.heads.use_presence(head)
    new = model.save_heads(tmp_path / "heads.safetensors")
    model.heads.use_presence(None)
    (tmp_path / "grounding.json").write_text((root / "heads" / "grounding.json").read_text())

    # The pixels that were read are drawn: no image is opened a second time.
    opened = []
    read = SampleStore.read
    monkeypatch.setattr(
        SampleStore, "read", lambda store, place: opened.append(place) or read(store, place)
    )
    out = tmp_path / "found.json"
    more = ["--checkpoint", str(new), "--device", "cpu", "--workers", "0", "-o", str(out)]
    more += ["--pictures", str(tmp_path / "drawn")]
    assert main(["ground", str(photos), *PHRASES, *more]) == 0
    assert len(opened) == len(set(opened))
    content = entries(out)
    told = [*content["annotations"], *content["not_found"]]
    assert all(entry["in_picture"] == (entry["score"] >= 0.5) for entry in told)
    absent = sum(not entry["in_picture"] for entry in told)
    assert (f"; {absent} are not in the picture" in capsys.readouterr().out) == (absent > 0)


def test_a_stopped_job_goes_on_and_does_nothing_twice(files, tmp_path, monkeypatch, capsys):
    whole = tmp_path / "whole.json"
    assert ground(files, whole, *PHRASES, "--batch-size", 2) == 0

    looked_at = []
    once = BatchGrounder._ground

    def stops(self, items):
        looked_at.append([item.number for item in items])
        if len(looked_at) == 2:
            raise KeyboardInterrupt
        return once(self, items)

    out = tmp_path / "stopped.json"
    monkeypatch.setattr(BatchGrounder, "_ground", stops)
    assert ground(files, out, *PHRASES, "--batch-size", 2) == 130
    assert not out.exists()
    assert ground(files, out, *PHRASES, "--batch-size", 2) == 0
    first, stopped, *later = looked_at
    assert stopped == later[0]
    assert sorted([*first, *(number for batch in later for number in batch)]) == [0, 1, 2, 3, 5]
    assert entries(out) == entries(whole)

    looked_at.clear()
    capsys.readouterr()
    assert ground(files, out, *PHRASES, "--batch-size", 2) == 0
    assert "is there already" in capsys.readouterr().out
    assert not looked_at
    assert ground(files, out, "a tree") == 2
    assert "use --overwrite" in capsys.readouterr().err
    monkeypatch.setattr(BatchGrounder, "_ground", once)
    assert ground(files, out, "a tree", "--overwrite") == 0


def test_processes_share_the_images(files, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole.json", tmp_path / "shared.json"
    assert ground(files, whole, *PHRASES, "--batch-size", 2, "--each-alone") == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):  # rank 0 waits for the others
        monkeypatch.setenv("RANK", rank)
        assert ground(files, out, *PHRASES, "--batch-size", 2, "--each-alone") == 0
    assert entries(out) == entries(whole)


def test_each_image_has_its_own_phrases(files, tmp_path, capsys):
    phrases = tmp_path / "phrases.json"
    phrases.write_text(json.dumps({"2.png": ["the sky", "a tree"], "0.png": ["a tree"]}))
    out = tmp_path / "found.json"
    assert ground(files, out, "--phrases", phrases) == 0
    content = entries(out)
    assert [image["file_name"] for image in content["images"]] == ["0.png", "2.png"]
    assert len(content["annotations"]) + len(content["not_found"]) == 3
    assert [category["name"] for category in content["categories"]] == ["the sky", "a tree"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "what is looked for"),
        (["a cat", "--phrases", "x.txt"], "only one of them"),
        (["--phrases", "none.txt"], "none.txt is not a file"),
        (["a cat", "a cat"], "is there twice"),
        (["a cat", "-o", "masks.png"], "with .json"),
    ],
)
def test_mistakes_with_a_folder_end_with_the_fix(files, words, message, tmp_path, capsys):
    assert ground(files, tmp_path / "out.json", *words) == 2
    assert message in capsys.readouterr().err


def test_options_of_folders_are_refused_for_one_picture(files, tmp_path, capsys):
    _, _, photos = files
    image = str(photos / "0.png")
    assert main(["ground", image, "a cat", "--pictures", str(tmp_path)]) == 2
    assert "--pictures needs a folder of images" in capsys.readouterr().err
    assert read_image(image).size == (90, 60)


def test_pictures_do_not_go_into_the_folder_of_the_images(files, tmp_path, capsys):
    _, _, photos = files
    assert ground(files, tmp_path / "o.json", "a car", "--pictures", photos / "drawn") == 2
    assert "the next run would read its pictures" in capsys.readouterr().err
    assert not (photos / "drawn").exists()


def test_heads_that_hold_no_numbers_are_refused(files, tmp_path, capsys):
    _, root, photos = files
    damaged = shutil.copytree(root / "heads", tmp_path / "heads")
    with safe_open(damaged / "heads.safetensors", "pt") as stored:
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        facts = stored.metadata()[KEY]
    name = next(key for key, value in tensors.items() if value.is_floating_point())
    tensors[name] = tensors[name] * float("nan")
    save_file(tensors, damaged / "heads.safetensors", metadata={KEY: facts})  # without a checksum
    words = ["ground", photos / "0.png", "a car", "--checkpoint", damaged, "--device", "cpu"]
    assert main([*map(str, words), "-o", str(tmp_path / "o.png")]) == 2
    assert "no finite numbers" in capsys.readouterr().err
