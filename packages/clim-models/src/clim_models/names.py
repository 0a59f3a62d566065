"""Model names and their configurations."""

import copy
import difflib

import open_clip

from clim_models.more_models import why_refused
from clim_models.shipped import TINY


def has_scheme(name: str) -> bool:
    """Return whether a name leads to a folder or to the hub ("local-dir:", "hf-hub:")."""
    return name.startswith(("local-dir:", "hf-hub:"))


def model_config(name: str) -> dict:
    """Return a copy of open_clip's `model_cfg` of a name.

    Raises:
        ValueError: unknown name; the closest are listed, or the reason why there is none. Or the
            configuration that it leads to is damaged.
        ImportError: clim-tiny without the packages it is made of.
    """
    if name == TINY:
        from clim_models import tiny

        # Importing `tiny` registers the name too, but only where its packages are installed. This
        # call says which one is missing.
        tiny.register_clim_tiny()

    try:
        config = open_clip.get_model_config(name)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # of its file
        raise ValueError(
            f"the open_clip_config.json of {name} is damaged ({error}): fetch or export it again"
        ) from error
    reason = None if config is not None else why_refused(name)
    if reason is not None:
        raise ValueError(f"no model {name!r}: {reason}")
    if config is None:
        close = difflib.get_close_matches(name, [*open_clip.list_models(), TINY], n=4, cutoff=0.4)
        raise ValueError(
            f"unknown model {name!r}; did you mean {', '.join(close)}? open_clip.list_models() "
            "lists all"
        )
    return copy.deepcopy(config)
