"""A class for every pixel: pictures and label maps in folders or Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError
from sartor.data.images import existing, imagenet, normalise, per_channel
from sartor.data.losses import cross_entropy, imitation
from sartor.data.overlap import overlap
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
from sartor.data.survey import survey

__all__ = ["segmentation"]


def segmentation(
    *,
    root: str | Path = "",
    classes: int | None = None,
    ignore: int = 255,
    names: Sequence[str] = (),
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
    """Pictures and label maps: one channel of class numbers from 0, of 8 or 16 bits, as large as the picture.

    Layouts: `root/train/images` and `root/train/labels`; `root/images/train` and `root/labels/train`; `train.parquet`
    with the columns `image` and `label` (content of picture files); and likewise `val` (or `valid`) and `test`. Splits
    that are missing are drawn from the training pictures; `root/images` and `root/labels` without splits, or one
    Parquet file, will do. Names in both folders are equal but for the ending.

    The network gets `(batch, C, H, W)` and gives logits `(batch, classes, H, W)`. Loss is the cross-entropy, the mean
    over an example's pixels but those of the label `ignore`; distance that between softmaxes. Quality is mIoU, which
    decides: intersections and unions are added up over the data set, as the field does, and a class that is nowhere
    does not count; and the share of right pixels. Intervals are bootstrapped over pictures.

    Args:
        root: The folder, or one Parquet file.
        classes: Number of classes; None takes the largest training label (but for `ignore`) plus one, and reads all.
        ignore: Label of the pixels that do not count: 255 by custom, 11 in CamVid.
        names: Of the classes, for the report.
        size: Height and width to resize to, labels by the nearest pixel; needed if the pictures differ in size.
        channels: 3 for colour, 1 for grey; pictures of the other kind are converted.
        batch: Pictures per batch.
        augment: `"zoom_flip"` takes a random window and enlarges it, and mirrors half of the pictures; `"zoom"`,
            `"flip"` do one of these, `""` nothing. Picture and labels change in step.
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
        DataError: The folder is missing or holds no such layout, a picture has no labels, a file cannot be decoded,
            sizes differ, a label is out of range; the message names all that are wrong.
        ConfigError: A setting is out of range.
    """
    if batch < 1 or (classes is not None and classes < 2):
        raise ConfigError(f"batch must be at least 1 and classes at least 2, got {batch} and {classes}")
    splits = pairs_of(existing(root, "root"), "labels", "label", valid=valid, test=test, seed=seed)
    check_pairs(splits, "task.upright", upright=upright)
    found = classes if classes is not None else _largest(splits["train"], ignore) + 1
    if names and len(names) != found:
        raise ConfigError(f"names has {len(names)} entries, the labels have {found} classes; give one name per class")
    low, high = (per_channel(*known) for known in zip((mean, std), imagenet(channels), ("mean", "std"), strict=True))
    resize = sized(size)
    shape = resize or size_of(splits["train"][0], upright=upright)
    data = PairSplits.of(
        splits,
        partial(_read, channels, found, ignore, resize, shape, upright),
        partial(_normalised, low, high),
        batch=batch,
        transform=Augmentation(augment, zoom, _enlarged),
        cache_gb=cache_gb,
    )
    return Task(
        train=data.train,
        valid=data.valid,
        test=data.test,
        loss=partial(cross_entropy, ignore=ignore),
        distance=imitation,
        metrics=overlap(found, ignore),
        example=data.example,
        name="segmentation",
        logits=True,
        classes=found,
        ignore=ignore,
        fingerprint=fingerprint(splits),
        describe={"source": str(root), "classes": list(names) or found, "augment": augment or "none"}
        | {k: len(v) for k, v in splits.items()},
    )


def _largest(pairs: Sequence[Pair], ignore: int) -> int:
    most = [-1]

    def look(index: int) -> None:
        pair = pairs[index]
        labels = numbers(pair.answer, pair.names[1])
        if labels.is_floating_point():
            raise DataError(
                f"{pair.names[1]} has labels in floating point; save class numbers as a PNG of 8 or 16 bits"
            )
        counted = labels[labels != ignore]
        most[0] = max(most[0], int(counted.max()) if len(counted) else -1)

    survey([pair.names[1] for pair in pairs], look, "label maps")
    if most[0] < 1:
        raise DataError(f"the training labels hold {most[0] + 1} classes beside ignore = {ignore}; a task needs two")
    return most[0]


def _read(
    channels: int,
    classes: int,
    ignore: int,
    resize: tuple[int, int] | None,
    wanted: tuple[int, int],
    upright: bool,
    pairs: Sequence[Pair],
    index: int,
) -> tuple[Tensor, Tensor]:
    """Picture `(channels, H, W)` and labels `(H, W)`, uint8 (labels int32 where they need it)."""
    pair = pairs[index]
    picture = decoded(pair.picture, pair.names[0], channels, upright=upright)
    labels = numbers(pair.answer, pair.names[1])
    labels = labels if labels.is_floating_point() else labels.long()
    wrong = labels[((labels < 0) | (labels >= classes)) & (labels != ignore)]
    if len(wrong) or labels.is_floating_point():
        raise DataError(
            f"{pair.names[1]} has the label {wrong[0].item() if len(wrong) else 'in floating point'}; labels must be "
            f"whole numbers in 0..{classes - 1}, or ignore = {ignore}: renumber them, or correct classes or ignore"
        )
    if resize is not None and picture.shape[-2:] == labels.shape[-2:]:
        picture, labels = smooth(picture, resize), nearest(labels, resize)
    fitting(picture, labels, pair, wanted)
    return picture, labels.to(torch.uint8 if 0 <= ignore < 256 and classes <= 256 else torch.int32)


def _enlarged(labels: Tensor, size: tuple[int, int], factor: float) -> Tensor:  # noqa: ARG001 - labels have no scale
    return nearest(labels, size)


def _normalised(mean: Sequence[float], std: Sequence[float], pictures: Tensor, labels: Tensor) -> Batch:
    return normalise(pictures, mean, std), labels.long()
