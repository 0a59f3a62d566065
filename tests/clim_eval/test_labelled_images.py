import io
import json
import tarfile

import numpy as np
import pytest
import torch
from clim_data.readers import class_images
from clim_eval.commands.main import main
from clim_eval.embeddings import save_class_embeddings
from clim_eval.evaluators.zeroshot import ZeroShotClassification
from clim_eval.reports.report import read_report
from PIL import Image

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def picture(name, size=(12, 9)):
    out = io.BytesIO()
    Image.new("RGB", size, COLOURS[name]).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name in COLOURS:
        place = tmp_path / "images" / name / "deep"
        place.mkdir(parents=True)
        for i in range(2):
            (place / f"{i}.png").write_bytes(picture(name))
    (tmp_path / "images" / "red" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "images"


def shard(path, samples):
    with tarfile.open(path, "w") as tar:
        for i, files in enumerate(samples):
            for suffix, data in files.items():
                info = tarfile.TarInfo(f"{i:04d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


class ColourModel(torch.nn.Module):
    """Its image feature is the mean colour, its classes are colours."""

    def __init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def normalize_pixels(self, pixels):
        return pixels.float()

    def encode_image(self, images):
        return torch.nn.functional.normalize(images.mean((2, 3)), dim=1)


ROWS = torch.tensor([COLOURS[name] for name in COLOURS], dtype=torch.float32)


def test_folders_are_classes_and_broken_images_are_named(folder):
    data = class_images(folder, 6)
    assert data.class_names == list(COLOURS)
    assert len(data) == 7
    image, label, name = data[0]
    assert (tuple(image.shape), label, name) == ((3, 6, 6), 0, "blue/deep/0.png")
    zero_shot = ZeroShotClassification(ColourModel(), ROWS, batch_size=3)
    assert zero_shot.run(data) == {"top1": 1.0, "top5": 1.0}
    assert zero_shot.coverage[0].left_out.names == {"unreadable image": ["red/broken.jpg"]}
    # Names change what is said, not which folder is which class.
    renamed = class_images(folder, 6, names=["x", "y", "z"])
    assert renamed.class_names == ["x", "y", "z"]
    assert ZeroShotClassification(ColourModel(), ROWS[[1, 0, 2]]).run(renamed)[
        "top1"
    ] == pytest.approx(1 / 3)
    assert renamed.description()["fingerprint"] != data.description()["fingerprint"]


def test_shards_say_their_class_by_name_or_number(tmp_path):
    samples = [
        {"png": picture("red"), "txt": b"red\n"},
        {"png": picture("green"), "txt": b"1"},
        {"png": picture("blue"), "json": b'{"label": 0}'},
        {"png": picture("red"), "json": b'{"label": "red"}', "txt": b"a caption"},
        {"png": picture("red"), "txt": b"purple"},
        {"png": picture("red"), "json": b'{"label": -1}'},
        {"png": b"no image", "txt": b"red"},
    ]
    shard(tmp_path / "a.tar", samples)
    data = class_images(tmp_path, 6, names=list(COLOURS))
    assert [data[i][1] for i in range(7)] == [2, 1, 0, 2, -1, -1, -1]
    assert data.skipped.counts == {"unknown class": 2, "unreadable image": 1}
    zero_shot = ZeroShotClassification(ColourModel(), ROWS)
    assert zero_shot.run(data)["top1"] == 1.0
    assert zero_shot.coverage[0].reasons == {"unknown class": 2, "unreadable image": 1}


def test_mistakes_end_with_the_fix(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="one for each class"):
        class_images(folder / "red" / "deep", 6)
    with pytest.raises(ValueError, match="one for each folder"):
        class_images(folder, 6, names=["a"])
    shard(tmp_path / "a.tar", [{"png": picture("red"), "txt": b"red"}])
    with pytest.raises(ValueError, match="--names"):
        class_images(tmp_path / "a.tar", 6)
    with pytest.raises(FileNotFoundError, match="check the path"):
        class_images(tmp_path / "none.tar", 6, names=["a"])


def test_the_command_reports_accuracy_and_what_is_left_out(model_options, folder, tmp_path, capsys):
    rows = torch.nn.functional.normalize(torch.randn(3, 16), dim=1)
    save_class_embeddings(tmp_path / "rows.safetensors", rows, list(COLOURS), "name")
    argv = ["zeroshot", *model_options, "--images", str(folder), "--out", str(tmp_path / "out")]
    assert main([*argv, "--class-embeddings", str(tmp_path / "rows.safetensors")]) == 0
    report = read_report(tmp_path / "out")
    # Images of a class are alike: each class is wholly right or wrong.
    assert report["metrics"]["top1"] * 3 == pytest.approx(round(report["metrics"]["top1"] * 3))
    assert report["metrics"]["top5"] == 1.0
    assert report["data"]["counts"] == {"images": 6, "classes": 3}
    assert report["coverage"]["images"]["names"] == {"unreadable image": ["red/broken.jpg"]}
    shown = capsys.readouterr().out
    assert "scored 6 of 7 images, left out 1: unreadable image 1" in shown
    assert "red/broken.jpg" in shown
    page = (tmp_path / "out" / "report.md").read_text()
    assert "Scored 6 of 7 images, left out 1: unreadable image 1." in page
    assert "`red/broken.jpg`" in page
    (tmp_path / "names.txt").write_text("a\nb\na\n")
    assert main([*argv, "--names", str(tmp_path / "names.txt")]) == 2
    assert "more than once" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "report.json").read_text())["title"].startswith(
        "Zero-shot"
    )
    assert np.asarray(Image.open(tmp_path / "out" / "figures" / "accuracy.png")).std() > 1
