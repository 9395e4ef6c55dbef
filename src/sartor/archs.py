"""Operations that every strategy needs on architectures, as functions of any space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from sartor.core.contracts import Draws, Listed, Problem, Space, Varies
from sartor.core.errors import BudgetError
from sartor.core.records import Arch, Scalar


def sample(space: Space, rng: np.random.Generator) -> Arch:
    """As the space draws, else uniform over option indices."""
    if isinstance(space, Draws):
        return space.draw(rng)
    return space.canonical(tuple(int(rng.integers(len(c.options))) for c in space.choices))


def members(space: Space) -> Sequence[Arch]:
    """All archs of a space that is a list of networks; empty if it is none."""
    return space.members if isinstance(space, Listed) else ()


def mutate(space: Space, arch: Arch, rng: np.random.Generator) -> Arch:
    """As the space varies it, else `arch` with one choice set to another option (a neighbour, if it is ordered)."""
    if isinstance(space, Varies):
        return space.vary(arch, rng)
    movable = [i for i, c in enumerate(space.choices) if len(c.options) > 1]
    i = int(rng.choice(movable))
    choice, old = space.choices[i], arch[i]
    others = [k for k in range(len(choice.options)) if k != old and (not choice.ordered or abs(k - old) == 1)]
    return space.canonical((*arch[:i], int(rng.choice(others)), *arch[i + 1 :]))


def neighbours(space: Space, arch: Arch) -> list[Arch]:
    """All archs one step away: one choice set to another option (an adjacent one, if the choice is ordered)."""
    found: dict[Arch, None] = {}
    for i, choice in enumerate(space.choices):
        for k in range(len(choice.options)):
            if k != arch[i] and (not choice.ordered or abs(k - arch[i]) == 1):
                found[space.canonical((*arch[:i], k, *arch[i + 1 :]))] = None
    found.pop(space.canonical(arch), None)
    return list(found)


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
        arch = sample(problem.space, rng)
        if problem.feasible(arch):
            return arch
    current = list(sample(problem.space, rng))
    while not problem.feasible(arch := problem.space.canonical(tuple(current))):
        larger = [i for i, a in enumerate(current) if a]
        if not larger:
            raise BudgetError(
                f"no network of {type(problem.space).__name__} meets {problem.limits()}; loosen the budget"
            )
        current[int(rng.choice(larger))] -= 1
    return arch
