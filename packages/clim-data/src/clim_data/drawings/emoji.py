"""The embedded emoji image-text set: drawings by four vendors, and the split that keeps a vendor
and concepts unseen.

A drawing is not a photograph, and figures measured on this set say nothing about photographs: it
exists so that the whole method can run anywhere in minutes, on real image-text pairs.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import webdataset

from clim_data.files.atomic import write_whole
from clim_data.pixels.decode import open_image

EMBEDDED = Path(__file__).parents[1] / "embedded"
TEST_VENDOR = "twemoji"
_SIGNS = re.compile(
    r"^(man|woman|person|people|family|couple)-|^kiss-(man|woman)"  # variants of persons
    r"|^letter-|^input-|oclock$|-thirty$|arrow|button|-sign$|-symbol$"
)


def caption_of(name: str) -> str:
    """Return the caption of a drawing: its CLDR slug with spaces, `"hot-dog"` -> `"hot dog"`."""
    return name.replace("-", " ")


@dataclass(frozen=True)
class EmojiSplit:
    """The split of the drawings; no drawing by `test_vendor` trains or is used for choices.

    train_names: every name that may train; train_concepts: the object-like ones among them, classes
    of test scenes. val_concepts: never trained, for choices (drawn by the training vendors).
    test_concepts: never trained and never used for choices.
    """

    train_vendors: tuple[str, ...]
    test_vendor: str
    train_names: tuple[str, ...]
    train_concepts: tuple[str, ...]
    val_concepts: tuple[str, ...]
    test_concepts: tuple[str, ...]


@dataclass(frozen=True)
class EmojiSet:
    """All drawings of a zip made by `clim_data.drawings.build_emoji`.

    size: side of a drawing in pixels; drawings: the names that each vendor draws; synonyms: groups
    of names that share one drawing at some vendor; sources: packages, versions, authors and
    licences.
    """

    path: Path
    size: int
    drawings: dict[str, tuple[str, ...]]
    synonyms: tuple[tuple[str, ...], ...]
    sources: dict = field(repr=False)

    @property
    def vendors(self) -> tuple[str, ...]:
        return tuple(self.drawings)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted({name for names in self.drawings.values() for name in names}))

    @cached_property
    def canonical(self) -> tuple[str, ...]:
        """One name of each group of synonyms (the first in order), so that two classes never share
        a drawing."""
        repeated = {name for group in self.synonyms for name in group[1:]}
        return tuple(name for name in self.names if name not in repeated)

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        """Object-like canonical names: no letters, clock faces, arrows, buttons, signs and variants
        of persons."""
        return tuple(name for name in self.canonical if not _SIGNS.search(name))

    @cached_property
    def _index(self) -> dict[tuple[str, str], int]:
        """Row of each (vendor, name) in `pixels`."""
        keys = [(vendor, name) for vendor, names in self.drawings.items() for name in names]
        return {key: row for row, key in enumerate(keys)}

    @cached_property
    def pixels(self) -> np.ndarray:
        """Every drawing, uint8 RGBA (N, size, size, 4), vendor by vendor; decoded at first use (2
        s, 100 MB)."""
        out = np.empty((len(self._index), self.size, self.size, 4), np.uint8)
        with zipfile.ZipFile(self.path) as archive:
            for (vendor, name), i in self._index.items():
                out[i] = np.asarray(
                    open_image(archive.read(f"{vendor}/{name}.webp"), name).convert("RGBA")
                )
        return out

    def has(self, vendor: str, name: str) -> bool:
        """Tell whether a vendor draws a name."""
        return (vendor, name) in self._index

    def index(self, vendor: str, name: str) -> int:
        """Return the row of a drawing in `pixels`; ValueError if that vendor does not draw it."""
        try:
            return self._index[vendor, name]
        except KeyError:
            raise ValueError(
                f"{vendor!r} draws no {name!r}; choose from .drawings of {self.vendors}"
            ) from None

    def image(self, vendor: str, name: str) -> np.ndarray:
        """Return one drawing, uint8 RGBA (size, size, 4)."""
        return self.pixels[self.index(vendor, name)]

    def encoded(self, vendor: str, names: tuple[str, ...]) -> list[bytes]:
        """Read the lossless webp bytes of some drawings of a vendor."""
        with zipfile.ZipFile(self.path) as archive:
            return [archive.read(f"{vendor}/{name}.webp") for name in names]

    def split(
        self, *, test_concepts: int = 120, val_concepts: int = 100, seed: int = 0
    ) -> EmojiSplit:
        """Hold out the vendor twemoji, and concepts in an order fixed by the seed (by sha256, so
        the same anywhere)."""
        order = sorted(
            self.concepts, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
        )
        test = frozenset(order[:test_concepts])
        val = frozenset(order[test_concepts : test_concepts + val_concepts])
        return EmojiSplit(
            train_vendors=tuple(vendor for vendor in self.vendors if vendor != TEST_VENDOR),
            test_vendor=TEST_VENDOR,
            train_names=tuple(name for name in self.canonical if name not in test | val),
            train_concepts=tuple(name for name in self.concepts if name not in test | val),
            val_concepts=tuple(sorted(val)),
            test_concepts=tuple(sorted(test)),
        )


@lru_cache(maxsize=2)
def load_emoji(path: str | Path = EMBEDDED / "emoji64.zip") -> EmojiSet:
    """Open the embedded set, or another build of it; FileNotFoundError says how to build one."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"no drawings at {path}; run: python -m clim_data.drawings.build_emoji --output {path}"
        )
    with zipfile.ZipFile(path) as archive:
        sources = json.loads(archive.read("SOURCES.json"))
        members = sorted(name[:-5] for name in archive.namelist() if name.endswith(".webp"))

    drawings = {}
    for vendor in sources["vendors"]:
        names = [name.split("/")[1] for name in members if name.startswith(f"{vendor}/")]
        drawings[vendor] = tuple(names)
    synonyms = tuple(tuple(group) for group in sources["synonyms"])
    return EmojiSet(path, sources["size_px"], drawings, synonyms, sources)


