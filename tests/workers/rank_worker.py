"""One rank of the two-process test of the evaluators.

    python rank_worker.py RANK WORLD_SIZE FOLDER

Writes FOLDER/rank{RANK}.pt: the metrics and rows of every evaluator, and how many images this rank
encoded.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
import clim_eval.commands.main  # noqa: F401  that it starts light is one of the things tested
from clim_eval import ImageTextRetrieval, RegionClassification, ZeroShotClassification
from toy import Captioned, Labelled, Regions, ToyModel, class_rows


def evaluate(regions, captioned, labelled):
    model = ToyModel()
    evaluator = RegionClassification(model, class_rows(), batch_size=2)
    rows = evaluator.collect(regions)
    seen = model.images_seen
    return {
        "regions": evaluator.summarize(rows),
        "labels": torch.from_numpy(rows.labels),
        "image_ids": torch.from_numpy(rows.image_ids),
        "ranks": {name: torch.from_numpy(ranks) for name, ranks in rows.ranks.items()},
        "seen": seen,
        "retrieval": ImageTextRetrieval(model, batch_size=3).run(captioned),
        "zero_shot": ZeroShotClassification(model, class_rows(), batch_size=3).run(labelled),
    }


def padded_loader(data, rank, world_size):
    """A loader as users write it: the sampler repeats items so that ranks get equal counts."""
    sampler = torch.utils.data.DistributedSampler(data, world_size, rank, shuffle=True, seed=1)
    return torch.utils.data.DataLoader(data, batch_size=2, sampler=sampler, collate_fn=list)


def main(rank, world_size, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    own = evaluate(Regions(11), Captioned(9), Labelled(13))
    labelled = [(*Labelled(13)[i], i) for i in range(13)]
    padded = evaluate(
        padded_loader(Regions(11), rank, world_size),
        padded_loader(Captioned(9), rank, world_size),
        padded_loader(labelled, rank, world_size),
    )
    imported = [
        name
        for name in ("open_clip", "transformers", "deepspeed", "matplotlib")
        if name in sys.modules
    ]
    torch.save({"own": own, "padded": padded, "imported": imported}, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
