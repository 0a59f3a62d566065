"""Compile the blocks of an image tower, to train and evaluate faster."""

from torch import nn

from clim_models.towers.tower import Tower


def compile_blocks(tower: Tower, *, backend: str = "inductor") -> None:
    """Compile each transformer block of an image tower, in place, with `torch.compile`.

    Features stay the same up to rounding, weights keep their names, and a copy of the model is not
    compiled. The first call with an input of a new shape takes up to a minute; a second shape makes
    code for any shape. Parts that are read outside a block's forward, such as the value path of the
    last block, run as before.

    Args:
        tower: of a `RegionModel`; gradient checkpointing may be on.
        backend: of `torch.compile`. "inductor" needs Triton on a GPU and a C++ compiler on a CPU.

    Raises:
        ValueError: the tower is a CNN, which has no such blocks.
    """
    blocks = getattr(tower, "blocks", None)
    if not blocks:
        raise ValueError(
            f"towers of kind {tower.kind!r} have no transformer blocks to compile: use "
            "torch.compile on what you call, such as model.encode_dense"
        )
    for block in blocks:
        assert isinstance(block, nn.Module)
        block.compile(backend=backend)
