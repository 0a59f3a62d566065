"""Everything in huggingface_hub that we use without a promise of its documentation.

Tried on huggingface_hub 2.4. `tests/clim_models/test_hub_compat.py` reports what broke.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

# Seconds to wait for a first connection.
PATIENCE = 5.0

# How transformers begins its error; it has no class of its own.
_NOT_REACHED = "We couldn't connect to"


@lru_cache(maxsize=1)
def hub_answers() -> bool:
    """Tell whether the hub can be reached; asked once in a process."""
    # Behind a proxy this machine need not know the hub's address.
    if getproxies().get("https"):
        return True

    address = urlsplit(constants.ENDPOINT)
    place = (address.hostname or "", address.port or 443)
    try:
        socket.create_connection(place, timeout=PATIENCE).close()
    except OSError:
        return False
    return True


@contextmanager
def cache_alone_without_hub() -> Iterator[None]:
    """Within it, only files in the cache are used if the hub cannot be reached.

    huggingface_hub would try each file six times, wait in between, and log every try twice.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_not_in_cache(error: BaseException) -> bool:
    """Tell whether an error says that a file is neither in the cache nor to be fetched."""
    return isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled) or str(
        error
    ).startswith(_NOT_REACHED)
