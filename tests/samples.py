"""Small instances of every space, for the contract tests."""

from __future__ import annotations

import pytest

from sartor.core import plugins
from sartor.core.errors import SartorError

# What a contract test cannot afford at its default size, and further variants worth testing.
SETTINGS = {
    "blocks": {
        "pool": {"layers": 4, "repeats": 2, "widths": (4, 6), "size": 8, "classes": 5},
        "nats": {"layers": 2, "repeats": 1, "widths": (4, 6), "size": 8, "stages": "nats"},
    },
    "cells": {
        "nats": {"size": 8, "cells": (1, 1), "widths": (4, 6), "stem": 4, "classes": 5},
        "darts": {"preset": "darts", "size": 9, "cells": (1, 1), "widths": (4, 5), "nodes": 2, "stem": 6},
        "mixed": {
            **{"nodes": 2, "operations": ("conv1", "max3", "dil3"), "size": 8, "cells": (2, 1), "widths": (4, 6)},
            **{"inputs": 2, "stem": 4},
        },
    },
    "compression": {
        "all": {"network": "nets:residual", "size": 8, "steps": 4},
        "graph": {"network": "nets:numbers", "size": 8, "steps": 4, "changes": ("layers", "blocks")},
        "coupled": {"network": "nets:branches", "size": 8, "steps": 8, "coupled": "channels"},
    },
    "mbconv": {
        "small": {"preset": "small", "size": 8, "first": 4, "widths": (8, 12), "blocks": (2, 3), "strides": (1, 2)},
        "choices": {
            **{"preset": "small", "size": 9, "stem": (4, 1), "first": 4},
            **{"widths": (4, 6), "blocks": (2, 2), "strides": (1, 2)},
            **{"kernels": (5,), "expansions": (1, 2.5), "se": True, "activations": ("relu6", "hswish")},
        },
    },
    "mobilenet_v1": {
        "small": {"size": 16, "stem": "small", "classes": 5, "width": 0.25},
        "imagenet": {"size": 64, "classes": 5, "width": 0.25, "divisor": 4},
    },
    "mobilenet_v2": {"small": {"size": 32, "width": 0.25, "classes": 5}},
    "mobilenet_v3_large": {"small": {"size": 32, "width": 0.25, "classes": 5}},
    "mobilenet_v3_small": {"small": {"size": 32, "width": 0.25, "classes": 5}},
    "nasnet": {
        "cifar": {"blocks": 2, "cells": 1, "width": 4, "size": 12, "classes": 5},
        "imagenet": {"blocks": 1, "cells": 1, "stages": 2, "width": 8, "size": 33, "stem": "imagenet"},
    },
    "nats_size": {"small": {"size": 9, "classes": 5}},
    "nats_topology": {"small": {"size": 8, "classes": 5, "cells": 1}},
    "resnet_widths": {
        "projection": {"blocks": (1, 2), "widths": (8, 16), "size": 8},
        "pad": {"blocks": (2, 1, 1), "widths": (8, 16, 12), "size": 8, "shortcut": "pad", "classes": 3},
        "imagenet": {"blocks": (1, 1), "widths": (8, 16), "size": 32, "stem": "imagenet"},
    },
    "widths": {
        "class": {"network": "nets:residual", "size": 8, "divisor": 2, "multipliers": (0.25, 0.5, 0.75)},
        "graph": {"network": "nets:numbers", "size": 8, "divisor": 2, "multipliers": (0.25, 0.5)},
        "blocks": {"network": "nets:residual", "size": 8, "divisor": 2, "multipliers": (0.5,), "blocks": True},
    },
}


def _all():
    for name in plugins.names("spaces"):
        for label, settings in SETTINGS.get(name, {"default": {}}).items():
            try:
                yield pytest.param(plugins.load("spaces", name)(**settings), id=f"{name}-{label}")
            except SartorError as error:  # it needs something that it has no default for (a network, a file)
                reason = pytest.mark.skip(reason=str(error))
                yield pytest.param(None, id=f"{name}-{label}", marks=reason)


SPACES = list(_all())


def spaces_with(*abilities):
    """Those of the spaces that have all abilities."""
    return [p for p in SPACES if all(isinstance(p.values[0], a) for a in abilities)]


def shaped(spaces):
    """Those that say what enters their networks."""
    return [p for p in spaces if p.values[0] is not None and p.values[0].input_shape is not None]
