"""A classification data set of torchvision with a training and a test split, kept in memory."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.transforms import v2

from sartor.core.contracts import Task
from sartor.core.errors import ConfigError, DataError
from sartor.core.foreign import first_line
from sartor.data.images import Images, check_labels, draw_subset, existing, held_out, image_task
from sartor.data.survey import survey

__all__ = ["torchvision_dataset"]


def torchvision_dataset(
    *,
    dataset: str = "CIFAR10",
    root: str | Path = "",
    download: bool = False,
    size: int | None = None,
    channels: int | None = None,
    subset: int | None = None,
    batch: int = 128,
    valid: float = 0.1,
    seed: int = 0,
    augment: str | None = "shift_flip",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Task:
    """A data set of `torchvision.datasets`, by the name of its class.

    Args:
        dataset: `CIFAR10`, `CIFAR100`, `MNIST`, `FashionMNIST`, `SVHN`, `STL10`, `GTSRB`, ...
        root: Folder of the data, as torchvision lays it out.
        download: Whether to download what is missing.
        size: Height and width to resize to; needed if the images differ in size.
        channels: 3 for colour, 1 for grey, and pictures of the other kind are converted; None takes them as they are.
        subset: Size of a stratified subset to use in place of all training images (validation included).
        batch: Examples per training batch.
        valid: Share of the training images held out for the search.
        seed: Of the split and the subset, which do not depend on the seed of a run.
        augment: `"shift_flip"`, `"shift"`, `"flip"` or `""`; digits and letters must not be flipped.
        mean: Per channel, of pixels scaled to [0, 1]; by default that of the training images. A network that is
            trained already wants what it was trained with.
        std: Standard deviation, likewise.

    Raises:
        DataError: The data is missing, or the images differ in size and `size` is not given.
        ConfigError: There is no such data set, it has no training and test split, or a setting is out of range.
    """
    make = getattr(torchvision.datasets, dataset, None)
    if make is None or not inspect.isclass(make):
        raise ConfigError(f"torchvision has no data set {dataset!r}; it has {', '.join(torchvision.datasets.__all__)}")
    if channels not in {None, 1, 3}:
        raise ConfigError(f"channels must be 3 for colour, 1 for grey, or absent, got {channels}")
    folder = Path(root).expanduser() if download and str(root) else existing(root, "root")
    images, test_images = (
        _decoded(_opened(make, folder, part, download), size, channels) for part in ("train", "test")
    )
    classes = check_labels(images.labels, None, dataset)
    if subset is not None:
        images = images.take(draw_subset(images.labels, subset, seed))
    rest, valid_images = held_out(images, valid, seed, "valid")
    return image_task(
        rest,
        valid_images,
        test_images,
        classes=classes,
        batch=batch,
        augment=augment,
        source=dataset,
        name="torchvision_dataset",
        mean=mean,
        std=std,
    )


def _opened(make: Any, root: Path, part: str, download: bool) -> Any:
    known = inspect.signature(make).parameters
    if "train" in known:
        settings: dict[str, Any] = {"train": part == "train"}
    elif "split" in known:
        settings = {"split": part}
    else:
        raise ConfigError(f"{make.__name__} has no training and test split; use the task image_folder or loaders")
    if "download" in known:
        settings["download"] = download
    try:
        return make(root, **settings)
    except Exception as error:  # each class of torchvision has its own way to fail on damaged files
        reason = first_line(error)
        raise DataError(
            f"cannot open the {part} split of {make.__name__} in {root}: {reason}; give its root, or download = true"
        ) from error


def _decoded(dataset: Any, size: int | None, channels: int | None) -> Images:
    if not len(dataset):
        raise DataError(f"{type(dataset).__name__} is empty; look at its folder")
    names, read = [f"image {i} of {type(dataset).__name__}" for i in range(len(dataset))], list[tuple[Any, Any]]()
    survey(names, lambda i: read.append(_item(dataset, i, names[i])), "images")
    pixels, labels = [], []
    for found, label in read:
        image = found if channels is None else found.convert("L" if channels == 1 else "RGB")
        pixels.append(_resized(v2.functional.pil_to_tensor(image), size))
        labels.append(int(label))
        if pixels[-1].shape != pixels[0].shape:
            shapes = f"{tuple(pixels[0].shape)} and {tuple(pixels[-1].shape)}"
            raise DataError(f"images of {type(dataset).__name__} differ in shape, {shapes}; set size")
    return Images(torch.stack(pixels), torch.tensor(labels))


def _item(dataset: Any, index: int, where: str) -> tuple[Any, Any]:
    try:
        image, label = dataset[index]
    except Exception as error:  # each class of torchvision has its own way to fail on damaged files
        raise DataError(f"{where} cannot be read ({first_line(error)}); fetch it again") from error
    return image, label


def _resized(image: Tensor, size: int | None) -> Tensor:
    return image if size is None else v2.functional.resize(image, [size, size], antialias=True)
