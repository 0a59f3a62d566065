"""Class-agnostic boxes from the region proposal network (RPN) of a torchvision detector.

The detector's class head is never run. But the RPN was trained on the boxes of some classes: an RPN
that saw all 80 classes of COCO has seen the novel classes of OV-COCO, too.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from PIL import Image
from torchvision.models import detection, get_model_weights
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork

from clim_data.pixels.decode import pixels
from clim_data.processes.ranks import local_device

DETECTORS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "keypointrcnn_resnet50_fpn",
)
_USED = ("backbone.", "rpn.")


class RpnBoxes:
    """Finds boxes in batches of images of any size, in this process, on the GPU if there is one.

    Args:
        detector: one of `DETECTORS`.
        weights: a state dict of that detector, or "default" for torchvision's own weights, which
            torchvision downloads once. Only backbone and RPN are used, so its classes do not
            matter.
        device: such as "cpu" or "cuda:1"; None takes the GPU of this process, else the CPU.
        batch_size: images per forward pass.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an option is not known, or the weights do not fit or cannot be downloaded.
    """

    in_processes = False

    def __init__(
        self,
        detector: str = DETECTORS[0],
        *,
        weights: str | Path = "default",
        device: str | None = None,
        batch_size: int = 4,
    ):
        if detector not in DETECTORS:
            raise ValueError(
                f"detector={detector!r} is not known: use one of {', '.join(DETECTORS)}"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")

        self.detector, self.batch_size = detector, batch_size
        self.device = torch.device(device or default_device())
        self.weights = "default" if weights == "default" else _name_of_weights(Path(weights))
        build = getattr(detection, detector)
        if weights == "default":
            model = _with_official_weights(build, detector)
        else:
            model = build(weights=None, weights_backbone=None)
            _load(model, Path(weights))
        self.model: GeneralizedRCNN = model.eval().requires_grad_(False).to(self.device)

    def options(self) -> dict[str, Any]:
        """Return the options that decide the boxes, as plain json values."""
        return {"method": "rpn", "detector": self.detector, "weights": self.weights}

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Find proposals in RGB images, for each image the best first.

        Returns:
            Boxes (N, 4) XYXY in pixels and objectness (N,) in [0, 1] of each image.
        """
        tensors = [pixels(image).to(self.device).float() / 255 for image in images]
        batch, _ = self.model.transform(tensors)
        features = self.model.backbone(batch.tensors)
        found = _scored_proposals(self.model.rpn, batch, features)

        # The transform itself brings the boxes back, because it rounded the sizes.
        original = [(image.height, image.width) for image in images]
        placed = [{"boxes": boxes} for boxes, _ in found]
        placed = self.model.transform.postprocess(placed, batch.image_sizes, original)
        scores = [scores.float().cpu().numpy() for _, scores in found]
        return [
            (place["boxes"].float().cpu().numpy(), s)
            for place, s in zip(placed, scores, strict=True)
        ]


def default_device() -> str:
    """Return the GPU that the launcher gave this process, the first GPU without one, or the CPU."""
    return str(local_device())


def _scored_proposals(
    rpn: RegionProposalNetwork, batch: ImageList, features: dict
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Boxes and scores of each image: the RPN's forward gives the boxes only, its last step
    both."""
    kept: list[tuple[list, list]] = []
    last_step = type(rpn).filter_proposals

    def keep(*args: Any) -> tuple[list, list]:
        kept.append(last_step(rpn, *args))
        return kept[-1]

    rpn.filter_proposals = keep
    try:
        rpn(batch, features)
    finally:
        del rpn.filter_proposals
    ((boxes, scores),) = kept
    return list(zip(boxes, scores, strict=True))


def _with_official_weights(build: Callable[..., GeneralizedRCNN], detector: str) -> GeneralizedRCNN:
    official = get_model_weights(build).DEFAULT
    try:
        return build(weights=official)
    except (URLError, OSError, RuntimeError) as fault:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise ValueError(
            f"torchvision's weights of {detector} cannot be had ({fault}): download {official.url} "
            "elsewhere and put "
            f"it into {folder}, or give --weights FILE"
        ) from None


def _name_of_weights(path: Path) -> str:
    """Name and digest of a weights file, so that boxes of other weights are never taken for
    these."""
    if not path.is_file():
        raise FileNotFoundError(
            f'no weights file {path}: give a state dict of the detector, or "default"'
        )
    with open(path, "rb") as stream:
        return f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()[:12]}"


def _load(model: torch.nn.Module, path: Path) -> None:
    """Load backbone and RPN strictly; a checkpoint {"model": ...} or {"state_dict": ...} is
    unpacked."""
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as fault:  # damaged, or it would run code
        raise ValueError(
            f"{path} is no state dict of tensors ({type(fault).__name__}): save model.state_dict()"
        ) from None
    for name in ("model", "state_dict"):
        if isinstance(record, dict) and isinstance(record.get(name), dict):
            record = record[name]
    found = {str(key).removeprefix("module."): value for key, value in dict(record).items()}
    wanted = {key: value for key, value in model.state_dict().items() if key.startswith(_USED)}
    # Batch counts are not used, and frozen normalisation has none.
    absent = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
    strange = [key for key in found if key.startswith(_USED) and key not in wanted]
    shapes = [
        key for key, value in wanted.items() if key in found and found[key].shape != value.shape
    ]
    if absent or strange or shapes:
        listed = {"missing": absent, "unexpected": strange, "of another shape": shapes}
        what = "; ".join(
            f"{len(keys)} {name}: {', '.join(keys[:3])}" for name, keys in listed.items() if keys
        )
        raise ValueError(
            f"{path} does not fit the detector ({what}): choose the --detector that it was saved "
            "from"
        )
    # Not strict, because the class head is not loaded; the needed keys were compared above, one by
    # one.
    model.load_state_dict({key: found[key] for key in wanted if key in found}, strict=False)
