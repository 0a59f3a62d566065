"""Images that an LMM cannot take: counted and named, in every family."""

import pytest
from clim_data import BrokenSample
from clim_eval import MaskScores
from flmm.evaluation.masks import GroundingEvaluation
from flmm.grounders.heads import HeadsGrounder
from flmm.samples import prepare_image
from tiny_grounding import Pictures, tiny_grounded
from tiny_lmms import FAMILIES, picture, sample, tiny_lmm


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(600, 1), (1, 300), (8, 4000), (1, 1)])
def test_odd_shapes_are_taken_or_named(family, size):
    lmm = tiny_lmm(family)
    width, height = size
    image = picture(height, width)
    try:
        prepare_image(lmm.family, image, "odd.png")
    except BrokenSample as fault:
        refusal = fault
    else:
        (features,) = lmm([sample(lmm, image)])
        assert features.maps.isfinite().all()
        return
    assert (refusal.reason, refusal.name) == ("unusable shape", "odd.png")
    assert f"{width} x {height} pixels" in refusal.detail
    assert refusal.detail.endswith("crop or resize it")


@pytest.mark.parametrize("size", [(600, 1), (1, 300)])
def test_a_line_of_pixels_is_grounded(size):
    width, height = size
    masks = HeadsGrounder(tiny_grounded().eval())(picture(height, width), ["a dog"])
    assert masks.masks.shape == (1, height, width)
    assert masks.masks.isfinite().all()


def test_one_odd_shape_leaves_the_other_samples(monkeypatch):
    model = tiny_grounded().eval()
    prepare = model.lmm.family.prepare
    refused = []

    def picky(image):
        if not refused:
            refused.append(image.size)
            raise RuntimeError("Input and output sizes should be greater than 0")
        return prepare(image)

    monkeypatch.setattr(model.lmm.family, "prepare", picky)
    scores = MaskScores()
    evaluation = GroundingEvaluation(HeadsGrounder(model), Pictures((1, 2, 1)))
    skipped = evaluation.run(scores, bar=False)
    assert skipped.counts == {"unusable shape": 1}
    assert len(scores) == 2
    samples, phrases = evaluation.coverage(scores)
    assert samples.sentence() == "scored 2 of 3 samples, left out 1: unusable shape 1"
    assert phrases.scored == 3


def test_nothing_scored_is_an_error():
    model = tiny_grounded().eval()
    evaluation = GroundingEvaluation(HeadsGrounder(model), Pictures((None, None)))
    with pytest.raises(ValueError, match=r"nothing was scored .*unreadable image"):
        evaluation.run(MaskScores(), bar=False)
