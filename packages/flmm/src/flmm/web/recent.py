"""The most recent items, under names that cannot be guessed."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")


class RecentItems(Generic[Item]):
    """A store of the most recently used items, for several threads.

    Args:
        most: largest total size of the items; the newest always stays.
        forgotten: message about an item that is not stored any more, with the fix.
        size: of an item, in the unit of `most`; default: each counts 1.
    """

    def __init__(self, most: int, forgotten: str, *, size: Callable[[Item], int] = lambda _: 1):
        self._most, self._forgotten, self._size = most, forgotten, size
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._total = 0
        self._lock = Lock()

    def add(self, item: Item) -> str:
        """Store an item and return its name."""
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
