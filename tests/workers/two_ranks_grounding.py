"""Two ranks write to a folder what `test_two_ranks_grounding.py` looks at.

`zygote.py` forks them. By hand: deepspeed --num_accelerators 2 two_ranks_grounding.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch

# The tests' folder, for conftest, and the helpers of all tests.
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import torch.distributed as dist
from clim_train.engine import start_distributed
from clim_train.options import choose_device
from tiny_grounding import UNEVEN, Pictures, fit_until, tiny_config, tiny_trainer

torch.set_num_threads(1)


def main() -> None:
    folder = Path(next(a for a in sys.argv[1:] if not a.startswith("--")))
    start_distributed(choose_device(tiny_config(folder).engine))
    ranks = {"rank": dist.get_rank(), "world_size": dist.get_world_size()}
    for stage in (2, 3):
        config = tiny_config(folder / f"stage{stage}", batch_size=1, zero_stage=stage)
        tiny_trainer(config, Pictures(UNEVEN), **ranks).fit()
    # Two images a rank, of which one may be missing: ranks run the mask head unequally often.
    config = tiny_config(folder / "pairs", batch_size=2, zero_stage=3)
    fit_until(tiny_trainer(config, Pictures(UNEVEN), **ranks), 2)
    tiny_trainer(config, Pictures(UNEVEN), resume=True, **ranks).fit()
    dist.barrier()
    if ranks["rank"] == 0:
        (folder / "done.json").write_text(json.dumps({"world_size": ranks["world_size"]}))


if __name__ == "__main__":
    main()
