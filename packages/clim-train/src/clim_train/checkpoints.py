"""The folder of checkpoints: a checkpoint is there whole or not at all, whenever the process is killed.

A checkpoint is written as `step-00000100.partial`, renamed when every rank has finished, and only then named in
`latest`, a one-line file for people and tools that is itself replaced in one move. Old checkpoints are renamed
before they are deleted.
"""

import os
import re
import shutil
from pathlib import Path

_NAME = re.compile(r"step-(\d{8,})")
_PARTIAL, _OLD, UNIVERSAL = ".partial", ".old", ".universal"


class CheckpointFolder:
    """Names, completes and removes checkpoints; what is in them is the caller's.

    Args:
        folder: made if missing.
        keep: newest checkpoints that `commit` leaves.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = Path(folder), keep

    def partial_name(self, step: int) -> str:
        """Name, below `folder`, under which the checkpoint of `step` is to be written."""
        return f"{self.name(step)}{_PARTIAL}"

    @staticmethod
    def name(step: int) -> str:
        return f"step-{step:08d}"

    def prepare(self) -> None:
        """Removes what a killed process left unfinished. One process only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.name.endswith((_PARTIAL, _OLD)):
                shutil.rmtree(path)

    def commit(self, step: int) -> Path:
        """Makes the partial checkpoint of `step` the latest, and removes the oldest. One process only."""
        partial, final = self.folder / self.partial_name(step), self.folder / self.name(step)
        for file in partial.rglob("*"):
            _flush(file)
        if final.exists():
            self._remove(final)
        os.rename(partial, final)
        self._point_to(final.name)
        for old in self.complete()[: -self.keep]:
            self._remove(self.folder / (old.name + UNIVERSAL))
            self._remove(old)
        return final

    def latest(self) -> Path | None:
        """The newest complete checkpoint, or None.

        It may be newer than what the file `latest` says, if the process was killed between the two moves of `commit`.
        """
        complete = self.complete()
        return complete[-1] if complete else None

    def complete(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(_NAME.fullmatch(path.name).group(1)))

    def _point_to(self, name: str) -> None:
        draft = self.folder / "latest.tmp"
        draft.write_text(name + "\n")
        _flush(draft)
        os.replace(draft, self.folder / "latest")
        _flush(self.folder)

    def _remove(self, path: Path) -> None:
        if path.exists():
            old = path.with_name(path.name + _OLD)
            if old.exists():
                shutil.rmtree(old)
            os.rename(path, old)
            shutil.rmtree(old)


def _flush(path: Path) -> None:
    """To the disk, so that a power cut, too, finds what was renamed complete."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
