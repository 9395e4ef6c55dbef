"""Every random stream is derived from the run's seed and a path of names.

Naming a stream (instead of drawing seeds in order) keeps it unchanged when another
consumer is added. `global_seed` is the only place that touches torch's global generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream called `path`."""
    key = "/".join([str(seed), *map(str, path)]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def numpy_rng(seed: int, *path: str | int) -> np.random.Generator:
    """The numpy stream called `path`."""
    return np.random.default_rng(derive(seed, *path))


def torch_rng(seed: int, *path: str | int, device: str = "cpu") -> torch.Generator:
    """The torch stream called `path`."""
    return torch.Generator(device).manual_seed(derive(seed, *path))


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block only (initialisation and torchvision transforms need it)."""
    devices = range(torch.cuda.device_count())  # named, or torch warns where there are several
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)  # noqa: TID251
        yield
