"""Pictures with a picture as the answer: where they lie, batches of them, and augmentation in step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from sartor.core.contracts import Batch
from sartor.core.errors import ConfigError, DataError
from sartor.data.pictures import Source, columns, decoded, drawn, numbers, picture_files, say_turned
from sartor.data.survey import early, survey, together

Transform: TypeAlias = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Changes a picture, `(C, H, W)`, and its answer, `(..., H, W)`, in step; all chance comes from the generator."""

AUGMENTATIONS = ("", "flip", "zoom", "zoom_flip")


@dataclass(frozen=True)
class Pair:
    """A picture and its answer, as they lie in files or in the cells of a table, and their names for messages."""

    picture: Source
    answer: Source
    names: tuple[str, str]


def pairs_of(root: Path, answer: str, column: str, *, valid: float, test: float, seed: int) -> dict[str, list[Pair]]:
    """The pairs of the splits `train`, `valid` and `test` below `root`.

    Layouts: `root/train.parquet` with the columns `image` and `column`; `root/train/images` and `root/train/ANSWER`;
    `root/images/train` and `root/ANSWER/train`; and likewise `val` (or `valid`) and `test`, which are drawn from the
    training pairs where they are missing. Without any of them, all pairs are in `root/images` and `root/ANSWER`, or
    `root` is a Parquet file. Pictures and answers have equal names but for the ending.

    Args:
        root: A folder, or a Parquet file.
        answer: Name of the folder of the answers.
        column: Name of the column of the answers.
        valid: Share of the training pairs held out for the search, unless the split is there.
        test: Share held out for the final report, likewise.
        seed: Of the draw.

    Raises:
        DataError: There is no such layout, or a picture has no answer.
        ConfigError: A share is not in (0, 1).
    """
    parts = {"train": ("train",), "valid": ("val", "valid"), "test": ("test",)}
    found: dict[str, list[Pair]] = {}
    for split, names in parts.items():
        given = [p for p in (_split(root, name, answer, column) for name in names) if p]
        if given:
            found[split] = given[0]
    rest = found.pop("train", None) or _whole(root, answer, column)
    for split, share in (("test", test), ("valid", valid)):
        if split not in found:
            rest, found[split] = drawn(rest, share, seed, split, str(root))
    return {"train": rest, "valid": found["valid"], "test": found["test"]}


def _split(root: Path, name: str, answer: str, column: str) -> list[Pair]:
    if (root / f"{name}.parquet").is_file():
        return _table(root / f"{name}.parquet", column)
    for pictures, answers in (
        (root / name / "images", root / name / answer),
        (root / "images" / name, root / answer / name),
    ):
        if pictures.is_dir():
            return _folders(pictures, answers)
    return []


def _whole(root: Path, answer: str, column: str) -> list[Pair]:
    if root.is_file():
        return _table(root, column)
    if not (root / "images").is_dir():
        raise DataError(
            f"{root} must hold train.parquet, train/images and train/{answer}, or images and {answer}; it holds "
            f"{', '.join(sorted(p.name for p in root.iterdir())[:8]) or 'nothing'}"
        )
    return _folders(root / "images", root / answer)


def _table(path: Path, column: str) -> list[Pair]:
    pictures, answers = columns(path, "image", column)
    names = [(f"the image of row {i} of {path}", f"the {column} of row {i} of {path}") for i in range(len(pictures))]
    return [Pair(*pair) for pair in zip(pictures, answers, names, strict=True)]


def _folders(pictures: Path, answers: Path) -> list[Pair]:
    if not answers.is_dir():
        raise DataError(f"{pictures} needs a folder {answers} beside it, with one file of an equal name per picture")
    known: dict[Path, Path] = {}
    for path in picture_files(answers):
        other = known.setdefault(path.relative_to(answers).with_suffix(""), path)
        if other != path:
            raise DataError(f"{path} and {other} are answers to one picture; remove one of them")
    found, alone = [], []
    for path in picture_files(pictures):
        name = path.relative_to(pictures).with_suffix("")
        if name in known:
            found.append(Pair(path, known[name], (str(path), str(known[name]))))
        else:
            alone.append((str(path), _alone(path, answers / name)))
    if alone:
        raise together(alone, len(alone) + len(found), "pictures")
    return found


def _alone(picture: Path, answer: Path) -> DataError:
    return DataError(f"{picture} has no {answer}.png (or another ending); add it, or remove the picture")


def fingerprint(splits: Mapping[str, Sequence[Pair]]) -> str:
    """SHA-256 over the names and sizes of files (reading all of them could take hours), and over cells of tables."""
    digest = hashlib.sha256()
    for split, pairs in splits.items():
        for source in (s for pair in pairs for s in (pair.picture, pair.answer)):
            digest.update(split.encode())
            digest.update(identity(source))
    return digest.hexdigest()


