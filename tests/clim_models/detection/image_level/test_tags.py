"""The tag loss, against the golden cases 09 and 10."""

import pytest
import torch
from clim_models.detection.image_level.regions import with_tiles
from clim_models.detection.image_level.tags import TagLoss, TagRules, any_member, tag_targets
from golden_detectors import close
from golden_detic import FAMILY, as_groups


@pytest.mark.parametrize("kind", ["biased", "plain"])
def test_golden_tag_loss(golden, kind):
    case = golden("case09_image_losses", FAMILY)
    settings = case.meta["config"][kind]
    rules = TagRules(
        settings["norm_temp"],
        settings["tag_weight"],
        settings["tag_neg_weight"],
        settings["base_batch_size_tags"],
        settings.get("tag_bias"),
    )
    loss = TagLoss(rules)
    embeddings = case.tensor("in/tag_embeddings")
    targets = tag_targets(case.meta["data"]["tags"], len(embeddings))
    features = case.tensor("in/embeddings")[: len(targets)].clone().requires_grad_()
    value = loss(features, embeddings, targets)
    close(case, f"out/tag_loss/{kind}", value)
    value.backward()
    close(case, f"out/tag_loss/{kind}_grad", features.grad)
    if loss.bias is not None:
        close(case, f"out/tag_loss/{kind}_grad_bias", loss.bias.grad)


def test_golden_tags_of_groups(golden):
    case = golden("case10_groups", FAMILY)
    config, data = case.meta["config"], case.meta["data"]
    embeddings = golden("case09_image_losses", FAMILY).tensor("in/tag_embeddings")
    rules = TagRules(
        config["norm_temp"],
        config["tag_weight"],
        config.get("tag_neg_weight", 1.0),
        config.get("base_batch_size_tags"),
        start_bias=config["tag_bias"],
    )
    for name, calls in data["groups"].items():
        tags = tag_targets(data[name]["tags"], len(embeddings))
        targets = any_member(with_tiles(as_groups(calls[0], len(tags))), tags)
        assert torch.equal(targets, tag_targets(data[name]["out_tags"], len(embeddings)))
        later = any_member(with_tiles(as_groups(calls[1], len(tags))), tags)
        expected = tag_targets(data[name]["out_tags_next_stage"], len(embeddings))
        assert torch.equal(later, expected)

        features = case.tensor("in/embeddings")[: len(targets)].clone().requires_grad_()
        value = TagLoss(rules)(features, embeddings, targets)
        close(case, f"out/{name}/tag_loss", value)
        value.backward()
        close(case, f"out/{name}/tag_grad", features.grad)


def test_no_regions_have_no_loss():
    loss = TagLoss(TagRules())
    assert loss(torch.zeros(0, 4), torch.eye(4), torch.zeros(0, 4, dtype=torch.bool)) == 0
    with pytest.raises(ValueError, match="temperature=0"):
        TagRules(temperature=0)
