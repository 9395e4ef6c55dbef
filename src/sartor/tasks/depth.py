"""A distance in metres for every pixel: pictures and depth maps in folders or Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError
from sartor.core.metrics import SHARE
from sartor.data import distances
from sartor.data.images import existing, imagenet, normalise, per_channel
from sartor.data.losses import absolute
from sartor.data.pairs import (
    Augmentation,
    Pair,
    PairSplits,
    check_pairs,
    fingerprint,
    fitting,
    nearest,
    pairs_of,
    size_of,
    sized,
    smooth,
)
from sartor.data.pictures import decoded, numbers
from sartor.data.quality import mean_of

__all__ = ["depth"]


def depth(
    *,
    root: str | Path = "",
    per_metre: float | None = None,
    loss: str = "l1",
    size: Sequence[int] | int | None = None,
    channels: int = 3,
    batch: int = 8,
    augment: str = "zoom_flip",
    zoom: float = 1.5,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    valid: float = 0.1,
    test: float = 0.1,
    cache_gb: float = 2.0,
    upright: bool = False,
    seed: int = 0,
) -> Task:
    """Pictures and depth maps: one channel of numbers, as large as the picture, 0 where the depth is not known.

    Layouts: `root/train/images` and `root/train/depths`; `root/images/train` and `root/depths/train`; `train.parquet`
    with the columns `image` and `depth` (content of picture files); and likewise `val` (or `valid`) and `test`. Splits
    that are missing are drawn from the training pictures; `root/images` and `root/depths` without splits, or one
    Parquet file, will do. Names in both folders are equal but for the ending.

    The network gets `(batch, C, H, W)` and gives metres, `(batch, 1, H, W)` or `(batch, H, W)`. Pixels of unknown depth
    count nowhere. Distance is the mean absolute difference of two outputs. Quality is the root mean squared error in
    metres, which decides (less is better), the absolute relative error, and the share of pixels that are wrong by a
    factor below 1.25 (Eigen et al. 2014, section 4): each is computed picture by picture and averaged over pictures,
    and its interval is bootstrapped over them. (Papers that take the root over all pixels of the data set at once have
    a slightly larger error.)

    Args:
        root: The folder, or one Parquet file.
        per_metre: How much of a depth map's unit is a metre. None: 1000 for maps of 16 bits or more (millimetres), 25.5
            for those of 8 bits (255 is 10 metres), 1 for floating point.
        loss: `"l1"`, the mean absolute error in metres, or `"silog"`, the scale-invariant error of logarithms (Eigen et
            al. 2014, equation 4, lambda = 0.5).
        size: Height and width to resize to, depths by the nearest pixel; needed if the pictures differ in size.
        channels: 3 for colour, 1 for grey; pictures of the other kind are converted.
        batch: Pictures per batch.
        augment: `"zoom_flip"` takes a random window and enlarges it (what fills the picture is nearer: depths are
            divided by the factor), and mirrors half of the pictures; `"zoom"`, `"flip"` do one of these, `""` nothing.
        zoom: Largest factor of the enlargement.
        mean: Per channel, of pixels scaled to [0, 1]; ImageNet's by default. A network that is trained already wants
            what it was trained with.
        std: Standard deviation, likewise.
        valid: Share of the training pictures held out for the search, unless the split is there.
        test: Share of the training pictures held out for the final report, likewise.
        cache_gb: Decoded pictures are kept in memory up to this size.
        upright: Whether pictures are turned as their EXIF data says; without, they are as they are stored, and the log
            says if some are turned. Answers stay as they are stored.
        seed: Of the splits, which do not depend on the seed of a run.

    Raises:
        DataError: The folder is missing or holds no such layout, a picture has no depth map, a file cannot be decoded,
            sizes differ, a depth is negative or not finite, a map knows no depth; the message names all that are wrong.
        ConfigError: A setting is out of range.
    """
    if batch < 1 or not (per_metre is None or per_metre > 0):
        raise ConfigError(f"batch must be at least 1 and per_metre positive, got {batch} and {per_metre}")
    losses = {"l1": distances.absolute_error, "silog": distances.scale_invariant}
    if loss not in losses:
        raise ConfigError(f"loss must be one of {', '.join(map(repr, losses))}, got {loss!r}")
    splits = pairs_of(existing(root, "root"), "depths", "depth", valid=valid, test=test, seed=seed)
    check_pairs(splits, "task.upright", upright=upright)
    low, high = (per_channel(*known) for known in zip((mean, std), imagenet(channels), ("mean", "std"), strict=True))
    resize = sized(size)
    shape = resize or size_of(splits["train"][0], upright=upright)
    data = PairSplits.of(
        splits,
        partial(_read, channels, per_metre, resize, shape, upright),
        partial(_normalised, low, high),
        batch=batch,
        transform=Augmentation(augment, zoom, _nearer),
        cache_gb=cache_gb,
    )
    return Task(
        train=data.train,
        valid=data.valid,
        test=data.test,
        loss=losses[loss],
        distance=absolute,
        metrics=(
            mean_of(distances.root_mean_squared, "rmse", "min", "m"),
            mean_of(distances.absolute_relative, "abs_rel", "min"),
            mean_of(distances.within, "delta1", "max", SHARE),
        ),
        example=data.example,
        name="depth",
        fingerprint=fingerprint(splits),
        describe={"source": str(root), "loss": loss, "augment": augment or "none"}
        | {k: len(v) for k, v in splits.items()},
    )


def _read(
    channels: int,
    per_metre: float | None,
    resize: tuple[int, int] | None,
    wanted: tuple[int, int],
    upright: bool,
    pairs: Sequence[Pair],
    index: int,
) -> tuple[Tensor, Tensor]:
    """Picture `(channels, H, W)`, uint8, and metres `(1, H, W)`, float32."""
    pair = pairs[index]
    picture = decoded(pair.picture, pair.names[0], channels, upright=upright)
    values = numbers(pair.answer, pair.names[1])
    if not bool(values.isfinite().all()) or bool((values < 0).any()):
        raise DataError(f"{pair.names[1]} has negative or infinite depths; write 0 where the depth is not known")
    if not bool(values.any()):
        raise DataError(f"{pair.names[1]} knows no depth, as all is 0 there; remove it and its picture")
    metres = values.float() / (per_metre or _unit(values))
    if resize is not None and picture.shape[-2:] == metres.shape[-2:]:
        picture, metres = smooth(picture, resize), nearest(metres, resize)
    fitting(picture, metres, pair, wanted)
    return picture, metres[None]


def _unit(values: Tensor) -> float:
    """A metre in a map's unit, where the user does not say: by its number format."""
    return {torch.uint8: 25.5, torch.float32: 1.0}.get(values.dtype, 1000.0)


def _nearer(metres: Tensor, size: tuple[int, int], factor: float) -> Tensor:
    # enlarged by a factor, a thing looks as it does from that much nearer (Eigen et al. 2014, section 3.4)
    return nearest(metres, size) / factor


def _normalised(mean: Sequence[float], std: Sequence[float], pictures: Tensor, metres: Tensor) -> Batch:
    return normalise(pictures, mean, std), metres
