"""Images and labels in a NumPy archive (.npz) or a Parquet file with PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sartor.core.contracts import Task
from sartor.core.errors import ConfigError, DataError
from sartor.data.archives import Archive, Array, open_archive
from sartor.data.images import Images, check_labels, draw_subset, existing, held_out, image_task
from sartor.data.pictures import columns, decoded
from sartor.data.survey import survey

__all__ = ["arrays"]


def arrays(
    *,
    train: str | Path = "",
    test: str | Path = "",
    classes: int | None = None,
    channels: int | None = None,
    subset: int | None = None,
    batch: int = 128,
    valid: float = 0.1,
    seed: int = 0,
    augment: str | None = "shift_flip",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Task:
    """Classification of images that fit into memory; all of one size.

    A `.npz` file holds `x` (or `images`) and `y` (or `labels`): uint8 images `(n, H, W)`, `(n, H, W, C)` or
    `(n, C, H, W)` with one or three channels, and integer labels `(n,)` from 0. A `.parquet` file has the columns `png`
    (bytes) and `label`.

    Args:
        train: File with the training images.
        test: File with the test images; if empty, a share `valid` of the training images is held out instead.
        classes: Number of classes; None takes the largest label plus one.
        channels: 1 or 3 converts the images of a Parquet file to grey or colour; None leaves them.
        subset: Size of a stratified subset to use in place of all training images (validation included).
        batch: Examples per training batch.
        valid: Share of the training images held out for the search.
        seed: Of the split and the subset, which do not depend on the seed of a run.
        augment: `"shift_flip"`, `"shift"`, `"flip"` or `""`.
        mean: Per channel, of pixels scaled to [0, 1]; by default that of the training images. A network that is
            trained already wants what it was trained with.
        std: Standard deviation, likewise.

    Raises:
        DataError: A file is missing or holds something else; an image is corrupt; a class is too small to split.
        ConfigError: A setting is out of range.
        MissingExtraError: A Parquet file is given and pyarrow is not installed.
    """
    if channels not in (None, 1, 3):
        raise ConfigError(f"channels must be 1, 3 or absent, got {channels}")
    paths = [existing(train, "train"), *([existing(test, "test")] if str(test) else [])]
    read: list[Images] = []
    survey(list(map(str, paths)), lambda i: read.append(_read(paths[i], channels)), "files")
    images = read[0]
    classes = check_labels(images.labels, classes, str(train))
    if classes < 2:
        raise DataError(f"all labels of {train} are 0: a classification needs two classes; correct the labels")
    if subset is not None:
        images = images.take(draw_subset(images.labels, subset, seed))
    if str(test):
        test_images = read[1]
        if test_images.pixels.shape[1:] != images.pixels.shape[1:]:
            sizes = f"{tuple(images.pixels.shape[1:])} and {tuple(test_images.pixels.shape[1:])}"
            raise DataError(f"training and test images must have one shape (C, H, W), got {sizes}")
    else:
        images, test_images = held_out(images, valid, seed, "test")
    rest, valid_images = held_out(images, valid, seed, "valid")
    source = f"{Path(train).name}, {Path(test).name or 'test held out'}"
    return image_task(
        rest,
        valid_images,
        test_images,
        classes=classes,
        batch=batch,
        augment=augment,
        source=source,
        name="arrays",
        mean=mean,
        std=std,
    )


def _read(path: Path, channels: int | None) -> Images:
    readers = {".npz": _npz, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(f"{path} must end in {' or '.join(readers)}; convert it, or use the task image_folder")
    return readers[path.suffix](path, channels)


def _npz(path: Path, channels: int | None) -> Images:  # noqa: ARG001 - arrays are taken as they are
    archive = open_archive(path)
    pixels, labels = _entry(archive, "x", "images"), _entry(archive, "y", "labels")
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise DataError(f"images of {path} must be uint8 of 3 or 4 dimensions, got {pixels.dtype} {pixels.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != pixels.shape[:1]:
        raise DataError(f"labels of {path} must be {len(pixels)} integers, got {labels.dtype} {labels.shape}")
    return Images(_channels_first(torch.from_numpy(pixels), path), torch.from_numpy(labels.astype(np.int64)))


def _entry(archive: Archive, *names: str) -> Array:
    for name in names:
        if name in archive.names:
            return archive.array(name, name)
    held = ", ".join(archive.names) or "none"
    raise DataError(f"{archive.path} needs an array {' or '.join(names)}, and has only {held}")


def _channels_first(pixels: Tensor, path: Path) -> Tensor:
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.shape[-1] in (1, 3):
        return pixels.permute(0, 3, 1, 2).contiguous()
    if pixels.shape[1] in (1, 3):
        return pixels
    raise DataError(f"images of {path} have shape {tuple(pixels.shape)}; one axis, the second or last, must be 1 or 3")


def _parquet(path: Path, channels: int | None) -> Images:
    pngs, labels = columns(path, "png", "label")
    names, pixels = [f"row {i} of {path}" for i in range(len(pngs))], list[Tensor]()

    def read(index: int) -> None:
        pixels.append(decoded(pngs[index], names[index], channels))
        if type(labels[index]) is not int:
            raise DataError(f"{names[index]} has the label {labels[index]!r}; labels are whole numbers from 0")

    survey(names, read, "rows")
    for i, image in enumerate(pixels):
        if image.shape != pixels[0].shape:
            shapes = f"{tuple(pixels[0].shape)} and {tuple(image.shape)}"
            raise DataError(f"row {i} of {path}: all images must have one shape (C, H, W), got {shapes}")
    return Images(torch.stack(pixels), torch.tensor(labels, dtype=torch.int64))
