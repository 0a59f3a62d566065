"""open_clip's warnings about missing weights, where these are loaded afterwards by us."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_weights_yet() -> Iterator[None]:
    """Within it, open_clip does not warn that a model it builds has random weights; other messages
    pass."""

    def other(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not text.endswith(("Model initialized randomly.", "initialized partially."))

    root = logging.getLogger()  # which open_clip.factory logs to
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)
