"""LayerNAS: dynamic programming over layers and buckets of cost (Fan et al., 2023, arXiv:2304.11517).

A layer is a choice. Of all networks with the same first layers changed, only the best one per bucket of cost is kept;
from those kept, the options of the next layer are tried; after the last layer it starts over. With `surrogate` off this
is the paper's algorithm, except that the first layers are put in a bucket by the cost of their cheapest completion, not
by that of the completion with default layers: where costs are sums, that only shifts the buckets.

With `surrogate` on, the default, sweeps run on predictions, and few networks are trained. Deviations:

* A Gaussian process with effects of the choices and of pairs of them learns from all trials. The dynamic programming
  runs on its mean and on random draws from it, which costs nothing, and every sweep ends with whole networks inside the
  limits. Of those the ones with the largest expected improvement are trained (Jones et al., 1998), where what no other
  network can tell about a network counts as a chance, in as far as it is not noise. Small spaces are looked at as a
  whole, without buckets.
* The first networks are random ones in which no option can be exchanged for a dearer one inside the limits. The paper
  starts from the dearest options, too, outside of them.
* Every network trained meets the limits. The paper trains the first layers with the dearest options in all others.
* Where rounding leaves the process no covariance, it gets a nugget, and if that does not help, proposals are random
  ones; the log has `surrogate_nugget` and `surrogate_failed` then.
* While a sum of one number per option explains all trials exactly, one in `buckets` trials is one that such a sum does
  not tell; when it tells all, its best. So the optimum of a separable objective is found with at most layers x buckets
  x options trials, as by the paper's algorithm, in all spaces that are looked at as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtr

from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.regions.region import Region, answer, at_least_one
from sartor.strategies.layernas.layers import Beam, Grid, Layers
from sartor.strategies.layernas.sweeps import Sweeps
from sartor.surrogates.additive import Additive
from sartor.surrogates.anova import Surrogate
from sartor.surrogates.values import Floats, Ints

__all__ = ["Layernas"]

SHORT = 64
"""The expected improvement is computed of so many networks, the best predicted ones, and of half as many others."""
PACE = 16
"""With so many trials more, one more network is proposed at a time: the more is known, the less the next one tells."""
TRIES = 100
"""Random draws that may end in networks already tried, before the search is over."""


class Layernas(AskTell):
    """Networks built layer by layer, the best per bucket of cost.

    Args:
        problem: Any; without limits there is one bucket per step of the first cost.
        seed: Of the first networks, and of the order of parents and options in the paper's algorithm.
        trials: How many networks are evaluated.
        buckets: Of equal width, from the cheapest network to the limit; with integer costs and at least as many buckets
            as costs are apart, the dynamic programming is exact.
        parents: How many prefixes of a layer are expanded at a time; with the surrogate: how many are kept per bucket,
            in spaces too large to look at all networks.
        children: How many options of the next layer are tried per parent; with the surrogate: how many networks are
            proposed at a time, at most one more than a sixteenth of the trials so far.
        metric: The limited metric whose costs the buckets are of; empty: with several limits the one that is used most.
        surrogate: Whether predictions decide; False is the paper's algorithm.
        first: How many random networks come before the first prediction.
        noise: Standard deviation of an evaluation, in units of the objective, if it is known. The answer is then the
            network with the best expected value, which need not be the one with the best single evaluation.
    """

    saved = ("rng", "sweeps")
    smoke = {"trials": 16, "buckets": 8, "first": 4}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        buckets: int = 100,
        parents: int = 4,
        children: int = 4,
        metric: str = "",
        surrogate: bool = True,
        first: int = 5,
        noise: float = 0.0,
    ) -> None:
        at_least_one(trials=trials, buckets=buckets, parents=parents, children=children, first=first)
        if noise < 0:
            raise ConfigError(f"noise is {noise}; it must not be negative")
        self.problem, self.seed, self.total, self.metric = problem, seed, trials, metric
        self.kept, self.children, self.first, self.noise = parents, children, first, noise
        self.region = Region(problem)
        self.layers = Layers(problem, self.region.limits, buckets, metric)
        self.learns = self.within_limits = surrogate
        self.rng = numpy_rng(seed, "layernas")
        self.trials: list[Trial] = []
        self.sweeps = Sweeps(self.layers, parents, children)
        self._asked: list[Arch] = []
        self._forget()

    def ask(self) -> list[Proposal]:
        """The next networks; none when all trials are used, or nothing new is in reach."""
        self._catch_up()
        count = self.total - len(self.trials)
        if count <= 0:
            return []
        self._asked = (self._predicted if self.learns else self._swept)(count)
        return [Proposal(self.problem.space.canonical(arch)) for arch in self._asked]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from what was asked; a failed network is not tried again."""
        self.trials += trials
        self._catch_up()
        if not self.learns:
            self.sweeps.tell([(arch, self._seen[t.arch]) for arch, t in zip(self._asked, trials, strict=True)])

    def notes(self) -> Mapping[str, float]:
        """Whether the surrogate needed a nugget, or failed."""
        if not (self.learns and self._good):
            return {}
        if not self._model.sound:
            return {"surrogate_failed": 1.0}
        return {"surrogate_nugget": self._model.nugget} if self._model.nugget else {}

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated network under `limits`, metric -> upper bound; a predicted one if none of them meets them.

        Raises:
            BudgetError: No network meets them.
        """
        self._catch_up()
        region, blur = Region(self.problem, limits), self._blur()
        worth = self._model.fitted(blur).tolist() if blur else [-self._seen[t.arch] for t in self._good]
        known = [(value, -i) for i, value in enumerate(worth) if self._good[i].arch in region]
        if known:
            return self._good[-max(known)[1]].arch
        if self.learns and self._model.sound:
            pool = self._pool(Layers(self.problem, limits, self.layers.buckets))
            for row in pool.best(self._model.values(), 1).tolist():
                return tuple(row)
        return answer(self.problem, (), limits, numpy_rng(self.seed, "solve"))

    def _swept(self, count: int) -> list[Arch]:
        """The paper's algorithm."""
        return self.sweeps.ask(self.rng, self._seen)[:count]

    def _forget(self) -> None:
        """All that follows from the trials, which a checkpoint does not hold."""
        self._told, self._count = self.trials, 0
        self._seen, self._good = dict[Arch, float](), list[Trial]()
        if self.learns:
            self._model = Surrogate(self.problem.space.choices, self.layers.trends())
            self._sum = Additive(self.layers.sizes)
            self._candidates = self._pool(self.layers)

    def _catch_up(self) -> None:
        """Learn from new trials, one by one: a search that is resumed learns as one that has never stopped."""
        if self._told is not self.trials:
            self._forget()
        for trial in self.trials[self._count :]:
            loss = self._seen[trial.arch] = self.problem.objectives[0].loss(trial)
            if np.isfinite(loss):
                self._good.append(trial)
            if self.learns:
                self._candidates.take(trial.arch)
            if self.learns and np.isfinite(loss):
                self._model.add(trial.arch, -loss)
                self._sum.add(trial.arch, -loss)
        self._count = len(self.trials)

    def _blur(self) -> float:
        """The share of what is left to each network that is noise."""
        if not (self.learns and self.noise and self._model.sound):
            return 0.0
        return min(1.0, (self.noise / self._model.scale) ** 2 / self._model.rest)

    def _pool(self, layers: Layers) -> Grid | Beam:
        return Grid(layers) if layers.dense() else Beam(layers, self.kept)

    def _predicted(self, count: int) -> list[Arch]:
        """The most promising networks."""
        count = min(count, self.children, 1 + len(self._good) // PACE)
        if len(self._good) < self.first:
            return self._drawn(min(count, self.first - len(self._good)))
        if not self._model.sound:
            return self._drawn(count)
        values = self._model.values()
        index = self._candidates.best(values, max(SHORT, count))
        if not len(index):
            return self._drawn(count)
        others = self._candidates.best(self._model.draw(self.rng), SHORT // 2)
        index = np.array(list(dict.fromkeys(map(tuple, np.concatenate([index, others]).tolist()))))
        done, width = len(self.trials), self.layers.buckets
        turn = self._sum.holds and (done + count) // width > done // width
        certain = self._summed(index) if turn else []
        chosen = [tuple(row) for row in index[self._improving(index, values.at(index), count)].tolist()]
        return [*certain, *(arch for arch in chosen if arch not in certain)][:count]

    def _drawn(self, count: int) -> list[Arch]:
        """Random networks not seen yet, with the dearest options that fit as long as there are such networks."""
        found: dict[Arch, None] = {}
        for tried in range(TRIES):
            arch = self.region.sample(self.rng)
            if tried < TRIES // 4:
                arch = self.layers.filled(arch, self.rng)
            if arch not in self._seen and arch in self.region:
                found[arch] = None
            if len(found) == count:
                break
        return list(found) or [tuple(row) for row in self._candidates.rest()[:count].tolist()]

    def _improving(self, index: Ints, mean: Floats, count: int) -> list[int]:
        """Which networks have the largest expected improvement; each one chosen makes the others more certain."""
        model, blur, chosen = self._model, self._blur(), list[int]()
        above = mean - float(model.fitted(blur).max())
        spread = model.covariance(index) if count > 1 else np.zeros((0, 0))
        variance = spread.diagonal() if count > 1 else model.variance(index)
        for _ in range(min(count, len(index))):
            gain = _improvement(above, np.sqrt(np.maximum(variance, 0.0) + (1 - blur) * model.rest + 1e-18))
            gain[chosen] = -np.inf
            chosen.append(int(gain.argmax()))
            if len(chosen) < count:
                column = spread[:, chosen[-1]]
                spread = spread - np.outer(column, column / (column[chosen[-1]] + model.rest))
                variance = spread.diagonal()
        return chosen

    def _summed(self, index: Ints) -> list[Arch]:
        """A network whose value the sum does not tell, promising ones first; if it tells all, its best if new."""
        for some in (index, self._candidates.rest()):
            unknown = some[~self._sum.known(some)]
            if len(unknown):
                return [tuple(unknown[0].tolist())]
        sums = self._sum.values()
        first = self._candidates.best(sums, 1)
        best = max(-self._seen[t.arch] for t in self._good)
        better = len(first) and float(sums.at(first)[0]) > best
        return [tuple(row) for row in first.tolist()] if better else []


def _improvement(above: Floats, deviation: Floats) -> Floats:
    """Expected positive part of normal variables with these means and deviations."""
    ratio = above / deviation
    return np.asarray(above * ndtr(ratio) + deviation * np.exp(-ratio * ratio / 2) / np.sqrt(2 * np.pi))
