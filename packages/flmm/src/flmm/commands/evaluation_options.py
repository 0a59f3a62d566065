"""Parts that all kinds of `flmm eval` share: options, the facts that results depend on, and the
format of figures."""

import zlib
from argparse import Namespace
from collections.abc import Mapping, Sequence

from clim_data.command_line import CommandParser, add_option, at_least
from clim_data.processes import Ranks, local_device
from clim_eval import Coverage

from flmm.adapters.precision import DTYPES
from flmm.commands.options import add_model_options, heads_file

# Options that change no result of a sample.
_FREE = (
    "out",
    "workers",
    "pictures",
    "device",
    "questions",
    "run",
    "command",
    "continues",
    "judge",
    "judge_model",
)


def add_run_options(parser: CommandParser) -> None:
    """Add the options of the model, --limit and --out."""
    add_model_options(parser)
    parser.add_argument(
        "--limit", type=at_least(1), metavar="N", help="evaluate the first N samples only"
    )
    add_option(
        parser,
        "--out",
        short="-o",
        required=True,
        metavar="DIR",
        help="folder of the results; started again with it, a run continues",
    )


def what_counts(options: Namespace) -> dict[str, str]:
    """Return the options that results depend on, and a checksum of the heads where they are
    used."""
    named = {
        name: str(value)
        for name, value in vars(options).items()
        # The default of --min-score changes nothing: older results go on with it.
        if value is not None and name not in _FREE and (name, value) != ("min_score", 0.0)
    }
    if "precision" in named:
        named["dtype"] = DTYPES[named.pop("precision")]  # its name before: older results go on
    grounders = getattr(options, "grounder", "heads")
    if grounders in ("heads", ["heads"]):
        named.pop("grounder", None)  # as it was called before there were others
    if "heads" not in grounders:
        return named
    return {**named, "heads": f"{zlib.crc32(heads_file(options.checkpoint).read_bytes()):08x}"}


def on_own_gpu(options: Namespace) -> Namespace:
    """Choose the GPU of this rank where no device is named and there are several ranks."""
    import torch

    if options.device is None and torch.cuda.is_available():
        return Namespace(**{**vars(options), "device": str(local_device())})
    return options


def join_ranks() -> None:
    """Join the process group of a launcher (`torchrun`, `deepspeed`), if one started this process;
    it carries counts."""
    import torch

    if Ranks.of_launcher().world_size > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")


def print_figures(metrics: Mapping[str, float], coverage: Sequence[Coverage]) -> None:
    """Print fractions in percent, then their coverage."""
    for name, value in metrics.items():
        is_there = value == value  # not nan
        print(
            f"{100 * value:6.2f} %  {name}" if is_there else f"     -    {name} (no such phrases)"
        )
    for part in coverage:
        print("\n".join(part.lines()))
