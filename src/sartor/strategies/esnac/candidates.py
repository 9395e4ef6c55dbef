"""New networks within a budget, from which an acquisition function takes the best."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sartor import archs as operations
from sartor.core.abilities import Scalable
from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.regions.region import Region

ROUNDS = 8
"""Of mutations."""
CROSSED = 0.5
"""Share of the mutations that have two parents: most of what two good networks disagree on can be taken from either."""
PARENTS = 10
"""Per round: the best so far."""
BLOCKS = 16
"""Of random draws, before networks are repaired instead."""

Score = Callable[[Sequence[Arch]], Tensor]


class Candidates:
    """Random networks, and children of promising ones.

    Args:
        region: What is within the budget.
        local: Whether half of a pool are children of the best ones: mutations, and crossings of two.
        narrowed: So many of the first networks are the reference narrowed evenly.

    Raises:
        ConfigError: `narrowed` is negative, or the space does not say what that means.
    """

    def __init__(self, region: Region, *, local: bool = False, narrowed: int = 0) -> None:
        if narrowed < 0 or (narrowed and not isinstance(region.space, Scalable)):
            raise ConfigError(
                f"narrowed is {narrowed}; it must not be negative, and 0 for spaces that cannot narrow their networks "
                f"evenly ({type(region.space).__name__} {'can' if isinstance(region.space, Scalable) else 'cannot'})"
            )
        self.narrowed = narrowed
        self.region, self.local = region, local
        self._sizes = np.array([len(c.options) for c in region.space.choices])
        self._movable = bool((self._sizes > 1).any())

    def first(self, count: int, rng: np.random.Generator, seen: Collection[Arch]) -> list[Arch]:
        """What a search starts with: evenly narrowed networks, the widest first, and random ones.

        Raises:
            BudgetError: No network is within the budget.
        """
        space, even = self.region.space, list[Arch]()
        if self.narrowed and isinstance(space, Scalable):
            factors = (1 - i / (self.narrowed + 1) for i in range(1, self.narrowed + 1))
            even = list(dict.fromkeys(space.canonical(space.scaled(factor)) for factor in factors))
        even = [arch for arch in even if arch not in seen and arch in self.region][:count]
        return [*even, *self.draw(count - len(even), rng, {*seen, *even})] if len(even) < count else even

    def draw(self, count: int, rng: np.random.Generator, seen: Collection[Arch]) -> list[Arch]:
        """Different networks that are not in `seen`: `count`, or fewer where there are hardly any left.

        Raises:
            BudgetError: No network is within the budget.
        """
        found = dict[Arch, None]()
        if members := self.region.space.moves.members:
            self._take((members[i] for i in rng.permutation(len(members))), count, seen, found)
            return list(found)
        for _ in range(BLOCKS):
            before = len(found)
            if self._take(self._block(max(count, 32), rng), count, seen, found):
                return list(found)
            if found and len(found) - before <= count // 50:  # hardly any left, or hardly any fits
                break
        tries = min(max(32, count // 8), 2 * (count - len(found)))
        self._take((self.region.sample(rng) for _ in range(tries)), count, seen, found)
        return list(found)

    def _take(self, archs: Iterator[Arch], count: int, seen: Collection[Arch], found: dict[Arch, None]) -> bool:
        """Add what is new and within the budget; whether there are enough."""
        for arch in archs:
            if arch not in seen and arch in self.region:
                found[arch] = None
            if len(found) == count:
                return True
        return False

    def _block(self, count: int, rng: np.random.Generator) -> Iterator[Arch]:
        """Networks as the space draws them, else uniform ones, of which some that are outside are left out."""
        space = self.region.space
        if not space.moves.uniform:
            yield from (space.moves.draw(rng) for _ in range(count))
            return
        index = rng.integers(self._sizes, size=(count, len(self._sizes)))
        yield from (space.canonical(tuple(row)) for row in index[self.region.inside(index)].tolist())

    def start(self, count: int) -> int:
        """How many networks of a pool of `count` are random; the others are mutations."""
        return count - count // 2 if self.local and self._movable else count

    def pool(
        self,
        count: int,
        rng: np.random.Generator,
        seen: Collection[Arch],
        tops: Sequence[Arch],
        score: Score,
        given: Sequence[Arch] = (),
    ) -> tuple[list[Arch], Tensor]:
        """Networks that are not in `seen`, and their scores, `(n,)`.

        Args:
            count: How many, at most.
            rng: Of the draws.
            seen: What is left out.
            tops: The best networks evaluated: parents of the first mutations.
            score: Of networks, `(n,)`, higher is better.
            given: The random ones, if they have been drawn already.
        """
        mutations = count - self.start(count)
        pool = [arch for arch in given if arch not in seen] or self.draw(count - mutations, rng, seen)
        if not pool:
            return [], torch.zeros(0)
        scores = score(pool)
        for _ in range(ROUNDS if mutations else 0):
            best = [pool[i] for i in scores.argsort(descending=True, stable=True)[:PARENTS].tolist()]
            children = self._children(mutations // ROUNDS, [*tops, *best], rng, {*seen, *pool})
            if children:
                pool, scores = pool + children, torch.cat([scores, score(children)])
        return pool, scores

    def _children(
        self, count: int, parents: Sequence[Arch], rng: np.random.Generator, seen: Collection[Arch]
    ) -> list[Arch]:
        """Parents with one or two choices changed; half of them every choice of one of two parents, and at most two."""
        found, space = dict[Arch, None](), self.region.space
        for _ in range(4 * count):
            child = parents[int(rng.integers(len(parents)))]
            if crossed := bool(rng.random() < CROSSED):
                child = operations.crossover(space, child, parents[int(rng.integers(len(parents)))], rng)
            for _ in range(int(rng.integers(0 if crossed else 1, 3))):
                child = space.moves.vary(child, rng)
            if child not in seen and child in self.region:
                found[child] = None
            if len(found) == count:
                break
        return list(found)
