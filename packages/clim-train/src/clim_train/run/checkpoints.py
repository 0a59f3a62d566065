"""The folder of checkpoints: each exists whole or not at all, whenever the process is killed.

A checkpoint is written as `step-00000100.partial`, gets a manifest of sizes and checksums when
every rank has finished, is renamed, and only then named in `latest`, a one-line file for people and
tools that is itself replaced in one move. Old checkpoints are renamed before they are deleted. A
checkpoint that no longer fits its manifest is skipped.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch.distributed as dist
from clim_data.files import flush, write_text
from clim_data.processes import Ranks, gather_objects

from clim_train.run.folder import remove
from clim_train.run.manifest import checksums, find_damage, write_manifest
from clim_train.run.peers import AgreedError, error_of, first_problem

_NAME = re.compile(r"step-(\d{8,})")

# Suffixes of the name of a checkpoint that is unfinished, about to be deleted, or damaged, and of
# its conversion for another number of ranks.
_PARTIAL = ".partial"
_OLD = ".old"
_DAMAGED = ".damaged"
UNIVERSAL = ".universal"


class CheckpointWriteError(AgreedError, OSError):
    """A checkpoint could not be written; those before it are as they were."""


class CheckpointFolder:
    """A folder of checkpoints: names, completes and removes them. The caller writes their contents.

    Args:
        folder: made if missing.
        keep: newest checkpoints that `commit` leaves.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def partial_name(self, step: int) -> str:
        """Return the name, below `folder`, under which to write the checkpoint of `step`."""
        return f"{self.name(step)}{_PARTIAL}"

    @staticmethod
    def name(step: int) -> str:
        """Return the name of the complete checkpoint of `step`."""
        return f"step-{step:08d}"

    def prepare(self) -> None:
        """Remove unfinished checkpoints of a killed process. One process only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.name.endswith((_PARTIAL, _OLD)):
                remove(path)

    def commit(self, step: int, sums: Mapping[str, list[int]] | None = None) -> Path:
        """Make the partial checkpoint of `step` the latest, and remove the oldest.

        One process only.

        Args:
            sums: `checksums` of the partial checkpoint, where several processes shared that work.
        """
        partial = self.folder / self.partial_name(step)
        final = self.folder / self.name(step)
        write_manifest(partial, checksums(partial) if sums is None else sums)
        for file in partial.rglob("*"):
            flush(file)

        if final.exists():
            self._remove(final)
        os.rename(partial, final)
        self._point_to(final.name)

        for old in self.complete()[: -self.keep]:
            self._remove(self.folder / (old.name + UNIVERSAL))
            self._remove(old)
        for damaged in self.folder.glob(f"*{_DAMAGED}"):
            self._remove(damaged)
        return final

    def discard(self, step: int) -> None:
        """Remove a partial checkpoint that will not be completed. One process only."""
        with suppress(OSError):
            remove(self.folder / self.partial_name(step))

    def set_aside(self, name: str) -> None:
        """Rename a damaged checkpoint, so that it no longer counts. One process only.

        The next commit removes it.
        """
        for found in (name, name + UNIVERSAL):
            path = self.folder / found
            aside = self.folder / (found + _DAMAGED)
            if path.exists():
                self._remove(aside)
                os.rename(path, aside)

    def newest_whole(
        self, inspect: Callable[[Path], str | None] = find_damage, names: list[str] | None = None
    ) -> tuple[Path | None, dict[str, str]]:
        """Return the newest checkpoint without damage, and name -> damage of the newer ones.

        Args:
            inspect: returns the damage of a checkpoint, or None.
            names: the complete checkpoints, oldest first, if they are known.

        Raises ValueError where there are checkpoints and none is whole.
        """
        if names is None:
            names = [path.name for path in self.complete()]

        damaged: dict[str, str] = {}
        for name in reversed(names):
            fault = inspect(self.folder / name)
            if fault is None:
                return self.folder / name, damaged
            damaged[name] = fault

        if damaged:
            listed = "; ".join(f"{name}: {fault}" for name, fault in damaged.items())
            raise ValueError(
                f"no checkpoint in {self.folder} is whole ({listed}): put back a copy of one, or "
                "delete this folder, and resume starts over from the start weights"
            )
        return None, damaged

    def complete(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        found = []
        for path in self.folder.iterdir():
            if match := _NAME.fullmatch(path.name):
                found.append((int(match[1]), path))
        return [path for _, path in sorted(found)]

    def _point_to(self, name: str) -> None:
        write_text(self.folder / "latest", name + "\n")

    def _remove(self, path: Path) -> None:
        if path.exists() or path.is_symlink():
            old = path.with_name(path.name + _OLD)
            remove(old)
            os.rename(path, old)
            remove(old)


def write_together(
    folder: CheckpointFolder,
    step: int,
    write: Callable[[Path], None],
    *,
    program: str = "clim-train",
) -> Path:
    """Write a checkpoint of all ranks and return its folder. Collective.

    Args:
        write: `write(partial)` writes the parts of this rank.
        program: the command to name in messages.

    Raises CheckpointWriteError on all ranks where one cannot write; nothing of the checkpoint
    stays.
    """
    rank, world_size = Ranks.of_group()
    partial = folder.folder / folder.partial_name(step)

    # First the folder: a rank that cannot make it would leave the others waiting inside `write`.
    problem = first_problem(error_of(lambda: partial.mkdir(parents=True, exist_ok=True)))
    if problem is None:
        problem = first_problem(error_of(lambda: write(partial)))
    if problem is None:
        # Each rank reads its share of the files.
        sums: dict[str, list[int]] = {}
        for share in gather_objects(checksums(partial, rank, world_size)):
            sums.update(share)
        problem = first_problem(error_of(lambda: folder.commit(step, sums)) if rank == 0 else None)

    if problem is not None:
        if rank == 0:
            folder.discard(step)
        dist.barrier()

        free = shutil.disk_usage(folder.folder).free / 1e9
        kept = ", ".join(path.name for path in folder.complete()) or "none"
        raise CheckpointWriteError(
            f"the checkpoint of step {step} could not be written ({problem}; {free:.2f} GB are "
            f"free there). Those before it are as they were: {kept}. Make room, then `{program} "
            "resume "
            f"{folder.folder.parent}` continues"
        )
    return folder.folder / folder.name(step)
