"""Dynamic programming over a path decomposition: choices one by one, the state is the joint option of the frontier.

A choice enters the frontier when it is processed and leaves it once all its neighbours have entered (Bertele and
Brioschi, *Nonserial Dynamic Programming*, 1972; Kinnersley, 1992, on path-width as vertex separation). On a chain the
frontier is one choice and this is the Viterbi recursion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sartor.core.errors import CapabilityError
from sartor.core.records import Arch

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.intp]
Edge: TypeAlias = tuple[int, int]

MAX_STATES = 1 << 22
"""Largest joint table of one step; beyond it the choices are too entangled for an exact answer."""


@dataclass(frozen=True, eq=False)
class Step:
    """One choice enters; those that no later choice touches leave.

    Attributes:
        choice: The choice that enters, with `k` options.
        before: Choices of the frontier before the step; their joint options are the `S` states, last one fastest.
        target: `(S, k)`, the state after the step (of `S'`).
        source: `(S', R)`, flat indices into an `(S, k)` array: the ways to reach each state.
    """

    choice: int
    before: tuple[int, ...]
    target: Ints
    source: Ints


@dataclass(frozen=True, eq=False)
class Plan:
    """The steps, and where the values of each step lie in one flat vector.

    Attributes:
        sizes: Number of options per choice.
        steps: In order of processing.
        offsets: Step `t` owns the entries `offsets[t]:offsets[t + 1]` of a flat vector of local values.
    """

    sizes: tuple[int, ...]
    steps: tuple[Step, ...]
    offsets: tuple[int, ...]

    def split(self, flat: Floats) -> list[Floats]:
        """Views of a `(..., total)` array, one `(..., S, k)` per step."""
        return [
            flat[..., a:b].reshape(*flat.shape[:-1], *step.target.shape)
            for step, a, b in zip(self.steps, self.offsets[:-1], self.offsets[1:], strict=True)
        ]

    def flatten(self, unary: Sequence[Floats], pairwise: Iterable[tuple[Edge, Floats]]) -> Floats:
        """The flat vector of local values: each term is added in the step where its last choice enters."""
        flat = np.zeros(self.offsets[-1])
        local, step_of = self.split(flat), {step.choice: t for t, step in enumerate(self.steps)}
        for i, table in enumerate(unary):
            local[step_of[i]] += table
        for (i, j), table in pairwise:
            late, early, grid = (j, i, table) if step_of[i] < step_of[j] else (i, j, table.T)
            before = self.steps[step_of[late]].before
            inner = int(np.prod([self.sizes[c] for c in before[before.index(early) + 1 :]], dtype=np.int64))
            by_axis = local[step_of[late]].reshape(-1, self.sizes[early], inner, self.sizes[late])
            by_axis += grid[:, None, :]
        return flat


@lru_cache(maxsize=64)
def plan(sizes: tuple[int, ...], edges: frozenset[Edge]) -> Plan:
    """The cheapest order among a greedy one from every first choice.

    Raises:
        CapabilityError: The frontier has more than `MAX_STATES` joint options in every order tried.
    """
    neighbours: list[set[int]] = [set() for _ in sizes]
    for i, j in edges:
        neighbours[i].add(j)
        neighbours[j].add(i)
    orders = {_greedy(sizes, neighbours, first) for first in range(len(sizes))} or {()}
    order = min(orders, key=lambda o: (_work(sizes, neighbours, o), o))
    largest = max(_joints(sizes, neighbours, order), default=0)
    if largest > MAX_STATES:
        raise CapabilityError(
            f"exact solvers take at most {MAX_STATES} joint options of choices that interact, these tables need "
            f"{largest}; use a strategy that samples, or a space with fewer couplings"
        )
    return _compile(sizes, neighbours, order)


def _left(neighbours: Sequence[set[int]], frontier: Sequence[int], done: set[int]) -> list[int]:
    """The choices of the frontier that still have a neighbour to come."""
    return [c for c in frontier if neighbours[c] - done]


def _size(sizes: Sequence[int], choices: Iterable[int]) -> int:
    total = 1
    for c in choices:
        total *= sizes[c]
    return total


def _greedy(sizes: Sequence[int], neighbours: Sequence[set[int]], first: int) -> tuple[int, ...]:
    """Always the choice that leaves the smallest frontier (neighbours of the frontier first)."""
    order, frontier, done = [first], [first], {first}
    frontier = _left(neighbours, frontier, done)
    while len(order) < len(sizes):
        near = sorted(set().union(*(neighbours[c] for c in frontier)) - done) if frontier else []
        options = near or [c for c in range(len(sizes)) if c not in done]
        after = {c: _left(neighbours, [*frontier, c], done | {c}) for c in options}
        best = min(options, key=lambda c: (_size(sizes, after[c]), sizes[c], c))
        order.append(best)
        done.add(best)
        frontier = after[best]
    return tuple(order)


def _joints(sizes: Sequence[int], neighbours: Sequence[set[int]], order: Sequence[int]) -> list[int]:
    """Joint options of frontier and entering choice, per step."""
    joints, frontier, done = [], list[int](), set[int]()
    for c in order:
        done.add(c)
        joints.append(_size(sizes, [*frontier, c]))
        frontier = _left(neighbours, [*frontier, c], done)
    return joints


def _work(sizes: Sequence[int], neighbours: Sequence[set[int]], order: Sequence[int]) -> int:
    return sum(_joints(sizes, neighbours, order))


def _compile(sizes: tuple[int, ...], neighbours: Sequence[set[int]], order: Sequence[int]) -> Plan:
    steps, offsets = list[Step](), [0]
    frontier, done = tuple[int, ...](), set[int]()
    for c in order:
        done.add(c)
        joint = (*frontier, c)
        after = tuple(_left(neighbours, joint, done))
        shape = [sizes[a] for a in joint]
        kept = [joint.index(a) for a in after]
        gone = [axis for axis in range(len(joint)) if axis not in kept]
        flat = np.arange(_size(sizes, joint)).reshape(shape)
        source = np.ascontiguousarray(flat.transpose(kept + gone).reshape(_size(sizes, after), -1))
        target = np.empty(flat.size, dtype=np.intp)
        target[source] = np.arange(len(source))[:, None]
        steps.append(Step(c, frontier, target.reshape(-1, sizes[c]), source))
        offsets.append(offsets[-1] + flat.size)
        frontier = after
    return Plan(sizes, tuple(steps), tuple(offsets))


def completions(steps: Plan, flat: Floats) -> list[Floats]:
    """Least sum of the steps still to come, per state: `(S_t,)` before step `t`, and `(1,)` at the end (min-sum)."""
    best = [np.zeros(1)]
    for step, local in zip(reversed(steps.steps), reversed(steps.split(flat)), strict=True):
        best.append((local + best[-1][step.target]).min(axis=1))
    return best[::-1]


def decode(steps: Plan, flat: Floats, best: Sequence[Floats]) -> Arch:
    """The arch that reaches `best[0]`; among ties the first option of each step."""
    arch, state = [0] * len(steps.sizes), 0
    for step, local, after in zip(steps.steps, steps.split(flat), best[1:], strict=True):
        target = step.target[state]
        option = int((local[state] + after[target]).argmin())
        arch[step.choice], state = option, int(target[option])
    return tuple(arch)
