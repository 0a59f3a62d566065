"""The methods (`task`) and the kinds of data (`data`) that there are, and which go together.

A recipe fixes both kinds, so that their options are plain flags: `--task.box-mode`,
`--data.image-px`. In a `config.json` the kind is said by `task.name` and `data.kind`.
"""

from clim_train.methods.boxes import BoxDataConfig
from clim_train.methods.clim import ClimConfig
from clim_train.methods.clipself import ClipSelfConfig
from clim_train.methods.crops import CropDataConfig
from clim_train.methods.pairs import PairDataConfig
from clim_train.methods.regionclip import RegionClipConfig
from clim_train.options.checks import reject

DataConfig = PairDataConfig | CropDataConfig | BoxDataConfig

TaskConfig = ClimConfig | ClipSelfConfig | RegionClipConfig


def check_match(task: TaskConfig, data: DataConfig) -> None:
    """Raises ValueError unless the data are of the kind that the method learns from."""
    if not isinstance(data, task.DATA):
        legal = f"data of kind {task.DATA().kind!r} ({task.DATA.__name__}) with task {task.name!r}"
        reject("data.kind", data.kind, legal)
