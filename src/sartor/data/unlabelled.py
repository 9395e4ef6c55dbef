"""Examples of a network's input without labels: images in a folder, or arrays of images and other numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sartor.core.contracts import Batch
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import global_seed
from sartor.core.trees import Tree
from sartor.data.batches import Splits, divide
from sartor.data.images import augmenter, draw, existing, normalise
from sartor.data.photographs import Photographs
from sartor.data.pictures import picture_files
from sartor.data.sources import MARKS, Sources, arranged, tensor_of

# Of ImageNet, as every pretrained network of torchvision expects them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Look:
    """How inputs reach the network.

    Attributes:
        size: Height and width of images from files.
        mean: Per channel of images, of pixels scaled to [0, 1]; None: ImageNet's for colour, 0 for grey.
        std: Likewise; 1 for grey.
        augment: Of training images, see `sartor.data.images.augmenter`.
        form: How the network gets several inputs, see `sartor.data.sources.arranged`.
        room: Bytes that decoded images may take.
        upright: Whether images from files are turned as their EXIF data says.
    """

    size: int = 224
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    augment: str = ""
    form: str = "apart"
    room: int = 0
    upright: bool = False

    def normalisation(self, channels: int) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and standard deviation of so many channels.

        Raises:
            ConfigError: They have another number, or a deviation is not positive.
        """
        usual = (MEAN, STD) if channels == len(MEAN) else ((0.0,) * channels, (1.0,) * channels)
        mean, std = (own if own is not None else rest for own, rest in zip((self.mean, self.std), usual, strict=True))
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise ConfigError(
                f"mean and std need one number for each of {channels} channels, std positive; got {mean} and {std}"
            )
        return mean, std

    def changing(self, shape: Sequence[int]) -> Callable[[Tensor], Tensor] | None:
        """The augmentation of images `(..., H, W)`.

        Raises:
            ConfigError: There is no such augmentation, or images that are not square are to be shifted.
        """
        if shape[-1] != shape[-2] and "shift" in self.augment:
            raise ConfigError(f"augment = {self.augment!r} needs square images, got {tuple(shape)}; set 'flip' or ''")
        return augmenter(self.augment, shape[-1])


@dataclass(frozen=True)
class _Images:
    """What happens to images on their way to the network."""

    mean: Sequence[float]
    std: Sequence[float]
    change: Callable[[Tensor], Tensor] | None

    def __call__(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.change is not None and generator is not None:
            with global_seed(draw(generator)):  # torchvision's transforms draw from the global generator
                pixels = torch.stack([self.change(image) for image in pixels])
        return normalise(pixels, self.mean, self.std)


@dataclass(frozen=True)
class Unlabelled:
    """Inputs by the index of the example; there is no target.

    Attributes:
        stored: Name -> `(n, ...)`: tensors, or images in files.
        images: What happens to those that are images.
        form: See `Look`.
    """

    stored: Mapping[str, Tensor | Photographs]
    images: Mapping[str, _Images]
    form: str

    def __call__(self, index: Tensor, generator: torch.Generator | None) -> Batch:
        return arranged({name: self._ready(name, index, generator) for name in self.stored}, self.form), None

    def _ready(self, name: str, index: Tensor, generator: torch.Generator | None) -> Tensor:
        values = self.stored[name][index]
        if name in self.images:
            return self.images[name](values, generator)
        return values.float() if values.is_floating_point() else values

    def identity(self) -> list[Tree]:
        """What tells this data from other: values; of files, names and sizes, as reading them all could take hours."""
        return [v if isinstance(v, Tensor) else _names(v.files) for v in self.stored.values()]


def read(
    data: str | Path,
    test: float | str | Path,
    inputs: str | Sequence[str],
    look: Look,
    *,
    valid: float,
    seed: int,
) -> tuple[Unlabelled, Splits]:
    """The examples below a folder of images, or of named arrays, and their splits.

    Args:
        data: Folder or file.
        test: Another one with the test examples, or their share.
        inputs: Names of arrays.
        look: How they reach the network.
        valid: Share that is held out for the search.
        seed: Of the splits.

    Raises:
        DataError: There is nothing, arrays differ in length, or it is not said which are inputs.
    """
    place = existing(data, "data")
    if place.is_dir() and not any(place.glob("*.npy")):
        return _of_files(place, test, look, valid, seed)
    sources = Sources.open(data, test)
    names = sources.inputs(inputs or _only(sources), ())
    arrays = {name: tensor_of(sources.array(name, "inputs")) for name in names}
    count = len(arrays[names[0]])
    for name, values in arrays.items():
        if len(values) != count:
            raise DataError(
                f"{sources.where(name)} has {len(values)} examples, {names[0]!r} has {count}; give 'inputs'"
            )
    splits = sources.splits("", count, valid=valid, seed=seed)
    stored = {name: _arranged_axes(values) for name, values in arrays.items()}
    return _examples(stored, [name for name in names if _are_images(arrays[name])], look), splits


def _only(sources: Sources) -> list[str]:
    """The one array, or `x`."""
    names = [name for name in sources.names if name not in MARKS]
    if len(names) > 1 and "x" not in names:
        raise DataError(
            f"{sources.archives[0].path} holds {', '.join(names)}; give the setting 'inputs' the names of those that "
            "the network gets"
        )
    return ["x"] if "x" in names else names


def _of_files(place: Path, test: float | str | Path, look: Look, valid: float, seed: int) -> tuple[Unlabelled, Splits]:
    parts = [_found(place)]
    if not isinstance(test, int | float):
        parts.append(_found(existing(test, "test")))
    files = [file for part in parts for file in part]
    flags = np.arange(len(files)) >= len(parts[0]) if len(parts) > 1 else None
    share = float(test) if isinstance(test, int | float) else 0.1
    splits = divide(len(files), valid=valid, test=share, seed=seed, flags=flags)
    photographs = Photographs(files, look.size, look.room, look.upright)
    photographs.check()
    return _examples({"images": photographs}, ["images"], look), splits


def _found(place: Path) -> list[Path]:
    if not place.is_dir():
        raise DataError(f"{place} must be a folder of images, as the setting data is one")
    return picture_files(place)


def _examples(stored: Mapping[str, Tensor | Photographs], pictures: Sequence[str], look: Look) -> Unlabelled:
    images = {}
    for name in pictures:
        shape = tuple(stored[name][torch.tensor([0])].shape[1:])
        images[name] = _Images(*look.normalisation(shape[0]), look.changing(shape))
    return Unlabelled(stored, images, look.form)


def _are_images(values: Tensor) -> bool:
    channels = values.shape[1:2] + values.shape[-1:] if values.dim() == 4 else (1,) * (values.dim() == 3)
    return values.dtype == torch.uint8 and any(c in (1, 3) for c in channels)


def _arranged_axes(values: Tensor) -> Tensor:
    """Images as `(n, channels, H, W)`, columns as `(n, 1)`."""
    if values.dim() == 1:
        return values[:, None]
    if not _are_images(values):
        return values
    if values.dim() == 3:
        return values[:, None]
    return values.movedim(3, 1).contiguous() if values.shape[3] in (1, 3) else values


def _names(files: Sequence[Path]) -> Tensor:
    text = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    return torch.tensor(list(text.encode()), dtype=torch.uint8)
