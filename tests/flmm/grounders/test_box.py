"""Boxes that the LMM writes, as masks: one or several images, phrases without an answer."""

import pickle

import pytest
import torch
from flmm import SamRefiner, ask
from flmm.grounders import BoxGrounder, box_refiner
from flmm.grounders.box import BoxSample, box_logits
from flmm.pictures.orientation import turn_back
from flmm.refiners import CoarseOnly
from PIL import Image
from tiny_grounding import Pictures, tiny_grounded, tiny_sam
from tiny_lmms import picture
from tiny_web import QUESTION, speaking_demo

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
    masks[1, 40:60, 0:40] = True  # the first box, its corners swapped
    assert torch.equal(found.binary(), masks)
    assert found.scores[2] == 0
    assert (found.scores[:2] > 0.9).all()

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


def test_the_refiner_gets_the_box_alone(lmm):
    torch.manual_seed(0)
    sam = SamRefiner(tiny_sam(), use_text=False, use_mask=False).eval()
    image = picture(80, 80, seed=3)
    found = Told(lmm, sam)(image, PHRASES)
    drawn = box_logits([(20, 40, 40, 80), (0, 40, 40, 60)], (80, 80))
    (wanted,) = sam.refine([image], [drawn])
    torch.testing.assert_close(found.masks[:2], wanted.masks)
    torch.testing.assert_close(found.scores[:2], wanted.ious)
    assert (found.masks[2] < 0).all()


def test_a_point_is_a_small_square_and_thin_boxes_hold_a_cell():
    logits = box_logits([(50, 20, 50, 20), (10.2, 10.2, 10.4, 30), None], (40, 100)) > 0
    square = [[y, x] for y in range(17, 23) for x in range(47, 53)]
    assert logits[0].nonzero().tolist() == square
    assert logits[1].any(0).sum() == 1
    assert not logits[2].any()
    large = box_logits([(0, 0, 2000, 4000)], (4000, 4000))
    assert large.shape == (1, 1024, 1024)
    assert (large > 0).sum() == 1024 * 512


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
