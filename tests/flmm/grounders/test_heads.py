"""The grounder of trained heads, and another grounder in its place."""

import pickle

import numpy as np
import pytest
import torch
from clim_eval import MaskScores
from flmm import ask, ground, ground_answer, ground_phrases
from flmm.dialogue.answers import answer_spans
from flmm.evaluation.masks import GroundingEvaluation
from flmm.grounders import HeadsGrounder, ScoredMasks
from flmm.grounders.heads import phrase_features
from flmm.pictures.files import read_image
from tiny_grounding import Pictures, tiny_grounded
from tiny_lmms import picture
from tiny_web import QUESTION, first_words, speaking_demo

PHRASES = ["a big dog", "the tree"]


@pytest.fixture(scope="module")
def model():
    return tiny_grounded().eval()


def test_phrases_of_a_user(model):
    image = picture(60, 90, seed=1)
    grounder = HeadsGrounder(model)
    found = grounder(image, PHRASES)
    expected = ground_phrases(model, image, PHRASES)
    torch.testing.assert_close(found.masks, expected.refined, rtol=0, atol=0)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    np.testing.assert_array_equal(ground(image, PHRASES, model), ground(image, PHRASES, grounder))

    other = HeadsGrounder(model, request="the left car")(image, PHRASES)
    assert other.masks.shape == found.masks.shape == (2, 60, 90)
    assert not torch.equal(other.masks, found.masks)


def test_each_phrase_by_itself(model):
    image = picture(60, 90, seed=1)
    phrases = [*PHRASES, "a car"] * 4  # more than a batch of texts
    found = phrase_features(model, image, phrases, each_alone=True)
    alone = [phrase_features(model, image, phrase) for phrase in phrases]
    assert found.lengths == tuple(one.lengths[0] for one in alone)
    maps, states = torch.cat([a.maps for a in alone]), torch.cat([a.states for a in alone], dim=1)
    torch.testing.assert_close(found.maps, maps, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.states, states, atol=1e-5, rtol=1e-5)

    together = phrase_features(model, image, phrases).maps
    torch.testing.assert_close(together[0], maps[0], atol=1e-6, rtol=1e-5)
    assert (together[2] - maps[2]).abs().max() > 1e-5  # it is read after two others
    masks = HeadsGrounder(model, each_alone=True)(image, phrases)
    torch.testing.assert_close(masks.masks, model.ground([found], [image])[0].refined)


def test_phrases_of_an_answer():
    model = speaking_demo().model
    image = picture(60, 90, seed=1)
    answer = ask(model.lmm, image, QUESTION, max_new_tokens=12)
    spans = answer_spans(answer, chunker=first_words)
    found = HeadsGrounder(model).ground_answer(image, answer, spans)
    expected = ground_answer(model, image, answer, chunker=first_words).masks
    assert len(found.masks) == len(spans) > 0
    torch.testing.assert_close(found.masks, expected.refined, rtol=0, atol=0)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0)
    assert not found.masks.requires_grad


def test_loading_processes_get_no_weights(model):
    copied = pickle.dumps(HeadsGrounder(model).for_samples().prepare)
    assert len(copied) < sum(weight.nbytes for weight in model.parameters()) / 10


class WholeImage:
    """A grounder whose masks are the whole image."""

    def __init__(self, lmm):
        self.lmm = lmm

    def __call__(self, image, phrases):
        masks = torch.ones(len(phrases), *read_image(image).size[::-1])
        return ScoredMasks(masks, torch.linspace(1, 0.2, len(phrases)))

    def ground_answer(self, image, answer, spans):
        return self(image, spans)

    def for_samples(self):
        return WholeImages(self)


class WholeImages:
    def __init__(self, grounder):
        self.grounder = grounder

    @staticmethod
    def prepare(sample, image):
        return image, [phrase.text for phrase in sample.phrases]

    def __call__(self, prepared):
        return [self.grounder(image, phrases) for image, phrases in prepared]


def test_another_grounder_grounds_and_is_scored(model):
    grounder = WholeImage(model.lmm)
    assert ground(picture(60, 90, seed=1), PHRASES, grounder).all()

    data = Pictures((2, 1))
    scores = MaskScores()
    GroundingEvaluation(grounder, data, batch_size=2).run(scores, bar=False)
    for number in range(2):
        _, masks = data[number].load()
        row = scores.rows[data[number].key]
        assert row["intersections"] == masks.sum((1, 2)).tolist()
        assert row["unions"] == [mask.size for mask in masks]


def test_phrases_below_the_least_score_are_not_found(model):
    grounder = WholeImage(model.lmm)
    found = ground(picture(60, 90, seed=1), [*PHRASES, "a car"], grounder, min_score=0.5)
    assert found.reshape(3, -1).any(1).tolist() == [True, True, False]  # scores 1, 0.6, 0.2

    data = Pictures((2,))
    scores = MaskScores()
    GroundingEvaluation(grounder, data, min_score=0.5).run(scores, bar=False)
    (row,) = scores.rows.values()
    _, masks = data[0].load()
    assert row["unions"] == [masks[0].size, masks[1].sum()]  # the second one has the score 0.2
    assert row["intersections"] == [masks[0].sum(), 0]


# Images of three shapes, the last of which makes other tiles, rows or padding than the others.
SHAPES = [(60, 90), (100, 40), (56, 56)]


@pytest.mark.parametrize("each_alone", [False, True], ids=["in one text", "each alone"])
@pytest.mark.parametrize(
    "name", ["llava", "llava_next_mistral", "qwen2_5_vl", "internvl", "mgm_hd"]
)
def test_a_list_of_images_has_the_masks_of_each_image(name, each_alone):
    model = tiny_grounded(name).eval()
    images = [picture(*shape, seed=number) for number, shape in enumerate(SHAPES)]
    phrases = [PHRASES, ["a car"], [*PHRASES, "the red sky"]]
    found = ground_phrases(model, images, phrases, each_alone=each_alone, batch_size=2)
    for masks, image, own in zip(found, images, phrases, strict=True):
        expected = ground_phrases(model, image, own, each_alone=each_alone)
        assert masks.refined.shape == (len(own), image.height, image.width)
        torch.testing.assert_close(masks.coarse, expected.coarse, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(masks.refined, expected.refined, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(masks.scores, expected.scores, atol=1e-3, rtol=1e-3)


def test_phrases_of_a_list_of_images(model):
    images = [picture(60, 90, seed=1), np.asarray(picture(50, 40, seed=2))]
    shared = ground_phrases(model, images, PHRASES)
    assert [len(masks.refined) for masks in shared] == [2, 2]
    assert ground_phrases(model, tuple(images), "a car")[1].refined.shape == (1, 50, 40)
    assert ground_phrases(model, [], PHRASES) == []
    with pytest.raises(ValueError, match="1 lists of phrases for 2 images: pass one list for each"):
        ground_phrases(model, images, [PHRASES])
    with pytest.raises(ValueError, match="batch_size=0"):
        ground_phrases(model, images, PHRASES, batch_size=0)
