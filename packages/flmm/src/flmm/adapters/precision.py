"""The numbers of an LMM's weights, by the names that all packages use."""

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Precision -> dtype of torch."""


def dtype_for(precision: str | None, device: str) -> str:
    """Return the dtype of a precision; None is bf16 on a GPU and fp32 on a CPU.

    Raises:
        ValueError: the precision is not known.
    """
    chosen = precision or ("fp32" if device == "cpu" else "bf16")
    if chosen not in DTYPES:
        raise ValueError(f"precision={precision!r}: choose from {', '.join(DTYPES)}")
    return DTYPES[chosen]
