"""Names of what a RegionModel can compute, and the checks that answer a wrong one."""

from collections.abc import Sequence

READOUTS = ("value_residual", "value")
OUTPUTS = (
    "image",
    *(f"{kind}{suffix}" for kind in ("dense", "boxes", "masks") for suffix in ("", "_value")),
    "boxes_attention",
    "masks_attention",
)


def with_readout(kind: str, readout: str) -> str:
    if readout not in READOUTS:
        raise ValueError(f"readout={readout!r}; legal values are 'value_residual' and 'value'")
    return kind if readout == "value_residual" else f"{kind}_value"


def is_attention(mode: str, pooled: str) -> bool:
    """True for attention, False for the pooled mode of the caller."""
    if mode not in (pooled, "attention"):
        raise ValueError(f"mode={mode!r}; legal values are {pooled!r} and 'attention'")
    return mode == "attention"


def check_outputs(outputs: Sequence[str], boxes, masks) -> None:
    for name in outputs:
        if name not in OUTPUTS:
            raise ValueError(f"output {name!r} is unknown; legal values are {', '.join(OUTPUTS)}")
        for kind, given in (("boxes", boxes), ("masks", masks)):
            if name.startswith(kind) and given is None:
                raise ValueError(
                    f"output {name!r} needs {kind}; pass {kind}=[...] with one tensor per image"
                )
