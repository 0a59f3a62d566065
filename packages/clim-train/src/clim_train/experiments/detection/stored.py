"""Maps of a frozen tower, computed once, and training steps on them.

Scenes are trained on as they were composed: a tower whose images never change has maps that never
change. Letters: B scenes of a batch, N scenes, n_i boxes of scene i, D channels, C embedding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clim_data import decode_rgb
from clim_models.detection import (
    Annotations,
    BackboneMaps,
    ImageFrame,
    TwoStageDetector,
    prepare_images,
)
from torch import Tensor, nn

from clim_train.methods.detectors import DetectorTask

# Scenes that the tower reads at once.
_CHUNK = 32


@dataclass(frozen=True)
class StoredMaps:
    """Feature maps of N scenes by a frozen tower, float16 on the CPU.

    Attributes:
        pyramid: maps (N, D, h, w) of the blocks that are read.
        clip: (N, C, h, w), or None where nothing is measured.
        frame: sizes of a scene; all have the same.
    """

    pyramid: list[Tensor]
    clip: Tensor | None
    frame: ImageFrame

    @classmethod
    def of(
        cls, detector: TwoStageDetector, files: Sequence[Path], *, with_clip: bool
    ) -> "StoredMaps":
        """Run the tower of a detector over image files of one size."""
        found: list[BackboneMaps] = []
        for first in range(0, len(files), _CHUNK):
            pictures = [decode_rgb(path) for path in files[first : first + _CHUNK]]
            images, frames = prepare_images(pictures, detector.rules.images)
            maps = detector.backbone.run_tower(
                images.to(detector.classes.embeddings.device), with_clip=with_clip
            )
            clip = None if maps.clip is None else _to_storage(maps.clip)
            found.append(BackboneMaps([_to_storage(level) for level in maps.pyramid], clip))

        levels = zip(*(maps.pyramid for maps in found), strict=True)
        clips = [maps.clip for maps in found if maps.clip is not None]
        return cls(
            [torch.cat(parts) for parts in levels], torch.cat(clips) if clips else None, frames[0]
        )

    def __len__(self) -> int:
        return len(self.pyramid[0])

    def at(self, rows: Tensor | slice, device: torch.device) -> BackboneMaps:
        """Return the maps of some scenes in float32 on `device`."""
        clip = None if self.clip is None else self.clip[rows].to(device).float()
        return BackboneMaps([level[rows].to(device).float() for level in self.pyramid], clip)


def _to_storage(feature_map: Tensor) -> Tensor:
    return feature_map.cpu().to(torch.float16)


@dataclass(frozen=True)
class SceneBatch:
    """Scenes by their numbers, with boxes in pixels.

    Attributes:
        rows: (B,) int64, numbers of the scenes; they stay on the CPU, as the stored maps do.
        boxes: B tensors (n_i, 4), XYXY in pixels of the scene.
        labels: B tensors (n_i,) int64.
    """

    rows: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> "SceneBatch":
        """Return a copy whose boxes and labels are on `device`."""
        return SceneBatch(
            self.rows,
            [boxes.to(device) for boxes in self.boxes],
            [labels.to(device) for labels in self.labels],
        )


class SceneLoader:
    """Endless epochs of scenes, in an order that follows from seed and epoch.

    Scenes that fill no batch at the end of an epoch are left out of it.

    Args:
        boxes, labels: of the N scenes, see `scene_boxes`.
    """

    def __init__(
        self, boxes: Sequence[Tensor], labels: Sequence[Tensor], *, batch_size: int, seed: int
    ) -> None:
        self.boxes, self.labels = boxes, labels
        self.batch_size, self.seed = batch_size, seed
        self._epoch, self._batch = 0, 0

    def __len__(self) -> int:
        return len(self.boxes) // self.batch_size

    def __iter__(self) -> Iterator[SceneBatch]:
        generator = torch.Generator().manual_seed(1_000_000 * self.seed + self._epoch)
        order = torch.randperm(len(self.boxes), generator=generator)
        for batch in range(self._batch, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            # The place is that after the batch, also while the batch is used.
            last = batch + 1 == len(self)
            self._epoch, self._batch = (self._epoch + 1, 0) if last else (self._epoch, batch + 1)
            numbers = rows.tolist()
            yield SceneBatch(
                rows, [self.boxes[i] for i in numbers], [self.labels[i] for i in numbers]
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position."""
        self._epoch, self._batch = state["epoch"], state["batch"]


class StoredMapsTask:
    """F-ViT on stored maps: the losses of a `DetectorTask` without another run of the tower.

    Args:
        detector: as in `DetectorTask`.
        maps: of the detector's tower, of the scenes that the batches number.
    """

    def __init__(self, detector: TwoStageDetector, maps: StoredMaps) -> None:
        self.model = detector
        self.maps = maps
        self._whole = DetectorTask(detector)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return everything but the tower."""
        return self._whole.trainable_parameters()

    def loss(self, batch: SceneBatch) -> dict[str, Tensor]:
        """Return "loss", its parts, and "acc", the accuracy in percent."""
        device = batch.boxes[0].device
        height, width = self.maps.frame.padded
        # Nothing reads the pixels: one value stands for all of them.
        images = torch.zeros(1, device=device).expand(len(batch), 3, height, width)
        limits = torch.tensor(self.maps.frame.content).expand(len(batch), 2)
        truths = [
            Annotations(boxes, labels)
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        tower = self.maps.at(batch.rows, device)
        losses = self.model.losses(images, limits, truths, tower=tower)

        scalars = {name: value.sum() for name, value in losses.items()}
        parts = [value for name, value in scalars.items() if name.startswith("loss_")]
        return {"loss": torch.stack(parts).sum(), **scalars}

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write the detector for `clim_models.detection.open_detector`."""
        self._whole.save(folder, state)
