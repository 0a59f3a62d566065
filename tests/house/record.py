"""Write the records of today's behaviour anew: `python tests/house/record.py [NAME ...]`.

Run it only when a change of behaviour is intended, and say in the commit which records changed and
why. `configs` and `run` are files that users have: they stay as commit ef84e5d wrote them, and
later code must read them.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from house import batches, commands, losses, machine, recipes, run_folder, signatures


def record_signatures(folder: Path) -> None:
    """Record the signatures of all exported names."""
    machine.save("signatures", {"packages": signatures.collect()})


def record_losses(folder: Path) -> None:
    """Record the losses of 20 steps of every training at ZeRO 0, 1 and 3."""
    machine.save("losses", {"steps": losses.STEPS, "losses": losses.collect(folder, losses.STEPS)})


def record_batches(folder: Path) -> None:
    """Record the first batches of every loader on two ranks."""
    data = batches.write_data(folder / "data")
    found = {}
    for name in batches.LOADERS:
        for rank in range(batches.RANKS):
            found[f"{name}-rank{rank}"] = batches.collect(name, data, rank=rank, workers=0)
    machine.save("batches", {"batches": found})


def record_commands(folder: Path) -> None:
    """Record the options of every command, and how mistakes end."""
    mistakes = commands.collect_mistakes(commands.write_mistakes(folder / "data"))
    machine.save("commands", {"help": commands.collect_help(), "mistakes": mistakes})


def record_configs(folder: Path) -> None:
    """Record the `config.json` of every recipe."""
    shutil.rmtree(machine.RECORDS / "configs", ignore_errors=True)
    for kind in recipes.KINDS:
        target = machine.RECORDS / "configs" / kind
        target.mkdir(parents=True)
        for name, text in recipes.collect(kind).items():
            (target / f"{name}.json").write_text(text)


def record_run(folder: Path) -> None:
    """Record a run folder of three steps, and the losses of the whole run."""
    machine.save("run", run_folder.record(folder))


RECORDED = {
    "signatures": record_signatures,
    "losses": record_losses,
    "batches": record_batches,
    "commands": record_commands,
    "configs": record_configs,
    "run": record_run,
}
# Files that users have are written once.
BY_DEFAULT = ("signatures", "losses", "batches", "commands")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(RECORDED)}; default: the first four",
    )
    names = parser.parse_args().names or BY_DEFAULT
    if unknown := sorted(set(names) - set(RECORDED)):
        parser.error(f"there is no record {unknown[0]!r}: use {', '.join(RECORDED)}")

    # As in the tests: the number of threads decides the order of sums, and so the last bits.
    torch.set_num_threads(1)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            RECORDED[name](Path(folder))
        print(f"{machine.RECORDS / name}")


if __name__ == "__main__":
    main()
