"""Golden pixels are those of one Pillow.

    @same_pillow
    def test_golden_crops(golden): ...

Pillow resizes in two passes and rounds, and cuts off at 0 and 255, between them. Pillow 13 does the
vertical pass first where that is less work, in tall images; Pillow 12 always did it last. The
golden data are of Pillow 13. Pixels of Pillow 12 differ by a grey level, and by more where the
first pass overshoots.
"""

import PIL
import pytest

same_pillow = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13,
    reason="the golden pixels are of Pillow 13, which resizes tall images in another order",
)
