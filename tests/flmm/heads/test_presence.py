"""The presence head: evidence, files of heads with it, and that masks do not feel it."""

from dataclasses import replace

import pytest
import torch
from flmm.grounded import load_grounded
from flmm.heads.presence import (
    OF_CHANCES,
    OF_SIDES,
    PresenceHead,
    evidence_size,
    older_evidence,
    older_evidence_size,
    presence_evidence,
)
from flmm.training.task import GroundingTask
from tiny_grounding import batch_of, save_tiny_grounded, tiny_grounded


def grounded(model, numbers=(4, 2), phrases=(3, 1)):
    """Features, masks and groundings of some pictures."""
    batch = batch_of(model, numbers, phrases)
    with torch.no_grad():
        features = model.lmm([item.sample for item in batch.items], merge=model.merge)
        images = model.sam.embed([item.image for item in batch.items])
        coarse = [model.coarse_masks(of_image) for of_image in features]
        words = [model.text_embeddings(of_image) for of_image in features]
        return features, coarse, model.sam.refine(images, coarse, words), images


def head_for(model, seed=0):
    torch.manual_seed(seed)
    return PresenceHead(evidence_size(model.lmm.map_channels), hidden=4)


@pytest.mark.parametrize("family", ["llava", "llava_next_vicuna"])
def test_evidence_of_a_phrase_does_not_depend_on_the_others(family):
    model = tiny_grounded(family).eval()
    features, coarse, found, _ = grounded(model)
    size = evidence_size(model.lmm.map_channels)
    for of_image, rough, fine in zip(features, coarse, found, strict=True):
        together = presence_evidence(of_image, rough, fine)
        assert together.shape == (len(rough), size)
        assert together.isfinite().all()
        start = 0
        for number, count in enumerate(of_image.lengths):
            alone = type(of_image)(
                of_image.maps[number : number + 1],
                of_image.states[:, start : start + count],
                (count,),
                of_image.layout,
                of_image.chances[start : start + count],
                of_image.wording[number : number + 1],
            )
            one = type(fine)(fine.masks[number : number + 1], fine.ious[number : number + 1])
            expected = presence_evidence(alone, rough[number : number + 1], one)
            torch.testing.assert_close(together[number : number + 1], expected)
            start += count


def test_scores_are_those_of_the_head_and_masks_stay():
    model = tiny_grounded().eval()
    features, coarse, found, images = grounded(model)
    with torch.no_grad():
        before = model.ground(features, images)
        head = head_for(model)
        model.heads.use_presence(head)
        after = model.ground(features, images)
    assert model.heads.score_kind == "presence"
    for old, new, of_image, rough, fine in zip(before, after, features, coarse, found, strict=True):
        assert torch.equal(old.refined, new.refined)
        evidence = presence_evidence(of_image, rough, fine)
        is_found = (new.refined > 0).flatten(1).any(1)
        torch.testing.assert_close(new.scores, head(evidence).sigmoid() * is_found)
    with pytest.raises(ValueError, match="use the heads that were trained with this LMM"):
        model.heads.use_presence(PresenceHead(7))


def test_heads_of_earlier_versions_score_as_they_did():
    model = tiny_grounded().eval()
    features, coarse, found, _ = grounded(model)
    size = older_evidence_size(model.lmm.map_channels, model.lmm.hidden_size)
    old = PresenceHead(size, hidden=4)
    model.heads.use_presence(old)
    for of_image, rough, fine in zip(features, coarse, found, strict=True):
        parts = of_image.states[-1].split(list(of_image.lengths))
        words = torch.stack([torch.cat([part.mean(0), part[-1]]) for part in parts])
        pixels = presence_evidence(of_image, rough, fine)[:, OF_CHANCES:-OF_SIDES]
        evidence = older_evidence(of_image, rough, fine)
        torch.testing.assert_close(evidence, torch.cat([pixels, words], 1))
        is_found = (fine.masks > 0).flatten(1).any(1)
        scores = model.heads.scores(of_image, rough, fine)
        torch.testing.assert_close(scores, old.scores(evidence) * is_found)


