"""Pictures that a user names on the command line: files and folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clim_data import BrokenSample, SkipReport, decode_rgb
from clim_data.files import is_image
from clim_data.sources import walk_folder

from clim_eval.evaluators.detections import Picture

# End of the names of the pictures that `detect` writes.
ENDING = ".detections.png"
EARLIER = "picture of an earlier run"


def split_arguments(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Separate files and folders, which come first, from names of classes.

    Raises:
        FileNotFoundError: the first word is no file or folder, or a later one looks like an image
            that is not there.
        ValueError: an image comes after a name, or a word is empty.
    """
    if not all(word.strip() for word in words):
        # As a path it would be the folder of the caller.
        raise ValueError("a word is empty: give every image and every class a name")
    count = next((i for i, word in enumerate(words) if not Path(word).exists()), len(words))
    paths, names = [Path(word) for word in words[:count]], list(words[count:])
    for name in names:
        if is_image(name):
            if Path(name).exists():
                raise ValueError(f"{name} comes after {names[0]!r}: pass images first, then names")
            raise FileNotFoundError(f"there is no image {name}: check the path")
    if not paths:
        raise FileNotFoundError(
            f"{words[0]} is no file or folder: pass images first, then the names to find"
        )
    return paths, names


@dataclass(frozen=True)
class PictureFiles:
    """Image files as a data set of `Picture`s in their upright frame.

    Attributes:
        names: of the files, below their folder.
        paths: where they are.
        left_out: number of files of the folders that are not read, by reason.
        faults: what lies in the folders and cannot be read, such as images of other formats.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    left_out: Mapping[str, int]
    faults: tuple[BrokenSample, ...] = ()

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "PictureFiles":
        """Find the images of files and folders; pictures of earlier runs are not read.

        Raises:
            ValueError: two images have one name, or there is no image.
        """
        found: dict[str, Path] = {}
        faults: list[BrokenSample] = []
        earlier = 0
        for path in paths:
            names = [path.name]
            if path.is_dir():
                content = walk_folder(path)
                names = content.images
                faults += content.faults
                faults += [_shard(path, name) for name in content.shards]
            for name in names:
                if path.is_dir() and name.endswith(ENDING):
                    earlier += 1
                    continue
                if name in found:
                    raise ValueError(
                        f"two images are called {name}: give each a name of its own, or detect "
                        "them in two runs with two folders --out"
                    )
                found[name] = path / name if path.is_dir() else path
        if not found:
            shown = ", ".join(map(str, paths))
            told = f" ({SkipReport(faults).summary(3)})" if faults else ""
            raise ValueError(
                f"no image in {shown}{told}: pass a folder with jpg, png or webp files"
            )
        return cls(tuple(found), tuple(found.values()), {EARLIER: earlier}, tuple(faults))

    @staticmethod
    def picture_name(name: str) -> str:
        """Return the file name of the picture of an image's detections."""
        return name + ENDING

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int) -> Picture | BrokenSample:
        try:
            pixels = decode_rgb(self.paths[place], name=self.names[place], oriented=True)
        except BrokenSample as fault:
            return fault
        return Picture(place + 1, self.names[place], pixels)


def _shard(folder: Path, name: str) -> BrokenSample:
    """Say that a tar among images is not read."""
    detail = "a shard, not an image: unpack it"
    return BrokenSample("unsupported format", f"{folder.name}/{name}", detail)
