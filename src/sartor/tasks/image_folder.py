"""Photographs in folders, one folder per class."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.transforms import v2

from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import derive, global_seed
from sartor.data.folders import class_names, is_hidden
from sartor.data.images import draw, existing, imagenet, normalise, split
from sartor.data.losses import cross_entropy, imitation
from sartor.data.pictures import decoded, endings, pictures_below, say_turned
from sartor.data.quality import accuracy
from sartor.data.survey import early, survey

__all__ = ["image_folder"]


def image_folder(
    *,
    root: str | Path = "",
    size: int = 224,
    channels: int = 3,
    batch: int = 32,
    workers: int = 0,
    valid: float = 0.1,
    test: float = 0.1,
    crop: float = 0.35,
    cache_gb: float = 2.0,
    upright: bool = False,
    seed: int = 0,
) -> Task:
    """Images below `root/CLASS/`, or below `root/train/CLASS/`, `root/val/CLASS/` (or `valid`), `root/test/CLASS/`.

    Without a folder `val` or `test`, the split is drawn from the training images. Every image is scaled so that its
    shorter side is 8/7 of `size` and cut to the square in the middle. Training takes a random part of that square and
    mirrors half of the images (torchvision's RandomResizedCrop and RandomHorizontalFlip); validation takes the middle.
    Hidden files and folders are left out, folders behind links are not. Up to 64 MB of files are all read at first, and
    all that cannot be are named at once; of more, all are tried once one cannot be read.

    Args:
        root: The folder.
        size: Height and width that the network gets.
        channels: 3 for colour, 1 for grey; pictures of the other kind are converted.
        batch: Examples per batch.
        workers: Processes that decode; 0 decodes in this one. The batches do not depend on it.
        valid: Share of the training images held out for the search, unless there is a folder.
        test: Share of the training images held out for the final report, unless there is a folder.
        crop: Smallest part of the image's area that training sees, in (0, 1].
        cache_gb: Decoded images are kept in memory up to this size; only without workers.
        upright: Whether images are turned as their EXIF data says; without, they are as they are stored, as torchvision
            reads them, and the log says if some are turned.
        seed: Of the splits, which do not depend on the seed of a run.

    Raises:
        DataError: The folder is missing or has no images; a class has none, is too small to split, is missing from
            training, or is there twice but for capitals; images cannot be decoded; the message names them.
        ConfigError: A setting is out of range.
    """
    if size < 8 or batch < 1 or workers < 0 or not 0 < crop <= 1:
        raise ConfigError(
            f"needs size >= 8, batch >= 1, workers >= 0, crop in (0, 1]; got {(size, batch, workers, crop)}"
        )
    mean, std = imagenet(channels)
    parts, names = _splits(existing(root, "root"), valid, test, seed)
    budget = int(cache_gb * 2**30) if not workers else 0
    total = sum(map(len, parts.values()))
    files = [path for part in parts.values() for path, _ in part]
    check_all = _Check(tuple(files), upright)
    early(files, check_all, check_all.names)
    if not upright:
        say_turned(files, check_all.names, "task.upright")
    sets = {k: _Pictures(v, size, channels, crop, int(budget * len(v) / total), check_all) for k, v in parts.items()}
    return Task(
        train=lambda generator: _Epoch(sets["train"], batch, workers, generator),
        valid=lambda: _Epoch(sets["valid"], batch, workers),
        test=lambda: _Epoch(sets["test"], batch, workers),
        loss=cross_entropy,
        distance=imitation,
        metrics=accuracy(len(names)),
        name="image_folder",
        logits=True,
        example=normalise(sets["valid"][0, None][0][None], mean, std),
        classes=len(names),
        fingerprint=_fingerprint(Path(root).expanduser(), parts),
        describe={"source": str(root), "classes": names} | {k: len(v) for k, v in parts.items()},
    )


Files = list[tuple[Path, int]]


def _splits(root: Path, valid: float, test: float, seed: int) -> tuple[dict[str, Files], list[str]]:
    """Files and labels of the three splits, and the names of the classes."""
    base = root / "train" if (root / "train").is_dir() else root
    names = _classes(base)
    rest = _files(base, names)
    found = {}
    for split_name, folders, share in (("test", ("test",), test), ("valid", ("val", "valid"), valid)):
        given = next((root / f for f in folders if base != root and (root / f).is_dir()), None)
        if given is not None:
            found[split_name] = _files(given, names)
            continue
        labels = torch.tensor([label for _, label in rest])
        kept, held = split(labels, share, derive(seed, "folder"), split_name, names)
        found[split_name] = [rest[i] for i in held.tolist()]
        rest = [rest[i] for i in kept.tolist()]
    return {"train": rest, "valid": found["valid"], "test": found["test"]}, names


def _classes(folder: Path) -> list[str]:
    needs = f"it needs one folder per class with {endings()} files"
    names = class_names(folder, lambda place: any(pictures_below(place)), "images", needs)
    if len(names) < 2:
        raise DataError(f"{folder} has one class alone, {names[0]}; add the folder of another, or correct the path")
    return names


def _files(folder: Path, names: Sequence[str]) -> Files:
    strange = sorted({p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name)} - set(names))
    if any(any(pictures_below(folder / name)) for name in strange):
        raise DataError(f"{folder} has classes without training images: {', '.join(strange)}; add some or remove them")
    files = [(p, label) for label, name in enumerate(names) for p in sorted(pictures_below(folder / name))]
    if not files:
        raise DataError(f"no images in {folder}; it needs one folder per class with {endings()} files")
    return files


@dataclass(frozen=True)
class _Check:
    """Decodes all, and names what cannot be."""

    files: tuple[Path, ...]
    upright: bool

    @property
    def names(self) -> list[str]:
        return list(map(str, self.files))

    def __call__(self) -> None:
        survey(self.names, self._read, "images", self._read)

    def _read(self, index: int) -> Tensor:
        return decoded(self.files[index], str(self.files[index]), upright=self.upright)


def _fingerprint(root: Path, parts: Mapping[str, Files]) -> str:
    """SHA-256 over the names and sizes of the files: reading all of them could take hours."""
    digest = hashlib.sha256()
    for name, files in parts.items():
        for path, label in files:
            digest.update(f"{name}/{path.relative_to(root)}/{path.stat().st_size}/{label}\n".encode())
    return digest.hexdigest()


@dataclass
class _Pictures(Dataset[tuple[Tensor, int]]):
    """Decoded on demand; an item is asked for by its index and the seed of its augmentation (None: the middle)."""

    files: Files
    size: int
    channels: int
    crop: float
    room: int
    """Bytes that the cache may still take."""
    check_all: _Check
    kept: dict[int, Tensor] = field(default_factory=dict)

    def __getitem__(self, key: tuple[int, int | None]) -> tuple[Tensor, int]:
        index, seed = key
        path, label = self.files[index]
        image = self.kept.get(index)
        if image is None:
            image = self._decoded(path)
            if image.numel() <= self.room:
                self.kept[index] = image
                self.room -= image.numel()
        if seed is None:
            return v2.functional.center_crop(image, [self.size, self.size]), label
        # A seed per image: the batches are the same for any number of workers.
        with global_seed(seed):
            return self._augment(image), label

    def _decoded(self, path: Path) -> Tensor:
        try:
            image = decoded(path, str(path), self.channels, upright=self.check_all.upright)
        except DataError:
            if get_worker_info() is None:
                self.check_all()
            raise
        side = round(self.size * 8 / 7)
        image = v2.functional.resize(image, [side], antialias=True)
        square: Tensor = v2.functional.center_crop(image, [side, side])
        return square

    def _augment(self, image: Tensor) -> Any:
        resized = v2.RandomResizedCrop(self.size, scale=(self.crop, 1.0), antialias=True)
        return v2.Compose([resized, v2.RandomHorizontalFlip()])(image)


class _Epoch:
    """One pass over pictures; shuffled and augmented if there is a generator."""

    def __init__(self, data: _Pictures, batch: int, workers: int, generator: torch.Generator | None = None) -> None:
        self.data, self.batch, self.workers, self.generator = data, batch, workers, generator

    def __len__(self) -> int:
        full, last = divmod(len(self.data.files), self.batch)
        return max(1, full) if self.generator is not None else full + bool(last)

    def __iter__(self) -> Iterator[Batch]:
        loader = DataLoader(
            self.data,
            batch_sampler=list(self._keys()),
            num_workers=self.workers,
            generator=torch.Generator(),  # its own, so that the global one is not drawn from
        )
        batches = iter(loader)
        while True:
            try:
                pixels, labels = next(batches)
            except StopIteration:
                return
            except DataError:
                if self.workers:  # it came from another process, with a traceback in its message
                    self.data.check_all()
                raise
            yield normalise(pixels, *imagenet(self.data.channels)), labels

    def _keys(self) -> Iterator[list[tuple[int, int | None]]]:
        count = len(self.data.files)
        order = torch.arange(count)
        if self.generator is not None:
            order = torch.randperm(count, generator=self.generator)
        for start in range(0, len(self) * self.batch, self.batch):
            part = order[start : start + self.batch].tolist()
            yield [(i, None if self.generator is None else draw(self.generator)) for i in part]
