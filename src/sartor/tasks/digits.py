"""1,797 handwritten digits that ship inside scikit-learn: the default that needs no download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from sartor.core.contracts import Task
from sartor.core.errors import ConfigError
from sartor.data.images import Images, held_out, image_task

__all__ = ["digits"]


def digits(
    *,
    size: int = 32,
    channels: int = 1,
    batch: int = 64,
    valid: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    augment: str | None = "shift",
) -> Task:
    """Handwritten digits, ten classes, 8 x 8 pixels enlarged bilinearly.

    Args:
        size: Height and width of the images.
        channels: 1, or 3 equal ones for networks that expect colour.
        batch: Examples per training batch.
        valid: Share of the images held out for the search.
        test: Share of the images held out for the final report.
        seed: Of the splits, which do not depend on the seed of a run.
        augment: `"shift"` moves each training image by up to an eighth of its size; `""` leaves it alone.

    Raises:
        ConfigError: A setting is out of range.
    """
    if channels not in (1, 3):
        raise ConfigError(f"channels must be 1 or 3, got {channels}")
    if size < 8:
        raise ConfigError(f"size must be at least 8, the size of the originals, got {size}")
    if valid + test >= 1:
        raise ConfigError(f"valid + test must be below 1 to leave something to train on, got {valid} + {test}")
    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float()[:, None] * (255 / 16)
    pixels = functional.interpolate(grey, size=(size, size), mode="bilinear", align_corners=False)
    images = Images(
        pixels.round().to(torch.uint8).repeat(1, channels, 1, 1), torch.from_numpy(bunch.target).to(torch.int64)
    )
    rest, test_images = held_out(images, test, seed, "test")
    train_images, valid_images = held_out(rest, valid / (1 - test), seed, "valid")
    return image_task(
        train_images,
        valid_images,
        test_images,
        classes=10,
        batch=batch,
        augment=augment,
        source="scikit-learn digits",
        name="digits",
    )
