"""The transformers versions that this package works with."""

import re
from importlib.metadata import PackageNotFoundError, version

OLDEST_TRANSFORMERS = (5, 6)


def check_transformers() -> None:
    """Raises ValueError when transformers is missing or too old for the classes that the adapters
    use."""
    wanted = ".".join(map(str, OLDEST_TRANSFORMERS))
    try:
        found = version("transformers")
    except PackageNotFoundError:
        raise ValueError(
            f"flmm needs transformers {wanted}: pip install 'transformers>={wanted}'"
        ) from None
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST_TRANSFORMERS:
        raise ValueError(
            f"transformers {found} is too old for flmm's attention capture and model classes; "
            f"run: pip install 'transformers>={wanted}'"
        )
