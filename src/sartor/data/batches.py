"""Which examples are in which split, and the batches of a split: by index, whatever the examples are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sartor.core import trees
from sartor.core.contracts import Batch
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import derive, global_seed, numpy_rng
from sartor.core.trees import Tree
from sartor.data.images import draw, split

Take: TypeAlias = Callable[[Tensor, torch.Generator | None], Batch]
"""The examples at some indices, `(m,)`; augmented from the generator, if there is one."""

EVALUATED = 256
"""Examples per batch of the held-out splits, where no gradient takes memory."""


@dataclass(frozen=True)
class Batches:
    """The examples at `index`, batch by batch; shuffled and augmented if there is a generator.

    With a generator, a last batch that is not full is dropped (a batch of one breaks batch normalisation), unless it is
    the only one.

    Attributes:
        index: `(n,)`, int64: the split's examples.
        take: Inputs and target of examples.
        batch: Examples per batch.
    """

    index: Tensor
    take: Take
    batch: int
    generator: torch.Generator | None = None

    def __len__(self) -> int:
        full, last = divmod(len(self.index), self.batch)
        return max(1, full) if self.generator is not None else full + bool(last)

    def __iter__(self) -> Iterator[Batch]:
        order = self.index
        if self.generator is not None:
            order = order[torch.randperm(len(order), generator=self.generator)]
        for start in range(0, len(self) * self.batch, self.batch):
            yield self.take(order[start : start + self.batch], self.generator)


class Seeded:
    """Somebody else's loader, whose draws from torch's global generator come from ours, one seed per batch.

    Args:
        batches: The loader, or anything that can be iterated again and again.
        checked: A batch as the contract has it.
        generator: Of the training split; without one, every pass draws the same.
    """

    def __init__(
        self, batches: Iterable[Any], checked: Callable[[Any], Batch], generator: torch.Generator | None = None
    ) -> None:
        self.batches = batches
        self.checked = checked
        self.generator = generator

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type] # a TypeError is the answer for those without a length

    def __iter__(self) -> Iterator[Batch]:
        generator = self.generator or torch.Generator()
        if self.generator is not None:
            self._seed_own(generator)
        with global_seed(draw(generator)):
            iterator = iter(self.batches)
        while True:
            with global_seed(draw(generator)):
                batch = next(iterator, None)
            if batch is None:
                return
            yield self.checked(batch)

    def _seed_own(self, generator: torch.Generator) -> None:
        for owner in (self.batches, getattr(self.batches, "sampler", None)):
            own = getattr(owner, "generator", None)
            if isinstance(own, torch.Generator):
                own.manual_seed(draw(generator))


@dataclass(frozen=True)
class Splits:
    """Indices of the examples of each split, `(n,)`, int64, rising."""

    train: Tensor
    valid: Tensor
    test: Tensor

    def sizes(self) -> dict[str, int]:
        """Name -> number of examples."""
        return {name: len(getattr(self, name)) for name in ("train", "valid", "test")}


def divide(
    count: int,
    *,
    valid: float,
    test: float,
    seed: int,
    labels: Tensor | None = None,
    groups: NDArray[Any] | None = None,
    flags: NDArray[Any] | None = None,
) -> Splits:
    """Draw the splits of `count` examples.

    Args:
        count: How many there are.
        valid: Share of what is no test example that is held out for the search, in (0, 1).
        test: Share held out for the final report, unless there are flags.
        seed: Where the draws come from.
        labels: `(n,)`, int64: every class gets its share of every split.
        groups: `(n,)`: examples of one group (a speaker, a place) stay in one split; labels do not count then.
        flags: `(n,)`: true for the examples of the test split.

    Raises:
        ConfigError: A share is not in (0, 1).
        DataError: There are too few examples, classes or groups, or nothing or everything is flagged.
    """
    if flags is None:
        rest, tested = _held(torch.arange(count), test, seed, "test", labels, groups)
    else:
        known = torch.from_numpy(flags.astype(bool))
        rest, tested = (~known).nonzero().flatten(), known.nonzero().flatten()
        if not len(rest) or not len(tested):
            raise DataError(f"{len(tested)} of {count} examples are flagged as the test split; flag some, not all")
    train, held = _held(rest, valid, seed, "valid", labels, groups)
    return Splits(train, held, tested)


def _held(
    index: Tensor, fraction: float, seed: int, name: str, labels: Tensor | None, groups: NDArray[Any] | None
) -> tuple[Tensor, Tensor]:
    """What is left of `index`, and the part that is held out."""
    if groups is not None:
        taken = torch.from_numpy(_whole_groups(groups[index.numpy()], fraction, seed, name))
        return index[~taken], index[taken]
    kinds = torch.zeros(len(index), dtype=torch.int64) if labels is None else labels[index]
    rest, part = split(kinds, fraction, derive(seed, "divide"), name)
    return index[rest], index[part]


def _whole_groups(groups: NDArray[Any], fraction: float, seed: int, name: str) -> NDArray[np.bool_]:
    """Groups in random order until the next one would lead further from the share; at least one, and never all."""
    if not 0 < fraction < 1:
        raise ConfigError(f"{name} must be in (0, 1), got {fraction}; 0.1 holds out a tenth")
    known, member = np.unique(groups, return_inverse=True)
    if len(known) < 2:
        raise DataError(f"{len(known)} group left, too few to hold out {name} = {fraction}; split at random instead")
    sizes = np.bincount(member)
    order = numpy_rng(seed, "groups", name).permutation(len(known))
    filled = np.cumsum(sizes[order])[:-1]
    count = 1 + int(np.abs(filled - fraction * len(groups)).argmin())
    taken: NDArray[np.bool_] = np.isin(member, order[:count])
    return taken


def check_batch(batch: int) -> None:
    """Refuse an empty batch."""
    if batch < 1:
        raise ConfigError(f"batch must be at least 1, got {batch}")


def fingerprint(splits: Splits, *arrays: Tree) -> str:
    """SHA-256 over the types, shapes and values of all tensors, and over the splits."""
    digest = hashlib.sha256()
    for tensor in trees.leaves([splits, *arrays]):
        digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
