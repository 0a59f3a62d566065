"""The captions of a sample of a source."""

import json

from clim_data.faults import BrokenSample
from clim_data.sources.shards import RawSample


def read_captions(sample: RawSample) -> list[str]:
    """Captions of a sample: "captions" of its json, or its txt, or "caption" of its json
    (img2dataset).

    Raises:
        BrokenSample: the json cannot be parsed, the txt is not UTF-8, or every caption is empty.
    """
    meta = _parse_meta(sample)
    listed = meta.get("captions")
    if listed is None and sample.text is not None:
        try:
            listed = [sample.text.decode("utf-8")]
        except UnicodeDecodeError as fault:
            raise BrokenSample("bad caption", sample.name, str(fault)) from None
    if listed is None:
        listed = [meta.get("caption")]
    if not isinstance(listed, list):
        raise BrokenSample(
            "bad json", sample.name, f'"captions" is a {type(listed).__name__}, not a list'
        )
    captions = [c.strip() for c in listed if isinstance(c, str) and c.strip()]
    if not captions:
        raise BrokenSample("empty caption", sample.name)
    return captions


def _parse_meta(sample: RawSample) -> dict:
    if sample.meta is None:
        return {}
    try:
        meta = json.loads(sample.meta)
    except (ValueError, RecursionError) as fault:
        raise BrokenSample("bad json", sample.name, str(fault)) from None
    if not isinstance(meta, dict):
        raise BrokenSample("bad json", sample.name, f"a {type(meta).__name__}, not an object")
    return meta
