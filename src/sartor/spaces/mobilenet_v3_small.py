"""MobileNet-v3-small with a choice of kernel, expansion, filters and repeats for each of its five stages.

Source, choices and settings: see `_mobilenet_v3`.
"""

from __future__ import annotations

from sartor.spaces._mobilenet_v3 import MobilenetV3
from sartor.spaces._staged import Bottleneck

__all__ = ["MobilenetV3Small"]


class MobilenetV3Small(MobilenetV3):
    __doc__ = MobilenetV3.__doc__

    stages = (
        Bottleneck(16, 3, (16,), 2, "relu", True),
        Bottleneck(24, 3, (72, 88), 2, "relu"),
        Bottleneck(40, 5, (96, 240, 240), 2, "hardswish", True),
        Bottleneck(48, 5, (120, 144), 1, "hardswish", True),
        Bottleneck(96, 5, (288, 576, 576), 2, "hardswish", True),
    )
    head = 1024
