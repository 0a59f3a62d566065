"""The demo's logic on the tiny LMM: what is answered, grounded and kept, and how often the model
runs."""

import io
import json
import tempfile

import numpy as np
import pytest
import torch
from clim_data.pixels import decode_segmentation
from flmm.dialogue.answers import ask, ground_answer
from flmm.dialogue.visual_cot import LookOptions, visual_answer
from flmm.grounders import (
    AttentionGrounder,
    AttentionHead,
    BoxGrounder,
    ChosenHeads,
    HeadsGrounder,
)
from flmm.grounders.heads import ground_phrases
from flmm.grounders.images import save_grounding
from flmm.refiners import CoarseOnly
from flmm.web.drawing import (
    found_view,
    heat_pngs,
    inner_point,
    look_view,
    mask_png,
    picture_view,
    pieces,
)
from flmm.web.makers import Choice, MaskMakers
from flmm.web.recent import RecentItems
from flmm.web.session import Demo
from flmm.web.upload import LONGEST_EDGE_PX, read_upload
from PIL import Image
from tiny_lmms import picture
from tiny_web import QUESTION, file_of, first_words, speaking_demo


@pytest.fixture(scope="module")
def demo():
    return speaking_demo()


def asked(demo, name, question=QUESTION):
    """The answer's name and text."""
    answered = demo.answer(name, question)
    return answered.name, answered.text


@pytest.fixture
def runs(demo):
    """How often the LMM (a forward of its language model) and SAM's image encoder ran."""
    counts = {"lmm": 0, "sam": 0}

    def count(name):
        return lambda *_: counts.update({name: counts[name] + 1})

    hooks = [
        demo.model.lmm.language_model.register_forward_pre_hook(count("lmm")),
        demo.model.sam.image_encoder.register_forward_pre_hook(count("sam")),
    ]
    yield counts
    for hook in hooks:
        hook.remove()


def test_answer_is_grounded_without_running_the_lmm_again(demo, runs):
    image = picture(60, 90)
    name, upload = demo.add_picture(file_of(image))
    assert upload.image.size == (90, 60)
    answered = demo.answer(name, f"  {QUESTION} ")
    text, found = answered.text, answered.found
    said = runs["lmm"]
    assert said > 0
    assert runs["sam"] == 1
    again = demo.mark(answered.name, ["blue", " "])
    span = (text.index("dog"), text.index("dog") + 3)
    assert demo.mark(answered.name, span=span).spans == (span,)
    assert runs == {"lmm": said, "sam": 1}

    alone = ask(demo.model.lmm, image, QUESTION, max_new_tokens=12)
    expected = ground_answer(demo.model, image, alone, chunker=first_words)
    assert text == found.text == alone.text
    assert found.phrases == expected.phrases == ("left", "dog")
    assert [text[a:b] for a, b in found.spans] == list(found.phrases)
    np.testing.assert_array_equal(found.masks, expected.masks.refined.numpy() > 0)
    count = text.split().count("blue")  # every mention
    assert again.phrases == ("blue",) * count
    assert again.masks.shape == (count, 60, 90)
    assert not np.array_equal(again.attention[:1], found.attention[:1])


def test_phrases_of_ones_own(demo, runs):
    image = picture(60, 90, seed=1)
    name, _ = demo.add_picture(file_of(image))
    found = demo.ground(name, ["a big dog", "", " the tree "])
    demo.ground(name, ["a car"])
    assert runs == {"lmm": 2, "sam": 1}
    assert found.phrases == ("a big dog", "the tree")
    assert found.spans == ()
    np.testing.assert_array_equal(
        found.masks,
        ground_phrases(demo.model, image, ["a big dog", "the tree"]).refined.numpy() > 0,
    )
    assert found.attention.shape[0] == 2


