"""Which networks to measure: uniform, least-seen entries first, or what teaches most about the others.

Sources: `coverage` is the biased sampler of Berman et al., "AOWS: Adaptive and optimal network width search with
latency constraints", CVPR 2020, section 4.1; ties are broken at random instead of by the solver.
`optimal` is greedy V-optimal design (the average prediction variance, as in Krause et al., "Near-optimal sensor
placements in Gaussian processes", JMLR 2008) under the prior of the combined model. It needs no measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain as chained
from itertools import islice
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

import numpy as np
from scipy import sparse

from sartor import archs
from sartor.core.abilities import Operated
from sartor.core.contracts import Space
from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.latency.design import Entries, Floats
from sartor.latency.operators import design_of
from sartor.solvers import chain

Kind: TypeAlias = Literal["uniform", "coverage", "optimal"]

CANDIDATES = 1000
"""Random networks that `optimal` picks from."""
JUDGES = 300
"""Random networks whose mean predictive variance `optimal` lowers."""
EVEN = 8
"""Widths in multiples of this are where fast kernels are, and where good networks will be."""
PATIENCE = 1000
"""Draws in a row that bring no new network, before a space counts as exhausted."""


def plan(space: Space, n: int, rng: np.random.Generator, kind: Kind = "optimal") -> list[Arch]:
    """`n` distinct archs to measure, the most telling first; fewer if the space has no more.

    The first three are the reference, the narrowest and the widest: they pin down the ends of the range. In a space of
    operators, whose options may share nothing, the next few have every option of every choice between them.

    Args:
        space: What the networks are drawn from.
        n: How many.
        rng: Breaks ties, draws candidates.
        kind: `uniform` draws at random; `coverage` takes paths through the entries seen least so far; `optimal` takes
            what lowers the prediction variance of random networks most.

    Raises:
        ConfigError: `n` is not positive, or there is no such kind.
        CapabilityError: The space can list neither its layers nor its operators.
    """
    if n < 1 or kind not in get_args(Kind):
        raise ConfigError(f"a plan needs n >= 1 and a kind of {get_args(Kind)}; got n={n}, kind={kind!r}")
    design = design_of(space, "a latency model")
    found: dict[Arch, None] = {}
    idle = 0
    first = [space.canonical(space.reference), archs.smallest(space), archs.largest(space)]
    if isinstance(space, Operated):
        first += islice(_options(space, rng, first), max(len(c.options) for c in space.choices))
    first = first[:n]
    for arch in chained(first, _SAMPLERS[kind](_Task(space, design, rng, first, n))):
        idle = idle + 1 if arch in found else 0
        found[arch] = None
        if len(found) == n or idle == PATIENCE:
            break
    return list(found)


def heldout(space: Space, n: int, rng: np.random.Generator, taken: list[Arch]) -> list[Arch]:
    """`n` distinct uniformly random archs that are not among `taken`; fewer if the space has no more."""
    found: dict[Arch, None] = {}
    for _ in range(PATIENCE + 10 * n):
        arch = space.moves.draw(rng)
        if arch not in taken:
            found[arch] = None
        if len(found) == n:
            break
    return list(found)


def coverage(design: Entries, chosen: list[Arch]) -> int:
    """How often the least-seen table entry occurs in `chosen`."""
    return int(design.matrix(chosen).sum(axis=0).min())


@dataclass(frozen=True)
class _Task:
    """What a sampler works on: `seen` are the archs that are in the plan already."""

    space: Space
    design: Entries
    rng: np.random.Generator
    seen: list[Arch]
    n: int


def _uniform(task: _Task) -> Iterator[Arch]:
    while True:
        yield task.space.moves.draw(task.rng)


def _mixed(task: _Task) -> Iterator[Arch]:
    """Every second one has widths that are multiples of `EVEN`, where there are such: uniform draws hardly ever do."""
    full = [
        [i for i, option in enumerate(c.options) if _even(option)] or range(len(c.options)) for c in task.space.choices
    ]
    for arch in _uniform(task):
        yield arch
        yield task.space.canonical(tuple(int(task.rng.choice(options)) for options in full))


def _even(option: object) -> bool:
    return isinstance(option, int) and option % EVEN == 0


def _options(space: Space, rng: np.random.Generator, seen: list[Arch]) -> Iterator[Arch]:
    """Of every choice a random one of the options seen least so far."""
    counts = [
        np.bincount(chosen, minlength=len(c.options))
        for c, chosen in zip(space.choices, zip(*seen, strict=True), strict=True)
    ]
    while True:
        arch = tuple(int(rng.choice(np.flatnonzero(count == count.min()))) for count in counts)
        for count, option in zip(counts, arch, strict=True):  # as asked for: no canonical arch may have some options
            count[option] += 1
        yield space.canonical(arch)


def _coverage(task: _Task) -> Iterator[Arch]:
    if isinstance(task.space, Operated):  # many places share an entry: least-seen entries would be taken everywhere
        yield from _options(task.space, task.rng, task.seen)
    design = task.design
    counts = np.asarray(design.matrix(task.seen).sum(axis=0), dtype=np.float64)
    while True:
        # reward 1 for a least-seen entry; the random part only breaks ties
        reward = (counts == counts.min()) + task.rng.uniform(0, 0.5 / design.longest, len(counts))
        arch = task.space.canonical(chain.minimum(design.tables(-reward))[0])
        counts += design.matrix([arch]).toarray()[0]
        yield arch


def _optimal(task: _Task) -> Iterator[Arch]:
    seen, draws = task.seen, _mixed(task)
    fresh = dict.fromkeys(islice(draws, max(CANDIDATES, 2 * task.n)))
    pool = [arch for arch in fresh if arch not in seen]
    everyone = [*seen, *pool, *islice(draws, JUDGES)]
    knowledge = _Knowledge(*_prior(task.design, everyone), judges=JUDGES)
    for i in range(len(seen)):
        knowledge.measure(i)
    free = np.zeros(len(everyone), dtype=bool)
    free[len(seen) : len(seen) + len(pool)] = True
    while free.any():
        best = int(np.argmax(np.where(free, knowledge.gains(), -1.0)))
        knowledge.measure(best)
        free[best] = False
        yield everyone[best]
    yield from draws


class _Knowledge:
    """What is known of the latencies of some networks, the last few of which are the judges.

    The posterior covariance is the prior one minus `columns @ columns.T`, one column per measured network.
    """

    def __init__(self, prior: Floats, noise: Floats, judges: int) -> None:
        self._prior, self._noise, self._judges = prior, noise, judges
        self._columns = np.zeros((len(prior), 0))
        self._variance = np.diag(prior).copy()
        self._shared = prior[:, -judges:].copy()

    def gains(self) -> Floats:
        """By how much measuring each network would lower the variance of the judges, summed; `(networks,)`."""
        return np.asarray((self._shared**2).sum(axis=1) / (self._variance + self._noise))

    def measure(self, i: int) -> None:
        """Network `i` has been measured."""
        column = self._prior[:, i] - self._columns @ self._columns[i]
        column /= np.sqrt(self._variance[i] + self._noise[i])
        self._columns = np.column_stack([self._columns, column])
        self._variance -= column**2
        self._shared -= np.outer(column, column[-self._judges :])


def _prior(design: Entries, networks: list[Arch]) -> tuple[Floats, Floats]:
    """Covariance of the latencies of some networks before any is measured, and the noise variance of each.

    Every physical term is expected to take an equal share of the mean latency, and is uncertain by as much; the entries
    deviate from the terms by a fifth.
    """
    counts = design.matrix(networks)
    columns = counts @ design.physical()
    share = 1 / np.maximum(columns.mean(axis=0), 1e-300) / columns.shape[1]
    scaled = counts @ sparse.diags_array(0.2 * (design.physical() @ share))
    deviation = np.asarray((scaled @ (scaled @ design.correlation(1.0)).T).T)
    covariance = (columns * share) @ (columns * share).T + deviation
    return covariance, (0.02 * (columns @ share)) ** 2


_SAMPLERS: Mapping[Kind, Callable[[_Task], Iterator[Arch]]] = MappingProxyType(
    {"uniform": _uniform, "coverage": _coverage, "optimal": _optimal}
)
