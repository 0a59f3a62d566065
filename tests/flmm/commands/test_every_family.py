"""Every command that uses an LMM, run for every family on a tiny model: what is written in README
works with each of them."""

import asyncio
import json

# Imported before its drawing is replaced here: modules keep what they import first.
import flmm.grounders.folder
import flmm.grounders.images  # noqa: F401
import pytest
import torch
from clim_models import UNetHead
from flmm import GroundedLMM, SamRefiner, load_lmm
from flmm.adapters.authors.joined import JoinedLMM
from flmm.commands.main import main
from flmm.web import command as web_command
from tiny_grounding import tiny_sam, word_tokenizer
from tiny_lmms import FAMILIES, picture, tiny_lmm
from todays_lmms import TODAY, own_processor, todays_lmm

PHRASES = ["a red car", "the sky"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two pictures of different shapes, with the references of a data set and a question."""
    folder = tmp_path_factory.mktemp("data")
    images = folder / "images"
    images.mkdir()
    sizes = {"1.png": (60, 90), "2.png": (90, 50)}
    for number, (name, size) in enumerate(sizes.items()):
        picture(*size, seed=number).save(images / name)

    records, refs, objects = [], [], []
    for number, (name, (height, width)) in enumerate(sizes.items(), start=1):
        box = [5, 5, 20, 20]
        records.append({"id": number, "file_name": name, "height": height, "width": width})
        polygon = [[5, 5, 25, 5, 25, 25, 5, 25]]
        objects.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": box,
                "area": 400,
                "iscrowd": 0,
                "segmentation": polygon,
            }
        )
        sentence = {"sent_id": number, "raw": "red car", "sent": "red car"}
        refs.append(
            {
                "ref_id": number,
                "ann_id": number,
                "image_id": number,
                "category_id": 1,
                "split": "val",
                "file_name": name,
                "sentences": [sentence],
            }
        )
    instances = {
        "images": records,
        "annotations": objects,
        "categories": [{"id": 1, "name": "car"}],
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "refs.json").write_text(json.dumps(refs))

    asks = "Please provide the bounding box coordinate of it."
    turns = [
        {"from": "human", "value": f"<image>\nthe car ? {asks}"},
        {"from": "gpt", "value": "[0, 1]"},
        {"from": "human", "value": "<image>"},
        {"from": "gpt", "value": "a car"},
    ]
    question = {
        "question_id": 1,
        "image": ["images/1.png", "images/1.png###[2, 3, 20, 30]"],
        "conversations": turns,
    }
    (folder / "questions.json").write_text(json.dumps([question]))
    return folder


def lmm_of(name, folder, monkeypatch):
    """The tiny LMM of a family, in a folder from which the commands load it."""
    if name in TODAY:
        lmm = todays_lmm(name)
        own_processor(name, lmm.family.processor).save_pretrained(folder)
        lmm.family.processor.save_pretrained(folder)
        lmm.model.save_pretrained(folder)
    else:
        lmm = tiny_lmm(name)
        lmm.tokenizer = word_tokenizer(lmm.family.style.image_token)
        folder.mkdir()
        if not isinstance(lmm.model, JoinedLMM):
            lmm.tokenizer.save_pretrained(folder)
            FAMILIES[name]()[1].save_pretrained(folder)
            lmm.model.save_pretrained(folder)
    # Read once, not for each command; the authors' own layouts have tests of their own.
    loaded = lmm if isinstance(lmm.model, JoinedLMM) else load_lmm(folder, dtype="float32")
    for module in ("flmm.grounded", "flmm.adapters.registry"):
        monkeypatch.setattr(f"{module}.load_lmm", lambda *_, **__: loaded)
    return lmm


async def post(app, path, body, headers=()):
    """(status, body) of one request to an application."""
    sent = []
    given = [{"type": "http.request", "body": body, "more_body": False}]
    never = asyncio.Event()

    async def receive():
        if not given:
            await never.wait()  # the visitor stays
        return given.pop()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), *headers],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 50000),
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body)


def ground_in_page(app, image):
    """What the page answers to phrases about a picture."""

    async def ask():
        kind = [(b"content-type", b"application/octet-stream"), (b"x-file-name", b"a.png")]
        status, picture_view = await post(app, "/api/picture", image, kind)
        assert status == 200, picture_view
        fields = {"picture": picture_view["picture"], "phrases": PHRASES, "each_alone": False}
        kind = [(b"content-type", b"application/json")]
        return await post(app, "/api/ground", json.dumps(fields).encode(), kind)

    return asyncio.run(ask())


# numpy deprecates how GLM-4V's processor copies.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("name", [*FAMILIES, *TODAY])
def test_the_commands_run(name, data, tmp_path, monkeypatch, capsys):
    # Drawing takes longer than all else, is the same for every family, and has tests of its own.
    for drawing in (
        "flmm.grounders.images.grounding_figure",
        "flmm.grounders.images.write_figure",
        "flmm.pictures.attention.attention_figure",
        "clim_eval.pictures.write_figure",
    ):
        monkeypatch.setattr(drawing, lambda *_, **__: None)
    torch.manual_seed(1)
    lmm = lmm_of(name, tmp_path / "lmm", monkeypatch)
    sam = tiny_sam()
    sam.save_pretrained(tmp_path / "sam")
    head = UNetHead(lmm.map_channels, base=2, upsample_input=16)
    GroundedLMM(lmm, head, SamRefiner(sam)).save_heads(tmp_path / "heads.safetensors")
    parts = [f"--lmm={tmp_path / 'lmm'}", f"--sam={tmp_path / 'sam'}"]
    model = [*parts, f"--checkpoint={tmp_path / 'heads.safetensors'}", "--device=cpu"]
    images = data / "images"

    def run(*words):
        status = main([*map(str, words), *model])
        assert status == 0, f"{words[:2]}: {capsys.readouterr().err}"

    run("ground", images / "1.png", *PHRASES, "-o", tmp_path / "out.png")
    assert len(json.loads((tmp_path / "out.json").read_text())["phrases"]) == 2

    found = tmp_path / "found.json"
    run("ground", images, *PHRASES, "-o", found, "--batch-size=2", "--workers=0")
    assert len(json.loads(found.read_text())["images"]) == 2

    # Two turns: the LMM is told the first one with the second.
    questions = ["-q", "the car", "-q", "the sky", "--max-new-tokens=4"]
    run("chat", images / "2.png", *questions, "-o", tmp_path / "chat")
    assert "could not be drawn" not in capsys.readouterr().err

    refs = ["--refs", data / "refs.json", "--instances-json", data / "instances.json"]
    counted = ["--split=val", "--batch-size=2", "--workers=0", "--pictures=0"]
    run("eval", "refcoco", "--images", images, *refs, *counted, "-o", tmp_path / "refcoco")
    report = json.loads((tmp_path / "refcoco" / "report.json").read_text())
    assert report["metrics"]["samples"] == 2

    # Without heads and SAM: where the LMM looks, and the box that it writes.
    out = tmp_path / "attention.png"
    plain = [parts[0], "--device=cpu", "-o", out]
    for words in (["attention"], ["ground", "--grounder=box", "--refiner=none"]):
        command = [words[0], str(images / "1.png"), *PHRASES, *words[1:], *map(str, plain)]
        assert main(command) == 0, capsys.readouterr().err

    # Visual chain of thought: the LMM says what matters, or the question does.
    for focus in ("thought", "question"):
        out = tmp_path / focus
        asked = ["--questions", data / "questions.json", f"--focus={focus}"]
        run("eval", "viscot", *asked, "--images", data, "-o", out)
        assert json.loads((out / "report.json").read_text())["metrics"]

    answers = []

    def serve(app, sockets, host):
        answers.append(ground_in_page(app, (images / "1.png").read_bytes()))

    monkeypatch.setattr(web_command, "serve", serve)
    run("demo", "--port=0")
    ((status, view),) = answers
    assert status == 200, view
