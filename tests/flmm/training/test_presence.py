"""Fitting a presence head on evidence whose chances are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from clim_eval.metrics import auroc, reliability
from flmm.training.presence import (
    PresenceOptions,
    Probe,
    ProbedImage,
    ProbedPhrases,
    fit_presence,
    ground_probes,
)
from tiny_grounding import tiny_grounded
from tiny_lmms import picture

QUICK = PresenceOptions(epochs=15)


def phrases(seed, images=200, each=6):
    """Phrases with a present one for every two; the first number tells, with noise."""
    rng = np.random.default_rng(seed)
    count = images * each
    present = rng.random(count) < 0.5
    evidence = rng.normal(size=(count, 5))
    evidence[:, 0] = 30 + 4 * (present + rng.normal(0, 0.6, count))
    return ProbedPhrases(
        torch.from_numpy(evidence).float(),
        np.where(present, 0.9, 0.0),
        np.zeros(count),
        np.where(present, "present", "hard"),
        np.full(count, ""),
        np.repeat(np.arange(images), each),
        np.zeros(count, dtype=bool),
    )


def test_scores_of_new_phrases_are_chances():
    fitted, new = phrases(0), phrases(1)
    head, left_out = fit_presence(fitted, QUICK)
    scores = head.scores(new.evidence).numpy()
    present = new.kinds == "present"
    best = auroc(new.evidence[present, 0], new.evidence[~present, 0])
    assert auroc(scores[present], scores[~present]) > best - 0.02
    assert reliability(scores, new.is_right).error < 0.05
    # The scores of phrases whose images were left out are as good as those of new images.
    told = auroc(left_out[fitted.kinds == "present"], left_out[fitted.kinds != "present"])
    assert abs(told - auroc(scores[present], scores[~present])) < 0.03
    # The threshold calls 97 % of the present ones present.
    called = left_out[fitted.kinds == "present"] >= head.threshold
    assert 0.97 <= called.mean() < 0.975
    assert 0.94 < (scores[present] >= head.threshold).mean() < 0.99

    again, _ = fit_presence(fitted, QUICK)
    assert torch.equal(again.scores(new.evidence), head.scores(new.evidence))
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_a_bad_mask_is_not_right():
    found = phrases(0, images=4)
    found.ious[:] = 0.4
    assert not found.is_right.any()
    with pytest.raises(ValueError, match="pass more images, with present and absent phrases"):
        fit_presence(found, QUICK)
    with pytest.raises(ValueError, match="folds=1 must be at least 2"):
        PresenceOptions(folds=1)
    with pytest.raises(ValueError, match="t_acc=0 must be a fraction above 0"):
        PresenceOptions(t_acc=0)


def test_images_are_left_out_whole():
    """What is learnt by heart about an image helps its own phrases only."""
    rng = np.random.default_rng(0)
    found = phrases(0, images=40)
    of_images = rng.normal(size=(40, 16))
    is_present = rng.random(40) < 0.5
    kinds = np.where(is_present[found.images], "present", "hard")
    by_heart = replace(
        found,
        evidence=torch.from_numpy(of_images[found.images]).float(),
        kinds=kinds,
        ious=0.9 * is_present[found.images],
    )
    head, left_out = fit_presence(by_heart)
    present = kinds == "present"
    scores = by_heart.scored_by(head).scores
    assert auroc(scores[present], scores[~present]) > 0.95
    assert auroc(left_out[present], left_out[~present]) < 0.8
    with pytest.raises(ValueError, match="pass more images"):
        fit_presence(phrases(0, images=1), QUICK)


def test_phrases_that_part_well_do_not_score_0_and_1():
    found = phrases(0, images=12)
    found.evidence[:, 0] = torch.from_numpy(found.kinds == "present").float()
    head, _ = fit_presence(found, QUICK)
    scores = found.scored_by(head).scores
    assert 0.001 < scores.min() < 0.1
    assert 0.9 < scores.max() < 0.999


def test_an_empty_mask_scores_0():
    found = phrases(0)
    head, _ = fit_presence(found, QUICK)
    found.is_empty[:3] = True
    scores = found.scored_by(head).scores
    assert not scores[:3].any()
    assert (scores[3:] > 0).all()


def test_probes_are_grounded_in_their_order():
    model = tiny_grounded().eval()
    image = picture(60, 90, seed=1)
    mask = np.ones((60, 90), dtype=bool)
    texts = (
        (Probe("a big dog", "present", mask), Probe("the tree", "easy")),
        (Probe("a red car", "hard"),),
    )
    found = ground_probes(model, [ProbedImage(image, texts), ProbedImage(image, texts[1:])])
    assert found.kinds.tolist() == ["present", "easy", "hard", "hard"]
    assert found.images.tolist() == [0, 0, 0, 1]
    torch.testing.assert_close(found.evidence[2], found.evidence[3], atol=1e-4, rtol=1e-4)
    assert found.scores[2] == pytest.approx(found.scores[3], abs=1e-4)
    assert found.ious[0] > 0
    assert not found.ious[1:].any()
    with pytest.raises(ValueError, match="pass a mask with each present phrase"):
        Probe("a dog", "present")
    with pytest.raises(ValueError, match="choose from present, easy, hard"):
        Probe("a dog", "absent")
    with pytest.raises(ValueError, match="pass probed images"):
        ground_probes(model, [])


def test_evidence_that_is_not_finite_is_refused():
    probed = phrases(0, images=20)
    probed.evidence[3, 1] = torch.nan
    probed.evidence[4, 2] = torch.inf
    with pytest.raises(ValueError, match=r"evidence of 2 of 120 phrases is not finite.*fp32"):
        fit_presence(probed, QUICK)