def test_heads_that_do_not_read_sides_score_as_they_did():
    model = tiny_grounded().eval()
    features, coarse, found, _ = grounded(model)
    named = replace(features[0], wording=("a dog on the left",) * len(coarse[0]))
    torch.manual_seed(0)
    head = PresenceHead(evidence_size(model.lmm.map_channels) - OF_SIDES, hidden=4)
    model.heads.use_presence(head)
    scores = model.heads.scores(named, coarse[0], found[0])
    assert torch.equal(scores, model.heads.scores(features[0], coarse[0], found[0]))


def test_evidence_says_how_far_a_mask_lies_on_the_side_that_its_phrase_names():
    model = tiny_grounded().eval()
    features, coarse, found, _ = grounded(model)
    assert len(features[0].wording) == 3
    masks = torch.full((3, 8, 8), -1.0)
    masks[:2, :2, 6:] = 1  # in the top right corner; the third mask is empty
    refined = replace(found[0], masks=masks)
    phrases = ("a dog top left", "the upper dog", "a dog on the right")
    sides = presence_evidence(replace(features[0], wording=phrases), coarse[0], refined)
    expected = [[1, 1, -0.75, 0.75], [0, 1, 0, 0.75], [1, 0, 0, 0]]
    torch.testing.assert_close(sides[:, -OF_SIDES:], torch.tensor(expected))
    without = presence_evidence(replace(features[0], wording=()), coarse[0], refined)
    assert not without[:, -OF_SIDES:].any()
    assert torch.equal(without[:, :-OF_SIDES], sides[:, :-OF_SIDES])


def test_evidence_without_chances():
    model = tiny_grounded().eval()
    features, coarse, found, _ = grounded(model)
    known = presence_evidence(features[0], coarse[0], found[0])
    unknown = presence_evidence(replace(features[0], chances=None), coarse[0], found[0])
    assert known[:, :OF_CHANCES].all()
    assert not unknown[:, :OF_CHANCES].any()
    assert torch.equal(known[:, OF_CHANCES:], unknown[:, OF_CHANCES:])


def test_the_threshold_is_part_of_the_heads(tmp_path):
    model = save_tiny_grounded(tmp_path)
    assert model.heads.absent_below == 0
    head = PresenceHead(model.heads.evidence_size, hidden=4, threshold=0.2)
    model.heads.use_presence(head)
    new = model.save_heads(tmp_path / "new.safetensors")
    again = load_grounded(tmp_path / "lmm", sam=tmp_path / "sam", heads=new, dtype="float32")
    assert again.heads.absent_below == 0.2
    with pytest.raises(ValueError, match="threshold=2 must be a number from 0 to 1"):
        PresenceHead(7, threshold=2)


def test_files_of_heads_bring_it(tmp_path):
    model = save_tiny_grounded(tmp_path)
    parts = {"sam": tmp_path / "sam", "dtype": "float32"}
    old = tmp_path / "heads" / "heads.safetensors"
    model.heads.use_presence(head_for(model))
    model.heads.knows = {"what": "cars", "nouns": ["car"]}
    new = model.save_heads(tmp_path / "new.safetensors")

    again = load_grounded(tmp_path / "lmm", heads=new, **parts)
    assert again.facts() == model.facts()
    assert again.heads.knows == {"what": "cars", "nouns": ["car"]}
    for name, value in model.heads.presence.state_dict().items():
        assert torch.equal(value, again.heads.presence.state_dict()[name])
    assert not any(name.startswith("presence") for name in again.trained_names())

    again.load_heads(old)
    assert (again.heads.presence, again.heads.knows) == (None, None)
    assert again.heads.score_kind == "geometric"

    # Without a refiner masks are others than those that it was fitted on.
    coarse = load_grounded(tmp_path / "lmm", sam="none", heads=new, dtype="float32")
    assert coarse.heads.score_kind == "geometric"


def test_a_training_of_the_masks_drops_it():
    model = tiny_grounded()
    model.heads.use_presence(head_for(model))
    GroundingTask(model)
    assert model.heads.presence is None
