"""The captions of each sample: from a captions json, from the sample itself, or none."""

from pathlib import Path

from clim_data.annotations.caption_files import captions_of_images
from clim_data.faults import BrokenSample
from clim_data.files.names import clean_name, image_file_name, leads_out, printable
from clim_data.sources.captions import read_captions
from clim_data.sources.sample_names import names_of_samples
from clim_data.sources.shards import RawSample
from clim_data.sources.store import SampleStore


class CaptionTable:
    """The captions of samples.

    Args:
        captions_json: COCO captions or a CC3M-style file. Its images find their samples by name, as
            boxes do (`SampleNames.match`). None reads the captions of the samples: json or txt in a
            shard, metadata.jsonl or a txt next to the image in a folder.
        store: the samples; needed with `captions_json`. Make the table before samples are taken
            out of the store: a name must be alone among all of them.
        ignore: True gives no sample a caption.

    Raises:
        FileNotFoundError, ValueError: no such file, no captions file, or a name that means two
            samples.
    """

    def __init__(
        self,
        captions_json: str | Path | None = None,
        store: SampleStore | None = None,
        *,
        ignore: bool = False,
    ):
        if ignore and captions_json is not None:
            raise ValueError(
                "captions are given and to be ignored: pass --captions-json or --no-captions"
            )
        if captions_json is not None and store is None:
            raise ValueError(f"{captions_json} names images of a store: pass the store")
        self.ignore = ignore
        self.by_sample: dict[str, list[str]] | None = None
        if captions_json is not None and store is not None:
            self.by_sample = _by_sample(captions_json, store)

    def of(self, sample: RawSample) -> list[str]:
        """Return the captions of a sample; none when it has none.

        Raises:
            BrokenSample: its json or txt cannot be read.
        """
        if self.ignore:
            return []
        if self.by_sample is not None:
            return self.by_sample.get(sample.name, [])
        try:
            return read_captions(sample)
        except BrokenSample as fault:
            if fault.reason != "empty caption":
                raise
            return []


def _by_sample(captions_json: str | Path, store: SampleStore) -> dict[str, list[str]]:
    """Captions by `RawSample.name`."""
    by_name: dict[str, list[str]] = {}
    for image, texts in captions_of_images(captions_json, store.report_fault):
        try:
            name = image_file_name(image)
            if leads_out(name):
                where = printable(name) or "(empty name)"
                raise BrokenSample("path outside the folder", where, f"in {captions_json}")
        except BrokenSample as fault:
            store.report_fault(fault)
            continue
        by_name.setdefault(clean_name(name), []).extend(texts)

    names = list(by_name)
    places = names_of_samples(store).match(names).places
    titles = store.titles()
    return {
        titles[place]: by_name[name]
        for name, place in zip(names, places, strict=True)
        if place >= 0
    }
