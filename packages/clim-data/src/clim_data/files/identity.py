"""One identity per image: the sample that a name in a json, a table or a list means.

A sample has a whole relative name, or only the key that a shard of another program gives it. A name
finds its sample in steps, from the strictest to the loosest. A step that is not exact counts only
where one name and one sample have the same token, among *all* names and *all* samples: a fall-back
never hits another image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clim_data.files.names import clean_name, last_part, spelling, stem_of

MISSING = -1


@dataclass(frozen=True, slots=True)
class SampleName:
    """Names of one sample.

    whole: relative file name, "" if only the key is known. key: what its shard or folder calls it.
    folder: name of the folder that holds a file ("train2017"), "" for a sample of a shard.
    """

    whole: str
    key: str
    folder: str = ""

    @property
    def shown(self) -> str:
        """The name to print, and to compare where the step allows a key."""
        return self.whole or self.key


@dataclass(frozen=True)
class Step:
    """One way to compare names: equal tokens mean one image.

    `of_sample` gives None for samples that the step does not concern.
    """

    of_sample: Callable[[SampleName], str | None]
    of_name: Callable[[str], str]
    bare_only: bool = False


def _below_folder(sample: SampleName) -> str | None:
    return f"{sample.folder}/{sample.whole}" if sample.folder else None


def _spelled_below_folder(sample: SampleName) -> str | None:
    return spelling(f"{sample.folder}/{sample.whole}") if sample.folder else None


STEPS = (
    Step(_below_folder, str),
    Step(lambda sample: spelling(sample.whole) if sample.whole else None, spelling),
    Step(_spelled_below_folder, spelling),
    Step(lambda sample: stem_of(spelling(sample.shown)), lambda name: stem_of(spelling(name))),
    Step(
        lambda sample: last_part(spelling(sample.whole)) if sample.whole else None,
        lambda name: last_part(spelling(name)),
        bare_only=True,
    ),
    Step(
        lambda sample: None if sample.whole else last_part(spelling(sample.key)),
        lambda name: last_part(stem_of(spelling(name))),
        bare_only=True,
    ),
)


class SampleNames:
    """The names of all samples of some sources.

    Args:
        samples: one entry per sample; places in this list are the answers of `find` and `match`.
    """

    def __init__(self, samples: Sequence[SampleName]):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def find(self, name: str) -> int:
        """Return the place of the sample that a single name means, or -1: see `match`."""
        return self.match([name]).places[0]

    def match(self, names: Sequence[str]) -> "Matches":
        """Find the sample of every name of a list.

        The steps: the whole relative name; that name below the folder of a source (train2017/1.jpg
        for 1.jpg in train2017); both in other spellings; the name without ending, or the key of a
        sample whose file name is not known; the last part of a name. The last part counts for a
        bare name (1.png for dogs/1.png), and for a list whose names all lie in one folder, if the
        names in the shard are bare. Otherwise a name with folders never falls back to it.

        Raises:
            ValueError: two names are one image, or a name means two samples; both are quoted.
        """
        search = _Search(self.samples, [clean_name(name) for name in names])
        search.exactly()
        for step in STEPS:
            search.by(step)
        search.explain_keys()
        return Matches(search.places, search.details)


@dataclass(frozen=True)
class Matches:
    """The result of `SampleNames.match`.

    places: for each name the place of its sample, or -1. details: place of a name that found no
    sample -> the reason, where one is known.
    """

    places: list[int]
    details: dict[int, str]

    def rows(self, count: int) -> list[int]:
        """Return for each of `count` samples the place of its name, or -1."""
        rows = [MISSING] * count
        for row, place in enumerate(self.places):
            if place != MISSING:
                rows[place] = row
        return rows


class _Search:
    """State of one `match`."""

    def __init__(self, samples: Sequence[SampleName], names: list[str]):
        self.samples, self.names = samples, names
        self.places = [MISSING] * len(names)
        self.details: dict[int, str] = {}
        self.taken: dict[int, int] = {}  # place of a sample -> row of its name
        folders = {name.rpartition("/")[0] for name in names if "/" in name}
        self.one_folder = len(folders) == 1

    def exactly(self) -> None:
        """Match whole names; nothing tells two samples or two names apart that are equal."""
        places = _grouped([sample.whole for sample in self.samples])
        for row, name in enumerate(self.names):
            found = places.get(name, [])
            if len(found) > 1:
                self._refuse_samples(name, found)
            if found:
                self._take(row, found[0])

    def by(self, step: Step) -> None:
        """Match names and samples that have a token alone."""
        open_rows = [row for row, place in enumerate(self.places) if place == MISSING]
        if not open_rows:
            return

        rows = _grouped([step.of_name(name) for name in self.names])
        places = _grouped([step.of_sample(sample) for sample in self.samples], wanted=rows)
        for token, found in places.items():
            for row in rows[token]:
                allowed = not step.bare_only or any(self._is_bare(row, place) for place in found)
                if self.places[row] == MISSING and allowed:
                    self._decide(row, rows[token], found)

    def explain_keys(self) -> None:
        """For names without a sample, name the other image whose key they are."""
        open_rows = [row for row, place in enumerate(self.places) if place == MISSING]
        if not open_rows:
            return

        keys = {sample.key: sample for sample in self.samples if not sample.folder}
        for row in open_rows:
            sample = keys.get(stem_of(self.names[row]))
            if sample is not None:
                detail = f"the sample with this key is another image, {sample.shown}"
                self.details.setdefault(row, detail)

    def _decide(self, row: int, rows: list[int], places: list[int]) -> None:
        """Match one name with one sample, or note why it has none."""
        if all(place in self.taken for place in places):
            return
        if len(rows) == len(places) == 1:
            self._take(row, places[0])
            return

        # A file name leaves no doubt that the name is of another image. A key may be either.
        only_keys = not all(self.samples[place].whole for place in places)
        if len(places) > 1:
            if only_keys:
                self._refuse_samples(self.names[row], places)
            alike = [self.samples[place].shown for place in places[:2]]
        else:
            if only_keys:
                self._refuse_names(rows, places[0])
            alike = [self.names[other] for other in rows[:2]]
        self.details[row] = f"{alike[0]} and {alike[1]} are alike: use whole names"

    def _is_bare(self, row: int, place: int) -> bool:
        """Tell whether the last part may stand for a whole name, on one of the two sides."""
        if "/" not in self.names[row]:
            return True
        sample = self.samples[place]
        return self.one_folder and not sample.folder and "/" not in clean_name(sample.shown)

    def _take(self, row: int, place: int) -> None:
        if place in self.taken:
            self._refuse_names([self.taken[place], row], place)
        self.taken[place] = row
        self.places[row] = place
        self.details.pop(row, None)

    def _refuse_samples(self, name: str, places: list[int]) -> None:
        first, second = (self.samples[place].shown for place in places[:2])
        raise ValueError(
            f"{name} fits several samples of the sources, {first} and {second}: "
            "give sources with distinct names"
        )

    def _refuse_names(self, rows: list[int], place: int) -> None:
        first, second = (self.names[row] for row in rows[:2])
        both = f"two names that mean {first}" if first == second else f"{first} and {second}"
        raise ValueError(
            f"{both} fit one sample, {self.samples[place].shown}: give them distinct names"
        )


def _grouped(
    tokens: Sequence[str | None], wanted: dict[str, list[int]] | None = None
) -> dict[str, list[int]]:
    """Places of each token in a list; of the wanted ones only."""
    groups: dict[str, list[int]] = {}
    for place, token in enumerate(tokens):
        if token and (wanted is None or token in wanted):
            groups.setdefault(token, []).append(place)
    return groups
