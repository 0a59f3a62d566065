"""What the tests of detector training train: views of noise with boxes and masks, small detectors,
short runs."""

import dataclasses
from collections.abc import Callable

import torch
from clim_data import DetectionBatch
from clim_models import RegionModel
from clim_models.detection import (
    FROZEN_CLIP_PRESETS,
    FVIT_PRESETS,
    ClassSet,
    ProposalRules,
    build_frozen_clip,
    build_fvit,
    rules,
)
from clim_models.detection.boxes.matching import SampleRules
from clim_models.detection.heads import rpn, targets
from clim_train import TrainConfig, Trainer
from clim_train.methods.detectors import DetectorTask
from clim_train.methods.fvit import FViTConfig
from clim_train.methods.fvlm import FVLMConfig
from clim_train.methods.views import DetectionDataConfig
from tiny_training import EVA, VIT, class_embeddings, tiny_config, tiny_model

CLASSES, BASE = 5, (0, 1, 3)
PX = 48
# Boxes in the two images of each of two ranks, step by step: unequal, and none on the second.
COUNTS = (((3, 1), (1, 0)), ((2, 2), (0, 0)), ((0, 1), (4, 3)))
DETECTORS = {"fvit": "fvit-lvis-b16", "fvlm": "fvlm-lvis-b16"}
# A tower of each published kind.
TOWERS = {"fvit": EVA, "fvlm": VIT}
FEW = ProposalRules(before_nms=200, after_nms=100)


def view_batch(index: int, counts: tuple[int, ...], *, px: int = PX) -> DetectionBatch:
    """Views of noise, one for each count, with as many boxes and masks."""
    noise = torch.Generator().manual_seed(index)
    images = torch.randint(0, 256, (len(counts), 3, px, px), generator=noise, dtype=torch.uint8)
    boxes, labels, masks = [], [], []
    for count in counts:
        corner = torch.randint(0, px // 2, (count, 2), generator=noise)
        sides = torch.randint(px // 6, px // 2, (count, 2), generator=noise)
        boxes.append(torch.cat([corner, corner + sides], 1).float())
        labels.append(torch.tensor(BASE)[torch.randint(len(BASE), (count,), generator=noise)])
        area = int(sides.prod(1).sum()) if count else 0
        masks.append(torch.rand(area, generator=noise) < 0.7)

    windows = torch.tensor([[0, 0, px, px - 4]]).repeat(len(counts), 1)
    keys = [f"{index}-{i}" for i in range(len(counts))]
    return DetectionBatch(images, windows, boxes, labels, keys, masks)


def join_views(batches: list[DetectionBatch]) -> DetectionBatch:
    """The batch of one process that has the batches of several."""
    tensors = [torch.cat([getattr(b, name) for b in batches]) for name in ("images", "windows")]
    names = ("boxes", "labels", "keys", "masks")
    lists = [[item for b in batches for item in getattr(b, name)] for name in names]
    return DetectionBatch(*tensors, *lists)


def small_task(method: str, model: RegionModel, **options) -> DetectorTask:
    """A narrow detector with masks and norms on a tower; `options` replace those of the preset."""
    rows = torch.nn.functional.normalize(class_embeddings(CLASSES, model.embed_dim), dim=1)
    classes = ClassSet([f"class {i}" for i in range(CLASSES)], rows, BASE)
    last = model.num_blocks - 1
    is_vit = model.tower_kind not in ("resnet", "timm_cnn")
    blocks = (0, 0, last, last) if is_vit else None
    common = {"image_size": PX, "channels": 16, "blocks": blocks, "training_proposals": FEW}
    torch.manual_seed(11)
    if method == "fvit":
        preset = dataclasses.replace(FVIT_PRESETS[DETECTORS[method]], **common | options)
        return DetectorTask(build_fvit(model, classes, preset, background=rows.mean(0)))
    common |= {"width": 32, "stacks": 1}
    preset = dataclasses.replace(FROZEN_CLIP_PRESETS[DETECTORS[method]], **common | options)
    return DetectorTask(build_frozen_clip(model, classes, preset))


def equal_draws(replace: Callable[[object, str, object], None] = setattr) -> None:
    """Let every image draw the same anchors and boxes, in any batch and on any rank.

    `replace` may be the `setattr` of pytest's monkeypatch, which puts the old function back.
    """

    def priorities(like: torch.Tensor, generator: object = None) -> torch.Tensor:
        numbers = torch.arange(like.shape[-1], dtype=torch.float64) * 0.6180339887
        return (numbers % 1).float().expand(like.shape)

    replace(rpn, "draw_priorities", priorities)
    replace(targets, "draw_priorities", priorities)


def few_boxes(replace: Callable[[object, str, object], None]) -> None:
    """Let 16 boxes of an image train a new detector, not 512: most of a step's time on a CPU."""
    replace(rules, "SampleRules", lambda _, share: SampleRules(16, share))


class ViewLoader:
    """As many batches per epoch as `COUNTS` has steps, of two units over all ranks, whatever their
    number (1 or 2)."""

    def __init__(self, rank: int = 0, world_size: int = 1):
        self.rank, self.world_size = rank, world_size
        self.epoch = self.position = 0
        self.class_names = [f"class {i}" for i in range(CLASSES)]
        self.trained_names = [self.class_names[label] for label in BASE]

    def __len__(self):
        return len(COUNTS)

    def __iter__(self):
        epoch = self.epoch
        for i in range(self.position, len(COUNTS)):
            first = 2 * (epoch * len(COUNTS) + i)
            units = [view_batch(first + k, counts) for k, counts in enumerate(COUNTS[i])]
            self.position = i + 1
            if self.position == len(COUNTS):
                self.epoch, self.position = epoch + 1, 0
            yield join_views(units) if self.world_size == 1 else units[self.rank]

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]


def detector_config(method: str, folder, *, world_size: int = 1, **engine) -> TrainConfig:
    """Six steps with a checkpoint every two, every step logged."""
    images = 2 * len(COUNTS[0][0]) // world_size
    data = DetectionDataConfig(batch_size=images, image_px=PX, masks=True)
    kinds = {"fvit": FViTConfig, "fvlm": FVLMConfig}
    config = tiny_config(folder, world_size=world_size, **engine)
    return dataclasses.replace(
        config,
        task=kinds[method](detector=DETECTORS[method]),
        data=data,
        # Small steps: which proposals are chosen may hang on the last digit of a score.
        optim=dataclasses.replace(config.optim, lr=1e-3),
    )


def detector_trainer(
    config: TrainConfig, *, rank: int = 0, world_size: int = 1, resume: bool = False
) -> Trainer:
    """A trainer on the noise of this rank."""
    method = config.task.name
    task = small_task(method, tiny_model(TOWERS[method]))
    return Trainer(config, task, ViewLoader(rank, world_size), resume=resume)
