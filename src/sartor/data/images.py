"""Images in memory: splits, batches, augmentation, and the task they make."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import derive, global_seed, numpy_rng
from sartor.data.folders import shown
from sartor.data.losses import cross_entropy, imitation
from sartor.data.quality import accuracy

log = logging.getLogger(__name__)

Augmentation: TypeAlias = Literal["", "shift", "flip", "shift_flip"]
AUGMENTATIONS: tuple[Augmentation, ...] = ("", "shift", "flip", "shift_flip")

# Of ImageNet, as every pretrained network of torchvision expects them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)
"""How much red, green and blue count in a grey picture (ITU-R 601-2, as Pillow converts)."""


@dataclass(frozen=True)
class Images:
    """Decoded images and their classes.

    Attributes:
        pixels: `(n, C, H, W)`, uint8.
        labels: `(n,)`, int64.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Images:
        """The images at `index`, `(m,)`."""
        return Images(self.pixels[index], self.labels[index])

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, of pixels scaled to [0, 1]."""
        # From the histogram: exact, and without a float copy of the whole data set.
        values = torch.arange(256, dtype=torch.float64) / 255
        means, stds = [], []
        for channel in self.pixels.unbind(1):
            share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
            mean = float(share @ values)
            means.append(mean)
            stds.append(max(float(share @ (values - mean).square()) ** 0.5, 1 / 255))
        return tuple(means), tuple(stds)


def existing(path: str | Path, setting: str) -> Path:
    """`path`, if there is something.

    Raises:
        DataError: There is not.
    """
    if not str(path):
        raise DataError(f"the task has no data; give the setting {setting!r} a path")
    found = Path(path).expanduser()
    if not found.exists():
        raise DataError(f"{setting} = {str(path)!r} does not exist (from {Path.cwd()}); correct the path")
    return found


def check_labels(labels: Tensor, classes: int | None, source: str) -> int:
    """The number of classes: `classes`, or the largest label plus one; labels, `(n,)`, must be in [0, classes).

    Raises:
        DataError: One is not, or there are none.
    """
    if not len(labels):
        raise DataError(f"{source} has no examples; it needs one at least")
    low, high = int(labels.min()), int(labels.max())
    classes = high + 1 if classes is None else classes
    if low < 0 or high >= classes:
        raise DataError(f"labels of {source} must be in 0..{classes - 1}, found {low}..{high}; renumber them from 0")
    return classes


def split(labels: Tensor, fraction: float, seed: int, name: str, classes: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
    """Indices of the rest and of a stratified held-out part, `fraction` of every class but at least one example.

    Args:
        labels: `(n,)`, int64.
        fraction: Size of the part, in (0, 1).
        seed: Where the draw comes from.
        name: Of the part; names the random stream too, and is the setting that an error points to.
        classes: What the classes are called, for messages.

    Raises:
        ConfigError: The fraction is not in (0, 1).
        DataError: Classes are too small to be in both parts.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"{name} must be in (0, 1), got {fraction}; 0.1 holds out a tenth")
    rng = numpy_rng(seed, "split", name)
    rest, part, small = [], [], []
    for label in torch.bincount(labels).nonzero().flatten().tolist():
        index = _shuffled(labels, label, rng)
        cut = max(1, round(fraction * len(index)))
        if cut >= len(index):
            small.append(f"class {classes[label] if classes else label} has {len(index)} examples left")
        part.append(index[:cut])
        rest.append(index[cut:])
    if small:
        more = f", and {len(small) - 10} more classes as few" if len(small) > 10 else ""
        raise DataError(
            f"{', '.join(small[:10])}{more}, too few to hold out {name} = {fraction}; add examples, or hold out less"
        )
    return torch.cat(rest).sort().values, torch.cat(part).sort().values


def draw_subset(labels: Tensor, size: int, seed: int) -> Tensor:
    """Indices, `(size,)`, of a stratified random subset; shares are rounded by the largest remainder.

    Raises:
        ConfigError: There are not that many examples, or fewer are wanted than there are classes.
    """
    counts = torch.bincount(labels)
    present = int((counts > 0).sum())
    if not present <= size <= len(labels):
        raise ConfigError(f"subset must be in {present}..{len(labels)} (classes..examples), got {size}")
    exact = counts.double() * size / len(labels)
    take = exact.floor().long()
    order = torch.argsort(exact - take, descending=True, stable=True)
    take[order[: size - int(take.sum())]] += 1
    rng = numpy_rng(seed, "subset")
    chosen = [_shuffled(labels, label, rng)[: int(n)] for label, n in enumerate(take)]
    return torch.cat(chosen).sort().values


def _shuffled(labels: Tensor, label: int, rng: np.random.Generator) -> Tensor:
    index = (labels == label).nonzero().flatten()
    return index[torch.from_numpy(rng.permutation(len(index)))]