def identity(source: Source) -> bytes:
    """What tells a picture from others: its content, or the name and size of its file."""
    if isinstance(source, Path):
        return f"{source.parent.name}/{source.name}/{source.stat().st_size}".encode()
    return source or b""


class Decoded:
    """Pictures and their answers, decoded when they are asked for and kept while there is room.

    Args:
        read: `index -> (picture (C, H, W), answer (..., H, W))`.
        count: Number of pairs.
        room: Bytes that may be kept.

    Attributes:
        check_all: Called before a pair is refused: to name all others that are wrong, too.
    """

    def __init__(self, read: Callable[[int], tuple[Tensor, Tensor]], count: int, room: float) -> None:
        self.read, self.count, self.room = read, count, room
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.check_all: Callable[[], None] = _nothing

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        try:
            return self.load(index)
        except DataError:
            self.check_all()
            raise

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """A pair, or what is wrong with this one alone."""
        if index in self.kept:
            return self.kept[index]
        pair = self.read(index)
        size = sum(t.numel() * t.element_size() for t in pair)
        if size <= self.room:
            self.kept[index] = pair
            self.room -= size
        return pair


def rooms(cache_gb: float, splits: Mapping[str, Sequence[object]]) -> dict[str, float]:
    """Bytes of the cache that each split may take: by its number of pictures.

    Raises:
        ConfigError: The cache is negative.
    """
    if not cache_gb >= 0:
        raise ConfigError(f"cache_gb must be at least 0, got {cache_gb}")
    total = sum(map(len, splits.values()))
    return {name: cache_gb * 2**30 * len(part) / total for name, part in splits.items()}


