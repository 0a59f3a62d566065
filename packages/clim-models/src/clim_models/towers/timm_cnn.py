"""timm CNN trunks with average pooling and a linear projection (ConvNeXt CLIPs, EfficientNet)."""

from torch import Tensor, nn

from clim_models.towers.attention import maybe_checkpoint
from clim_models.towers.tower import Readout, Stem


class TimmCNN:
    """Dense features are the pooled head applied to each position as if it were an image of one
    position."""

    kind = "timm_cnn"
    grad_checkpointing = False
    aligns_boxes = False

    def __init__(self, visual: nn.Module, *, antialias: bool):
        self.visual, self.trunk = visual, visual.trunk
        self.stages = _stages(self.trunk)
        self.num_blocks = len(self.stages)
        self.stride = self.trunk.feature_info[-1]["reduction"]

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        return []

    def stem(self, images: Tensor, allowed: Tensor | None = None) -> Stem:
        if allowed is not None:
            raise ValueError(
                "mode='attention' needs a tower with attention; this CNN pools by averaging. "
                "Use mode='align' for boxes and mode='mean' for masks"
            )
        self.trunk.set_grad_checkpointing(self.grad_checkpointing)
        x = self.trunk.forward_features(images)  # (B, D, h, w)
        return Stem(x, (x.shape[2], x.shape[3]))

    def _head(self, feature_map: Tensor) -> Tensor:
        return self.visual.head(self.trunk.forward_head(feature_map))

    def image(self, stem: Stem) -> Tensor:
        return maybe_checkpoint(self.grad_checkpointing, self._head, stem.tokens)

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        b, d, h, w = stem.tokens.shape
        positions = stem.tokens.permute(0, 2, 3, 1).reshape(-1, d, 1, 1)  # (B*N, D, 1, 1)
        features = maybe_checkpoint(self.grad_checkpointing, self._head, positions)  # (B*N, C)
        return features.view(b, h, w, -1).permute(0, 3, 1, 2)

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        # Normalisation and projection after the pool stay frozen, as in every other tower.
        grouped = [list(s.parameters()) for s in reversed(self.stages)]
        seen = {id(p) for g in grouped for p in g}
        head = {id(p) for m in _after_pool(self.trunk) for p in m.parameters()}
        rest = [p for p in self.trunk.parameters() if id(p) not in seen | head]
        return [*grouped, rest]

    def always_trainable(self) -> list[nn.Parameter]:
        return []

    def unused(self, path: str) -> list[nn.Parameter]:
        return []


def _stages(trunk: nn.Module) -> nn.Sequential:
    for name in ("stages", "blocks"):
        stages = getattr(trunk, name, None)
        if isinstance(stages, nn.Sequential | nn.ModuleList):
            return stages
    raise ValueError(
        f"{type(trunk).__name__} has no 'stages' or 'blocks'; use a ConvNeXt or EfficientNet trunk"
    )


def _after_pool(trunk: nn.Module) -> list[nn.Module]:
    return [
        m
        for m in (getattr(trunk, n, None) for n in ("head", "norm_head", "classifier"))
        if m is not None
    ]
