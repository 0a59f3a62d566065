"""The latest of something, under names that cannot be guessed."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")


class RecentItems(Generic[Item]):
    """Keeps the items that were used last and forgets the others; for several threads.

    Args:
        most: total size of the items that are kept; the newest is always kept.
        forgotten: what to say of an item that is not there: what it was, and what to do.
        size: of an item, in the unit of `most`; default: each counts 1.
    """

    def __init__(self, most: int, forgotten: str, *, size: Callable[[Item], int] = lambda _: 1):
        self._most, self._forgotten, self._size = most, forgotten, size
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._total = 0
        self._lock = Lock()

    def add(self, item: Item) -> str:
        """Keep an item and return its name."""
        name = secrets.token_urlsafe(9)
        with self._lock:
            self._items[name] = item
            self._total += self._size(item)
            while self._total > self._most and len(self._items) > 1:
                _, oldest = self._items.popitem(last=False)
                self._total -= self._size(oldest)
        return name

    def __getitem__(self, name: str) -> Item:
        """Return an item; ValueError when there is none of this name, or not any more."""
        with self._lock:
            if name not in self._items:
                raise ValueError(self._forgotten)
            self._items.move_to_end(name)
            return self._items[name]

    def __len__(self) -> int:
        return len(self._items)
