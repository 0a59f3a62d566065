"""A pipeline on a list of picture files against one call for each file.

A list is read ahead in threads and goes through the model in batches of one shape. Calls one by one
read and compute in turn. Weights are random; the files are JPEGs of noise, wide and tall in turn.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import side_by_side as sbs
import torch
import torch.nn.functional as F
from clim_models import PipelineOptions, create_model
from clim_models.pipelines import DensePipeline
from clim_models.text import EmbeddedVocabulary, Vocabulary
from PIL import Image
from torch import Tensor

# Sums of the same numbers in another order.
TOLERANCE = 1e-4


def files(folder: Path, args) -> list[Path]:
    """Write JPEG files, wide and tall in turn."""
    noise = np.random.default_rng(0)
    shapes = ((args.file_px * 3 // 4, args.file_px, 3), (args.file_px, args.file_px * 3 // 4, 3))
    paths = []
    for number in range(args.images):
        small = noise.integers(
            0, 255, [side // 8 for side in shapes[number % 2][:2]] + [3], np.uint8
        )
        height, width, _ = shapes[number % 2]
        paths.append(folder / f"{number:04d}.jpg")
        Image.fromarray(small).resize((width, height)).save(paths[-1], quality=90)
    return paths


def call(args, *, batch_size: int) -> Callable[[], Tensor]:
    """Make the function that maps all files, `batch_size` of them at once; 1 is call by call."""
    torch.manual_seed(0)
    model = create_model(args.model, pretrained="none", device=args.device)
    rows = F.normalize(torch.randn(args.labels, model.embed_dim), dim=-1).to(args.device)
    words = Vocabulary.of([f"label {number}" for number in range(args.labels)])
    vocabulary = EmbeddedVocabulary(words, rows, rows[:0])
    options = PipelineOptions(batch_size=batch_size, image_px=args.image_px)
    where = DensePipeline(model, vocabulary, options)

    folder = TemporaryDirectory()
    paths = files(Path(folder.name), args)

    def run() -> Tensor:
        # The function owns the folder.
        assert folder.name
        found = where(paths) if batch_size > 1 else [where(path) for path in paths]
        return torch.cat([torch.from_numpy(one.maps).flatten() for one in found])

    return run


def comparisons(args) -> list[sbs.Comparison]:
    return [
        sbs.Comparison(
            name="list of files",
            sizes=f"{args.images} JPEGs of {args.file_px} px, read at {args.image_px} px by "
            f"{args.model}, {args.labels} labels, fp32",
            ours=sbs.Candidate("a list", partial(call, args, batch_size=args.batch)),
            other=sbs.Candidate("a call for each file", partial(call, args, batch_size=1)),
            agree=partial(sbs.largest_difference, tolerance=TOLERANCE),
            items=args.images,
            item="image",
        )
    ]


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=5)
    parser.add_argument("--images", type=int, default=16, help="files of a list, at least 2")
    parser.add_argument("--batch", type=int, default=8, help="pictures of a forward pass")
    parser.add_argument("--file-px", type=int, default=1024, help="longest side of the files")
    parser.add_argument("--image-px", type=int, default=224, help="longest side that is read")
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--model", default="ViT-B-32-quickgelu", help="open_clip name")
    args = parser.parse_args(argv)
    return sbs.run("pipeline_list", comparisons(args), sbs.settings_from(args))


if __name__ == "__main__":
    main()
