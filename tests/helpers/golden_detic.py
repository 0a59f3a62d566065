"""What the golden cases of Detic + CLIM share.

Tests import it as `from golden_detic import FAMILY` (pytest puts this folder on the path).
"""

import torch
from clim_models.detection.image_level.captions import CaptionLoss, CaptionRules, Captions

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


def members_of(image_ids: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Tiles and their groups from one list of ids: an id is a tile, a list of ids a group.

    Returns bool (R, T) and the ids (T,) of tiles.
    """
    tiles = [ids for ids in image_ids if not isinstance(ids, list)]
    rows = [
        [tile in (ids if isinstance(ids, list) else [ids]) for tile in tiles] for ids in image_ids
    ]
    return torch.tensor(rows), torch.tensor(tiles)
