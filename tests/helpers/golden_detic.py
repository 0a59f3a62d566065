"""What the golden cases of Detic + CLIM share.

Tests import it as `from golden_detic import FAMILY` (pytest puts this folder on the path).
"""

from dataclasses import dataclass

import torch
from clim_models.detection import ClassSet, ImageFrame, ProposalRules
from clim_models.detection.batches import BatchRules, stack_images
from clim_models.detection.image_level.captions import CaptionLoss, CaptionRules, Captions
from clim_models.detection.image_level.regions import TileRules
from clim_models.detection.image_level.step import CaptionedImage, ImageLevelRules
from clim_models.detection.image_level.tags import TagRules, tag_targets
from golden_detectors import close

FAMILY = "detic"


def caption_loss(embed_dim: int, queue: int, settings: dict) -> CaptionLoss:
    """The caption loss of a configuration of the original; its bias is `caption_bias`."""
    rules = CaptionRules(
        temperature=settings["norm_temp"],
        weight=settings["caption_weight"],
        negative_weight=settings["cap_neg_weight"],
        usual_regions=settings["base_batch_size_caption"],
        start_bias=settings.get("caption_bias"),
        queue=queue,
    )
    return CaptionLoss(embed_dim, rules)


def fill_queue(queue, rows: torch.Tensor) -> None:
    """Fill a queue with the rows (feature, image id several times) of the original."""
    width = queue.features.shape[1]
    queue.push(Captions(rows[:, :width], rows[:, width].long()))


def check_queue(case, key: str, queue, slots: int) -> None:
    """Compare a queue with a golden one: features, then the image id in every slot.

    The original marks an empty place with a row of -1.
    """
    filled = queue.images >= 0
    ids = queue.images[filled].float()[:, None].expand(-1, slots)
    found = torch.cat([queue.features[filled], ids], 1)
    expected = case.tensor(key)
    expected = expected[expected[:, -1] >= 0]
    tolerance = case.meta["keys"][key]["tolerance"]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def as_groups(tiles: list[list[int]], count: int) -> torch.Tensor:
    """Mark the tiles of each group: lists of numbers -> bool (G, T)."""
    members = torch.zeros(len(tiles), count, dtype=torch.bool)
    for group, numbers in enumerate(tiles):
        members[group, list(numbers)] = True
    return members


