"""Noun concepts out of captions: the words that pseudo labels are chosen from, as a plain list.

Each caption is tagged word by word. A noun counts once per caption, a plural as its singular. The
list is a text file, one noun per line, most frequent first. Users may edit it, or write their own.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from clim_data.annotations.caption_files import captions_of, read_caption_table
from clim_data.annotations.ids import need_object, record_name
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.atomic import write_json, write_text
from clim_data.files.json_stream import stream_json
from clim_data.files.text import read_lines
from clim_data.sources.captions import read_captions
from clim_data.sources.store import SampleStore

# Words in lower case -> (word, dictionary form, whether it is a noun) of each.
Tagger = Callable[[list[str]], list[tuple[str, str, bool]]]

# Words that are tagged at once.
LONGEST_TEXT = 100

_TOKEN = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*|\S")
_WORD = re.compile(r"[^\W\d_]{2,}(?:-[^\W\d_]+)*")
_PLURAL_ENDINGS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("s", ""))
_HISSING = ("ses", "xes", "zes", "ches", "shes", "oes")


@dataclass(frozen=True)
class NounRules:
    """Rules for the nouns of the list.

    Args:
        min_count: captions in which a noun must occur; None is one in 1,000 captions, at least 1
            and at most 10.
        min_share: smallest fraction of the captions with a word in which the word is a noun
            ("standing" is one now and then).
        compounds: also list pairs of neighbouring nouns ("teddy bear").

    Raises:
        ValueError: an option is out of range.
    """

    min_count: int | None = None
    min_share: float = 0.5
    compounds: bool = False

    def __post_init__(self) -> None:
        if self.min_count is not None and self.min_count < 1:
            raise ValueError(f"min_count={self.min_count} must be at least 1")
        if not 0 <= self.min_share <= 1:
            raise ValueError(f"min_share={self.min_share} must be a share in [0, 1]")

    def least_count(self, captions: int) -> int:
        """Return in how many of the captions a noun must occur."""
        if self.min_count is not None:
            return self.min_count
        return min(10, max(1, captions // 1000))


@dataclass
class NounReport:
    """The result of `write_nouns`.

    output: the list. captions: number of captions that were read. least_count: captions in which a
    noun had to occur. counts: of each listed noun. skipped: captions that cannot be used.
    """

    output: Path
    captions: int = 0
    least_count: int = 1
    counts: dict[str, int] = field(default_factory=dict)
    skipped: SkipReport = field(default_factory=SkipReport)


def hanta_tagger() -> Tagger:
    """Load the Hanover Tagger (Wartena 2019), whose English model comes inside its package.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from HanTa.HanoverTagger import HanoverTagger
    except ImportError as fault:
        raise ImportError(f"nouns are found by HanTa ({fault}): pip install HanTa") from None
    tagger = HanoverTagger("morphmodel_en.pgz")

    def tag(words: list[str]) -> list[tuple[str, str, bool]]:
        # NN0, NN1, NN2 in the tags of the British National Corpus; names of persons and places are
        # NP0.
        found = []
        # The chances of its search end at 0 in longer texts, and then it has no answer.
        for first in range(0, len(words), LONGEST_TEXT):
            for word, lemma, kind in tagger.tag_sent(words[first : first + LONGEST_TEXT]):
                found.append((word, lemma.lower(), kind.startswith("NN")))
        return found

    return tag


def read_caption_texts(source: str | Path, skipped: SkipReport) -> Iterator[str]:
    """Yield the captions of a source, and report unusable ones to `skipped`.

    A source is a text file (one caption per line), a COCO or CC3M-style json, a jsonl, a folder of
    images, or shards.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it holds no captions.
    """
    kind = Path(source).suffix.lower()
    if kind == ".txt":
        yield from read_lines(source)
    elif kind == ".jsonl":
        rows = read_caption_table(source)
        skipped.extend(rows.faults)
        for texts in rows.captions.values():
            yield from texts
    elif kind == ".json":
        place: Counter[str] = Counter()
        for name, item in stream_json(source):
            if name not in ("", "images", "annotations"):
                continue
            place[name] += 1
            field = "caption" if name == "annotations" else "captions"
            try:
                yield from captions_of(need_object(item).get(field), "", field)
            except BrokenSample as fault:
                what = {"images": "image", "annotations": "annotation"}.get(name, "record")
                where = record_name(Path(source).name, what, place[name] - 1, item)
                skipped.add(BrokenSample(fault.reason, where, fault.detail))
    else:
        store = SampleStore(source)
        skipped.extend(store.skipped.faults)
        for number in range(len(store)):
            try:
                yield from read_captions(store.read(number))
            except BrokenSample as fault:
                skipped.add(fault)


