"""Two ranks write to a folder what `test_two_ranks_detic.py` looks at: losses of centres, and a run
of the command line.

`zygote.py` forks them. By hand: deepspeed --num_accelerators 2 two_ranks_detic.py FOLDER
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import torch.distributed as dist
from clim_train.commands.main import main as clim_train
from clim_train.engine import start_distributed
from clim_train.methods.region_parts import rows_per_rank
from tiny_detic import centre_losses
from tiny_training import register_tiny_towers

torch.set_num_threads(1)


def main() -> None:
    folder = Path(next(a for a in sys.argv[1:] if not a.startswith("--")))
    start_distributed(torch.device("cpu"))
    rank = dist.get_rank()
    rows = partial(rows_per_rank, device=torch.device("cpu"))
    found = centre_losses(slice(rank, rank + 1), divisor=rows)
    for value in found.values():
        dist.all_reduce(value)
        value /= 2
    torch.save(found, folder / f"centres{rank}.pt")

    register_tiny_towers()
    status = clim_train(json.loads((folder / "command.json").read_text()))
    if rank == 0:
        (folder / "done.json").write_text(json.dumps({"status": status}))
    dist.barrier()


if __name__ == "__main__":
    main()
