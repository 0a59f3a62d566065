"""Make the weights that ship with clim-tiny out of a run of the quick start: ``python -m
clim_train.experiments.comparison.ship_tiny RUN``.

RUN is the folder of the CLIM arm, such as quickstart/runs/clim-seed0. The text tower stays out: it
is frozen, and comes from its own package.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from clim_data.command_line import add_option
from clim_models import AFTER_CLIM, SHIPPED_FILES, TINY, create_model
from clim_models.checkpoints import save_tensors

from clim_train.config import TrainConfig
from clim_train.experiments.pretrain_tiny import KNOWS
from clim_train.methods.pairs import PairDataConfig


def ship(run: Path, output: Path) -> dict[str, str]:
    """Write the image tower and logit scale of a run in half precision, and return the metadata.

    Raises ValueError for a run of another model or without mosaics.
    """
    config = TrainConfig.load(str(run))
    if config.model.name != TINY or not isinstance(config.data, PairDataConfig):
        raise ValueError(f"{run} is no CLIM run of {TINY}: pass quickstart/runs/clim-seed0")

    model = create_model(TINY, pretrained=run)
    weights = {
        name: value.to(torch.float16)
        for name, value in model.clip.state_dict().items()
        if not name.startswith("text.")
    }
    seed = config.run.seed
    metadata = {
        "format": "pt",
        "model": TINY,
        "knows": KNOWS,
        "eval_px": str(config.data.mosaic.canvas_px),
        "start": config.model.pretrained or "",
        "command": f"python -m clim_train.quickstart --train --arms clim --seeds {seed}; "
        f"python -m clim_train.experiments.comparison.ship_tiny quickstart/runs/clim-seed{seed}",
        "steps": str(config.schedule.steps),
        "never_seen": "vendor twemoji; 120 test concepts; 100 validation concepts",
    }
    save_tensors(weights, output, metadata)
    return metadata


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder of the CLIM arm")
    add_option(parser, "--out", default=SHIPPED_FILES[AFTER_CLIM])
    args = parser.parse_args(argv)
    ship(args.run, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
