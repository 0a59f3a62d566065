"""The interface of image towers: one stem, and a last layer that can be read in several ways.

Letters: B images, N = h*w positions, P prefix tokens (class token first), D tower width,
C embedding, Q regions of an image, R regions of all images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NoReturn, Protocol

from torch import Tensor, nn

from clim_models.features import Readout

# Abilities that a tower may lack: `attend` and `align` of the Protocol, and readouts of `dense` in
# which positions mix.
Ability = Literal["attend", "align", "mix"]


class GradientPath(StrEnum):
    """Features that a training computes; `freeze` freezes weights without a gradient there."""

    ALL = "all"
    DENSE = "dense"
    ATTENTION = "attention"
    IMAGE = "image"


@dataclass(frozen=True)
class Stem:
    """The input of the last layer, computed once per image.

    Attributes:
        tokens: (B, P + N, D) of token towers, (B, D, h, w) of convolutional ones.
        grid: rows and columns of the positions.
        rope: (N, 2 * head_dim) rotary table, or None.
        regions: (B, Q, D) class tokens of regions, where the tower carries them through its blocks.
        maps: raw (B, D, h, w) after each block that the caller asked to keep.
    """

    tokens: Tensor
    grid: tuple[int, int]
    rope: Tensor | None = None
    regions: Tensor | None = None
    maps: dict[int, Tensor] = field(default_factory=dict)


class Tower(Protocol):
    """A reader of an open_clip image tower, which owns the weights.

    Features are projected into the image-text space and not normalised. `register_tower` adds
    towers from outside; they need no base class.
    """

    grad_checkpointing: bool

    @property
    def kind(self) -> str:
        """Short name, for messages and reports."""
        ...

    @property
    def visual(self) -> nn.Module:
        """The open_clip tower that is read."""
        ...

    @property
    def stride(self) -> int:
        """Pixels per position, both ways."""
        ...

    @property
    def num_blocks(self) -> int:
        """Number of blocks; `encode_pyramid` counts them from 0, first block first."""
        ...

    @property
    def supports(self) -> frozenset[Ability]:
        """Which of "attend", "align" and "mix" the tower has; the others are refused."""
        ...

    def stem(self, images: Tensor, allowed: Tensor | None = None, keep: Sequence[int] = ()) -> Stem:
        """Run everything up to the last layer that mixes positions.

        Args:
            images: (B, 3, H, W).
            allowed: bool (B, Q, N), the positions of each region, if `attend` follows.
            keep: blocks whose raw maps `pyramid` will return.
        """
        ...

    def image(self, stem: Stem) -> Tensor:
        """Return (B, C), the feature that `encode_image` of the wrapped model gives."""
        ...

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        """Return (B, C, h, w): the last layer, read at each position.

        Readouts in which positions mix come only if the tower supports "mix".
        """
        ...

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        """Return the image feature as if only some positions existed.

        bool (B, Q, N) -> (B, Q, C).
        """
        ...

    def align(self, stem: Stem, boxes: list[Tensor]) -> Tensor:
        """Return RoIAlign of the last map, then the attention pool: (R, C)."""
        ...

    def pyramid(self, stem: Stem, blocks: Sequence[int]) -> list[Tensor]:
        """Return the raw maps (B, D, h, w) of the blocks in `keep` of `stem`.

        If the last block is the last layer that mixes positions, its map comes from the value path.
        """
        ...

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Return the units that `freeze` unlocks, last layer first."""
        ...

    def always_trainable(self) -> list[nn.Parameter]:
        """Return parameters outside the groups that train as soon as one group does."""
        ...

    def unused(self, path: GradientPath) -> list[nn.Parameter]:
        """Return parameters that get no gradient if only `path` is computed."""
        ...

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        """Return modules whose parameters are read outside their own forward.

        Mode "attention" reads more of them.
        """
        ...


def refuse(tower: Tower, ability: Ability) -> NoReturn:
    """Raise the ValueError of a tower that lacks an ability."""
    if ability == "align":
        raise ValueError(f"{tower.kind} towers do not align boxes before their pool; use attend")
    if ability == "mix":
        raise ValueError(
            "readouts 'sclip', 'clearclip' and 'naclip' need a transformer block as the last "
            f"layer; this {tower.kind} tower ends in a pool or a convolution. "
            "Use readout='value_residual' or 'value'"
        )
    raise ValueError(
        "mode='attention' needs a tower whose image feature attends to positions; "
        f"this {tower.kind} tower averages them. "
        "Use mode='align' for boxes and mode='mean' for masks"
    )
