"""Names of images: the file of a record, the files that are images, and the equality of names.

An image is its whole relative name, with "/" and its ending ("train2017/0001.jpg"). Names reach us
in other spellings (backslashes, "./", %20, decomposed accents); `spelling` makes them one.
"""

import os
import posixpath
import re
import unicodedata
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

from clim_data.faults import BrokenSample
from clim_data.files.text import composed

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
"""Endings of the files that are read as images."""

OTHER_IMAGE_SUFFIXES = (
    *("apng", "arw", "avif", "bmp", "cr2", "dds", "dib", "dng", "eps", "exr", "gif", "hdr", "heic"),
    *("heif", "ico", "j2k", "jfif", "jp2", "jpe", "jpx", "jxl", "nef", "pbm", "pcx", "pgm", "pnm"),
    *("ppm", "psd", "sgi", "svg", "tga", "tif", "tiff"),
)
"""Endings of files that are images too, but in formats that are not read."""

# scheme://host/folder/.../name with nothing that parsing would cut off or decode.
_PLAIN_URL = re.compile(r"[a-z]+://[^/%?#;]+(?:/[^/%?#;]+){2,}")
_DRIVE = re.compile(r"[A-Za-z]:")


def image_file_name(image: dict) -> str:
    """Return the relative file name of an image record.

    It is "file_name", or the last two parts of "coco_url" (LVIS: "train2017/0001.jpg").

    Raises:
        BrokenSample: the record has neither, or the name is no text.
    """
    name = image.get("file_name")
    where = f"image {image.get('id')}"
    if name:
        if not isinstance(name, str):
            raise BrokenSample("bad file name", where, f"file_name is {name!r}: give a text")
        return name

    url = image.get("coco_url")
    if url and isinstance(url, str):
        # Nearly all urls are plain, and parsing takes ten times as long.
        path = url if _PLAIN_URL.fullmatch(url) else unquote(urlparse(url).path)
        return "/".join(path.split("/")[-2:])
    raise BrokenSample("no file name", where, "neither file_name nor coco_url")


def clean_name(name: str) -> str:
    """Return a relative name with "/" between its parts, without "./", "//" and "x/../"."""
    return posixpath.normpath(name.replace("\\", "/"))


def spelling(name: str) -> str:
    """Return the one spelling of a name: cleaned, percent-decoded, with composed accents (NFC)."""
    name = clean_name(name)
    if "%" in name:
        with suppress(UnicodeDecodeError):  # else the signs are part of the name
            name = clean_name(unquote(name, errors="strict"))
    return composed(name)


def stem_of(name: str) -> str:
    """Return a name without the ending of an image: "sub/22.05.png" is "sub/22.05".

    Only endings of images are cut, so that "photo.v2" stays another image than "photo".
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and suffix.lower() in _ALL_SUFFIXES else name


def last_part(name: str) -> str:
    """Return the part of a name behind its last "/"."""
    return name.rpartition("/")[2]


def is_image(name: str) -> bool:
    """Tell whether a file is read as an image: by its ending, if it is not hidden."""
    return _suffix(name) in IMAGE_SUFFIXES and not last_part(name).startswith(".")


def is_other_image(name: str) -> bool:
    """Tell whether a file is an image of a format that is not read: by its ending."""
    return _suffix(name) in OTHER_IMAGE_SUFFIXES and not last_part(name).startswith(".")


def leads_out(name: str) -> bool:
    """Tell whether a relative name is empty, absolute (also on Windows), holds a null, or climbs
    out of its folder."""
    flat = clean_name(name)
    climbs = flat == ".." or flat.startswith(("../", "/")) or bool(_DRIVE.match(flat))
    return not name or climbs or "\0" in name


def inside(folder: str | Path, name: str) -> Path:
    """Return `folder / name`; refuse a name that is absolute or climbs out of the folder.

    Links below the folder are followed: they are the user's own, the name is the annotation's.

    Raises:
        BrokenSample: the name leads out of the folder, or cannot be the name of a file.
    """
    if not isinstance(name, str) or leads_out(name):
        shown = printable(str(name)) or "(empty name)"
        raise BrokenSample("path outside the folder", shown, f"leads out of {folder}")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        detail = "it holds half a character: repair it"
        raise BrokenSample("bad file name", printable(name), detail) from None
    return Path(folder) / clean_name(name)


def locate(folder: str | Path, name: str) -> Path:
    """Return the path of an image file by the name that an annotation gives it.

    The exact name goes first, then its other spellings (see `spelling`), if they lead to one file.
    A name with its split, as LVIS has it ("train2017/0001.jpg"), is found below the folder that
    holds the splits, and in the folder of that split itself.

    Raises:
        BrokenSample: the name leads out of the folder, there is no such file, or several files
            differ from the name in spelling only.
    """
    path = inside(folder, name)
    if path.is_file():
        return path

    split = Path(folder).resolve().name
    for variants in _variants(name):
        found = []
        for variant in variants:
            first, _, rest = variant.partition("/")
            found += [Path(folder) / variant]
            found += [Path(folder) / rest] if rest and first == split else []
        files = [place for place in dict.fromkeys(found) if place.is_file()]
        if len(files) > 1:
            detail = f"it could mean {files[0].name} or {files[1].name}: use the exact name"
            raise BrokenSample("ambiguous name", str(path), detail)
        if files:
            return files[0]
    raise BrokenSample("missing image", str(path), "no such file")


def image_of_stem(folder: str | Path, stem: str) -> Path:
    """Return the image `stem` of a folder, with any ending; BrokenSample for none or several."""
    paths = (inside(folder, f"{stem}.{suffix}") for suffix in IMAGE_SUFFIXES)
    found = [path for path in paths if path.is_file()]
    if len(found) > 1:
        detail = f"it could mean {found[0].name} or {found[1].name}: keep one of them"
        raise BrokenSample("ambiguous name", stem, detail)
    if found:
        return found[0]
    raise BrokenSample("missing image", stem, f"{folder} has no {stem}.{IMAGE_SUFFIXES[0]}")


def _variants(name: str) -> list[list[str]]:
    """The exact name, and then its other spellings, all of them inside their folder."""
    exact = clean_name(name)
    decoded = clean_name(unquote(exact)) if "%" in exact else exact
    others = []
    for text in dict.fromkeys([exact, decoded]):
        others += [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    return [[exact], [other for other in dict.fromkeys(others) if not leads_out(other)]]


def sample_key(file_name: str) -> str:
    """Return the key that `clim-data pack` gives an image: its name without ending.

    Names that differ without their ending have different keys: see `encode_key`.
    """
    return encode_key(stem_of(file_name))


def encode_key(name: str) -> str:
    """Return a name as one word for webdataset: all but letters, digits, "-" and "_" becomes %20.

    Percent-decoding the key gives the name.
    """
    return "".join(c if c.isalnum() or c in "-_" else _percent(c) for c in name) or "sample"


def printable(name: str) -> str:
    r"""Return a name as it can be printed and stored: bytes that are not UTF-8 become `\xe9`."""
    try:
        return os.fsencode(name).decode("utf-8", errors="backslashreplace")
    except UnicodeEncodeError:  # half of a pair of surrogates, from a json
        return name.encode("utf-8", errors="backslashreplace").decode()


def is_utf8(name: str) -> bool:
    """Tell whether a file name can be written as UTF-8; names of old disks may not."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _percent(character: str) -> str:
    return "%2E" if character == "." else quote(character, safe="", errors="surrogateescape")


_ALL_SUFFIXES = frozenset(IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES)
