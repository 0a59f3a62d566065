"""`flmm eval reasonseg` and `flmm eval flickr30k` on a tiny model, and how questions are grounded."""

import json
from types import SimpleNamespace

import pytest
import torch
from clim_data import ReasoningSegmentation
from flmm.commands.main import main
from flmm.evaluation.reasoning import ReasoningGrounder
from flmm.grounders.grounder import ScoredMasks
from PIL import Image
from tiny_grounding import save_tiny_grounded

SHAPES = [
    {"label": "target", "points": [[4, 4], [30, 4], [30, 30], [4, 30]]},
    {"label": "ignore", "points": [[40, 4], [50, 4], [50, 30], [40, 30]]},
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    save_tiny_grounded(folder)
    for name in ("val", "images", "Sentences", "Annotations"):
        (folder / name).mkdir()
    for n in range(2):
        Image.new("RGB", (56, 40), (90 * n, 30, 60)).save(folder / "val" / f"{n}.jpg")
        Image.new("RGB", (56, 40), (90 * n, 30, 60)).save(folder / "images" / f"{n}.jpg")
        record = {"text": ["the red car"], "is_sentence": n == 1, "shapes": SHAPES}
        (folder / "val" / f"{n}.json").write_text(json.dumps(record))
        (folder / "Sentences" / f"{n}.txt").write_text("[/EN#1/other a red car] of the sky .\n")
        (folder / "Annotations" / f"{n}.xml").write_text(
            "<annotation><size><width>56</width><height>40</height></size><object><name>1</name>"
            "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>"
            "</annotation>"
        )
    return folder


def run(places, kind, out, *more):
    words = ["eval", kind, "--checkpoint", str(places / "heads"), "--device", "cpu"]
    words += ["--refiner", "none", "--pictures", "1", "--workers", "0", "-o", str(out), *more]
    assert main(words) == 0
    return json.loads((out / "report.json").read_text())


def test_reasonseg_from_the_command_line(places, tmp_path, capsys):
    images = ("--images", str(places / "val"))
    report = run(places, "reasonseg", tmp_path / "asked", *images, "--grounded", "question")
    assert {"gIoU", "cIoU", "short.gIoU", "long.cIoU"} <= report["metrics"].keys()
    assert report["metrics"]["samples"] == 2
    assert "Grounded: the question" in (tmp_path / "asked" / "report.md").read_text()
    again = run(places, "reasonseg", tmp_path / "answered", *images)
    assert again["metrics"]["samples"] == 2
    assert "gIoU" in capsys.readouterr().out


def test_flickr30k_from_the_command_line(places, tmp_path):
    options = ("--images", str(places / "images"), "--entities", str(places))
    metrics = run(places, "flickr30k", tmp_path / "out", *options)["metrics"]
    assert {"merged.R@1", "any.R@1", "merged.IoU", "any.IoU", "pointing"} <= metrics.keys()
    assert metrics["samples"] == 2
    assert metrics["merged.IoU"] == metrics["any.IoU"]  # every phrase has one box


class Whole:
    """A grounder whose masks are the whole image."""

    lmm = None

    def __call__(self, image, phrases):
        self.phrases = phrases
        return self._found(image)

    def ground_answer(self, image, answer, spans):
        self.phrases = [answer.text[start:end] for start, end in spans]
        return self._found(image)

    def _found(self, image):
        return ScoredMasks(torch.ones(1, image.height, image.width), torch.ones(1))


@pytest.mark.parametrize(
    ("answer", "phrases"),
    [
        (" The red car.", ["The red car"]),
        ("red car", ["red car"]),
        ("", None),
        (" . ", None),
        ("No car.", None),
    ],
)
def test_the_whole_answer_is_one_phrase(places, monkeypatch, answer, phrases):
    asked = []

    def ask(lmm, image, question, **options):
        asked.append(question)
        return SimpleNamespace(text=answer)

    monkeypatch.setattr("flmm.evaluation.reasoning.ask", ask)
    grounder = Whole()
    reasoning = ReasoningGrounder(grounder)
    sample = ReasoningSegmentation(places / "val")[0]
    image, _ = sample.load()
    (found,) = reasoning([reasoning.prepare(sample, image)])
    assert asked == ["the red car Answer with the name of the object or part only."]
    ignored = torch.from_numpy(sample.mask_source.ignored((40, 56)))
    if phrases is None:
        assert not found.binary().any()
        assert found.scores.tolist() == [0]
    else:
        assert grounder.phrases == phrases
        assert torch.equal(found.binary()[0], ~ignored)
    with pytest.raises(ValueError, match="'answer', 'question'"):
        ReasoningGrounder(grounder, what="thought")


def test_a_question_that_the_lmm_cannot_read_does_not_stop_the_others(places, tmp_path):
    folder = tmp_path / "val"
    folder.mkdir()
    for name, text in (("a", "the red car"), ("b", "car " * 5000), ("c", "the <image> car")):
        Image.new("RGB", (56, 40)).save(folder / f"{name}.jpg")
        (folder / f"{name}.json").write_text(json.dumps({"text": [text], "shapes": SHAPES}))
    images = ("--images", str(folder))
    report = run(places, "reasonseg", tmp_path / "out", *images, "--grounded", "question")
    assert report["metrics"]["samples"] == 1
    assert report["metrics"]["not_scored"] == 2
    assert "unusable text" in (tmp_path / "out" / "report.md").read_text()
