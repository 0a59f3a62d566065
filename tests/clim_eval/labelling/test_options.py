"""Options of a labelling job."""

from pathlib import Path

import pytest
from clim_eval.labelling.options import PseudoLabelOptions


@pytest.mark.parametrize(
    "names", [("cat", "cat"), ("cat", "cat\u200b"), ("caf\u00e9", "cafe\u0301"), (" ",)]
)
def test_names_that_are_there_twice_or_empty_are_refused(names):
    paths = {"images": ("photos",), "boxes": Path("boxes.json"), "out": Path("labels.json")}
    assert PseudoLabelOptions(**paths, names=("cat", "dog")).names == ("cat", "dog")
    with pytest.raises(ValueError, match=r"twice|is empty"):
        PseudoLabelOptions(**paths, names=names)
