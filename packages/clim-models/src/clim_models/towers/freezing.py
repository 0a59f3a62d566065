"""Which parameters train: the text tower never, the last k layers of the image tower, batch
statistics never."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

PATHS = ("all", "dense", "attention", "image")


def norm_layers(module: nn.Module) -> list[nn.Module]:
    """Every batch norm below `module`, timm's fused variants included."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def set_trainable(parameters: Iterable[nn.Parameter], value: bool) -> None:
    for p in parameters:
        p.requires_grad_(value)


def freeze_model(model: nn.Module, unlocked_blocks: int, path: str) -> list[str]:
    """Set `requires_grad` of a RegionModel and return the trainable names; see
    `RegionModel.freeze`.

    Raises:
        ValueError: a negative number of blocks or an unknown path.
    """
    if unlocked_blocks < 0:
        raise ValueError(
            f"unlocked_blocks={unlocked_blocks}; pass 0 (train nothing of the tower) or more"
        )
    if path not in PATHS:
        raise ValueError(f"path={path!r}; legal values are {', '.join(PATHS)}")
    tower = model.tower
    set_trainable(model.parameters(), False)
    model.logit_scale.requires_grad_(True)
    groups = tower.parameter_groups()
    if unlocked_blocks > 0:
        set_trainable((p for group in groups[:unlocked_blocks] for p in group), True)
        set_trainable(tower.always_trainable(), True)
    for norm in norm_layers(tower.visual):
        set_trainable(norm.parameters(recurse=False), False)
    if path != "all":
        set_trainable(tower.unused(path), False)
    return [name for name, p in model.named_parameters() if p.requires_grad]
