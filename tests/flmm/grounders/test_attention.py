"""Masks from a few attention heads, without training."""

import pickle

import pytest
import torch
from flmm import ask, ground
from flmm.adapters.features import PhraseFeatures
from flmm.grounders import AttentionGrounder, AttentionHead, ChosenHeads, phrase_features
from flmm.grounders.attention import region_logits
from flmm.refiners import CoarseOnly
from tiny_grounding import Pictures, tiny_grounded
from tiny_lmms import picture
from tiny_web import QUESTION, speaking_demo
from todays_lmms import TODAY, todays_lmm

PHRASES = ["a big dog", "the tree"]
HEADS = ChosenHeads((AttentionHead(1, 2), AttentionHead(0, 1)))


@pytest.fixture(scope="module")
def grounder():
    return AttentionGrounder(tiny_grounded().lmm, CoarseOnly(), HEADS)


def spots(lmm, size, *places) -> PhraseFeatures:
    """Features of phrases whose chosen heads look at one cell each, in the padded square."""
    layout = lmm.family.layout(lmm.family.prepare(picture(*size)))
    maps = torch.full((len(places), lmm.map_channels, 8, 8), 1e-3)
    for phrase, (row, column) in enumerate(places):
        maps[phrase, 6, row, column] = 0.5  # layer 1, head 2
        maps[phrase, 1, row, column] = 1e-2
    return PhraseFeatures(maps, torch.zeros(2, len(places), 24), (1,) * len(places), layout)


@pytest.mark.parametrize("size", [(80, 80), (40, 80)])
def test_the_mask_is_where_the_chosen_heads_look(grounder, size):
    image = picture(*size)
    (found,) = grounder.ground([spots(grounder.lmm, size, (3, 1), (4, 6))], [image])
    assert found.masks.shape == (2, *size)
    above = (80 - size[0]) / 2  # pixels of padding
    for mask, (row, column) in zip(found.binary(), ((3, 1), (4, 6))):
        y, x = (float(places.float().mean()) + 0.5 for places in mask.nonzero().T)
        assert y == pytest.approx(10 * row + 5 - above, abs=2)
        assert x == pytest.approx(10 * column + 5, abs=2)
        assert mask.sum() < 0.2 * mask.numel()
    assert ((found.scores > 0) & (found.scores <= 1)).all()


def test_only_the_largest_region_counts():
    heat = torch.zeros(1, 12, 12)
    heat[0, 1:3, 1:3] = 1
    heat[0, 6:10, 6:10] = 0.9
    inside = region_logits(heat)[0] > 0
    assert inside[7, 7]
    assert not inside[:5].any()
    assert not (region_logits(torch.ones(1, 4, 4)) > 0).any()


def test_phrases_of_a_user(grounder):
    image = picture(60, 90, seed=1)
    found = grounder(image, PHRASES)
    features = phrase_features(grounder, image, PHRASES)
    (wanted,) = grounder.ground([features], [image])
    torch.testing.assert_close(found.masks, wanted.masks)
    assert ground(image, PHRASES, grounder).shape == (2, 60, 90)
    alone = AttentionGrounder(grounder.lmm, CoarseOnly(), HEADS, each_alone=True)(image, PHRASES)
    torch.testing.assert_close(alone.masks[1:], grounder(image, PHRASES[1:]).masks)


def test_phrases_of_an_answer():
    lmm = speaking_demo().model.lmm
    image = picture(60, 90, seed=1)
    answer = ask(lmm, image, QUESTION, max_new_tokens=8)
    found = AttentionGrounder(lmm, CoarseOnly(), HEADS).ground_answer(image, answer, [(0, 4)])
    assert found.masks.shape == (1, 60, 90)


def test_samples_of_a_data_set_are_those_of_each_alone(grounder):
    samples = grounder.for_samples()
    data = Pictures((3, 1, 2))
    prepared = [samples.prepare(data[i], data[i].load_image()) for i in range(3)]
    assert len(pickle.dumps(samples.prepare)) < 20_000
    for one, found in zip(prepared, samples(prepared)):
        (alone,) = samples([one])
        torch.testing.assert_close(alone.masks, found.masks, atol=1e-3, rtol=1e-3)
    assert samples([]) == []


@pytest.mark.parametrize("name", TODAY)
def test_every_family_grounds_without_training(name):
    lmm = todays_lmm(name)
    views = lmm.family.grids
    heads = ChosenHeads((AttentionHead(0, 0), AttentionHead(1, 1, views - 1)))
    found = AttentionGrounder(lmm, CoarseOnly(), heads)(picture(60, 90, seed=2), PHRASES)
    assert found.masks.shape == (2, 60, 90)
    assert torch.isfinite(found.masks).all()


def test_heads_of_another_lmm_are_refused(grounder):
    with pytest.raises(ValueError, match="choose heads of this LMM"):
        AttentionGrounder(grounder.lmm, CoarseOnly(), ChosenHeads((AttentionHead(9, 0),)))
