"""MobileNet-v3-large with a choice of kernel, expansion, filters and repeats for each of its six stages.

Source, choices and settings: see `_mobilenet_v3`.
"""

from __future__ import annotations

from sartor.spaces._mobilenet_v3 import MobilenetV3
from sartor.spaces._staged import Bottleneck

__all__ = ["MobilenetV3Large"]


class MobilenetV3Large(MobilenetV3):
    __doc__ = MobilenetV3.__doc__

    stages = (
        Bottleneck(16, 3, (16,), 1, "relu"),
        Bottleneck(24, 3, (64, 72), 2, "relu"),
        Bottleneck(40, 5, (72, 120, 120), 2, "relu", True),
        Bottleneck(80, 3, (240, 200, 184, 184), 2, "hardswish"),
        Bottleneck(112, 3, (480, 672), 1, "hardswish", True),
        Bottleneck(160, 5, (672, 960, 960), 2, "hardswish", True),
    )
    head = 1280
