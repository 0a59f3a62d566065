"""Choice of the weights that train: the last k layers of the image tower, no text tower, no batch
norm."""

from collections.abc import Iterable

from torch import nn

from clim_models.towers.tower import GradientPath, Tower

# timm's fused norms and activations are subclasses of these.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def norm_layers(module: nn.Module) -> list[nn.Module]:
    """Return every batch norm below `module`, timm's fused variants included."""
    return [m for m in module.modules() if isinstance(m, BATCH_NORMS)]


def freeze_all_but(model: nn.Module, tower: Tower, unlocked_blocks: int, path: str) -> None:
    """Freeze a model, then let the last layers of its image tower train; see `RegionModel.freeze`.

    Raises:
        ValueError: a negative number of blocks or an unknown path; nothing has changed then.
    """
    if unlocked_blocks < 0:
        raise ValueError(
            f"unlocked_blocks={unlocked_blocks}; pass 0 (train nothing of the tower) or more"
        )
    if path not in tuple(GradientPath):
        raise ValueError(f"path={path!r}; legal values are {', '.join(GradientPath)}")

    set_trainable(model.parameters(), False)
    if unlocked_blocks > 0:
        for group in tower.parameter_groups()[:unlocked_blocks]:
            set_trainable(group, True)
        set_trainable(tower.always_trainable(), True)

    for norm in norm_layers(tower.visual):
        set_trainable(norm.parameters(recurse=False), False)
    set_trainable(tower.unused(GradientPath(path)), False)


def direct_parameters(clip: nn.Module, tower: Tower, *, attention: bool) -> list[nn.Parameter]:
    """Return parameters that are read outside the forward of the module that owns them."""
    text = getattr(clip, "text", None)
    owners = [clip, text, tower.visual, getattr(tower.visual, "trunk", None)]
    direct: list[nn.Parameter] = []
    for owner in owners:
        if owner is not None:
            direct += owner.parameters(recurse=False)
    for module in tower.direct_modules(attention=attention):
        direct += module.parameters()

    # A parameter may have several owners; the first place counts.
    return list({id(parameter): parameter for parameter in direct}.values())


def set_trainable(parameters: Iterable[nn.Parameter], value: bool) -> None:
    """Set `requires_grad` of all parameters."""
    for parameter in parameters:
        parameter.requires_grad_(value)