def fingerprint(parts: Iterable[Images]) -> str:
    """SHA-256 over shapes, pixels and labels of the parts, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(tuple(part.pixels.shape)).encode())
        digest.update(part.pixels.contiguous().numpy().data)
        digest.update(part.labels.contiguous().numpy().data)
    return digest.hexdigest()


def imagenet(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of ImageNet per channel; of one channel, its colours weighted as in the conversion.

    Raises:
        ConfigError: There are neither three channels, for colour, nor one, for grey.
    """
    if channels not in {1, 3}:
        raise ConfigError(f"channels must be 3 for colour or 1 for grey, got {channels}")
    if channels == len(IMAGENET_MEAN):
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = (sum(w * v for w, v in zip(LUMA, values, strict=True)) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (mean,), (std,)


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Uint8 `(n, C, H, W)` to float32 of about zero mean and unit variance per channel."""
    shape = (1, len(mean), 1, 1)
    scaled = pixels.float() / 255
    return (scaled - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)


def augmenter(kind: str | None, size: int) -> Callable[[Tensor], Tensor] | None:
    """The torchvision transform called `kind`, for one image `(C, size, size)`; None leaves images alone.

    `shift` pads by an eighth of the size and crops back (He et al. 2016, section 4.2); `flip` mirrors half of the
    images; `shift_flip` does both.

    Raises:
        ConfigError: There is no such augmentation.
    """
    if kind not in (None, *AUGMENTATIONS):
        raise ConfigError(f"augment must be one of {', '.join(map(repr, AUGMENTATIONS))}, got {kind!r}")
    steps: list[Any] = []
    if kind in ("shift", "shift_flip"):
        steps.append(v2.RandomCrop(size, padding=max(1, size // 8)))
    if kind in ("flip", "shift_flip"):
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose(steps) if steps else None


@dataclass(frozen=True)
class Batches:
    """Normalised batches of images; shuffled and augmented if there is a generator.

    With a generator, a last batch that is not full is dropped (a batch of one breaks batch normalisation), unless it is
    the only one. torchvision's transforms draw from torch's global generator: it is seeded from the epoch's generator
    around each batch and put back before the batch is handed out.
    """

    images: Images
    batch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    generator: torch.Generator | None = None
    augment: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        full, last = divmod(len(self.images), self.batch)
        return max(1, full) if self.generator is not None else full + bool(last)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.arange(len(self.images))
        if self.generator is not None:
            order = torch.randperm(len(self.images), generator=self.generator)
        for start in range(0, len(self) * self.batch, self.batch):
            part = self.images.take(order[start : start + self.batch])
            yield normalise(self._augmented(part.pixels), self.mean, self.std), part.labels

    def _augmented(self, pixels: Tensor) -> Tensor:
        if self.augment is None or self.generator is None:
            return pixels
        with global_seed(draw(self.generator)):
            return torch.stack([self.augment(image) for image in pixels])


def draw(generator: torch.Generator) -> int:
    """A seed from the generator."""
    return int(torch.randint(2**62, (1,), generator=generator))


def image_task(
    train: Images,
    valid: Images,
    test: Images,
    *,
    classes: int,
    batch: int,
    augment: str | None,
    source: str,
    name: str = "images",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Task:
    """The classification task of images in memory.

    Args:
        train: What is trained on.
        valid: What a search may look at.
        test: What only the final report may touch.
        classes: Number of classes.
        batch: Examples per batch.
        augment: See `augmenter`.
        source: Where the images come from, in words.
        name: Of the task, for messages.
        mean: Per channel, of pixels scaled to [0, 1]; None takes that of the training images. A network that is
            trained already wants what it was trained with.
        std: Standard deviation, likewise.

    Raises:
        DataError: A split is empty or a label is out of range.
        ConfigError: A setting is out of range.
    """
    if batch < 1:
        raise ConfigError(f"batch must be at least 1, got {batch}")
    splits = {"train": train, "valid": valid, "test": test}
    for split_name, part in splits.items():
        check_labels(part.labels, classes, f"the {split_name} split of {source}")
    empty = [str(c) for c, count in enumerate(torch.bincount(train.labels, minlength=classes).tolist()) if not count]
    if empty:
        log.warning("the train split of %s has no example of class %s; of %d classes", source, shown(empty), classes)
    own = train.statistics()
    mean = per_channel(mean, own[0], "mean")
    std = per_channel(std, own[1], "std")
    transform = augmenter(augment, train.pixels.shape[-1])
    fixed = partial(Batches, batch=max(batch, 256), mean=mean, std=std)
    return Task(
        train=lambda generator: Batches(train, batch, mean, std, generator, transform),
        valid=lambda: fixed(valid),
        test=lambda: fixed(test),
        loss=cross_entropy,
        distance=imitation,
        metrics=accuracy(classes),
        name=name,
        logits=True,
        example=normalise(valid.pixels[:1], mean, std),
        classes=classes,
        fingerprint=fingerprint(splits.values()),
        describe={"source": source, "augment": augment or "none"} | {k: len(v) for k, v in splits.items()},
    )


def per_channel(given: Sequence[float] | None, own: tuple[float, ...], name: str) -> tuple[float, ...]:
    """A setting `mean` or `std`: what is given, or else the data's own.

    Raises:
        ConfigError: It has not one number per channel, or a standard deviation is not positive.
    """
    if given is None:
        return own
    if len(given) != len(own) or (name == "std" and min(given) <= 0):
        raise ConfigError(f"{name} needs one number per channel ({len(own)}), positive for std; got {list(given)}")
    return tuple(map(float, given))


def held_out(images: Images, fraction: float, seed: int, name: str) -> tuple[Images, Images]:
    """The rest, and a stratified part of `images`; see `split`."""
    rest, part = split(images.labels, fraction, derive(seed, "held out"), name)
    return images.take(rest), images.take(part)
