"""Operations that every strategy needs on architectures, as functions of any space; see `Space.moves` for more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from sartor.core.contracts import Problem, Space
from sartor.core.errors import BudgetError
from sartor.core.records import Arch, Scalar


def crossover(space: Space, mother: Arch, father: Arch, rng: np.random.Generator) -> Arch:
    """Every choice from one of the two parents, by a fair coin."""
    coins = rng.integers(2, size=len(mother))
    return space.canonical(tuple(m if c else f for m, f, c in zip(mother, father, coins, strict=True)))


def smallest(space: Space) -> Arch:
    """The first option of every choice: for width spaces the narrowest network."""
    return space.canonical((0,) * len(space.choices))


def largest(space: Space) -> Arch:
    """The last option of every choice: for width spaces the widest network."""
    return space.canonical(tuple(len(c.options) - 1 for c in space.choices))


def enumerate_all(space: Space) -> Iterator[Arch]:
    """Every canonical architecture, in lexicographic order."""
    return (a for a in product(*(range(len(c.options)) for c in space.choices)) if space.canonical(a) == a)


def one_hot(space: Space, archs: Sequence[Arch]) -> Tensor:
    """Encoding of shape `(n, sum_i k_i)`."""
    return torch.stack([torch.cat(gates(space, a)) for a in archs])


def gates(space: Space, arch: Arch) -> list[Tensor]:
    """One-hot gates, `(k_i,)` each, that make a supernet run exactly `arch`."""
    return [torch.eye(len(c.options))[a] for c, a in zip(space.choices, arch, strict=True)]


def describe(space: Space, arch: Arch) -> dict[str, Scalar]:
    """The architecture in words: choice name -> chosen option."""
    return {c.name: c.options[a] for c, a in zip(space.choices, arch, strict=True)}


def sample_feasible(problem: Problem, rng: np.random.Generator, tries: int = 1000) -> Arch:
    """A random architecture that meets every checkable constraint.

    Draws are rejected until one is feasible; if `tries` of them fail (a tight budget), the draw is shrunk, one
    random choice at a time, until it fits.

    Raises:
        BudgetError: Not even the smallest network meets the constraints.
    """
    for _ in range(tries):
        arch = problem.space.moves.draw(rng)
        if problem.feasible(arch):
            return arch
    current = list(problem.space.moves.draw(rng))
    while not problem.feasible(arch := problem.space.canonical(tuple(current))):
        larger = [i for i, a in enumerate(current) if a]
        if not larger:
            raise BudgetError(
                f"no network of {type(problem.space).__name__} meets {problem.limits()}; loosen the budget"
            )
        current[int(rng.choice(larger))] -= 1
    return arch
