"""The one table of training methods.

A recipe fixes method and kind of data, so that their options are plain flags: `--task.box-mode`,
`--data.image-px`. In a `config.json`, `task.name` and `data.kind` say which they are.
"""

from typing import Any

from clim_train.methods.clim import CLIM
from clim_train.methods.clipself import CLIPSELF
from clim_train.methods.detic import DETIC
from clim_train.methods.fvit import FVIT
from clim_train.methods.fvlm import FVLM
from clim_train.methods.method import DataKind, Method, MethodOptions
from clim_train.methods.regionclip import REGIONCLIP
from clim_train.methods.sources import SourceOptions
from clim_train.options.checks import reject

METHODS: dict[str, Method[Any, Any, Any]] = {
    method.name: method for method in (CLIM, CLIPSELF, REGIONCLIP, FVIT, FVLM, DETIC)
}


def find_method(name: str) -> Method[Any, Any, Any]:
    """Return the method called `name`. Raises ValueError with all names."""
    if name not in METHODS:
        reject("task.name", name, "one of " + ", ".join(map(repr, METHODS)))
    return METHODS[name]


def data_kinds() -> dict[str, DataKind[Any]]:
    """Return name -> kind of data, for all kinds that some method learns from."""
    return {method.data.name: method.data for method in METHODS.values()}


def check_match(task: MethodOptions, data: SourceOptions) -> None:
    """Raise ValueError unless `data` are what the method of `task` learns from."""
    method = find_method(task.name)
    if not isinstance(task, method.options):
        reject(
            "task", type(task).__name__, f"{method.options.__name__} with task.name {task.name!r}"
        )

    wanted = method.data
    if not isinstance(data, wanted.options):
        reject(
            "data.kind",
            data.kind,
            f"data of kind {wanted.name!r} ({wanted.options.__name__}) with task {task.name!r}",
        )
    if method.check is not None:
        method.check(task, data)
