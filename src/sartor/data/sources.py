"""Several arrays per example: where they come from, how they are scaled, and how a network is called with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sartor.core.errors import ConfigError, DataError
from sartor.core.trees import Inputs
from sartor.data.archives import Archive, Array, joined, open_archive
from sartor.data.batches import Splits, divide
from sartor.data.images import existing
from sartor.data.survey import survey

FORMS = ("", "apart", "named", "stacked")
SPLITS = ("", "official", "group", "random")
MARKS = ("test", "group")
"""Arrays of these names say which split an example is in, and are no inputs unless they are asked for."""

CHUNK = 512
"""Examples that statistics look at at a time."""


@dataclass(frozen=True)
class Sources:
    """The arrays of a data set, of one file or of a training and a test file.

    Attributes:
        archives: The files.
        share: Of the test split, where the data does not tell it.
    """

    archives: tuple[Archive, ...]
    share: float

    @classmethod
    def open(cls, data: str | Path, test: float | str | Path) -> Sources:
        """The file `data`, and the file `test` or its share.

        Raises:
            DataError: A file is missing, or is none of arrays.
        """
        files = [existing(data, "data"), *([] if isinstance(test, int | float) else [existing(test, "test")])]
        archives: list[Archive] = []
        survey(list(map(str, files)), lambda i: archives.append(open_archive(files[i])), "files")
        return cls(tuple(archives), float(test) if isinstance(test, int | float) else 0.1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arrays."""
        return self.archives[0].names

    def array(self, name: str, setting: str) -> Array:
        """An array of finite numbers, `(n, ...)`; those of the test file come last."""
        return joined(self.archives, name, setting)

    def labels(self, name: str, setting: str) -> Array:
        """An array of numbers or strings, `(n, ...)`."""
        return joined(self.archives, name, setting, numeric=False)

    def where(self, name: str) -> str:
        """For messages."""
        return self.archives[0].where(name)

    def inputs(self, wanted: Sequence[str], others: Iterable[str]) -> list[str]:
        """The names of the input arrays: what is wanted, or all but `others` and the marks of the splits."""
        if isinstance(wanted, str):
            wanted = [wanted]
        found = list(wanted) or [n for n in self.names if n not in {*others, *MARKS}]
        if not found or len(set(found)) < len(found):
            raise DataError(f"{self.archives[0].path} needs inputs, each once, got {found}; give the setting 'inputs'")
        return found

    def splits(
        self,
        split: str,
        count: int,
        *,
        valid: float,
        seed: int,
        labels: Tensor | None = None,
        groups: Array | None = None,
        of_example: Callable[[Array], Array] | None = None,
        counted: str = "",
    ) -> Splits:
        """The splits of `count` examples.

        Args:
            split: `official`: by the test file or the array `test`; `group`: whole groups, of the array `group`;
                `random`; empty: official if that is known, else random, and groups stay together if they are known.
            count: Of all files.
            valid: Share of what is no test example that is held out for the search.
            seed: Of the draws.
            labels: `(n,)`: every class gets its share, where there are no groups.
            groups: `(n,)`: what belongs together, where there is no array `group`.
            of_example: The values of the examples, `(n,)`, in an array `test` or `group`; by default, it is those.
            counted: An array that is quickly read, whose rows tell what is of which file; by default the first.

        Raises:
            ConfigError: There is no such split.
            DataError: The array that the split needs is not there, or has not one value per example.
        """
        if split not in SPLITS:
            raise ConfigError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
        mark = partial(self._mark, count=count, of_example=of_example)
        if "group" in self.names or groups is None:
            groups = mark("group", needed=split == "group") if split != "random" else None
        if len(self.archives) > 1:
            second = self._second(split, counted or next(name for name in self.names if name not in MARKS))
            flags: Array | None = second if of_example is None else of_example(second)
        else:
            flags = None if split in ("group", "random") else mark("test", needed=split == "official")
        groups = None if split == "random" else groups
        return divide(count, valid=valid, test=self.share, seed=seed, labels=labels, groups=groups, flags=flags)

    def _second(self, split: str, counted: str) -> Array:
        """True for what is of the second file, `(n,)`."""
        if split in ("group", "random"):
            raise ConfigError(f"split = {split!r} draws a test split, and there is a test file; leave one out")
        return np.repeat([False, True], [len(a.array(counted, "data")) for a in self.archives])

    def _mark(
        self, name: str, *, count: int, needed: bool, of_example: Callable[[Array], Array] | None
    ) -> Array | None:
        if name not in self.names:
            if needed:
                raise DataError(f"this split needs an array {name!r}, which {self.archives[0].path} has not")
            return None
        stored = self.labels(name, "split")
        found = stored if of_example is None else of_example(stored)
        if found.shape != (count,):
            raise DataError(f"{self.where(name)} must have one value per example, ({count},), got {found.shape}")
        return found


