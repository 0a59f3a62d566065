"""What could not be read or is refused: one error type and one report that counts and names it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


class BrokenSample(ValueError):
    """A sample, image or shard that cannot be used.

    `reason` is a short class of faults ("unreadable image", "empty caption", ...), `name` says
    which file and sample, `detail` what exactly is wrong with it.
    """

    def __init__(self, reason: str, name: str, detail: str = ""):
        super().__init__(f"{name}: {reason}" + (f": {detail}" if detail else ""))
        self.reason, self.name, self.detail = reason, name, detail

    def __reduce__(self) -> tuple[type["BrokenSample"], tuple[str, str, str]]:
        return BrokenSample, (self.reason, self.name, self.detail)


@dataclass
class SkipReport:
    """Which samples were left out, and why. A sample met again in a later epoch is counted once."""

    entries: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, fault: BrokenSample) -> None:
        self.entries[fault.name] = (fault.reason, fault.detail)

    def extend(self, faults: Iterable[BrokenSample]) -> None:
        for fault in faults:
            self.add(fault)

    @property
    def total(self) -> int:
        return len(self.entries)

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples for each reason."""
        return dict(Counter(reason for reason, _ in self.entries.values()))

    @property
    def names(self) -> dict[str, list[str]]:
        """Names of the samples for each reason."""
        names: dict[str, list[str]] = {}
        for name, (reason, _) in self.entries.items():
            names.setdefault(reason, []).append(name)
        return names

    def summary(self, limit: int = 10) -> str:
        """Text with one line for each reason and the first `limit` names of each."""
        if not self.entries:
            return "nothing skipped"
        lines = []
        for reason, names in self.names.items():
            shown = "; ".join(
                f"{n} ({self.entries[n][1]})" if self.entries[n][1] else n for n in names[:limit]
            )
            more = f"; and {len(names) - limit} more" if len(names) > limit else ""
            lines.append(f"skipped {len(names)}, {reason}: {shown}{more}")
        return "\n".join(lines)

    def to_dict(self) -> dict:
        return {"total": self.total, "counts": self.counts, "names": self.names}


def check_on_error(on_error: str) -> str:
    """Return `on_error` when it is "skip" or "raise", else raise ValueError."""
    if on_error not in ("skip", "raise"):
        raise ValueError(
            f'on_error={on_error!r} is not known: use "skip" (count and name) or "raise"'
        )
    return on_error
