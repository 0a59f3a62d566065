"""A file of captions and tags for detectors: the classes in the captions of each image.

The file has the layout of Detic's: images with "captions" and "pos_category_ids", and the
categories.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from clim_data.annotations.caption_files import captions_of, captions_of_images, read_caption_table
from clim_data.annotations.ids import first_repeated
from clim_data.annotations.tables import CategoryTable
from clim_data.derive.caption_tags import CaptionTagger, TagRule, has_words
from clim_data.derive.coco_synonyms import COCO_SYNONYMS
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.json_stream import write_coco
from clim_data.files.names import clean_name, image_file_name, leads_out, printable
from clim_data.files.text import parse_json, plain_text, read_text, split_lines
from clim_data.matching.box_json import read_lists
from clim_data.matching.tagged_captions import TAGS
from clim_data.sources.captions import read_captions
from clim_data.sources.sample_names import names_of_samples
from clim_data.sources.store import SampleStore

_FIELDS = ("id", "file_name", "coco_url", "width", "height")
# Where a line of a table begins to name an address, not a file.
_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Captioned(NamedTuple):
    """An image of a source: the fields of its record, and its captions."""

    record: dict[str, Any]
    captions: list[str]


@dataclass(frozen=True)
class TagOptions:
    """Options of tags from captions.

    Raises:
        ValueError: a pattern without a number.
    """

    rule: TagRule = "words"
    """See `CaptionTagger`."""
    first_caption: bool = False
    """Read only the first caption of each image."""
    keep_untagged: bool = False
    """Write images without a tag, too."""
    file_names: str | None = None
    """Name of the image of a line of a table, such as "{:08d}.jpg": the lines count from 0. None
    reads the name from the table."""

    def __post_init__(self) -> None:
        if self.file_names is None:
            return
        try:
            told_apart = self.file_names.format(0) != self.file_names.format(1)
        except (IndexError, KeyError, ValueError):
            told_apart = False
        if not told_apart:
            raise ValueError(
                f'{self.file_names!r} names no line: give a pattern such as "{{:08d}}.jpg"'
            )


@dataclass
class TagReport:
    """The result of `write_tags`.

    output: the file. images: number of written images. untagged: number of images without a tag.
    counts: images of each class that has any, the most frequent first. classes: number of classes.
    skipped: unusable captions and images.
    """

    output: Path
    images: int = 0
    untagged: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    classes: int = 0
    skipped: SkipReport = field(default_factory=SkipReport)

    def __str__(self) -> str:
        most = ", ".join(f"{name} {count:,}" for name, count in self.counts.most_common(5))
        if len(self.counts) > 5:
            most += ", ..."
        return (
            f"{self.output}: {self.images:,} images, {sum(self.counts.values()):,} tags of "
            f"{len(self.counts)} of {self.classes} classes ({most}); {self.untagged:,} images "
            "without a tag"
        )


def write_tags(
    source: str | Path,
    output: str | Path,
    *,
    classes: str | Path,
    synonyms: str | Path | None = None,
    options: TagOptions | None = None,
) -> TagReport:
    """Write the captions of all images, and the classes that they name; the file appears whole.

    Args:
        source: COCO captions or a CC3M-style json, a jsonl or a tsv of captions by file name, a
            folder of images, or shards.
        output: the json.
        classes: COCO or LVIS json, of which the categories are read. LVIS has synonyms; those of
            COCO's classes are known.
        synonyms: json of an object, class -> list of its names, in place of the known ones.
        options: see `TagOptions`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no captions, no categories, a synonym of no class, or no image has a tag.
    """
    options = options or TagOptions()
    output = Path(output)
    for read in (source, classes, synonyms):
        if read is not None and output.resolve() == Path(read).resolve():
            raise ValueError(f"{output} is read: give another output")
    categories, names = read_class_names(classes, synonyms, options.rule)
    tagger = CaptionTagger(names, options.rule)
    report = TagReport(output, classes=len(categories))

    images = _tag_records(
        read_captioned(source, report.skipped, options), tagger, categories, report
    )
    chosen = (image for image in images if image[TAGS] or options.keep_untagged)
    write_coco(
        output,
        {
            "info": {"description": f"tags by the rule {options.rule!r}"},
            "images": _count_written(chosen, report, source),
            "categories": categories,
        },
    )
    return report


def _tag_records(
    images: Iterator[Captioned],
    tagger: CaptionTagger,
    categories: Sequence[Mapping[str, Any]],
    report: TagReport,
) -> Iterator[dict[str, Any]]:
    """Yield the records of all images with their captions and tags."""
    for record, captions in tqdm(images, desc="tagging", unit="image", unit_scale=True):
        found = tagger.tags(captions)
        report.untagged += not found
        report.counts.update(str(categories[label]["name"]) for label in found)
        tags = [categories[label]["id"] for label in found]
        yield {**record, "captions": captions, TAGS: tags}


def _count_written(
    images: Iterator[dict[str, Any]], report: TagReport, source: str | Path
) -> Iterator[dict[str, Any]]:
    """Count the written records, and refuse a file without tags before it appears."""
    for image in images:
        report.images += 1
        yield image
    if not report.counts:
        raise ValueError(
            f"no caption of {source} names a class ({report.untagged:,} images; "
            f"{report.skipped.summary(3)}): give the captions of these images, and the json of the "
            "classes"
        )


def read_class_names(
    classes: str | Path, synonyms: str | Path | None = None, rule: TagRule = "words"
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Return the categories of a json by rising id, and the names of each.

    The rule "original" reads the listed names only: of LVIS, "hot dog" is a sausage and nothing
    else. Otherwise the name of the class counts as well.

    Raises:
        FileNotFoundError, ValueError: see `write_tags`.
    """
    records = read_lists(classes, "categories")["categories"]
    table = CategoryTable.of(records, Path(classes).name)
    by_name = {plain_text(record["name"]): record for record in records}
    given = {} if synonyms is None else _read_synonyms(synonyms)
    unknown = sorted(given.keys() - by_name.keys())
    if unknown:
        raise ValueError(
            f"{synonyms} has names of {unknown[:8]}, which are no categories of {classes}: spell "
            "classes as the categories"
        )

    categories, names = [], []
    for name, identity in zip(table.names, table.ids, strict=True):
        listed = by_name[name].get("synonyms")
        if listed and not _are_texts(listed):
            raise ValueError(
                f"{classes}: the synonyms of {name!r} are {str(listed)[:60]}: write a list of texts"
            )
        chosen = [*given.get(name, listed or COCO_SYNONYMS.get(name, (name,)))]
        if rule != "original" and name not in given:
            chosen.append(name)
        if not any(map(has_words, chosen)):
            file = synonyms if name in given else classes
            raise ValueError(f"{file}: the class {name!r} has no name with a word: give it one")
        names.append(chosen)
        categories.append({"id": identity, "name": name})
    return categories, names


