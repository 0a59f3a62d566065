"""Boxes that the LMM writes, as masks: one or several images, phrases without an answer."""

import pickle

import pytest
import torch
from flmm import SamRefiner, ask
from flmm.grounders import BoxGrounder, box_refiner
from flmm.grounders.box import BoxSample
from flmm.pictures.orientation import turn_back
from flmm.refiners import CoarseOnly
from PIL import Image
from tiny_grounding import Pictures, tiny_grounded, tiny_sam
from tiny_lmms import picture
from tiny_web import QUESTION, speaking_demo
from todays_lmms import todays_lmm

PHRASES = ["a big dog", "the tree", "the sky"]


WRITTEN = {
    "a big dog": "[0.25, 0.5, 0.5, 1.0]</s>",
    "the tree": "[0.5, 0.75, 0.0, 0.5], [0.1, 0.1, 0.2, 0.2]</s>",
    "the sky": "I see no sky.</s>",
}


class Told(BoxGrounder):
    """A grounder whose LMM writes what it is told, by phrase."""

    def answers(self, images, phrases):
        return [WRITTEN[phrase] for phrase in phrases]


@pytest.fixture(scope="module")
def lmm():
    return tiny_grounded().lmm


def test_boxes_become_masks_of_the_image(lmm):
    image = picture(80, 80)
    grounder = Told(lmm, CoarseOnly())
    found = grounder(image, PHRASES)
    masks = torch.zeros(3, 80, 80, dtype=torch.bool)
    masks[0, 40:80, 20:40] = True
    masks[1, 40:60, 0:40] = True  # corners swapped
    masks[1, 8:16, 8:16] = True  # the second box of the answer
    assert torch.equal(found.binary(), masks)
    assert found.scores[2] == 0
    assert (found.scores[:2] > 0.9).all()

    one, two, none = found.places
    assert one == (pytest.approx((20, 40, 40, 80)),)
    assert two == (pytest.approx((0, 40, 40, 60)), pytest.approx((8, 8, 16, 16)))
    assert none == ()

    (fault,) = grounder.take_unanswered().faults
    assert str(fault) == "'the sky': no box in the answer: the LMM wrote 'I see no sky.</s>'"
    assert not grounder.take_unanswered().faults


def test_boxes_are_of_the_square_that_the_lmm_sees(lmm):
    image = picture(40, 80)  # 20 pixels of padding above and below
    found = Told(lmm, CoarseOnly())(image, "a big dog").binary()[0]
    assert found.shape == (40, 80)
    assert torch.equal(found.nonzero().amin(0), torch.tensor([20, 20]))
    assert torch.equal(found.nonzero().amax(0), torch.tensor([39, 39]))


def test_a_turned_picture_gets_its_masks_as_it_was_passed(lmm, tmp_path):
    image = picture(80, 60)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    grounder = Told(lmm, CoarseOnly())
    stored = grounder(Image.open(tmp_path / "turned.png"), "a big dog").masks
    upright = grounder(tmp_path / "turned.png", "a big dog").masks
    assert upright.shape == (1, 60, 80)
    assert torch.equal(stored, turn_back(upright, 6))


def test_the_refiner_gets_every_box_alone(lmm):
    torch.manual_seed(0)
    sam = SamRefiner(tiny_sam(), use_text=False, use_mask=False).eval()
    image = picture(80, 80, seed=3)
    found = Told(lmm, sam)(image, PHRASES)
    boxes = torch.tensor([[20.0, 40, 40, 80], [0, 40, 40, 60], [8, 8, 16, 16]])
    (wanted,) = sam.refine_places([image], [[boxes[:1], boxes[1:]]])
    torch.testing.assert_close(found.masks[:2], wanted.masks)
    torch.testing.assert_close(found.scores[:2], wanted.ious)
    assert (found.masks[2] < 0).all()