def test_files_are_those_of_the_command(demo, tmp_path, monkeypatch):
    image = picture(60, 90, seed=1)
    name, _ = demo.add_picture(file_of(image))
    found = demo.ground(name, ["a big dog", "the tree"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    drawn, record = demo.drawing(found.result), demo.masks_json(found.result)
    assert list((tmp_path / "temporary").iterdir()) == []
    scores = [one["score"] for one in found.record["phrases"]]
    path, beside = save_grounding(
        tmp_path / "own.png",
        image,
        found.masks,
        found.phrases,
        scores=scores,
        about={"score_kind": "geometric"},
    )
    assert drawn == path.read_bytes()
    assert json.loads(record) == json.loads(beside.read_text())
    assert found.unknown == ()
    kept = json.loads(record)["phrases"][1]
    np.testing.assert_array_equal(decode_segmentation(kept["segmentation"], 60, 90), found.masks[1])


def test_files_of_an_answer_say_what_was_asked(demo):
    name, _ = demo.add_picture(file_of(picture(60, 90)))
    answer, text = asked(demo, name)
    record = json.loads(demo.masks_json(demo.mark(answer).result))
    assert (record["question"], record["answer"]) == (QUESTION, text)


def test_closer_look(demo, runs):
    image = picture(60, 90, seed=2)
    name, _ = demo.add_picture(file_of(image))
    demo.ground(name, ["a car"])
    for focus in ("thought", "question"):
        look = demo.look_again(name, QUESTION, focus)
        expected = visual_answer(demo.model, image, QUESTION, look=LookOptions(focus=focus))
        assert (look.thought, look.answer, look.box) == (
            expected.thought,
            expected.answer,
            expected.box,
        )
        np.testing.assert_array_equal(look.mask, expected.mask > 0)
        assert look.crop.size == (look.box[2] - look.box[0], look.box[3] - look.box[1])
    assert (
        runs["sam"] == 3
    )  # once for the picture here, and once for each of the two to compare with
    view = look_view(look)
    assert view["mask"].startswith("data:image/png;base64,")
    assert view["box"] == list(look.box)


def test_mistakes_end_with_the_fix(demo):
    name, _ = demo.add_picture(file_of(picture(60, 90)))
    answer, _ = asked(demo, name)
    with pytest.raises(ValueError, match="no picture: choose a picture first"):
        asked(demo, "")
    with pytest.raises(ValueError, match="no longer kept: choose it again"):
        demo.ground("unknown", ["a car"])
    with pytest.raises(ValueError, match="type a question first"):
        demo.look_again(name, "  ")
    with pytest.raises(ValueError, match="there is no phrase: type one or more"):
        demo.ground(name, ["", "  "])
    with pytest.raises(ValueError, match="'a unicorn' is not in the answer"):
        demo.mark(answer, ["a unicorn"])
    with pytest.raises(ValueError, match="legal values are 'thought', 'question'"):
        demo.look_again(name, QUESTION, "box")
    with pytest.raises(ValueError, match="do not fit the context"):
        demo.ground(name, ["a big dog " * 2000])
    with pytest.raises(ValueError, match="no longer kept: ask again"):
        demo.mark("unknown")


def test_answers_are_kept_by_their_size(demo, monkeypatch):
    name, _ = demo.add_picture(file_of(picture(60, 90)))
    answered = demo.answer(name, QUESTION)
    kept = demo._answers[answered.name].answer.generated
    size = kept.maps.nbytes + kept.states.nbytes
    monkeypatch.setattr("flmm.web.session.ANSWER_BYTES_KEPT", 2 * size + size // 2)
    small = Demo(demo.model, max_new_tokens=12, chunker=first_words)
    name, _ = small.add_picture(file_of(picture(60, 90)))
    names = [small.answer(name, QUESTION).name for _ in range(3)]
    assert small.mark(names[1]).phrases == ("left", "dog")
    with pytest.raises(ValueError, match="no longer kept: ask again"):
        small.mark(names[0])


def test_a_conversation_and_an_answer_without_phrases(demo):
    name, _ = demo.add_picture(file_of(picture(60, 90)))
    pieces_heard = []
    history = [("the dog", "a big dog")]
    answered = demo.answer(name, QUESTION, history=history, on_text=pieces_heard.append)
    assert answered.remembered == 1
    assert "".join(pieces_heard) == answered.text
    quiet = Demo(demo.model, max_new_tokens=12, chunker=lambda text: [])
    name, _ = quiet.add_picture(file_of(picture(60, 90)))
    assert quiet.answer(name, QUESTION).found is None


def test_a_silent_model_is_told(demo, monkeypatch):
    name, _ = demo.add_picture(file_of(picture(60, 90)))
    weight = demo.model.lmm.model.lm_head.weight
    monkeypatch.setattr(weight, "data", torch.zeros_like(weight))
    with pytest.raises(ValueError, match="said nothing: ask in other words"):
        asked(demo, name)


def test_answers_take_what_the_context_leaves(monkeypatch):
    demo = speaking_demo(max_new_tokens=None)
    name, _ = demo.add_picture(file_of(picture(60, 90)))
    tokens = demo.model.lmm.family.layout(demo.model.lmm.family.prepare(picture(60, 90))).tokens
    monkeypatch.setattr(
        demo.model.lmm.language_model.config, "max_position_embeddings", tokens + 60
    )
    _, text = asked(demo, name)
    assert 30 < len(text.split()) < 60
    monkeypatch.setattr(demo.model.lmm.language_model.config, "max_position_embeddings", tokens)
    with pytest.raises(ValueError, match="do not fit the context"):
        asked(demo, name)


def test_uploads(tmp_path, monkeypatch):
    large = read_upload(file_of(Image.new("RGB", (2 * LONGEST_EDGE_PX, 300)), "jpeg"))
    assert large.image.size == (LONGEST_EDGE_PX, 150)
    assert large.shrunk
    assert (
        f"{2 * LONGEST_EDGE_PX} x 300 pixels, shrunk to {LONGEST_EDGE_PX} x 150"
        in picture_view("p", large)["note"]
    )
    exif = (turned := Image.new("RGB", (20, 10))).getexif()
    exif[0x0112] = 6
    upload = read_upload(file_of(turned, "jpeg", exif=exif))
    assert upload.image.size == upload.original_size == (10, 20)
    assert picture_view("p", upload)["note"] == ""
    assert read_upload(file_of(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))).image.getpixel((1, 1)) == (
        255,
        255,
        255,
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.png is empty: choose"),
        (b"no picture", "a.png cannot be read as a picture: choose"),
        (file_of(Image.new("RGB", (4, 4)), "ppm"), "a.png cannot be read as a picture: choose"),
        (file_of(picture(60, 90))[:400], "a.png is damaged"),
        (file_of(Image.new("RGB", (60, 60))), "at most 1000 are decoded; make it smaller"),
    ],
)
def test_bad_uploads_are_refused(data, message, monkeypatch):
    monkeypatch.setenv("CLIM_DATA_MAX_PIXELS", "1000" if "1000" in message else "100000")
    with pytest.raises(ValueError, match=message):
        read_upload(data, "a.png")


def test_bytes_are_limited(monkeypatch):
    monkeypatch.setattr("flmm.web.upload.MAX_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="more than 1 MB: make it smaller"):
        read_upload(bytes((1 << 20) + 1))


def test_kept_forgets_what_was_used_longest_ago():
    kept = RecentItems(2, "gone: make it again")
    first, second = kept.add("first"), kept.add("second")
    assert kept[first] == "first"
    third = kept.add("third")
    assert (kept[first], kept[third], len(kept)) == ("first", "third", 2)
    with pytest.raises(ValueError, match="gone: make it again"):
        kept[second]


def test_recent_items_have_sizes():
    kept = RecentItems(10, "gone", size=len)
    first, second = kept.add("aaaa"), kept.add("bbbb")
    third = kept.add("cccccccccccc")  # larger than all, and kept
    assert (len(kept), kept[third][0]) == (1, "c")
    for name in (first, second):
        with pytest.raises(ValueError, match="gone"):
            kept[name]


def test_inner_point_is_in_the_mask():
    ring = np.zeros((21, 21), dtype=bool)
    ring[2:19, 2:19] = True
    ring[5:16, 5:16] = False
    x, y = inner_point(ring)
    assert ring[y, x]
    assert inner_point(np.zeros((3, 3), dtype=bool)) is None
    assert inner_point(np.ones((3, 5), dtype=bool)) == (2, 1)


def test_pieces_of_a_text():
    text = "😀 a dog and a cat"
    spans = ((2, 7), (12, 17))
    assert pieces(text, spans) == [
        {"text": "😀 ", "phrase": None},
        {"text": "a dog", "phrase": 0},
        {"text": " and ", "phrase": None},
        {"text": "a cat", "phrase": 1},
    ]
    assert pieces("", ()) == []


def test_masks_are_drawn_in_their_colours(tmp_path):
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:50] = True
    (tmp_path / "mask.png").write_bytes(mask_png(mask, "#0072b2"))
    drawn = Image.open(tmp_path / "mask.png").convert("RGBA")
    times = drawn.width // 60
    assert drawn.size == (60 * times, 40 * times)
    assert drawn.width > 500
    assert drawn.getpixel((5, 5))[3] == 0
    inside = drawn.getpixel((35 * times, 20 * times))
    assert inside[:3] == (0x00, 0x72, 0xB2)
    assert 0 < inside[3] < 255
    assert drawn.getpixel((20 * times, 20 * times)) == (255, 255, 255, 255)
    covered = np.asarray(drawn)[..., 3] > 0
    assert covered.sum() == mask.sum() * times**2


def test_attention_has_one_hue_and_one_scale():
    attention = np.zeros((2, 8, 8), dtype=np.float32)
    attention[0, 2, 5] = 0.3
    attention[0, :, 0] = 0.1
    attention[1, 4] = 0.1
    strong, weak = (Image.open(io.BytesIO(png)) for png in heat_pngs(attention))
    first, second = np.asarray(strong), np.asarray(weak)
    assert first.shape == (8, 8, 4)
    assert len(np.unique(first[..., :3].reshape(-1, 3), axis=0)) == 1
    assert first[2, 5, 3] == first[..., 3].max() > first[2, 4, 3] == 0
    assert first[0, 0, 3] == second[4, 0, 3] > 0  # the same attention
    heat_pngs(np.ones((1, 3, 3), dtype=np.float32))  # nothing stands out: no division by zero
    assert heat_pngs(attention[:0]) == []


def test_view_of_masks(demo):
    name, _ = demo.add_picture(file_of(picture(60, 90)))
    found = demo.ground(name, ["a dog", "the tree"])
    view = found_view(found)
    assert [one["phrase"] for one in view["phrases"]] == ["a dog", "the tree"]
    assert len({one["colour"] for one in view["phrases"]}) == 2
    for one, mask in zip(view["phrases"], found.masks, strict=True):
        assert one["area"] == mask.sum()
        assert one["share"] == pytest.approx(mask.mean())
    json.dumps(view)


def test_every_grounder_marks_answers_and_phrases():
    demo = speaking_demo()
    lmm = demo.lmm
    heads = ChosenHeads((AttentionHead(0, 0),))
    made = {
        Choice("heads", "refined"): HeadsGrounder(demo.model),
        Choice("attention", "coarse"): AttentionGrounder(lmm, CoarseOnly(), heads),
        Choice("box", "coarse"): BoxGrounder(lmm, CoarseOnly()),
    }
    made[Choice("box", "coarse")].answers = lambda images, phrases: (
        ["[0, 0, 0.5, 0.5]"] * len(phrases)
    )
    several = Demo(MaskMakers(made), max_new_tokens=12, chunker=first_words)
    name, _ = several.add_picture(file_of(picture(60, 60)))
    answered = several.answer(name, QUESTION)
    plain = demo.answer(demo.add_picture(file_of(picture(60, 60)))[0], QUESTION)
    np.testing.assert_array_equal(answered.found.masks, plain.found.masks)

    boxed = several.mark(answered.name, grounder="box")
    assert boxed.masks[:, :30, :30].all()
    assert not boxed.masks[:, 31:].any()
    assert boxed.record["phrases"][0]["boxes"] == [[0, 0, 30, 30]]
    np.testing.assert_array_equal(boxed.attention, answered.found.attention)
    for grounder in ("attention", "box"):
        found = several.ground(name, ["a dog"], grounder=grounder, outlines="coarse")
        assert found.masks.any()
        assert found.attention.shape[0] == 1
        assert found.record["score_kind"] == "geometric"
    with pytest.raises(ValueError, match=r"no grounder 'heads' \(coarse\): choose from heads"):
        several.mark(answered.name, grounder="heads", outlines="coarse")

    no_heads = Demo(MaskMakers({Choice("box", "coarse"): made[Choice("box", "coarse")]}))
    name, _ = no_heads.add_picture(file_of(picture(60, 60)))
    with pytest.raises(ValueError, match="a closer look needs trained heads"):
        no_heads.look_again(name, QUESTION)
