"""BOHB: Hyperband whose new networks come from densities of the good and the bad (Falkner et al., ICML 2018).

Once the largest fidelity with enough results has `n + 3` of them (`n` choices), two kernel densities are fitted there,
to the best share and to the rest; of some draws around good networks, that with the largest ratio of the two is taken,
except for a share of uniform draws (arXiv:1807.01774, algorithm 2). Deviations:

* Ordered choices have a normal kernel over their options' positions, the others Aitchison and Aitken's, whose bandwidth
  does not depend on the order of the options (see sartor.surrogates.densities); the smallest bandwidth is NATS-Bench's.
* The brackets are Hyperband's; the authors' code rounds their sizes down.
* Draws outside of the budget do not compete; if all are, the one with the best ratio is repaired.
"""

from __future__ import annotations

from bisect import insort

import numpy as np

from sartor.core.contracts import Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.regions.brackets import hyperband, steps
from sartor.regions.knockouts import Knockout
from sartor.regions.region import at_least_one
from sartor.surrogates.densities import Density, Shape

__all__ = ["Bohb"]


class Bohb(Knockout):
    """Hyperband with a model.

    Args:
        problem: Any problem; its evaluator should be cheaper at a lower fidelity.
        seed: Of all draws.
        trials: How many evaluations are made, whatever their fidelity.
        batch: How many are proposed at a time.
        eta: One in so many is promoted, and trained so many times longer.
        least: Smallest fidelity, as a fraction of the full training; rounded up to a power of `1 / eta`.
        random: Share of the networks that are drawn uniformly, in [0, 1].
        good: Share of the results that are good, in (0, 1).
        samples: Draws of which the best is taken.
        widen: Bandwidths of the draws over those of the density.
        bandwidth: The smallest one: a probability to change an unordered choice, or options of an ordered one.
    """

    smoke = {"trials": 24, "batch": 4, "least": 1 / 3}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        batch: int = 1,
        eta: int = 3,
        least: float = 1 / 9,
        random: float = 1 / 3,
        good: float = 0.15,
        samples: int = 64,
        widen: float = 3.0,
        bandwidth: float = 0.3,
    ) -> None:
        at_least_one(samples=samples)
        if not 0 <= random <= 1 or not 0 < good < 1 or widen <= 0 or bandwidth <= 0:
            raise ConfigError(
                f"random is {random}, good {good}, widen {widen} and bandwidth {bandwidth}; random must be in [0, 1], "
                "good in (0, 1), widen and bandwidth positive"
            )
        super().__init__(problem, seed, hyperband(steps(least, eta), eta), trials=trials, batch=batch)
        self.random, self.good, self.samples, self.widen = random, good, samples, widen
        self.shape = Shape(problem.space.choices, bandwidth)
        self._levels: dict[float, list[tuple[float, Arch]]] = {}
        """Fidelity -> results, best first; not saved, as the trials say it all."""
        self._told, self._seen = self.trials, 0

    def densities(self) -> tuple[Density, Density] | None:
        """Of the good and of the bad, at the largest fidelity with enough results; None before there are enough."""
        if self._told is not self.trials:
            self._told, self._levels, self._seen = self.trials, {}, 0
        for trial in self.trials[self._seen :]:
            if trial.ok:
                insort(
                    self._levels.setdefault(trial.fidelity, []), (self.problem.objectives[0].loss(trial), trial.arch)
                )
        self._seen, least = len(self.trials), len(self.problem.space.choices) + 1
        enough = [fidelity for fidelity, known in self._levels.items() if len(known) >= least + 2]
        if not enough:
            return None
        ranked = [arch for _, arch in self._levels[max(enough)]]
        best = max(least, int(self.good * len(ranked)))  # equation 3: the two may share points while there are few
        rest = max(least, len(ranked) - best)
        points = np.array(ranked)
        return Density(self.shape, points[:best]), Density(self.shape, points[-rest:])

    def draw(self) -> Arch:
        """Of some draws the one with the best ratio of densities; a uniform one for its share, or if there are none."""
        model = None if self.rng.random() < self.random else self.densities()
        if model is None:
            return super().draw()
        good, bad = model
        index = good.draw(self.rng, self.samples, self.widen)
        kept = index[self.region.inside(index)]
        competing = kept if len(kept) else index
        ratios = np.maximum(good(competing), 1e-32) / np.maximum(bad(competing), 1e-32)
        arch = self.problem.space.canonical(tuple(competing[int(ratios.argmax())].tolist()))
        return self.region.repair(arch, self.rng)
