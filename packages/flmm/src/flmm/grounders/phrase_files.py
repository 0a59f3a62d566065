"""Phrases of a user for many images: words of the command line, lines of a text, or json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clim_data import BrokenSample
from clim_data.files import SampleNames, read_names, stream_json

from flmm.grounders.vocabulary import VocabularyPhrases
from flmm.text.phrases import check_phrases


@dataclass(frozen=True)
class PhraseList:
    """Phrases of many images.

    shared: phrases of every image. of_image: name of an image -> its own phrases. One of the two is
    empty. classes: the classes of a vocabulary whose phrases these are; None for plain phrases.
    """

    shared: tuple[str, ...] = ()
    of_image: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: VocabularyPhrases | None = None

    @classmethod
    def of(cls, phrases: Sequence[str]) -> "PhraseList":
        """Make phrases that all images share.

        Raises:
            ValueError: no phrase, or an empty one.
        """
        return cls(tuple(check_phrases(phrases)))

    @classmethod
    def of_vocabulary(cls, path: Path) -> "PhraseList":
        """Read a vocabulary file: every image is asked for all of it.

        Raises:
            FileNotFoundError, ValueError: as `VocabularyPhrases.of`.
        """
        classes = VocabularyPhrases.of(path)
        return cls(tuple(check_phrases(classes.phrases)), classes=classes)

    @classmethod
    def read(cls, path: Path) -> "PhraseList":
        """Read a file of phrases: one a line, or json.

        Json is a list of phrases, or {"name of an image": ["a phrase", ...], ...}.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds no phrase, or an empty one.
        """
        if path.suffix.lower() != ".json":
            return cls(tuple(read_names(path, "--phrases")))
        by_name: dict[str, list[str]] = {}
        for name, phrase in stream_json(path):
            if not isinstance(phrase, str):
                raise ValueError(
                    f"{path}: {phrase!r} is no phrase: write a list of texts, or one list of texts "
                    "for the name of each image"
                )
            by_name.setdefault(name, []).append(phrase)
        if not by_name:
            raise ValueError(f"{path} holds no phrase: write a list of texts")

        checked = {name: tuple(check_phrases(phrases)) for name, phrases in by_name.items()}
        return cls(checked[""]) if list(checked) == [""] else cls(of_image=checked)

    @property
    def categories(self) -> list[str]:
        """All phrases, each once, in the order in which they first appear; or the classes of the
        vocabulary."""
        if self.classes is not None:
            return list(self.classes.names)
        distinct = dict.fromkeys(self.shared)
        for phrases in self.of_image.values():
            distinct |= dict.fromkeys(phrases)
        return list(distinct)

    def of_picture(self, name: str) -> list[str]:
        """Return the phrases of one picture.

        Raises:
            ValueError: it is not among the names.
        """
        if not self.of_image:
            return list(self.shared)
        if name not in self.of_image:
            raise ValueError(
                f"the phrases are of {', '.join(list(self.of_image)[:3])} and not of {name}: pass "
                "the folder of these images, or a list of phrases"
            )
        return list(self.of_image[name])

    def for_images(self, names: SampleNames) -> tuple[list[tuple[str, ...]], list[BrokenSample]]:
        """Return the phrases of each image, none for an image that is not asked for, and names that
        belong to no image.

        Raises:
            ValueError: a name means two images, two names mean one, or an image has a phrase twice.
        """
        for name, own in {"the phrases": self.shared, **self.of_image}.items():
            _check_distinct(own, name)
        if not self.of_image:
            return [self.shared] * len(names), []

        asked = list(self.of_image)
        matches = names.match(asked)
        phrases: list[tuple[str, ...]] = [()] * len(names)
        faults = []
        for place, name in enumerate(asked):
            if matches.places[place] < 0:
                detail = matches.details.get(place, "phrases, but no image of this name")
                faults.append(BrokenSample("missing image", name, detail))
            else:
                phrases[matches.places[place]] = self.of_image[name]
        return phrases, faults


def _check_distinct(phrases: Sequence[str], title: str) -> None:
    """Refuse a phrase that is there twice: each phrase is one category."""
    for place, phrase in enumerate(phrases):
        if phrase in phrases[:place]:
            raise ValueError(f"{title}: {phrase!r} is there twice: keep it once")
