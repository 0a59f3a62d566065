"""The base of all ViT-like towers: the last block, read by class tokens or per position.

Letters: B images, N = h*w patches, P prefix tokens (class token first), D width, C embedding,
Q regions.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from clim_models.features import Readout
from clim_models.towers.attention import (
    mask_with_prefix,
    masked_attention,
    maybe_checkpoint,
    split_heads,
    to_map,
)
from clim_models.towers.blocks import BlockReader
from clim_models.towers.readouts import similar_path, value_branch, value_path
from clim_models.towers.tower import Ability, GradientPath, Stem, refuse

ATTEND: frozenset[Ability] = frozenset({"attend"})
ATTEND_AND_MIX: frozenset[Ability] = frozenset({"attend", "mix"})
MIX: frozenset[Ability] = frozenset({"mix"})


class TokenTower:
    """Base of the ViT towers. Subclasses embed images, run blocks and project tokens.

    Attributes:
        kind: short name.
        visual: the open_clip tower.
        prefix: P, number of tokens before the patches.
        pool: what the image feature is read from: a class token, the mean, or an attention pool.
        blocks: the transformer blocks.
        readers: one for each block.
    """

    kind: str
    visual: nn.Module
    stride: int
    prefix: int
    pool: Literal["token", "avg", "map"]
    blocks: Sequence[nn.Module]
    readers: Sequence[BlockReader]
    grad_checkpointing: bool = False

    def embed(self, images: Tensor) -> Stem:
        """Turn (B, 3, H, W) into the tokens (B, P + N, D) that enter the first block."""
        raise TypeError("TokenTower is a base class; use find_tower(visual)")

    def run_block(self, block: nn.Module, x: Tensor, rope: Tensor | None) -> Tensor:
        """Run one block as the wrapped model does: (B, P + N, D) -> (B, P + N, D)."""
        found: Tensor = block(x)
        return found

    def project(self, tokens: Tensor) -> Tensor:
        """Apply the final norm and the projection to tokens: (B, T, D) -> (B, T, C)."""
        raise TypeError("TokenTower is a base class; use find_tower(visual)")

    def mean_of_last_block(self, tokens: Tensor, rope: Tensor | None) -> Tensor:
        """Return the image feature of a tower without class token: (B, P + N, D) -> (B, C)."""
        raise TypeError("TokenTower is a base class; use find_tower(visual)")

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Return the units that `freeze` unlocks, last layer first."""
        raise TypeError("TokenTower is a base class; use find_tower(visual)")

    def always_trainable(self) -> list[nn.Parameter]:
        return []

    def unused(self, path: GradientPath) -> list[nn.Parameter]:
        """Return parameters that get no gradient if only `path` is computed."""
        raise TypeError("TokenTower is a base class; use find_tower(visual)")

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    @property
    def supports(self) -> frozenset[Ability]:
        return ATTEND_AND_MIX if self.pool == "token" else MIX

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        last = [self.blocks[-1]]
        if not attention:
            return last
        return [reader.attention for reader in self.readers[:-1]] + last

    def stem(self, images: Tensor, allowed: Tensor | None = None, keep: Sequence[int] = ()) -> Stem:
        """Run all blocks but the last; with `allowed` (B, Q, N), region class tokens go along."""
        start = self.embed(images)
        x = start.tokens
        rope = start.rope
        regions = None
        seen = None
        maps: dict[int, Tensor] = {}

        if allowed is not None:
            if "attend" not in self.supports:
                refuse(self, "attend")
            seen = mask_with_prefix(allowed, self.prefix)  # (B, Q, P + N)
            regions = x[:, :1].expand(-1, allowed.shape[1], -1)  # (B, Q, D)

        for i, reader in enumerate(self.readers[:-1]):
            if regions is None:
                x = self._checkpointed(self.run_block, self.blocks[i], x, rope)
            else:
                x, regions = self._checkpointed(_block_with_regions, reader, x, regions, rope, seen)
            if i in keep:
                maps[i] = to_map(x[:, self.prefix :], start.grid)
        return Stem(x, start.grid, rope, regions, maps)

    def image(self, stem: Stem) -> Tensor:
        if self.pool == "token":
            class_token = stem.tokens[:, :1]
            asked = self._checkpointed(self._ask, class_token, stem.tokens, stem.rope, None)
            return asked[:, 0]
        return self._checkpointed(self.mean_of_last_block, stem.tokens, stem.rope)

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        if stem.regions is None:
            refuse(self, "attend")
        seen = mask_with_prefix(allowed, self.prefix)
        return self._checkpointed(self._ask, stem.regions, stem.tokens, stem.rope, seen)

    def align(self, stem: Stem, boxes: list[Tensor]) -> Tensor:
        refuse(self, "align")

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        last = self.num_blocks - 1
        if readout == Readout.VALUE_RESIDUAL and last in stem.maps:
            # `pyramid` has run the value path of the last block already.
            return to_map(self.project(stem.maps[last].flatten(2).transpose(1, 2)), stem.grid)

        if readout.mixes:
            found = self._checkpointed(self._similar, stem.tokens, stem.rope, stem.grid, readout)
        else:
            step = self._value_residual if readout == Readout.VALUE_RESIDUAL else self._value
            found = self._checkpointed(step, stem.tokens[:, self.prefix :])
        return to_map(found, stem.grid)  # (B, C, h, w)

    def pyramid(self, stem: Stem, blocks: Sequence[int]) -> list[Tensor]:
        last = self.num_blocks - 1
        if last in blocks and last not in stem.maps:
            patches = stem.tokens[:, self.prefix :]
            # The stem keeps it, so that `dense` need not run the block again.
            stem.maps[last] = to_map(self._checkpointed(self._value_path, patches), stem.grid)
        return [stem.maps[i] for i in blocks]

    def _checkpointed(self, function: Callable[..., Any], *inputs: Any) -> Any:
        return maybe_checkpoint(self.grad_checkpointing, function, *inputs)

    def _value_path(self, patches: Tensor) -> Tensor:
        return value_path(self.readers[-1], patches)

    def _value_residual(self, patches: Tensor) -> Tensor:
        """Project the value path of the last block: (B, N, D) -> (B, N, C)."""
        return self.project(self._value_path(patches))

    def _value(self, patches: Tensor) -> Tensor:
        """Project the value branch of the last block: (B, N, D) -> (B, N, C)."""
        return self.project(value_branch(self.readers[-1], patches))

    def _similar(
        self, tokens: Tensor, rope: Tensor | None, grid: tuple[int, int], readout: Readout
    ) -> Tensor:
        """Project the readouts in which patches attend to similar tokens: (B, P + N, D) -> (B, N,
        C)."""
        return self.project(similar_path(self.readers[-1], tokens, rope, grid, readout))

    def _ask(
        self, queries: Tensor, tokens: Tensor, rope: Tensor | None, seen: Tensor | None
    ) -> Tensor:
        """Run the last block for class tokens only.

        queries (B, Q, D) see the tokens (B, P + N, D) that bool (B, Q, P + N) allows -> (B, Q, C).
        """
        last = self.readers[-1]
        y = last.norm(tokens)
        v = split_heads(last.value(y), last.heads)

        # Class tokens have no place in the image, so no rotary position.
        q = last.query(last.norm(queries), None)
        attended = masked_attention(q, last.key(y, rope), v, seen)
        return self.project(last.finish(queries, last.output(attended)))


def _block_with_regions(
    reader: BlockReader, x: Tensor, regions: Tensor, rope: Tensor | None, seen: Tensor
) -> tuple[Tensor, Tensor]:
    """Run one block for image tokens (B, P + N, D) and region class tokens (B, Q, D).

    Region tokens see the prefix tokens and the patches of their region. No token sees them, so x is
    what the block alone would give. Keys and values are computed once.
    """
    y = reader.norm(x)
    k = reader.key(y, rope)
    v = split_heads(reader.value(y), reader.heads)

    among_tokens = masked_attention(reader.query(y, rope), k, v, None)
    inside_regions = masked_attention(reader.query(reader.norm(regions), None), k, v, seen)
    return (
        reader.finish(x, reader.output(among_tokens)),
        reader.finish(regions, reader.output(inside_regions)),
    )
