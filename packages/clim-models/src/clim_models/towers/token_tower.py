"""What all ViT-like towers share: blocks, the last one read by class tokens or per position, region
class tokens.

Letters: B images, N = h*w patches, P prefix tokens (class token first), D width, C embedding, Q
regions.
"""

from torch import Tensor, nn

from clim_models.towers.attention import (
    mask_with_prefix,
    masked_attention,
    maybe_checkpoint,
    split_heads,
    to_map,
)
from clim_models.towers.blocks import BlockReader
from clim_models.towers.tower import Readout, Stem


class TokenTower:
    """Base of the ViT towers. Subclasses embed images, run blocks and project tokens."""

    kind: str
    visual: nn.Module
    prefix: int
    pool: str  # "token" or "avg"
    blocks: nn.ModuleList
    readers: list[BlockReader]  # one per block
    grad_checkpointing = False
    aligns_boxes = False

    def embed(self, images: Tensor) -> Stem:
        """(B, 3, H, W) -> tokens (B, P + N, D) that enter the first block."""
        raise TypeError("TokenTower is a base class; use find_tower(visual)")

    def run_block(self, block: nn.Module, x: Tensor, rope: Tensor | None) -> Tensor:
        return block(x)

    def project(self, tokens: Tensor) -> Tensor:
        """Final norm and projection of tokens: (B, T, D) -> (B, T, C)."""
        raise TypeError("TokenTower is a base class; use find_tower(visual)")

    def mean_of_last_block(self, tokens: Tensor, rope: Tensor | None) -> Tensor:
        """Image feature of towers without class token: (B, P + N, D) -> (B, C)."""
        raise TypeError("TokenTower is a base class; use find_tower(visual)")

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        return [b.attn for b in self.blocks[:-1]] * attention + [self.blocks[-1]]

    def stem(self, images: Tensor, allowed: Tensor | None = None) -> Stem:
        """All blocks but the last; with `allowed` (B, Q, N) a class token of every region goes
        along."""
        start = self.embed(images)
        x, rope = start.tokens, start.rope
        if allowed is None:
            for block in self.blocks[:-1]:
                x = self._checkpointed(self.run_block, block, x, rope)
            return Stem(x, start.grid, rope)
        if self.pool != "token":
            raise ValueError(
                f"mode='attention' needs a class token; this {self.kind} tower pools by "
                f"{self.pool!r}. "
                "Use mode='align' for boxes and mode='mean' for masks"
            )
        seen = mask_with_prefix(allowed, self.prefix)  # (B, Q, P + N)
        regions = x[:, :1].expand(-1, allowed.shape[1], -1)  # (B, Q, D)
        for reader in self.readers[:-1]:
            x, regions = self._checkpointed(_block_with_regions, reader, x, regions, rope, seen)
        return Stem(x, start.grid, rope, regions)

    def image(self, stem: Stem) -> Tensor:
        if self.pool == "token":
            return self._checkpointed(self._ask, stem.tokens[:, :1], stem.tokens, stem.rope, None)[
                :, 0
            ]
        return self._checkpointed(self.mean_of_last_block, stem.tokens, stem.rope)

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        seen = mask_with_prefix(allowed, self.prefix)
        return self._checkpointed(self._ask, stem.regions, stem.tokens, stem.rope, seen)

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        step = self._value_residual if readout == "value_residual" else self._value
        return to_map(
            self._checkpointed(step, stem.tokens[:, self.prefix :]), stem.grid
        )  # (B, C, h, w)

    def _checkpointed(self, function, *inputs):
        return maybe_checkpoint(self.grad_checkpointing, function, *inputs)

    def _value_residual(self, patches: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, C): the last block as if every patch attended to itself alone."""
        last = self.readers[-1]
        return self.project(last.finish(patches, last.output(last.value(last.norm(patches)))))

    def _value(self, patches: Tensor) -> Tensor:
        """MaskCLIP's readout (arXiv 2112.01071): value and output projection, no residual, no
        MLP."""
        last = self.readers[-1]
        return self.project(last.output(last.value(last.norm(patches))))

    def _ask(
        self, queries: Tensor, tokens: Tensor, rope: Tensor | None, seen: Tensor | None
    ) -> Tensor:
        """The last block for class tokens only: (B, Q, D) that see bool (B, Q, P + N) -> (B, Q,
        C)."""
        last = self.readers[-1]
        y = last.norm(tokens)
        v = split_heads(last.value(y), last.heads)
        attended = masked_attention(
            last.query(last.norm(queries), None), last.key(y, rope), v, seen
        )
        return self.project(last.finish(queries, last.output(attended)))


def _block_with_regions(
    reader: BlockReader, x: Tensor, regions: Tensor, rope: Tensor | None, seen: Tensor
) -> tuple[Tensor, Tensor]:
    """One block for image tokens (B, P + N, D) and region class tokens (B, Q, D), keys and values
    computed once.

    Region tokens see the prefix tokens and the patches of their region; nobody sees them, so x is
    what the block alone would give.
    """
    y = reader.norm(x)
    k, v = reader.key(y, rope), split_heads(reader.value(y), reader.heads)
    among_tokens = masked_attention(reader.query(y, rope), k, v, None)
    inside_regions = masked_attention(reader.query(reader.norm(regions), None), k, v, seen)
    return (
        reader.finish(x, reader.output(among_tokens)),
        reader.finish(regions, reader.output(inside_regions)),
    )
