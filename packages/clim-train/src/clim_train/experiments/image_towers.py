"""Image towers taken out of a model and put back."""

from collections.abc import Mapping

from clim_models import RegionModel
from torch import Tensor


def image_tower(model: RegionModel) -> dict[str, Tensor]:
    """Return a copy of all weights except the frozen text tower, on the CPU."""
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("clip.text.")}
    return {key: value.detach().cpu().clone() for key, value in kept.items()}


def set_image_tower(model: RegionModel, weights: Mapping[str, Tensor]) -> None:
    """Load what `image_tower` returned."""
    text = {key: value for key, value in model.state_dict().items() if key.startswith("clip.text.")}
    model.load_state_dict({**text, **weights})
