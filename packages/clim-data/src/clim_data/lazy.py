"""Public names that load on first use: `import clim_data` must not wait for torch."""

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(
    package: str, homes: Mapping[str, str], *, renamed: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Make `__getattr__`, `__dir__` and `__all__` of a package whose names load on first use.

    ```python
    if TYPE_CHECKING:
        from clim_data.pixels.boxes import box_iou as box_iou
    else:
        __getattr__, __dir__, __all__ = lazy_names(__name__, {"box_iou": "clim_data.pixels.boxes"})
    ```

    Checkers see the first branch only, so they know every name's type and refuse unknown names.

    Args:
        package: name of the package, `__name__` in its `__init__`.
        homes: for each public name the full name of the module that defines it.
        renamed: for each old name its new one, a key of `homes`. An old name still works for one
            release and warns. It is neither in `__all__` nor in `dir()`.
    """
    old_names = dict(renamed or {})
    _check_old_names(package, homes, old_names)
    public = sorted(homes)

    def load(name: str) -> object:
        if name in old_names:
            new_name = old_names[name]
            message = f"{package}.{name} is now called {new_name}: the next release drops {name}"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            name = new_name

        if name not in homes:
            # Python reads `name` and `obj` to suggest a public name that is spelled nearly alike.
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}",
                name=name,
                obj=sys.modules.get(package),
            )
        return getattr(import_module(homes[name]), name)

    return load, lambda: list(public), public


def _check_old_names(package: str, homes: Mapping[str, str], old_names: Mapping[str, str]) -> None:
    for old_name, new_name in old_names.items():
        if old_name in homes or new_name not in homes:
            raise ValueError(
                f"{package}: renamed {old_name!r} to {new_name!r}: "
                "the new name must be a public name, the old one must not"
            )
