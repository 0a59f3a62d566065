"""Grounding one's own image: arrays, pictures, json, the commands, and what they say to
mistakes."""

import json

import numpy as np
import pytest
import torch
from clim_data.pixels import decode_segmentation
from flmm.adapters import load_lmm
from flmm.commands.chat import next_number, questions
from flmm.commands.main import build_parser
from flmm.commands.options import heads_file
from flmm.demo.lmm import build_demo_llava, save_folder, word_tokenizer
from flmm.demo.sam import build_demo_sam
from flmm.demo.scenes import compose_demo_scenes
from flmm.experiments.heads import (
    HeadOptions,
    build_grounded,
    evaluate,
    evaluate_chance,
    train_heads,
    true_masks,
)
from flmm.experiments.quickstart import comparison_picture, predict_scenes, score_table
from flmm.grounders.images import PhraseMarks, ground, masks_as_json, save_grounding
from flmm.heads.sources import trained_with
from flmm.pictures.files import read_image
from flmm.pictures.masks import grounding_figure
from PIL import Image


def run_words(command, words):
    options = build_parser(command).parse_args([command, *words])
    options.run(options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(model, folder with lmm, sam and run, scenes), the heads trained for two steps on a random
    LMM."""
    folder = tmp_path_factory.mktemp("grounded")
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    lmm = save_folder(build_demo_llava(tokenizer), tokenizer, folder / "lmm")
    build_demo_sam().save_pretrained(folder / "sam")
    scenes = compose_demo_scenes(folder / "scenes", "val", count=4, seed=5).read()
    model = build_grounded(load_lmm(lmm, dtype="float32"), build_demo_sam())
    about = {"lmm": str(lmm), "sam": str(folder / "sam")}
    train_heads(
        model, scenes, HeadOptions(steps=2, batch_size=2), folder=folder / "run", about=about
    )
    return model, folder, scenes


def test_command_gives_the_masks_of_python(trained, tmp_path, capsys):
    model, folder, scenes = trained
    path = scenes[0].image
    phrases = ["a frog", "two bears"]
    out = tmp_path / "pictures" / "out.png"
    run_words(
        "ground",
        [
            str(path),
            *phrases,
            "--checkpoint",
            str(folder / "run"),
            "--device",
            "cpu",
            "-o",
            str(out),
        ],
    )
    record = json.loads(out.with_suffix(".json").read_text())
    expected = ground(path, phrases, model)
    assert expected.shape == (2, 72, 72)
    assert record["size"] == [72, 72]
    for mask, phrase, kept in zip(expected, phrases, record["phrases"], strict=True):
        assert kept["phrase"] == phrase
        np.testing.assert_array_equal(decode_segmentation(kept["segmentation"], 72, 72), mask)
        x, y, width, height = kept["bbox"]
        assert mask[y : y + height, x : x + width].sum() == kept["area"] == mask.sum()
    assert Image.open(out).width > 100
    said = capsys.readouterr()
    assert "loaded in" in said.err
    assert str(out) in said.out


def test_chat_draws_the_phrases_of_the_answer(trained, tmp_path, capsys, monkeypatch):
    # The random LMM writes no noun chunks.
    monkeypatch.setattr("flmm.text.phrases.has_spacy", lambda: False)
    monkeypatch.setattr("flmm.text.phrases.simple_chunks", lambda text: text.split()[:2])
    _, folder, scenes = trained
    arguments = [
        str(scenes[0].image),
        "-q",
        "What is it?",
        "--checkpoint",
        str(folder / "run"),
        "-o",
        str(tmp_path),
    ]
    run_words("chat", [*arguments, "--max-new-tokens", "8", "--device", "cpu"])
    said = capsys.readouterr().out
    record = json.loads((tmp_path / "answer-1.json").read_text())
    assert record["question"] == "What is it?"
    assert record["answer"].strip() in said
    assert record["phrases"]
    assert all(found["phrase"] in record["answer"] for found in record["phrases"])


def test_chat_reads_questions_until_an_empty_line(monkeypatch):
    typed = iter(["What?", "Where?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert list(questions(None)) == ["What?", "Where?"]
    assert list(questions(["Who?"])) == ["Who?"]


def test_scores_of_guesses(trained):
    model, _, scenes = trained
    chance = evaluate_chance(scenes)
    shares = [
        (m.sum() / u.sum()).item()
        for s in map(scenes.__getitem__, range(4))
        for m, u in _with_union(s)
    ]
    assert chance["all things"]["AR"] == pytest.approx(np.mean(shares))
    whole = [mask.float().mean().item() for i in range(4) for mask in true_masks(scenes[i])]
    assert chance["whole image"]["AR"] == pytest.approx(np.mean(whole))
    rows = evaluate(model, scenes)
    assert set(rows) == {"coarse", "refined", "shuffled"}
    assert "average recall" in score_table({**chance, **rows})
    found = predict_scenes(model, scenes, 2)
    assert [len(one["refined"]) for one in found] == [len(scenes[i].phrases) for i in range(2)]
    # Beside truth, before and after one picture of attention for each phrase; all rows are as long
    # as the longest.
    assert len(comparison_picture(model, scenes, found, found).axes) == 2 * (
        3 + max(len(scenes[i].phrases) for i in range(2))
    )


def _with_union(sample):
    masks = true_masks(sample)
    return [(mask, masks.any(0)) for mask in masks]


def test_mistakes_end_with_the_fix(trained, tmp_path):
    model, folder, scenes = trained
    image = str(scenes[0].image)
    with pytest.raises(FileNotFoundError, match=r"no image .*nothing.jpg: pass the path"):
        ground("nothing.jpg", ["a cat"], model)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text.png: unreadable image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(ValueError, match="at least one phrase"):
        ground(image, [], model)
    with pytest.raises(ValueError, match=r"do not fit the context of 256 .*; shorten the text"):
        ground(image, ["a frog " * 100], model)
    with pytest.raises(
        FileNotFoundError, match=r"no heads.safetensors in .*: pass a training's folder"
    ):
        heads_file(tmp_path)
    with pytest.raises(ValueError, match="trained with: pass --sam"):
        trained_with(tmp_path / "heads.safetensors", "sam")
    with pytest.raises(FileNotFoundError, match="none"):
        run_words(
            "ground",
            [image, "a cat", "--checkpoint", str(folder / "run"), "--lmm", str(tmp_path / "none")],
        )
    with pytest.raises(ValueError, match=r"end it with .jpg, .png or .webp"):
        save_grounding(tmp_path / "out", read_image(image), np.zeros((1, 72, 72), bool), ["a cat"])
    with pytest.raises(ValueError, match="1 phrases on an image of 72 x 72"):
        grounding_figure(read_image(image), np.zeros((2, 72, 72), bool), ["a cat"])


def test_a_camera_s_turn_is_applied(tmp_path):
    picture = Image.new("RGB", (20, 10))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (10, 20)


def test_record_of_an_empty_mask():
    record = masks_as_json(np.zeros((1, 4, 6), bool), ["nothing"])
    assert record["phrases"][0]["area"] == 0
    assert record["size"] == [4, 6]


def test_a_picture_that_cannot_be_drawn_loses_no_mask(tmp_path, monkeypatch):
    image, masks = Image.new("RGB", (6, 4)), np.zeros((1, 4, 6), bool)
    path, _ = save_grounding(tmp_path / "a.png", image, masks, [r"the $\frac{1$ sign"])
    assert path.is_file()  # a "$" begins no formula

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("flmm.grounders.images.write_figure", full)
    with pytest.raises(
        ValueError, match=r"could not be drawn \(No space left.*masks are in .*b.json"
    ):
        save_grounding(tmp_path / "b.png", image, masks, ["a cat"])
    assert json.loads((tmp_path / "b.json").read_text())["phrases"][0]["found"] is False
    with pytest.raises(ValueError, match=r"pass bool ones, such as logits > 0"):
        save_grounding(tmp_path / "c.png", image, masks.astype(float), ["a cat"])


def test_one_text_or_an_iterator_are_phrases(trained):
    model, _, scenes = trained
    image = scenes[0].load_image()
    expected = ground(image, ["a frog"], model)
    assert expected.shape == (1, 72, 72)
    np.testing.assert_array_equal(ground(image, "a frog", model), expected)
    np.testing.assert_array_equal(ground(image, (p for p in ["a frog"]), model), expected)
    with pytest.raises(ValueError, match="phrase 1 holds the image token '<image>': remove it"):
        ground(image, "a <image> frog", model)


def test_answers_get_the_next_free_number(tmp_path):
    assert next_number(tmp_path) == 1
    for name in ("answer-1.png", "answer-3.json", "answer-x.png"):
        (tmp_path / name).touch()
    assert next_number(tmp_path) == 4


def test_the_input_picture_is_never_replaced(trained, tmp_path):
    _, _, scenes = trained
    picture = tmp_path / "photo.png"
    scenes[0].load_image().save(picture)
    with pytest.raises(ValueError, match="would replace the input picture"):
        run_words("ground", [str(picture), "a cat", "-o", str(picture)])


def test_a_phrase_that_is_not_in_the_picture_is_named_and_not_drawn(tmp_path, monkeypatch):
    masks = np.ones((2, 8, 8), dtype=bool)
    drawn = []

    def noting(image, masks, labels, **options):
        drawn.append((masks, labels))
        return grounding_figure(image, masks, labels, **options)

    monkeypatch.setattr("flmm.grounders.images.grounding_figure", noting)
    image = Image.new("RGB", (8, 8))
    marks = PhraseMarks(in_picture=[True, False])
    texts = ["a cat", "a dog"]
    _, file = save_grounding(
        tmp_path / "a.png", image, masks, texts, scores=[0.9, 0.02], marks=marks
    )
    ((shown, labels),) = drawn
    assert shown[0].all()
    assert not shown[1].any()
    assert labels == ["a cat 0.90", "a dog 0.02"]
    records = json.loads(file.read_text())["phrases"]
    assert [record["in_picture"] for record in records] == [True, False]
    assert [record["area"] for record in records] == [64, 64]
