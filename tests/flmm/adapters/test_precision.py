"""Names of precisions."""

import pytest
from flmm.adapters.precision import dtype_for


def test_the_default_depends_on_the_device():
    assert dtype_for(None, "cpu") == "float32"
    assert dtype_for(None, "cuda:1") == "bfloat16"
    assert dtype_for("fp16", "cpu") == "float16"
    with pytest.raises(ValueError, match="precision='int8': choose from fp32, bf16, fp16"):
        dtype_for("int8", "cpu")
