"""The caption loss and its queue, against the golden cases 09 and 10."""

import pytest
import torch
from clim_models.detection.image_level.captions import CaptionLoss, CaptionRules, Captions
from clim_models.detection.image_level.regions import with_tiles
from golden_detectors import close
from golden_detic import FAMILY, as_groups, caption_loss, check_queue, fill_queue, members_of


def call_of(case, call):
    """Members, tile ids and captions of one call, all images of the batch together."""
    pairs = [members_of(image_ids) for image_ids in call["image_ids"]]
    members = torch.block_diag(*[rows.float() for rows, _ in pairs]).bool()
    tiles = torch.cat([ids for _, ids in pairs])
    features = case.tensor("in/caption_features")[slice(*call["feats"])]
    return members, tiles, Captions(features, tiles)


@pytest.mark.parametrize("kind", ["biased", "plain"])
def test_golden_captions_with_a_queue(golden, kind):
    case = golden("case09_image_losses", FAMILY)
    config = case.meta["config"]
    loss = caption_loss(config["embed_dim"], config["queue_length"], config[kind])
    for step, call in enumerate(case.meta["data"]["calls"]):
        prefix = f"out/caption/{kind}{step}"
        features = case.tensor("in/embeddings")[slice(*call["rows"])].requires_grad_()
        members, images, captions = call_of(case, call)

        logits, labels, filled = loss.compare(features, members, images, captions)
        close(case, f"{prefix}/logits", logits[:, filled])
        close(case, f"{prefix}/labels", labels[:, filled])

        loss.zero_grad()
        value = loss(features, members, images, captions, remember=call["update"])
        close(case, f"{prefix}/loss", value)
        value.backward()
        close(case, f"{prefix}/grad", features.grad)
        if loss.bias is not None:
            close(case, f"{prefix}/grad_bias", loss.bias.grad)
        check_queue(case, f"{prefix}/queue", loss.queue, config["id_length"])


def test_golden_captions_of_groups(golden):
    case = golden("case10_groups", FAMILY)
    config, data = case.meta["config"], case.meta["data"]
    width = case.arrays["in/embeddings"].shape[1]
    for name, calls in data["groups"].items():
        loss = caption_loss(width, config["queue_length"], config)
        fill_queue(loss.queue, case.tensor("in/queue"))
        images = torch.tensor(data[name]["image_ids"])
        members = with_tiles(as_groups(calls[2], len(images)))

        features = case.tensor("in/embeddings")[: len(members)].clone().requires_grad_()
        captions = Captions(case.tensor("in/caption_features")[: len(images)], images)
        _, labels, filled = loss.compare(features, members, images, captions)
        close(case, f"out/{name}/caption_labels", labels[:, filled])
        value = loss(features, members, images, captions)
        close(case, f"out/{name}/caption_loss", value)
        value.backward()
        close(case, f"out/{name}/caption_grad", features.grad)
        check_queue(case, f"out/{name}/queue", loss.queue, config["id_length"])


def test_a_batch_without_captions_has_negatives_of_the_queue_only():
    loss = CaptionLoss(4, CaptionRules(queue=3))
    nothing = Captions(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    features, members = torch.randn(2, 4), torch.eye(2, dtype=torch.bool)
    images = torch.tensor([7, 8])
    assert loss(features, members, images, nothing) == 0

    loss.queue.push(Captions(torch.eye(4), torch.tensor([1, 2, 3, 2**40])))
    assert loss.queue.images.tolist() == [1, 2, 3]
    assert loss(features, members, images, nothing) > 0
    assert "queue.images" in loss.state_dict()


def test_large_numbers_of_images_stay_apart():
    loss = CaptionLoss(4, CaptionRules(queue=0))
    images = torch.tensor([2**40, 2**40 + 1])
    _, labels, _ = loss.compare(
        torch.randn(2, 4),
        torch.eye(2, dtype=torch.bool),
        images,
        Captions(torch.eye(4)[:2], images),
    )
    assert labels.tolist() == [[True, False], [False, True]]


def test_wrong_rules_are_refused():
    with pytest.raises(ValueError, match="queue=-1"):
        CaptionRules(queue=-1)
