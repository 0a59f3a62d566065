"""Box and mask accuracy of labelled regions: one backbone pass per image against two.

Ours is `clim_eval.RegionClassification`, which asks for boxes and masks in one forward. The other
side is an evaluator as it is usually written: `encode_boxes`, then `encode_masks`, each with its
own forward, and the same accuracy from the same functions. Images are in memory, so that only the
evaluation is measured.
"""

from collections.abc import Callable, Sequence
from functools import partial

import side_by_side as sbs
import torch
import torch.nn.functional as F
from clim_data import RegionSample
from clim_eval import RegionClassification, class_accuracy_table, label_ranks
from clim_models import RegionModel, create_model
from torch import Tensor

CLASSES, THINGS = 133, 80  # as in COCO panoptic


def random_samples(images: int, regions: int, image_px: int, grid: int) -> list[RegionSample]:
    """Images of noise with boxes, and the boxes' patches as masks."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.arange(grid) / grid

    def one(image_id: int) -> RegionSample:
        corner = torch.rand(regions, 2, generator=generator) * 0.7
        size = 0.05 + torch.rand(regions, 2, generator=generator) * 0.25
        boxes = torch.cat([corner, corner + size], dim=1)  # (n, 4)
        left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(1))
        inside_x = (cells + 1 / grid > left) & (cells < right)  # (n, w)
        inside_y = (cells + 1 / grid > top) & (cells < bottom)  # (n, h)
        labels = torch.randint(0, CLASSES, (regions,), generator=generator)
        return RegionSample(
            image=torch.randint(
                0, 256, (3, image_px, image_px), generator=generator, dtype=torch.uint8
            ),
            boxes=boxes,
            labels=labels,
            areas=size.prod(dim=1) * image_px**2,
            is_thing=labels < THINGS,
            masks=(inside_y[:, :, None] & inside_x[:, None, :]).to(torch.uint8),
            crops=None,
            image_id=image_id,
        )

    return [one(i) for i in range(images)]


def prepare(args) -> tuple[RegionModel, Tensor, list[RegionSample]]:
    """Model with random weights, (K, C) class embeddings, samples; the same each time."""
    torch.manual_seed(0)
    model = create_model(args.model, device=args.device)
    grid = model.grid_size(args.image_px, args.image_px)[0]
    embeddings = F.normalize(torch.randn(CLASSES, model.embed_dim), dim=-1).to(args.device)
    return model, embeddings, random_samples(args.images, args.regions, args.image_px, grid)


def one_pass(args) -> Callable[[], dict[str, float]]:
    model, embeddings, samples = prepare(args)
    evaluator = RegionClassification(model, embeddings, crops=False, batch_size=args.batch)
    return lambda: evaluator.run(samples)


def two_passes(args) -> Callable[[], dict[str, float]]:
    model, embeddings, samples = prepare(args)

    @torch.no_grad()
    def call() -> dict[str, float]:
        ranks: dict[str, list[Tensor]] = {"boxes": [], "masks": []}
        for start in range(0, len(samples), args.batch):
            batch = samples[start : start + args.batch]
            images = model.normalize_pixels(torch.stack([sample.image for sample in batch]))
            labels = torch.cat([sample.labels for sample in batch]).to(images.device)
            features = {
                "boxes": model.encode_boxes(
                    images, [sample.boxes.to(images.device) for sample in batch]
                ),
                "masks": model.encode_masks(
                    images, [sample.masks.to(images.device) for sample in batch]
                ),
            }
            for kind, rows in features.items():
                ranks[kind].append(label_ranks(rows @ embeddings.T, labels).cpu())
        labels = torch.cat([sample.labels for sample in samples])
        is_thing = torch.cat([sample.is_thing for sample in samples])
        return {
            f"{kind}.{name}": value
            for kind, parts in ranks.items()
            for name, value in class_accuracy_table(torch.cat(parts), labels, is_thing).items()
        }

    return call


def same_metrics(ours: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Raises ValueError unless both have the same metrics with the same values."""
    if ours.keys() != other.keys():
        raise ValueError(
            f"metrics differ in {sorted(ours.keys() ^ other.keys())}: not the same work"
        )
    largest = max(abs(ours[name] - other[name]) for name in ours)
    if largest > 1e-9:
        raise ValueError(f"metrics differ by {largest:.3g}: not the same work")
    return {"metrics": len(ours), "largest difference": largest}


def comparison(args) -> sbs.Comparison:
    return sbs.Comparison(
        name="boxes and masks",
        sizes=f"{args.model}, {args.images} images of {args.image_px} px, {args.regions} regions each, fp32",
        ours=sbs.Candidate("RegionClassification", partial(one_pass, args)),
        other=sbs.Candidate("two passes", partial(two_passes, args)),
        agree=same_metrics,
        target=1.7,
        items=args.images,
        item="image",
    )


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=3)
    parser.add_argument("--model", default="ViT-B-16", help="open_clip name")
    parser.add_argument("--image-px", type=int, default=512, help="side of the letterboxed images")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4, help="images per forward")
    parser.add_argument("--regions", type=int, default=12, help="regions per image")
    args = parser.parse_args(argv)
    return sbs.run("region_evaluation", [comparison(args)], sbs.settings_from(args))


if __name__ == "__main__":
    main()
