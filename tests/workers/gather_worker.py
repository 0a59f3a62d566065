"""One rank of the two-process test of contrastive_loss: reads its rows, writes its loss and
gradients.

    python gather_worker.py RANK WORLD_SIZE FOLDER

FOLDER/in.pt holds {name: {"images", "texts", "scale", "ids" or None, "counts"}};
FOLDER/rank{RANK}.pt gets {name: {"loss", "images", "texts", "scale"}} with gradients of the SUM
over ranks of the losses (rows) and of this rank's loss (scale).
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from clim_models.losses import GatherFeatures, contrastive as losses


def main(rank, world_size, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    gather = GatherFeatures(world_size, rank)
    results = {}
    for name, case in torch.load(folder / "in.pt", weights_only=True).items():
        start = sum(case["counts"][:rank])
        mine = slice(start, start + case["counts"][rank])
        images, texts = (case[key][mine].clone().requires_grad_() for key in ("images", "texts"))
        scale = case["scale"].clone().requires_grad_()
        ids = None if case["ids"] is None else case["ids"][mine]
        loss = losses.contrastive_loss(images, texts, scale, caption_ids=ids, gather=gather)
        loss.backward()
        results[name] = {
            "loss": loss.detach(),
            "images": images.grad,
            "texts": texts.grad,
            "scale": scale.grad,
        }
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
