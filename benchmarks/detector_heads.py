"""The trainable parts of F-ViT against torchvision's Faster R-CNN heads, on the same maps of the
same frozen tower.

Both sides begin with what the tower computed of the same images, and bring it to five levels with
the same kind of pyramid. Then come, on one side, our proposals, text classifier and score ensemble
with CLIP's dense map, on the other side `RegionProposalNetwork` and `RoIHeads` of torchvision with
the layers, anchors and numbers of boxes of F-ViT on OV-COCO and 65 classes:

test            scored boxes; how many of them are returned depends on the weights, which are
                random, so the least score is one that none has
training step   losses, gradients and AdamW; 512 boxes of an image train
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import side_by_side as sbs
import torch
from clim_models import create_model
from clim_models.detection import (
    FVIT_PRESETS,
    Annotations,
    BackboneMaps,
    ClassSet,
    DetectionRules,
    ImageFrame,
    TwoStageDetector,
    build_fvit,
)
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

CLASSES, BASE = 65, 48
# No box has a higher score.
LEAST_SCORE = 1.0
BOXES_OF_IMAGE = 7
LEARNING_RATE = 1e-6


@dataclasses.dataclass(frozen=True)
class Case:
    """Tower and images: `batch` squares of `image_px`; `blocks` None takes those of the paper."""

    model: str
    image_px: int
    batch: int
    blocks: tuple[int, ...] | None = None
    channels: int = 256
    device: str = "cpu"

    @property
    def truths(self) -> list[Annotations]:
        """The same boxes and labels each time, in pixels."""
        generator = torch.Generator().manual_seed(2)
        corner = torch.rand(BOXES_OF_IMAGE, 2, generator=generator) * 0.5
        side = 0.1 + 0.3 * torch.rand(BOXES_OF_IMAGE, 2, generator=generator)
        boxes = torch.cat([corner, corner + side], dim=1) * self.image_px
        labels = torch.arange(BOXES_OF_IMAGE) % BASE
        return [Annotations(boxes, labels).to(torch.device(self.device))] * self.batch


def detector_and_maps(case: Case, *, with_clip: bool) -> tuple[TwoStageDetector, BackboneMaps]:
    """An F-ViT with random weights, the same each time, and what its tower computes."""
    torch.manual_seed(0)
    tower = create_model(case.model, device=case.device)
    embeddings = nn.functional.normalize(torch.randn(CLASSES + 1, tower.embed_dim), dim=-1)
    embeddings = embeddings.to(tower.device)
    options = dataclasses.replace(
        FVIT_PRESETS["fvit-coco-b16"],
        image_size=case.image_px,
        blocks=case.blocks,
        channels=case.channels,
        detections=DetectionRules(score=LEAST_SCORE, overlap=0.4, per_image=100),
    )
    names = [f"class {number}" for number in range(CLASSES)]
    classes = ClassSet(names, embeddings[:-1], range(BASE))
    detector = build_fvit(tower, classes, options, background=embeddings[-1])
    images = torch.randn(case.batch, 3, case.image_px, case.image_px, device=case.device)
    return detector, detector.backbone.run_tower(images, with_clip=with_clip)


class TorchvisionHeads(nn.Module):
    """torchvision's proposals and box heads after the same pyramid: a module of one's own, as
    one would write it."""

    def __init__(self, detector: TwoStageDetector, case: Case) -> None:
        super().__init__()
        self.backbone, self.neck = detector.backbone, detector.neck
        channels, width = case.channels, detector.backbone.embed_dim
        strides = (*detector.backbone.strides, 2 * detector.backbone.strides[-1])
        anchors = AnchorGenerator([(int(8 * s),) for s in strides], [(0.5, 1.0, 2.0)] * 5)
        sizes = {"training": 2000, "testing": 2000}, {"training": 1000, "testing": 1000}
        head = RPNHead(channels, 3, conv_depth=2)
        self.rpn = RegionProposalNetwork(anchors, head, 0.7, 0.3, 256, 0.5, *sizes, 0.7)
        layers = [channels] * 4, [width, width]
        self.roi_heads = RoIHeads(
            MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 0),
            FastRCNNConvFCHead((channels, 7, 7), *layers, norm_layer=nn.BatchNorm2d),
            FastRCNNPredictor(width, CLASSES + 1),
            *(0.5, 0.5, 512, 0.25, None),
            *(LEAST_SCORE, 0.4, 100),
        )
        self.side = case.image_px

    def forward(
        self, tower: BackboneMaps, targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        levels = self.neck(self.backbone.finish(tower).pyramid)
        named = {str(number): level for number, level in enumerate(levels)}
        count, device = len(levels[0]), levels[0].device
        pixels = torch.zeros(1, device=device).expand(count, 3, self.side, self.side)
        images = ImageList(pixels, [(self.side, self.side)] * count)
        proposals, losses = self.rpn(images, named, targets)
        found, more = self.roi_heads(named, proposals, images.image_sizes, targets)
        return found, losses | more


def our_test(case: Case) -> Callable[[], int]:
    detector, tower = detector_and_maps(case, with_clip=True)
    detector.eval()
    frames = [ImageFrame(*[(case.image_px, case.image_px)] * 3)] * case.batch
    return lambda: sum(len(one.boxes) for one in detector.detect_in_maps(tower, frames))


def torchvision_test(case: Case) -> Callable[[], int]:
    detector, tower = detector_and_maps(case, with_clip=False)
    heads = TorchvisionHeads(detector, case).to(case.device).eval()

    @torch.no_grad()
    def call() -> int:
        return sum(len(one["boxes"]) for one in heads(tower)[0])

    return call


def our_step(case: Case) -> Callable[[], float]:
    detector, tower = detector_and_maps(case, with_clip=False)
    detector.train()
    side = case.image_px
    images = torch.zeros(1, device=case.device).expand(case.batch, 3, side, side)
    limits = torch.full((case.batch, 2), float(side), device=case.device)

    def losses() -> dict[str, Tensor]:
        found = detector.losses(images, limits, case.truths, tower=tower)
        return {name: value for name, value in found.items() if name != "acc"}

    return stepping(detector, losses)


def torchvision_step(case: Case) -> Callable[[], float]:
    detector, tower = detector_and_maps(case, with_clip=False)
    heads = TorchvisionHeads(detector, case).to(case.device).train()
    # torchvision's background is class 0.
    targets: list[dict[str, Any]] = [
        {"boxes": truth.boxes, "labels": truth.labels + 1} for truth in case.truths
    ]
    return stepping(heads, lambda: heads(tower, targets)[1])


def stepping(module: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Callable[[], float]:
    """-> function that makes one step of AdamW and returns the loss."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)

    def call() -> float:
        total = torch.stack([value.sum() for value in losses().values()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return total.item()

    return call


def no_box(ours: int, other: int) -> dict[str, float]:
    """Raises ValueError if a side returns boxes: the other would have less to do."""
    if ours or other:
        raise ValueError(f"{ours} and {other} boxes pass the least score: not the same work")
    return {"boxes": 0.0}


def both_finite(ours: float, other: float) -> dict[str, float]:
    """Raises ValueError unless both sides have a finite loss."""
    if not all(abs(loss) < float("inf") for loss in (ours, other)):
        raise ValueError(f"losses are {ours} and {other}: training went wrong")
    return {"loss of ours": ours, "loss of torchvision's": other}


def comparisons(case: Case) -> list[sbs.Comparison]:
    sizes = f"{case.model}, {case.batch} x {case.image_px} px, {case.channels} channels, fp32"
    shared = {"sizes": sizes, "items": case.batch, "item": "image"}
    return [
        sbs.Comparison(
            name="test",
            ours=sbs.Candidate("F-ViT", partial(our_test, case)),
            other=sbs.Candidate("torchvision's heads", partial(torchvision_test, case)),
            agree=no_box,
            **shared,
        ),
        sbs.Comparison(
            name="training step",
            ours=sbs.Candidate("F-ViT", partial(our_step, case)),
            other=sbs.Candidate("torchvision's heads", partial(torchvision_step, case)),
            agree=both_finite,
            **shared,
        ),
    ]


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=2)
    parser.add_argument("--model", default="EVA02-B-16", help="open_clip name of a ViT")
    parser.add_argument("--blocks", type=int, nargs=4, help="blocks of the tower that are read")
    parser.add_argument("--image-px", type=int, default=640)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--channels", type=int, default=256)
    args = parser.parse_args(argv)
    case = Case(
        args.model,
        args.image_px,
        args.batch,
        blocks=tuple(args.blocks) if args.blocks else None,
        channels=args.channels,
        device=args.device,
    )
    return sbs.run("detector_heads", comparisons(case), sbs.settings_from(args))


if __name__ == "__main__":
    main()