def _read_synonyms(path: str | Path) -> dict[str, list[str]]:
    """Read an object of lists of texts."""
    try:
        content = parse_json(Path(path).read_bytes(), str(path), pairs=_object_once)
    except BrokenSample as fault:
        raise ValueError(f"{path} is no json of names ({fault.detail})") from None
    wanted = f'{path} must be an object of lists, such as {{"dog": ["dog", "puppy"]}}'
    if not isinstance(content, dict):
        raise ValueError(wanted)
    found: dict[str, list[str]] = {}
    for name, names in content.items():
        if not _are_texts(names):
            raise ValueError(f"{wanted}: {name!r} has {str(names)[:60]}")
        if found.setdefault(plain_text(name), names) is not names:
            raise ValueError(f"{path} has {name!r} twice: join the two lists")
    return found


def _are_texts(names: Any) -> bool:
    """Return whether a value is a list of texts with a character each."""
    is_list = isinstance(names, list) and bool(names)
    return is_list and all(isinstance(one, str) and one.strip() for one in names)


def _object_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; of equal names a dict would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = first_repeated([name for name, _ in pairs])
        raise ValueError(f"{twice!r} is there twice: join the two lists")
    return found


def read_captioned(
    source: str | Path, skipped: SkipReport, options: TagOptions
) -> Iterator[Captioned]:
    """Yield the images of a source that have captions; others are named in `skipped`.

    Raises:
        FileNotFoundError, ValueError: see `write_tags`.
    """
    kind = Path(source).suffix.lower()
    readers = {".json": _of_coco, ".jsonl": _of_rows, ".tsv": _of_table}
    if options.file_names is not None and kind != ".tsv":
        raise ValueError(f"{source} names its images itself: leave file names out")
    reader = readers.get(kind, _of_samples)

    for record, captions in reader(source, skipped, options):
        name = str(record.get("file_name") or record.get("id"))
        if leads_out(name):
            detail = f"{source}: give a name below the folder"
            skipped.add(BrokenSample("path outside the folder", printable(name), detail))
            continue
        if not captions:
            skipped.add(BrokenSample("empty caption", name, str(source)))
            continue
        yield Captioned(record, captions[:1] if options.first_caption else captions)