def count_nouns(
    captions: Iterable[str], tagger: Tagger, rules: NounRules
) -> tuple[int, dict[str, int]]:
    """Count the captions, and how many of them hold each noun that `rules` lists.

    The nouns are in the order of their counts, the most frequent first, then by name.
    """
    tally = _Tally()
    for caption in captions:
        words = _TOKEN.findall(caption.lower()) if isinstance(caption, str) else []
        if words:
            tally.add(tagger(words), compounds=rules.compounds)
    return tally.captions, tally.listed(rules)


@dataclass
class _Tally:
    """Counts so far, once per caption: words, nouns, pairs of neighbouring nouns."""

    captions: int = 0
    words: Counter[str] = field(default_factory=Counter)
    nouns: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    lemmas: dict[str, str] = field(default_factory=dict)

    def add(self, tagged: list[tuple[str, str, bool]], *, compounds: bool) -> None:
        """Count one caption, see `Tagger`."""
        here = {word: lemma for word, lemma, is_noun in tagged if is_noun and _WORD.fullmatch(word)}
        self.captions += 1
        self.lemmas.update(here)
        self.nouns.update(here.keys())
        self.words.update({word for word, _, _ in tagged})
        if compounds:
            # A word between two nouns parts them.
            neighbours = pairwise(word if is_noun else "" for word, _, is_noun in tagged)
            self.pairs.update({pair for pair in neighbours if here.keys() >= set(pair)})

    def listed(self, rules: NounRules) -> dict[str, int]:
        """Return the nouns that the rules list with their counts, most frequent first."""
        often = {
            word: count
            for word, count in self.nouns.items()
            if count >= rules.min_share * self.words[word]
        }
        names = {word: singular(word, self.lemmas[word], often) for word in often}

        counts: Counter[str] = Counter()
        for word, count in often.items():
            counts[names[word]] += count
        for (first, second), count in self.pairs.items():
            if first in names and second in names:
                counts[f"{first} {names[second]}"] += count

        order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        least = rules.least_count(self.captions)
        return {noun: count for noun, count in order if count >= least}


def singular(word: str, lemma: str, counts: dict[str, int]) -> str:
    """Return the singular of a noun, given its dictionary form and how often other nouns occur.

    Irregular plurals and words that are their own dictionary form ("pants", "bus") are the
    tagger's. Of the regular origins of a plural ("leaves": leaf, leave) the most frequent noun is
    taken, since taggers guess them badly.
    """
    if lemma == word or not word.endswith("s"):
        return lemma
    origins = [
        word[: -len(end)] + instead for end, instead in _PLURAL_ENDINGS if word.endswith(end)
    ]
    if word.endswith(_HISSING):
        origins.insert(0, word[:-2])
    known = [origin for origin in origins if origin in counts]
    if known:
        return max(known, key=lambda origin: counts[origin])
    return lemma if lemma in origins else origins[0]


def write_nouns(
    sources: Iterable[str | Path],
    output: str | Path,
    *,
    rules: NounRules | None = None,
    tagger: Tagger | None = None,
) -> NounReport:
    """List the nouns of all captions of `sources` in the text file `output`, and their counts in
    OUTPUT.counts.json.

    Args:
        sources: see `read_caption_texts`.
        rules: which nouns are listed.
        tagger: another than `hanta_tagger()`.

    Raises:
        FileNotFoundError, ValueError: a source is missing or holds no captions, or no noun is
            frequent enough.
        ImportError: the tagger is not installed.
    """
    rules, tagger = rules or NounRules(), tagger or hanta_tagger()
    report = NounReport(Path(output))
    texts = (text for source in sources for text in read_caption_texts(source, report.skipped))
    bar = tqdm(texts, desc="reading captions", unit="caption", unit_scale=True)
    report.captions, report.counts = count_nouns(bar, tagger, rules)
    if not report.captions:
        raise ValueError(
            f"{', '.join(map(str, sources))} holds no captions ({report.skipped.summary(3)}): give "
            "a txt, json, jsonl, folder or shards"
        )
    least = report.least_count = rules.least_count(report.captions)
    if not report.counts:
        fix = "lower --min-count" if least > 1 else "give captions that name things"
        raise ValueError(f"no noun is in {least} of {report.captions} captions: {fix}")
    record = {"captions": report.captions, "min_count": least, "counts": report.counts}
    write_json(report.output.with_name(report.output.name + ".counts.json"), record)
    # The list comes last: if it exists, so do its counts.
    write_text(report.output, "".join(f"{noun}\n" for noun in report.counts))
    return report
