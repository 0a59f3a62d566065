"""Samples that cannot be read or are refused: one error type, and one report that counts and names
them."""

from collections import Counter
from collections.abc import Iterable


class BrokenSample(ValueError):
    """A sample, image or shard that cannot be used.

    `reason` is a short class of faults ("unreadable image", "empty caption", ...), `name` has the
    file and the sample, `detail` the exact fault.
    """

    def __init__(self, reason: str, name: str, detail: str = ""):
        super().__init__(f"{name}: {reason}" + (f": {detail}" if detail else ""))
        self.reason, self.name, self.detail = reason, name, detail

    def __reduce__(self) -> tuple[type["BrokenSample"], tuple[str, str, str]]:
        return type(self), (self.reason, self.name, self.detail)


class SampleWarning(BrokenSample):
    """A warning about a sample or record that is still used; it is never raised."""


class SkipReport:
    """Skipped samples and records, with reasons.

    A fault is a name with a reason: a sample that breaks in two ways has two. The same fault, met
    again in a later epoch or by another rank, is counted once. So the name must be unique: for an
    annotation it has the file, the place in its list and the id.
    """

    def __init__(self, faults: Iterable[BrokenSample] = ()):
        self._details: dict[tuple[str, str], str] = {}  # (reason, name) -> detail
        self._warnings: dict[tuple[str, str], str] = {}
        self.extend(faults)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SkipReport):
            return False
        return (self._details, self._warnings) == (other._details, other._warnings)

    def __repr__(self) -> str:
        return f"SkipReport({self.counts})"

    def add(self, fault: BrokenSample) -> None:
        """Count and name one fault, or one warning."""
        details = self._warnings if isinstance(fault, SampleWarning) else self._details
        details[fault.reason, fault.name] = fault.detail

    def extend(self, faults: Iterable[BrokenSample]) -> None:
        """Count and name several faults, for example `faults` of another report."""
        for fault in faults:
            self.add(fault)

    @property
    def faults(self) -> list[BrokenSample]:
        """All faults, in the order in which they were met; they can be sent to other processes."""
        return [
            BrokenSample(reason, name, detail) for (reason, name), detail in self._details.items()
        ]

    @property
    def warnings(self) -> list[SampleWarning]:
        """Warnings about samples and records that are still used."""
        found = self._warnings.items()
        return [SampleWarning(reason, name, detail) for (reason, name), detail in found]

    @property
    def entries(self) -> dict[str, tuple[str, str]]:
        """Reason and detail of every name, of a name with several faults the last one."""
        return {name: (reason, detail) for (reason, name), detail in self._details.items()}

    @property
    def total(self) -> int:
        """Number of faults."""
        return len(self._details)

    @property
    def counts(self) -> dict[str, int]:
        """Number of faults for each reason."""
        return dict(Counter(reason for reason, _ in self._details))

    @property
    def names(self) -> dict[str, list[str]]:
        """Names of the skipped samples and records, for each reason."""
        return _names_by_reason(self._details)

    def summary(self, limit: int = 10) -> str:
        """Return a text with one line for each reason and the first `limit` names of each."""
        lines = _lines("skipped", self._details, limit) or ["nothing skipped"]
        return "\n".join([*lines, *_lines("used all the same", self._warnings, limit)])

    def to_dict(self) -> dict:
        """Return total, counts and all names as values of JSON, and warnings if there are any."""
        found: dict = {"total": self.total, "counts": self.counts, "names": self.names}
        if self._warnings:
            found["warnings"] = _names_by_reason(self._warnings)
        return found


def _names_by_reason(details: dict[tuple[str, str], str]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for reason, name in details:
        names.setdefault(reason, []).append(name)
    return names


def _lines(verb: str, details: dict[tuple[str, str], str], limit: int) -> list[str]:
    """Return one line for each reason, with the first `limit` names and their details."""
    lines = []
    for reason, names in _names_by_reason(details).items():
        shown = []
        for name in names[:limit]:
            detail = details[reason, name]
            shown.append(f"{name} ({detail})" if detail else name)
        more = f"; and {len(names) - limit} more" if len(names) > limit else ""
        lines.append(f"{verb} {len(names)}, {reason}: {'; '.join(shown)}{more}")
    return lines


def check_on_error(on_error: str) -> str:
    """Return `on_error` when it is "skip" or "raise", else raise ValueError."""
    if on_error not in ("skip", "raise"):
        raise ValueError(
            f'on_error={on_error!r} is not known: use "skip" (count and name) or "raise"'
        )
    return on_error