def members_of(image_ids: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Tiles and their groups from one list of ids: an id is a tile, a list of ids a group.

    Returns bool (R, T) and the ids (T,) of tiles.
    """
    tiles = [ids for ids in image_ids if not isinstance(ids, list)]
    rows = [
        [tile in (ids if isinstance(ids, list) else [ids]) for tile in tiles] for ids in image_ids
    ]
    return torch.tensor(rows), torch.tensor(tiles)


@dataclass(frozen=True)
class GivenFrame(ImageFrame):
    """A frame whose scale a sidecar gives: (horizontal, vertical)."""

    given: tuple[float, float] = (1.0, 1.0)

    @property
    def scale(self) -> tuple[float, float]:
        return self.given


def frames_of_samples(samples: list[dict], padded) -> list[GivenFrame]:
    """Frames of images of which a sidecar gives sizes and scale."""
    return [
        GivenFrame(
            tuple(one.get("ori_shape", one["img_shape"])),
            tuple(one["img_shape"]),
            tuple(padded),
            tuple(one.get("scale_factor", (1.0, 1.0))),
        )
        for one in samples
    ]


def images_of(case, prefix: str, rules: BatchRules) -> torch.Tensor:
    """The network input of BGR pictures `in/PREFIXimage0`, ..."""
    count = len([key for key in case.arrays if key.startswith(f"in/{prefix}image")])
    pictures = [case.tensor(f"in/{prefix}image{i}").permute(2, 0, 1).flip(0) for i in range(count)]
    return stack_images(pictures, rules)


def proposals_of(rules: dict) -> ProposalRules:
    return ProposalRules(rules["nms_pre"], rules["max_per_img"], rules["nms"]["iou_threshold"])


def classes_of(meta: dict, embed_dim: int) -> ClassSet:
    """Class names and base classes; the embeddings are still to be loaded."""
    count, others = meta["config"]["num_classes"], meta["config"].get("novel", [])
    base = [label for label in range(count) if label not in others]
    return ClassSet([f"class {i}" for i in range(count)], torch.ones(count, embed_dim), base)


def image_level_rules(methods: dict) -> ImageLevelRules:
    """What images without boxes teach, by the configuration of the original."""
    tags, captions = methods["detic_tags"], methods["detic_caption"]
    return ImageLevelRules(
        TagRules(
            tags["norm_temp"],
            tags["tag_weight"],
            tags["tag_neg_weight"],
            tags["base_batch_size"],
            tags["bce_bias"],
        ),
        CaptionRules(
            captions["norm_temp"],
            captions["caption_weight"],
            captions["cap_neg_weight"],
            captions["base_batch_size"],
            captions["bce_bias"],
            captions["queue_cfg"]["lengths"][0],
        ),
        TileRules(tags["sampling_cfg"]["iof_thr"], tags["sampling_cfg"]["topk"]),
        tags["num_groups"],
    )


def load(detector, tensors: dict) -> None:
    """Load weights; only what a release does not hold may be missing."""
    own = detector.state_dict()
    for key in own.keys() - tensors.keys():
        assert key.endswith("temperature") or key.startswith("image_level."), key
    detector.load_state_dict(own | tensors)


def priority_of(case, prefix: str, image: int, count: int) -> torch.Tensor:
    """High numbers for the boxes of an image that the original sampled, of `count`."""
    row = torch.zeros(count)
    for part in ("pos", "neg"):
        row[case.tensor(f"{prefix}/{part}_inds{image}")] = 0.9
    return row


def check_proposals(case, found, mode: str = "") -> None:
    """Compare the proposals of each image: boxes and scores."""
    for i, one in enumerate(found):
        close(case, f"out/proposals{mode}{i}", one.boxes)
        close(case, f"out/proposal_scores{mode}{i}", one.scores)


def check_sampled(case, prefix: str, sampled) -> None:
    """Compare the boxes that train, their owners, labels and targets."""
    for i, one in enumerate(sampled):
        close(case, f"{prefix}/pos_boxes{i}", one.positive_boxes)
        close(case, f"{prefix}/neg_boxes{i}", one.boxes[one.positives :])
        close(case, f"{prefix}/pos_gt{i}", one.owners)
    close(case, f"{prefix}/labels", torch.cat([one.labels for one in sampled]))
    close(case, f"{prefix}/bbox_targets", torch.cat([one.targets for one in sampled]))


def captioned(
    samples: list[dict], num_classes: int, features: torch.Tensor, groups: tuple | None
) -> list[CaptionedImage]:
    """Images without boxes of a sidecar.

    `features` are those of the chosen captions; `groups` are the groups of tags and of captions,
    for each image, or None for images that are no mosaics.
    """
    start, batch = 0, []
    for i, sample in enumerate(samples):
        numbers = torch.tensor(sample["image_ids"])
        end, of_tags, of_captions = start + len(numbers), None, None
        if groups is not None:
            of_tags, of_captions = (as_groups(one[i], len(numbers)) for one in groups)
        tags = tag_targets(sample["tags"], num_classes)
        captions = Captions(features[start:end], numbers)
        boxes = torch.tensor(sample["boxes"])
        batch.append(CaptionedImage(boxes, numbers, tags, captions, of_tags, of_captions))
        start = end
    return batch


def sizes_of(samples: list[dict]) -> torch.Tensor:
    """Height and width of the resized pictures of a sidecar."""
    return torch.tensor([sample["img_shape"] for sample in samples]).float()


def check_gradients(case, detector, rename) -> None:
    """Compare the gradients of a step: norms of all parameters, and some in full."""
    parameters = dict(detector.named_parameters())
    for name, norm in zip(
        case.meta["data"]["grad_names"], case.tensor("out/grad_norm").tolist(), strict=True
    ):
        own = rename(name)
        if own is None:
            continue
        found = parameters[own].grad
        if norm < 0:
            assert found is None, name
            continue
        assert found is not None, name
        assert abs(found.norm().item() - norm) <= 1e-3 * norm + 1e-7, (name, found.norm(), norm)
        if f"out/grad/{name}" in case.arrays:
            expected = case.tensor(f"out/grad/{name}")
            allowed = 1e-3 * expected.abs().max().item()
            torch.testing.assert_close(found, expected, atol=allowed, rtol=0)
