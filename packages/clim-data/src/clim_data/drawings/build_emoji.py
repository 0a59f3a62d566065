"""Build the embedded emoji image-text set from four npm packages: ``python -m
clim_data.drawings.build_emoji``.

The packages hold one SVG body per name. A name is included if at least three vendors draw it;
skin-tone variants, country flags, keycaps, hidden (deprecated) names and empty renders are dropped.
Same archives, same bytes out: the zip has fixed times and sorted members.
"""

import base64
import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from clim_data.command_line.parser import CommandParser
from clim_data.command_line.vocabulary import add_option
from clim_data.files.atomic import write_whole
from clim_data.pixels.decode import FORMATS

EMBEDDED = Path(__file__).parents[1] / "embedded"
MIN_VENDORS = 3
_TONE = re.compile(r"-(dark|light|medium)(-|$)|skin-tone")
_NOT_PICTURES = ("flag-", "keycap-")


@dataclass(frozen=True)
class Source:
    """One npm package of drawings: pinned version, sha512 of its archive (npm's integrity string),
    author, licence."""

    vendor: str
    version: str
    integrity: str
    author: str
    license: str
    url: str

    @property
    def package(self) -> str:
        return f"@iconify-json/{self.vendor}"

    @property
    def archive(self) -> str:
        return f"iconify-json-{self.vendor}-{self.version}.tgz"


SOURCES = (
    Source(
        "noto",
        "1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4"
        "fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Google Inc",
        "Apache-2.0",
        "https://github.com/googlefonts/noto-emoji",
    ),
    Source(
        "twemoji",
        "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZ"
        "B5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "Twitter, Inc. and the twemoji contributors",
        "CC-BY-4.0",
        "https://github.com/jdecked/twemoji",
    ),
    Source(
        "fluent-emoji-flat",
        "1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUl"
        "PlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "Microsoft Corporation",
        "MIT",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    Source(
        "emojione",
        "1.2.3",
        "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfe"
        "Ui4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        "EmojiTwo / Emoji One",
        "CC-BY-4.0",
        "https://github.com/EmojiTwo/emojitwo",
    ),
)


def fetch_archive(source: Source, folder: Path) -> Path:
    """Return the package archive in `folder`, downloaded with `npm pack` unless it is there; its
    sha512 must match."""
    path = folder / source.archive
    if not path.exists():
        try:
            command = ["npm", "pack", f"{source.package}@{source.version}", "--silent"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                "npm is needed to download the drawings; install Node.js, or pass --archives"
            ) from error
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != source.integrity:
        raise ValueError(
            f"{path} is not {source.package} {source.version}: its sha512 differs; delete it and "
            "run again"
        )
    return path


def read_icons(path: Path) -> dict:
    """Read `icons.json` (the iconify icon-set layout) out of a package archive."""
    with tarfile.open(path) as archive:
        icons = archive.extractfile("package/icons.json")
        if icons is None:
            raise ValueError(f"{path}: package/icons.json is no file: fetch the archive again")
        return json.load(icons)


def visible_names(icons: dict) -> set[str]:
    """Return the names of an icon set, aliases included.

    Hidden (deprecated) names and mirror images of others are not included.
    """
    entries = {**icons.get("aliases", {}), **icons["icons"]}
    return {
        name for name, entry in entries.items() if not (entry.get("hidden") or entry.get("hFlip"))
    }


def common_names(sets: dict[str, set[str]]) -> list[str]:
    """Return the sorted names that at least `MIN_VENDORS` of the sets have.

    Skin tones, country flags and keycaps are not included.
    """
    counts = Counter(name for names in sets.values() for name in names)
    kept = (name for name, count in counts.items() if count >= MIN_VENDORS)
    return sorted(
        name for name in kept if not _TONE.search(name) and not name.startswith(_NOT_PICTURES)
    )


def svg_document(icons: dict, name: str) -> str:
    """Return the SVG text of a name, with its alias resolved."""
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="0 0 {width} {height}">{icon["body"]}</svg>'


def render(svg: str, size: int) -> np.ndarray:
    """Render an SVG to a square uint8 RGBA array (size, size, 4); colour under zero alpha is
    zero."""
    try:
        import resvg_py
    except ImportError as error:
        raise ImportError("rendering the drawings needs resvg-py: pip install resvg-py") from error
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))
    pixels = np.array(
        Image.open(io.BytesIO(png), formats=FORMATS).convert("RGBA").resize((size, size))
    )
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def synonyms(sets: dict[str, dict], names: list[str]) -> list[list[str]]:
    """Group the names that share one drawing at some vendor (aliases), each group sorted."""
    kept = set(names)
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    for icons in sets.values():
        for alias, entry in icons.get("aliases", {}).items():
            if alias in kept and not entry.get("hFlip"):
                parent[root(alias)] = root(entry["parent"])
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(root(name), []).append(name)
    return sorted(group for group in groups.values() if len(group) > 1)


def build(output: Path, archives: Path, *, size: int = 64) -> dict:
    """Write the zip (`VENDOR/NAME.webp`, lossless RGBA, and `SOURCES.json`); returns the content of
    the latter."""
    sets = {source.vendor: read_icons(fetch_archive(source, archives)) for source in SOURCES}
    visible = {vendor: visible_names(icons) for vendor, icons in sets.items()}
    names = common_names(visible)
    counts: Counter[str] = Counter()
    members: dict[str, bytes] = {}
    for vendor, icons in sets.items():
        for name in tqdm(
            [name for name in names if name in visible[vendor]], desc=vendor, unit="drawing"
        ):
            pixels = render(svg_document(icons, name), size)
            if not pixels[..., 3].any():
                continue
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "webp", lossless=True, quality=80, method=3)
            members[f"{vendor}/{name}.webp"] = buffer.getvalue()
            counts[vendor] += 1
    sources = {
        "size_px": size,
        "names": len(names),
        "drawings": sum(counts.values()),
        "vendors": {
            s.vendor: {
                "package": f"{s.package} {s.version}",
                "integrity": s.integrity,
                "author": s.author,
                "license": s.license,
                "url": s.url,
                "drawings": counts[s.vendor],
            }
            for s in SOURCES
        },
        "synonyms": synonyms(sets, names),
    }
    members["SOURCES.json"] = json.dumps(sources, indent=1).encode()
    _write_zip(output, members)
    return sources


def _write_zip(output: Path, members: dict[str, bytes]) -> None:
    with (
        write_whole(output) as draft,
        zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), members[name])


def main(argv: list[str] | None = None) -> None:
    """Run the build with the options of the command line."""
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="side of a drawing in pixels")
    add_option(
        parser,
        "--out",
        short="-o",
        old=["--output"],
        help="zip to write (default: the one inside clim_data)",
    )
    parser.add_argument(
        "--archives",
        type=Path,
        help="folder that keeps the npm archives (default: a temporary one)",
    )
    args = parser.parse_args(argv)
    output = args.out or EMBEDDED / f"emoji{args.size}.zip"
    with tempfile.TemporaryDirectory() as scratch:
        archives = args.archives or Path(scratch)
        archives.mkdir(parents=True, exist_ok=True)
        sources = build(output, archives, size=args.size)
    print(
        f"{sources['drawings']} drawings of {sources['names']} names, "
        f"{output.stat().st_size / 1e6:.1f} MB: {output}"
    )


if __name__ == "__main__":
    main()