@dataclass(frozen=True)
class PairBatches:
    """Batches of pairs; with a generator shuffled, changed by `augment`, and without a last batch that is not full.

    Attributes:
        data: The pairs.
        batch: Pairs per batch.
        finish: Makes a batch of pictures, `(n, C, H, W)`, and answers, `(n, ..., H, W)`.
        generator: Of the epoch.
        augment: What to do with every pair of a training epoch.
        repeats: How often a training epoch takes every pair.
    """

    data: Decoded
    batch: int
    finish: Callable[[Tensor, Tensor], Batch]
    generator: torch.Generator | None = None
    augment: Transform | None = None
    repeats: int = 1

    def __len__(self) -> int:
        if self.generator is None:
            return math.ceil(len(self.data) / self.batch)
        return max(1, self.repeats * len(self.data) // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        order = self._order()
        for start in range(0, len(self) * self.batch, self.batch):
            pairs = [self._changed(*self.data[i]) for i in order[start : start + self.batch]]
            yield self.finish(torch.stack([p for p, _ in pairs]), torch.stack([a for _, a in pairs]))

    def _order(self) -> list[int]:
        count = len(self.data)
        if self.generator is None:
            return list(range(count))
        return [i for _ in range(self.repeats) for i in torch.randperm(count, generator=self.generator).tolist()]

    def _changed(self, picture: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
        if self.generator is None or self.augment is None:
            return picture, answer
        return self.augment(picture, answer, self.generator)


def below(bound: int, generator: torch.Generator) -> int:
    """A whole number in [0, bound)."""
    return int(torch.randint(bound, (1,), generator=generator))


@dataclass(frozen=True)
class Augmentation:
    """A random window of the picture, enlarged to its size, and a mirror image in half of the cases.

    Attributes:
        kind: `flip`, `zoom`, `zoom_flip`, or empty for none.
        zoom: Largest factor of the enlargement; at least 1.
        enlarged: `(answer's window, (H, W), factor) -> answer`: a label must stay one, a distance shrinks.
    """

    kind: str
    zoom: float
    enlarged: Callable[[Tensor, tuple[int, int], float], Tensor]

    def __post_init__(self) -> None:
        if self.kind not in AUGMENTATIONS or not self.zoom >= 1:
            raise ConfigError(
                f"augment must be one of {', '.join(map(repr, AUGMENTATIONS))} and zoom at least 1, got {self.kind!r} "
                f"and {self.zoom}"
            )

    def __call__(self, picture: Tensor, answer: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if "zoom" in self.kind:
            picture, answer = self._window(picture, answer, generator)
        if "flip" in self.kind and below(2, generator):
            picture, answer = picture.flip(-1), answer.flip(-1)
        return picture, answer

    def _window(self, picture: Tensor, answer: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        height, width = picture.shape[-2:]
        factor = 1 + (self.zoom - 1) * float(torch.rand((), generator=generator))
        rows, cols = max(1, round(height / factor)), max(1, round(width / factor))
        top, left = below(height - rows + 1, generator), below(width - cols + 1, generator)
        place = (..., slice(top, top + rows), slice(left, left + cols))
        return smooth(picture[place], (height, width)), self.enlarged(answer[place], (height, width), height / rows)


def smooth(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A uint8 picture `(C, h, w)` bilinearly (antialiased when it shrinks) as `(C, H, W)`."""
    if tuple(picture.shape[-2:]) == size:
        return picture
    found = functional.interpolate(picture[None].float(), size, mode="bilinear", align_corners=False, antialias=True)
    return found[0].round().clamp(0, 255).to(torch.uint8)


def nearest(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Numbers that cannot be mixed, `(h, w)`, as `(H, W)`: each place takes the nearest one's."""
    rows, cols = (((torch.arange(n) + 0.5) * m / n).long() for n, m in zip(size, values.shape[-2:], strict=True))
    return values[..., rows[:, None], cols]


def sized(size: Sequence[int] | int | None) -> tuple[int, int] | None:
    """A setting `size` as height and width.

    Raises:
        ConfigError: It is neither a positive number nor two of them.
    """
    if size is None:
        return None
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or min(both) < 1:
        raise ConfigError(f"size must be a number of pixels or [height, width], got {size}")
    return both[0], both[1]


def size_of(pair: Pair, *, upright: bool = False) -> tuple[int, int]:
    """Height and width of its picture."""
    _, height, width = decoded(pair.picture, pair.names[0], upright=upright).shape
    return height, width


def check_pairs(splits: Mapping[str, Sequence[Pair]], setting: str, *, upright: bool = False) -> None:
    """Decode the pairs of a small data set, and say if pictures are stored turned.

    Args:
        splits: All pairs.
        setting: What turns pictures upright.
        upright: Whether they are.

    Raises:
        DataError: Pictures or answers cannot be decoded; the message names them.
    """
    sources, names = _apart([pair for part in splits.values() for pair in part])

    def picture(index: int) -> Tensor | None:
        if index % 2:
            numbers(sources[index], names[index])
            return None
        return decoded(sources[index], names[index], upright=upright)

    early(sources, lambda: survey(names, picture, "files", picture), names)
    if not upright:
        say_turned(sources[::2], names[::2], setting)


def _apart(pairs: Sequence[Pair]) -> tuple[list[Source], list[str]]:
    """Pictures and answers by turns, and their names."""
    return [s for pair in pairs for s in (pair.picture, pair.answer)], [name for pair in pairs for name in pair.names]


def checked(data: Mapping[str, Decoded], splits: Mapping[str, Sequence[Pair]]) -> None:
    """Read the pairs of a small data set; of all, make a pair that is refused name the others that are wrong, too.

    Raises:
        DataError: Pairs cannot be used; the message names them.
    """
    pairs = [(pair, data[split], i) for split, part in splits.items() for i, pair in enumerate(part)]

    def check_all() -> None:
        survey([pair.names for pair, _, _ in pairs], lambda k: pairs[k][1].load(pairs[k][2]), "pairs")

    for part in data.values():
        part.check_all = check_all
    sources, names = _apart([pair for pair, _, _ in pairs])
    early(sources, check_all, names)


def _nothing() -> None: ...


def fitting(picture: Tensor, answer: Tensor, pair: Pair, wanted: tuple[int, int]) -> None:
    """Refuse a pair whose parts differ in size, or that differs from the rest.

    Raises:
        DataError: It does.
    """
    sizes = tuple(picture.shape[-2:]), tuple(answer.shape[-2:])
    if sizes[0] != sizes[1]:
        raise DataError(f"{pair.names[0]} has {sizes[0]} pixels, {pair.names[1]} has {sizes[1]}; they must agree")
    if sizes[0] != wanted:
        raise DataError(f"{pair.names[0]} has {sizes[0]} pixels, the first one {wanted}; set size to resize them all")


@dataclass(frozen=True)
class PairSplits:
    """Three splits of pictures and their answers, as a task asks for them.

    Attributes:
        train: One pass in an order of the generator, augmented.
        valid: One pass, as it is.
        test: Likewise.
        example: Of the inputs, `(1, C, H, W)`.
    """

    train: Callable[[torch.Generator], PairBatches]
    valid: Callable[[], PairBatches]
    test: Callable[[], PairBatches]
    example: Tensor

    @classmethod
    def of(
        cls,
        splits: Mapping[str, Sequence[Pair]],
        read: Callable[[Sequence[Pair], int], tuple[Tensor, Tensor]],
        finish: Callable[[Tensor, Tensor], Batch],
        *,
        batch: int,
        transform: Transform,
        cache_gb: float,
    ) -> PairSplits:
        """Of `read(pairs, index)`, kept in memory up to `cache_gb`, and `finish(pictures, answers)` of a batch."""
        room = rooms(cache_gb, splits)
        data = {name: Decoded(partial(read, pairs), len(pairs), room[name]) for name, pairs in splits.items()}
        checked(data, splits)
        picture, answer = data["valid"][0]
        example, _ = finish(picture[None], answer[None])
        assert isinstance(example, Tensor)
        return cls(
            train=lambda generator: PairBatches(data["train"], batch, finish, generator, transform),
            valid=lambda: PairBatches(data["valid"], batch, finish),
            test=lambda: PairBatches(data["test"], batch, finish),
            example=example,
        )