def write_emoji_shards(
    folder: str | Path,
    *,
    emoji: EmojiSet | None = None,
    split: EmojiSplit | None = None,
    per_shard: int = 512,
) -> list[Path]:
    """Write the training drawings (training vendors and names) as webdataset shards and return
    their paths.

    A sample is the webp (RGBA) and a json with the caption. The order is fixed and mixes vendors.
    Each tar is written under another name and renamed when it is whole.
    """
    emoji = emoji or load_emoji()
    split = split or emoji.split()
    samples = []
    for vendor in split.train_vendors:
        names = tuple(name for name in split.train_names if emoji.has(vendor, name))
        samples += [
            (vendor, name, data)
            for name, data in zip(names, emoji.encoded(vendor, names), strict=True)
        ]
    samples.sort(key=lambda sample: hashlib.sha256("/".join(sample[:2]).encode()).hexdigest())
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, len(samples), per_shard):
        path = folder / f"emoji-{start // per_shard:05d}.tar"
        with (
            write_whole(path) as draft,
            webdataset.TarWriter(str(draft), mtime=0) as writer,
        ):
            for vendor, name, data in samples[start : start + per_shard]:
                meta = {"caption": caption_of(name), "vendor": vendor, "name": name}
                writer.write({"__key__": f"{vendor}_{name}", "webp": data, "json": meta})
        paths.append(path)
    return paths


def vendors_by_concept(
    emoji: EmojiSet, vendors: Sequence[str], concepts: Sequence[str]
) -> dict[str, list[str]]:
    """List for each concept the vendors that draw it; a concept without any is not listed."""
    found = {}
    for name in dict.fromkeys(concepts):
        if by := [vendor for vendor in vendors if emoji.has(vendor, name)]:
            found[name] = by
    return found
