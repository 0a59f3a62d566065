"""The last few of something, under names that cannot be guessed."""

import secrets
from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")


class RecentItems(Generic[Item]):
    """Keeps the items that were used last and forgets the others; for several threads.

    Args:
        most: how many are kept.
        forgotten: what to say of one that is not there: what it was, and what to do.
    """

    def __init__(self, most: int, forgotten: str):
        self._most, self._forgotten = most, forgotten
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._lock = Lock()

    def add(self, item: Item) -> str:
        """Keep an entry and return its name."""
        name = secrets.token_urlsafe(9)
        with self._lock:
            self._items[name] = item
            while len(self._items) > self._most:
                self._items.popitem(last=False)
        return name

    def __getitem__(self, name: str) -> Item:
        """Raises ValueError when there is none of this name, or not any more."""
        with self._lock:
            if name not in self._items:
                raise ValueError(self._forgotten)
            self._items.move_to_end(name)
            return self._items[name]

    def __len__(self) -> int:
        return len(self._items)
