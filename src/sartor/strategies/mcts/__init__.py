"""Monte Carlo tree search: choices in their order are a tree, and upper confidence bounds decide where to look (UCT).

Searching architectures by UCT, and sharing what is learned between the branches of the tree, are from Wistuba,
"Finding competitive network architectures within a day using UCT" (2017, arXiv:1712.07420); bounds from Kocsis and
Szepesvari (ECML 2006); rewards of an option in all branches ("all moves as first") from Gelly and Silver (Artificial
Intelligence 2011). Only the abstract of the first was at hand; it says that there are two ways of sharing between
branches, and not which. The two here:

* `share = "options"`: an option is worth what it is in its branch and, the less is known there, in all branches.
* `share = "model"`: the default, and ours. A Gaussian process learns an effect of each option and of each pair from all
  trials. For each network that is proposed, one function is drawn from it, a tree is searched by `playouts` imagined
  networks that this function rewards, and the best new one is proposed, after single options of it have been exchanged
  as long as the function rewards it (`climb`). So the bounds are spent on imagined rewards, which cost nothing.

Deviations and additions:

* No network is evaluated twice: paths whose ends are all known, or other names of networks, are closed.
* Hard limits whose costs are sums close options that cannot be completed within them; whole networks outside of other
  limits are not evaluated.
* Rewards are scaled by their range so far. Failed networks count as the worst.
* `partition = "latent"` is LaNAS (Wang et al., 2019): branches are not options but learned, see `latent`.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from typing import Literal

from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.regions.openings import Openings
from sartor.regions.region import Region, answer, at_least_one, proposals
from sartor.strategies.mcts.imagined import Planner
from sartor.strategies.mcts.latent import Partition
from sartor.strategies.mcts.tree import Tree
from sartor.surrogates.anova import Surrogate

__all__ = ["Mcts"]

TRIES = 1000
"""Random draws that may end in networks already tried, before the search is over."""
ENDS = 500
"""Paths that end in no new network, before a random one is taken instead."""
LEAF = 200
"""Random draws that may end outside of the chosen leaf."""


class Mcts(AskTell):
    """Upper confidence bounds on a tree of choices.

    Args:
        problem: Any problem.
        seed: Of the first networks, of the functions drawn and of the rollouts.
        trials: How many networks are evaluated; fewer where a small space is exhausted.
        batch: How many are proposed at a time.
        share: What branches tell each other: `none` nothing, `options` the rewards of each option, `model` effects of
            options and of pairs of them.
        explore: Weight of the bounds beside the mean rewards, in units of the range of the rewards.
        equivalence: With `options`: so many rewards of an option in its branch weigh as much as all those elsewhere.
        playouts: With `model`: networks imagined per proposal.
        climb: With `model`: whether single options of the best imagined network are exchanged then.
        partition: What branches: the `choices` in their order, or regions that are learned (`latent`, with `none`).
        depth: With `latent`: splits from the whole space to a leaf.
        first: With `model` and `latent`: how many random networks come before.
    """

    saved = ("rng",)
    smoke = {"trials": 17, "batch": 3, "playouts": 10, "first": 4}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        batch: int = 1,
        share: Literal["none", "options", "model"] = "model",
        explore: float = 0.2,
        equivalence: float = 10.0,
        playouts: int = 50,
        climb: bool = True,
        partition: Literal["choices", "latent"] = "choices",
        depth: int = 5,
        first: int = 10,
    ) -> None:
        at_least_one(trials=trials, batch=batch, playouts=playouts, first=first, depth=depth)
        if share not in {"none", "options", "model"}:
            raise ConfigError(f"share is {share!r}; it must be none, options or model")
        if partition not in {"choices", "latent"} or (partition == "latent" and share != "none"):
            raise ConfigError(
                f"partition is {partition!r} and share {share!r}; partition is choices, or latent with share = 'none'"
            )
        if explore < 0 or equivalence <= 0:
            raise ConfigError(
                f"explore is {explore} and equivalence is {equivalence}; explore must not be negative, equivalence "
                "positive"
            )
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.share, self.first, self.depth = share, first, depth if partition == "latent" else 0
        self.region, self.rng, openings = Region(problem), numpy_rng(seed, "mcts"), Openings(problem)
        self.planner = Planner(self.region, openings, playouts=playouts, explore=explore, climb=climb)
        weight = equivalence if share == "options" else 0.0
        self._tree_settings = (openings.sizes, openings, explore, weight)
        self.explore = explore
        self.trials: list[Trial] = []
        self._regions: Partition | None = None
        self._start()

    def ask(self) -> list[Proposal]:
        """The ends of the best paths that have not been tried."""
        self._catch_up()
        self._regions = None
        return proposals(min(self.batch, self.total - len(self.trials)), self._next)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Keep them; trees and models are brought up to date when something is next asked for."""
        self.trials += trials

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated network under `limits`; if none meets them, a random one that does.

        Raises:
            BudgetError: No network meets them.
        """
        return answer(self.problem, self.trials, limits, numpy_rng(self.seed, "solve"))

    def _start(self) -> None:
        """Nothing is known; all that is follows from the trials."""
        self._told, self._read, self._known = self.trials, 0, dict[Arch, float]()
        self._failed: list[Arch] = []
        self._tree, self._model = Tree(*self._tree_settings), Surrogate(self.problem.space.choices)

    def _catch_up(self) -> None:
        """Learn from the trials that have come since."""
        if self._told is not self.trials:
            self._start()
        new, self._read = self.trials[self._read :], len(self.trials)
        for trial in new:
            if trial.ok:
                self._learn(trial.arch, -self.problem.objectives[0].loss(trial))
            elif self._known:
                self._learn(trial.arch, min(self._known.values()))
            else:  # nobody knows yet how bad that is
                self._failed.append(trial.arch)

    def _learn(self, arch: Arch, reward: float) -> None:
        for one in (arch, *self._failed):
            self._known[one] = reward
            if self.share == "model":
                self._model.add(one, reward)
            else:
                self._tree.learn(one, reward)
        self._failed.clear()

    def _next(self, pending: Collection[Arch]) -> Arch | None:
        taken = {*self._known, *self._failed, *pending}
        if (self.share == "model" or self.depth) and len(self._known) + len(pending) < self.first:
            return self._random(taken)
        if self.depth and self._known:
            return self._in_a_leaf(taken) or self._random(taken)
        if self.share == "model":
            if not self._model.sound:
                return self._random(taken)
            return self.planner(self._model.draw(self.rng), taken, self.rng) or self._random(taken)

        def new(arch: Arch) -> bool:
            return arch not in taken and arch in self.region and self.problem.space.canonical(arch) == arch

        return self._tree.descend(self.rng, new, ENDS) or self._random(taken)

    def _in_a_leaf(self, taken: Container[Arch]) -> Arch | None:
        """A random new network of the best leaf, or the one that comes furthest on the way there."""
        if self._regions is None:
            known = list(self._known)
            sizes = [len(c.options) for c in self.problem.space.choices]
            self._regions = Partition(sizes, known, [self._known[a] for a in known], depth=self.depth)
        path = self._regions.path(self.explore)
        best: tuple[int, Arch] | None = None
        for _ in range(LEAF):
            arch = self.region.sample(self.rng)
            reached = -1 if arch in taken else self._regions.reached(arch, path)
            if reached == len(path):
                return arch
            if reached > (best[0] if best else -1):
                best = reached, arch
        return best[1] if best else None

    def _random(self, taken: Container[Arch]) -> Arch | None:
        return self.region.fresh(taken, self.rng, TRIES)
