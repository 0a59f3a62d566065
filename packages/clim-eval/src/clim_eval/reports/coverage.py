"""The coverage of an evaluation: how many items were scored, and which were skipped, and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clim_data import BrokenSample, SkipReport

NAMES_ON_TERMINAL = 5
NAMES_ON_PAGE = 20


@dataclass(frozen=True)
class Coverage:
    """The coverage of an evaluation in one unit: images, regions, phrases.

    unit: plural noun.
    scored: how many enter the figures.
    left_out: the others, by reason and name.
    by_rule: how many others a rule of the evaluation leaves out, by reason; they have no names.
    """

    unit: str
    scored: int
    left_out: SkipReport = field(default_factory=SkipReport)
    by_rule: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, unit: str, scored: int, faults: Iterable[BrokenSample]) -> "Coverage":
        """Make the coverage of `scored` items and the faults of all others."""
        return cls(unit, scored, SkipReport(faults))

    @property
    def missing(self) -> int:
        """Number of skipped items."""
        return self.left_out.total + sum(self.by_rule.values())

    @property
    def asked(self) -> int:
        """Number of items that the evaluation was to score."""
        return self.scored + self.missing

    @property
    def reasons(self) -> dict[str, int]:
        """Number of skipped items for each reason."""
        return {**self.left_out.counts, **{name: n for name, n in self.by_rule.items() if n}}

    def of_part(self, part: str) -> "Coverage":
        """Return the coverage with the name of a part of the evaluation before its unit."""
        return replace(self, unit=f"{part}: {self.unit}")

    def sentence(self) -> str:
        """Return "scored 1 of 6 images, left out 5: unreadable image 5"."""
        text = f"scored {self.scored} of {self.asked} {self.unit}"
        if not self.missing:
            return text
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        return f"{text}, left out {self.missing}: {reasons}"

    def lines(self, limit: int = NAMES_ON_TERMINAL) -> list[str]:
        """Return the sentence, then a line for each reason with at most `limit` names."""
        if not (self.left_out.total or self.left_out.warnings):
            return [self.sentence()]
        return [
            self.sentence(),
            *(f"  {line}" for line in self.left_out.summary(limit).splitlines()),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers and all names, as values of JSON."""
        return {
            "asked": self.asked,
            "scored": self.scored,
            "left_out": self.missing,
            "reasons": self.reasons,
            "names": self.left_out.names,
            "warnings": self.left_out.to_dict().get("warnings", {}),
        }


def check_scored(coverage: Sequence[Coverage], fix: str) -> None:
    """Raise ValueError, which ends with `fix`, if nothing was scored in any of the units."""
    if any(part.scored for part in coverage):
        return

    lines: list[str] = []
    for part in coverage:
        lines += part.lines(3) if part.asked else []
    lines = lines or ["the data has no item"]
    raise ValueError(f"nothing was scored ({'; '.join(line.strip() for line in lines)}): {fix}")


def coverage_as_json(coverage: Sequence[Coverage]) -> dict[str, Any]:
    """Return {unit: numbers and names}, as report.json has them."""
    return {part.unit: part.to_dict() for part in coverage}


def coverage_from_json(coverage: Mapping[str, Mapping[str, Any]]) -> list[Coverage]:
    """Read the coverage of a report.json back."""
    found = []
    for unit, part in coverage.items():
        left_out = SkipReport()
        for reason, names in part["names"].items():
            left_out.extend(BrokenSample(reason, name) for name in names)
        named = left_out.counts
        by_rule = {name: n for name, n in part["reasons"].items() if name not in named}
        found.append(Coverage(unit, part["scored"], left_out, by_rule))
    return found


def coverage_page(coverage: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the paragraphs of report.md about the coverage in a report.json."""
    paragraphs = []
    for unit, part in coverage.items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in part["reasons"].items())
        why = f", left out {part['left_out']}: {reasons}" if part["left_out"] else ""
        paragraphs.append(f"Scored {part['scored']} of {part['asked']} {unit}{why}.")

        names = [_name_list(reason, found) for reason, found in part["names"].items()]
        for reason, found in part["warnings"].items():
            names.append(_name_list(f"used all the same, {reason}", found))
        if names:
            paragraphs.append("\n".join(names))
    return paragraphs


def _name_list(reason: str, names: Sequence[str]) -> str:
    """Return an item of a Markdown list; names are code, so that their letters are not markup."""
    shown = ", ".join(f"`{name.replace('`', chr(39))}`" for name in names[:NAMES_ON_PAGE])
    more = len(names) - NAMES_ON_PAGE
    return f"- {reason}: {shown}" + (f" and {more} more (see report.json)" if more > 0 else "")