def test_points_of_a_family_that_points_are_points_of_the_refiner():
    lmm = todays_lmm("molmo2")
    lmm.tokenizer = object()
    seen = []

    class Noted(CoarseOnly):
        def refine_places(self, images, places):
            seen.extend(places[0])
            return super().refine_places(images, places)

    image = picture(40, 80)
    written = '<points coords="1 1 250 500 2 750 500">cups</points>'
    grounder = BoxGrounder(lmm, Noted())
    grounder.answers = lambda images, phrases: [written]
    found = grounder(image, "two cups")
    assert seen[0].tolist() == [[20, 20], [60, 20]]
    assert found.places == (((20, 20, 20, 20), (60, 20, 60, 20)),)
    assert found.binary()[0, 20, [20, 60]].all()
    assert not found.binary()[0, 20, 40]


def test_an_answer_ends_where_it_repeats_a_box_or_has_none(lmm, monkeypatch):
    stops = []

    def answer_all(images, prompts, *, max_new_tokens, stop):
        stops.append(stop)
        return [torch.tensor([5]) for _ in prompts]

    monkeypatch.setattr(lmm, "answer_all", answer_all)
    texts = {1: "[0.1, 0.1, 0.2, 0.2]", 2: "[0.1, 0.1, 0.2, 0.2] [0.1, 0.1, 0.2, 0.2]", 3: "what"}
    monkeypatch.setattr(lmm.tokenizer, "decode", lambda ids, **_: texts[ids[0]], raising=False)
    monkeypatch.setitem(texts, 5, "")
    BoxGrounder(lmm, CoarseOnly()).answers([None], ["a dog"])
    (stop,) = stops
    assert not stop(torch.tensor([1]))
    assert stop(torch.tensor([2]))
    assert not stop(torch.tensor([3]))
    assert stop(torch.tensor([3] * 128))


def test_samples_of_a_data_set_are_those_of_each_alone(lmm):
    grounder = BoxGrounder(lmm, CoarseOnly())
    samples = grounder.for_samples()
    data = Pictures((3, 1, 2))
    prepared = [samples.prepare(data[i], data[i].load_image()) for i in range(3)]
    assert isinstance(prepared[0], BoxSample)
    assert len(pickle.dumps(samples.prepare)) < 10_000
    together = samples(prepared)
    assert [len(found.scores) for found in together] == [3, 1, 2]
    unanswered = {fault.name for fault in grounder.take_unanswered().faults}
    for one, found in zip(prepared, together):
        (alone,) = samples([one])
        torch.testing.assert_close(alone.masks, found.masks)
    assert unanswered == {fault.name for fault in grounder.take_unanswered().faults}
    assert all(name.startswith("000") for name in unanswered)
    assert samples([]) == []


def test_questions_are_asked_in_the_chat_format_of_the_family(lmm):
    asked = lmm.tokenizer.decode(BoxGrounder(lmm, CoarseOnly())._question("the left dog"))
    assert "the left dog" in asked
    assert asked.startswith("USER : <image> Please")
    with pytest.raises(ValueError, match="own token '</s>'"):
        BoxGrounder(lmm, CoarseOnly())(picture(40, 40), "a </s> dog")
    with pytest.raises(ValueError, match="image token"):
        BoxGrounder(lmm, CoarseOnly())(picture(40, 40), "a <image> dog")


def test_phrases_of_an_answer_are_asked_about(monkeypatch):
    lmm = speaking_demo().model.lmm
    image = Image.new("RGB", (80, 80))
    answer = ask(lmm, image, QUESTION, max_new_tokens=8)
    first = answer.text.split()[0]
    start = answer.text.index(first)
    monkeypatch.setitem(WRITTEN, first, "[0, 0, 0.5, 0.5]")
    found = Told(lmm, CoarseOnly()).ground_answer(image, answer, [(start, start + len(first))])
    assert found.binary()[0, :40, :40].all()


def test_a_refiner_of_boxes_is_loaded_with_these_alone(tmp_path):
    assert isinstance(box_refiner("none"), CoarseOnly)
    tiny_sam().save_pretrained(tmp_path)
    loaded = box_refiner(tmp_path)
    assert (loaded.use_box, loaded.use_mask, loaded.use_text) == (True, False, False)
