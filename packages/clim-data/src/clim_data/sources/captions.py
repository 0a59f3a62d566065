"""The captions of a sample of a source, and of the images that a table names."""

from collections.abc import Sequence
from pathlib import Path

from clim_data.annotations.caption_files import CaptionRows, captions_of
from clim_data.faults import BrokenSample
from clim_data.files.identity import SampleName, SampleNames
from clim_data.files.names import printable
from clim_data.files.text import decode_text, parse_json, plain_text
from clim_data.sources.shards import RawSample


def read_captions(sample: RawSample) -> list[str]:
    """Return the captions of a sample.

    They are "captions" of its json, or its txt, or "caption" of its json (img2dataset).

    Raises:
        BrokenSample: the json cannot be parsed, the txt is no UTF-8, a caption is no text, or every
            caption is empty.
    """
    meta = _parse_meta(sample)
    if meta.get("captions") is not None:
        captions = captions_of(meta["captions"], sample.name, "captions")
    elif sample.text is not None:
        captions = [plain_text(decode_text(sample.text, sample.name, "bad caption"))]
    else:
        captions = captions_of(meta.get("caption"), sample.name)

    captions = [text for text in captions if text]
    if not captions:
        raise BrokenSample("empty caption", sample.name)
    return captions


def captions_of_files(
    rows: CaptionRows, names: Sequence[str], folder: str | Path
) -> tuple[dict[str, list[str]], list[BrokenSample]]:
    """Return the captions of the files `names` of a folder, by name, and the faults of the table.

    Rows that name no file of the folder are faults.

    Raises:
        ValueError: two rows of different spelling name one file.
    """
    title = Path(folder).resolve().name
    samples = SampleNames([SampleName(name, name, title) for name in names])
    wanted = list(rows.captions)
    matches = samples.match(wanted)
    faults = list(rows.faults)
    captions: dict[str, list[str]] = {}
    for row, place in enumerate(matches.places):
        if place < 0:
            detail = matches.details.get(row, f"{title} does not hold it")
            detail = f"{rows.name} names it, {detail}"
            faults.append(BrokenSample("missing image", printable(wanted[row]), detail))
        else:
            captions[names[place]] = rows.captions[wanted[row]]
    return captions, faults


def _parse_meta(sample: RawSample) -> dict:
    if sample.meta is None:
        return {}
    meta = parse_json(sample.meta, sample.name)
    if not isinstance(meta, dict):
        raise BrokenSample("bad json", sample.name, f"a {type(meta).__name__}, not an object")
    return meta