@dataclass(frozen=True)
class Scaling:
    """Values to mean 0 and standard deviation 1 in every channel.

    Attributes:
        mean: `(1, channels, 1, ...)`, or a scalar.
        std: Likewise; 1 where a channel is constant.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, values: Callable[[Tensor], Tensor], index: Tensor) -> Scaling:
        """That of some examples.

        Args:
            values: The examples at some indices, `(m, channels, ...)`.
            index: Which count, `(n,)`.
        """
        parts = torch.split(
            index, CHUNK
        )  # twice through them, as all might not fit into memory, and sums of squares cancel
        first = values(index[:1])
        shape = (1, first.shape[1], *[1] * (first.dim() - 2))
        total = torch.zeros(first.shape[1], dtype=torch.float64)
        for part in parts:
            total += _over_positions(values(part).double()).sum(0)
        mean = (total / len(index)).reshape(shape)
        square = torch.zeros_like(total)
        for part in parts:
            square += _over_positions((values(part).double() - mean).square()).sum(0)
        std = (square / len(index)).sqrt().reshape(shape)
        # what is left of a constant after rounding is no spread
        return cls(mean, torch.where(std > 1e-12 * mean.abs().clamp(min=1e-12), std, 1.0))

    def __call__(self, values: Tensor) -> Tensor:
        """Float32 of the same shape."""
        return ((values.double() - self.mean) / self.std).float()


NONE = Scaling(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
"""Leaves values alone."""


def _over_positions(values: Tensor) -> Tensor:
    """`(n, channels, ...)` to means, `(n, channels)`."""
    return values.flatten(2).mean(2) if values.dim() > 2 else values


def channels_first(array: Array, axis: int = 1) -> Tensor:
    """`(n, ...)` as `(n, channels, ...)`: `(n,)` and `(n, H, W)` have one channel; up to four may stand last.

    Args:
        array: Of numbers.
        axis: Where the channels go.
    """
    values = tensor_of(array)
    if values.dim() in (1, 3):
        return values.unsqueeze(axis)
    if values.dim() == 4 and values.shape[3] <= 4 < values.shape[1]:
        return values.movedim(3, axis).contiguous()
    return values


def tensor_of(array: Array) -> Tensor:
    """The same values, of a type that torch can index: 16, 32 and 64 bits without a sign are not."""
    if array.dtype.kind == "b" or (array.dtype.kind == "u" and array.dtype != np.uint8):
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


def check_form(form: str) -> None:
    """Refuse what is no form."""
    if form not in FORMS:
        raise ConfigError(f"form must be one of {', '.join(map(repr, FORMS))}, got {form!r}")


def arranged(parts: Mapping[str, Tensor], form: str) -> Inputs:
    """The inputs of a network: kept apart, in a tuple (one alone is that tensor); by name, in a dict; or stacked.

    Args:
        parts: Name -> `(batch, channels, ...)`.
        form: `apart`, `named` or `stacked` (along the channels).

    Raises:
        DataError: Arrays that are to be stacked differ in height and width.
    """
    if form == "named":
        return dict(parts)
    values = tuple(parts.values())
    if form == "stacked":
        if any(v.shape[2:] != values[0].shape[2:] for v in values):
            shapes = ", ".join(f"{name} {tuple(v.shape[1:])}" for name, v in parts.items())
            raise DataError(f"inputs of different height and width cannot be stacked ({shapes}); set form = 'apart'")
        return torch.cat(values, 1)
    return values if len(values) > 1 else values[0]