def _of_coco(source: str | Path, skipped: SkipReport, options: TagOptions) -> Iterator[Captioned]:
    for image, captions in captions_of_images(source, skipped.add):
        try:
            image_file_name(image)
        except BrokenSample as fault:
            skipped.add(fault)
            continue
        yield Captioned({name: image[name] for name in _FIELDS if name in image}, captions)


def _of_rows(source: str | Path, skipped: SkipReport, options: TagOptions) -> Iterator[Captioned]:
    rows = read_caption_table(source)
    skipped.extend(rows.faults)
    for number, (name, captions) in enumerate(rows.captions.items(), 1):
        yield Captioned({"id": number, "file_name": name}, captions)


def _of_table(source: str | Path, skipped: SkipReport, options: TagOptions) -> Iterator[Captioned]:
    """Read lines of a caption and a file name, or an address where `file_names` gives the name.

    Lines of one file name are several captions of one image.
    """
    of_name: dict[str, Captioned] = {}
    for number, line in enumerate(split_lines(read_text(source))):
        where = f"{source}, line {number + 1}"
        if not line.strip():
            continue
        try:
            caption, _, other = line.partition("\t")
            texts = captions_of(plain_text(caption), where)
            if options.file_names is not None:
                # Every line has a name of its own: nothing has to wait for the last line.
                name = options.file_names.format(number)
                yield Captioned({"id": number + 1, "file_name": name}, texts)
                continue
            name = _file_name_of_line(other.split("\t")[0].strip(), where)
            new = Captioned({"id": number + 1, "file_name": name}, [])
            of_name.setdefault(name, new).captions.extend(texts)
        except BrokenSample as fault:
            skipped.add(fault)
    yield from of_name.values()


def _file_name_of_line(name: str, where: str) -> str:
    """Return the file name of a line; an address is none."""
    if not name:
        raise BrokenSample("bad row", where, "no file name after a tab")
    if _ADDRESS.match(name):
        raise ValueError(
            f"{where} has an address, not the name of a file: say how the images were stored, such "
            'as --file-names "{:08d}.jpg" (lines count from 0)'
        )
    return clean_name(name)


def _of_samples(
    source: str | Path, skipped: SkipReport, options: TagOptions
) -> Iterator[Captioned]:
    store = SampleStore(source)
    skipped.extend(store.skipped.faults)
    names = names_of_samples(store).samples
    for number in range(len(store)):
        record = {"id": number + 1, "file_name": names[number].shown}
        try:
            yield Captioned(record, read_captions(store.read(number)))
        except BrokenSample as fault:
            skipped.add(fault)
