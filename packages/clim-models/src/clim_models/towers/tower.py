"""What every image tower offers: one stem, and a last layer that can be read in several ways.

Letters: B images, N = h*w positions, P prefix tokens (class token first), D tower width, C
embedding, Q queries.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

Readout = Literal["value_residual", "value"]


@dataclass(frozen=True)
class Stem:
    """All that the last layer needs, computed once per image: tokens and the grid they lie on.

    tokens: (B, P + N, D) for token towers, (B, D, h, w) for convolutional ones.
    rope: (N, 2 * head_dim) rotary table or None.
    regions: (B, Q, D) class tokens of regions, where the tower carries them through its blocks.
    """

    tokens: Tensor
    grid: tuple[int, int]
    rope: Tensor | None = None
    regions: Tensor | None = None


class Tower(Protocol):
    """Reads an open_clip image tower without owning its weights. Features are projected but not
    normalised."""

    kind: str
    visual: nn.Module
    stride: int
    num_blocks: int
    grad_checkpointing: bool

    def stem(self, images: Tensor, allowed: Tensor | None = None) -> Stem:
        """(B, 3, H, W) -> everything up to the last layer that mixes positions.

        allowed: bool (B, Q, N), the positions of each region, when `attend` will be asked for.
        """
        ...

    def image(self, stem: Stem) -> Tensor:
        """-> (B, C), the feature `encode_image` of the wrapped model gives."""
        ...

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        """-> (B, C, h, w), the last layer without mixing between positions."""
        ...

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        """The image feature as if only some positions existed: bool (B, Q, N) -> (B, Q, C)."""
        ...

    aligns_boxes: bool  # mode "attention" of boxes is `align` (ModifiedResNet), not `attend`

    def align(self, stem: Stem, boxes: list[Tensor]) -> Tensor:
        """RoIAlign of the last map, then the attention pool: -> (R, C)."""
        ...

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """What `freeze` unlocks, last layer first."""
        ...

    def always_trainable(self) -> list[nn.Parameter]:
        """Parameters outside the groups that train as soon as one group does."""
        ...

    def unused(self, path: str) -> list[nn.Parameter]:
        """Parameters that get no gradient when only `path` ("dense", "attention" or "image") is
        computed."""
        ...

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        """Modules whose parameters are read outside their own forward (more of them in mode
        "attention")."""
        ...
