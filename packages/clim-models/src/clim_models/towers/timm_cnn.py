"""timm CNN trunks with average pooling and a linear projection (ConvNeXt CLIPs, EfficientNet).

Letters: B images, N = h*w positions, D channels of the last stage, C embedding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from clim_models.features import Readout
from clim_models.towers.attention import maybe_checkpoint
from clim_models.towers.tower import Ability, GradientPath, Stem, refuse


@runtime_checkable
class CnnTrunk(Protocol):
    """The methods of a timm CNN that the reader calls."""

    feature_info: list[dict[str, Any]]

    def forward_features(self, x: Tensor) -> Tensor: ...

    def forward_head(self, x: Tensor) -> Tensor: ...

    def set_grad_checkpointing(self, enable: bool = True) -> None: ...


class TimmCNN:
    """Reader of CNNs: the pooled head runs at each position, as if it were an image.

    Blocks are the stages of the trunk.
    """

    kind = "timm_cnn"
    supports: frozenset[Ability] = frozenset()

    def __init__(self, visual: nn.Module, *, antialias: bool):
        self.visual = visual
        trunk = visual.get_submodule("trunk")
        assert isinstance(trunk, CnnTrunk)
        self.trunk = trunk
        self.head = visual.get_submodule("head")
        self.stages = _stages(self.trunk)
        self.num_blocks = len(self.stages)
        self.stride = int(trunk.feature_info[-1]["reduction"])
        self.grad_checkpointing = False

    @staticmethod
    def matches(visual: nn.Module) -> bool:
        """Return whether the trunk is a timm CNN whose own head pools."""
        if not isinstance(visual, TimmModel):
            return False
        has_pool_head = "pool" in dict(visual.head.named_children())
        trunk = visual.trunk
        is_cnn = isinstance(trunk, CnnTrunk) and not hasattr(trunk, "num_prefix_tokens")
        return is_cnn and not has_pool_head and bool(_stages(trunk))

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        return []

    def stem(self, images: Tensor, allowed: Tensor | None = None, keep: Sequence[int] = ()) -> Stem:
        if allowed is not None:
            refuse(self, "attend")
        self.trunk.set_grad_checkpointing(self.grad_checkpointing)
        with _outputs_of(self.stages, keep) as maps:
            x = self.trunk.forward_features(images)  # (B, D, h, w)
        return Stem(x, (x.shape[2], x.shape[3]), maps=maps)

    def image(self, stem: Stem) -> Tensor:
        return maybe_checkpoint(self.grad_checkpointing, self._head, stem.tokens)

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        b, d, h, w = stem.tokens.shape
        positions = stem.tokens.permute(0, 2, 3, 1).reshape(-1, d, 1, 1)  # (B*N, D, 1, 1)
        features = maybe_checkpoint(self.grad_checkpointing, self._head, positions)  # (B*N, C)
        return features.view(b, h, w, -1).permute(0, 3, 1, 2)

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        refuse(self, "attend")

    def align(self, stem: Stem, boxes: list[Tensor]) -> Tensor:
        refuse(self, "align")

    def pyramid(self, stem: Stem, blocks: Sequence[int]) -> list[Tensor]:
        return [stem.maps[i] for i in blocks]

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        # Normalisation and projection after the pool stay frozen, as in every other tower.
        stages = [list(stage.parameters()) for stage in reversed(self.stages)]
        elsewhere = {id(p) for stage in stages for p in stage}
        for module in _after_pool(self.trunk):
            elsewhere.update(id(p) for p in module.parameters())

        rest = [p for p in self.trunk.parameters() if id(p) not in elsewhere]
        return [*stages, rest]

    def always_trainable(self) -> list[nn.Parameter]:
        return []

    def unused(self, path: GradientPath) -> list[nn.Parameter]:
        return []

    def _head(self, feature_map: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C)."""
        return self.head(self.trunk.forward_head(feature_map))


@contextmanager
def _outputs_of(stages: Sequence[nn.Module], keep: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Within it, collect the outputs of the stages numbered in `keep`."""
    maps: dict[int, Tensor] = {}

    def collect(i: int, module: nn.Module, inputs: Any, output: Tensor) -> None:
        maps[i] = output

    handles = []
    for i in keep:
        stage = stages[i]
        # Under checkpointing timm runs the blocks of a Sequential without calling the stage itself.
        last = stage[-1] if isinstance(stage, nn.Sequential) else stage
        handles.append(last.register_forward_hook(partial(collect, i)))
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _stages(trunk: nn.Module) -> list[nn.Module]:
    """Return the stages of a CNN; of a trunk that has none (Swin), an empty list."""
    for name in ("stages", "blocks"):
        stages = getattr(trunk, name, None)
        if isinstance(stages, nn.Sequential | nn.ModuleList):
            return list(stages)
    return []


def _after_pool(trunk: nn.Module) -> list[nn.Module]:
    found = [getattr(trunk, name, None) for name in ("head", "norm_head", "classifier")]
    return [module for module in found if module is not None]
