"""Every kind of tiny tower by name."""

import pytest
from tiny_towers import (
    TIMM,
    build_clip,
    build_coca,
    build_custom_vit,
    build_eva,
    build_resnet,
    build_timm,
    build_vit,
)

__all__ = ["build_clip", "build_eva", "build_resnet", "build_timm", "build_vit"]


@pytest.fixture
def towers(golden):
    """name -> builder of a tiny RegionModel, every supported kind."""
    return {
        "vit": build_vit,
        "custom_vit": build_custom_vit,
        "coca": build_coca,
        "eva": lambda **o: build_eva(golden("case01_eva_b"), **o),
        "resnet": build_resnet,
        **{f"timm_{kind}": (lambda k=kind, **o: build_timm(k, **o)) for kind in TIMM},
    }
