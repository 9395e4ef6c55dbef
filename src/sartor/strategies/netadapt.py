"""NetAdapt: shrink a trained network step by step until it meets the budget (Yang et al., ECCV 2018, arXiv:1804.03230).

Each iteration asks for a fixed reduction of one resource. For every choice the network with this choice alone lowered
just enough is fine-tuned shortly, from the weights of the current network; the one that loses the least accuracy per
resource saved becomes the current one. Deviations:

* One walk serves every budget level: no step aims below the next level, and the walk ends when all limits hold.
* Where no single choice can make the reduction asked for, it is halved until one can.
* Which filters stay is the space's affair (the first of its supernet), not decided by the norms in each iteration.
* `solve` for a budget below the walk's end goes on with the losses per resource of the choices, as last measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sartor import archs
from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import BudgetError, CapabilityError, ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.solvers.budgets import levels, within

__all__ = ["Netadapt"]


class Netadapt(AskTell):
    """Greedy shrinking from the space's reference, with a short fine-tune of every candidate.

    A lower option of a choice is one with a lower index, whatever the options are.

    Args:
        problem: Any with a limit whose metric has a cost model; cheap costs, as all candidates of an iteration are
            priced.
        seed: Unused: nothing is random.
        metric: The resource, a metric that has a limit; empty: that of the first limit.
        step: Reduction that the first iteration asks for, as a share of the reference's resource.
        decay: Factor on the reduction from one iteration to the next.
    """

    saved = ("accepted", "scores")
    smoke = {"step": 0.1}
    evaluator = "finetune"
    within_limits = False

    def __init__(
        self,
        problem: Problem,
        seed: int,  # noqa: ARG002 - the walk is deterministic; every strategy takes a seed
        *,
        metric: str = "",
        step: float = 0.025,
        decay: float = 0.96,
    ) -> None:
        if not 0 < step < 1 or not 0 < decay <= 1:
            raise ConfigError(f"step is {step} and decay is {decay}; step must be in (0, 1), decay in (0, 1]")
        if not problem.constraints:
            raise CapabilityError("Netadapt needs a limit to shrink towards; add one, as in [budget] macs = '50%'")
        self.problem, self.decay = problem, decay
        self.start = problem.space.canonical(problem.space.reference)
        self.metric = metric or problem.constraints[0].metric
        self.goals, self.limits = problem.levels(self.metric), levels(problem)[-1]
        if not within(problem, archs.smallest(problem.space), self.limits):
            raise BudgetError(f"the smallest network does not meet {self.limits}; loosen the budget")
        self.reduction = step * self._resource([self.start])[0]
        self.trials: list[Trial] = []
        self.accepted: list[int] = []
        """Which trials were accepted, one per iteration, from the start on: never more than there are options."""
        self.scores: dict[int, float] = {}
        """Choice -> loss per resource when it was last lowered."""

    def ask(self) -> list[Proposal]:
        """The candidates of the next iteration; first of all the start.

        Raises:
            BudgetError: No choice can lower the resource, and the limits are not met.
        """
        if not self.trail:
            return [Proposal(self.start)]
        current = self.trail[-1].arch
        if within(self.problem, current, self.limits):
            return []
        parent = max(self.parents(), default=None)
        return [Proposal(arch, parent=parent) for arch in self._candidates(current)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Accept the trial that loses least per resource saved; a failed one only if all have failed."""
        first = len(self.trials)
        if not first:
            self.trials += trials
            self.accepted = [0]
            return
        loss = self.problem.objectives[0].loss
        before = self._loss()
        now, *costs = self._resource([self.trail[-1].arch, *(t.arch for t in trials)])
        saved = [now - cost for cost in costs]
        scores = [(loss(t) - before + 1e-6) / (s + 1e-5) for t, s in zip(trials, saved, strict=True)]
        for trial, score in zip(trials, scores, strict=True):
            for i in _changed(self.trail[-1].arch, trial.arch):
                self.scores = {**self.scores, i: score}
        best = min(range(len(trials)), key=lambda i: (scores[i], -saved[i]))
        self.trials += trials
        self.accepted = [*self.accepted, first + best]

    @property
    def trail(self) -> list[Trial]:
        """The networks accepted."""
        return [self.trials[i] for i in self.accepted]

    def parents(self) -> Collection[int]:
        """The networks accepted: the last one has children, and any may be the answer whose weights are wanted."""
        return [trial.index for trial in self.trail if trial.ok]

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best accepted network under `limits`, metric -> upper bound; below the walk's end, one further down.

        Raises:
            BudgetError: Not even the smallest network meets them.
        """
        inside = [t for t in self.trail if within(self.problem, t.arch, limits)]
        if inside:
            return min(inside, key=self.problem.objectives[0].loss).arch
        arch = self.trail[-1].arch if self.trail else self.start
        while not within(self.problem, arch, limits):
            arch = self._further(arch, limits)
        return arch

    def _loss(self) -> float:
        """Of the current network; if it has failed, of the last one that has not."""
        return next((self.problem.objectives[0].loss(t) for t in reversed(self.trail) if t.ok), 0.0)

    def _resource(self, networks: Sequence[Arch]) -> list[float]:
        return [float(value) for value in self.problem.cost(self.metric)(networks)]

    def _candidates(self, current: Arch) -> list[Arch]:
        """For every choice that can make the reduction, its highest option that does, all else unchanged."""
        now, lower = self._resource([current])[0], _lower(self.problem, current)
        options = [(i, arch) for i, several in lower.items() for arch in several]
        costs = self._resource([arch for _, arch in options]) if options else []
        floor = min(costs, default=now)
        if floor >= now:
            raise BudgetError(
                f"no choice lowers {self.metric} below {now:g}, the smallest value reached, and {self.limits} is not "
                "met; loosen the budget or use a space with smaller options"
            )
        goal = max((level for level in self.goals if level < now), default=float("-inf"))
        reduction = self.reduction * self.decay ** (len(self.trail) - 1)
        while floor > max(now - reduction, goal):
            reduction /= 2
        target = max(now - reduction, goal)
        found: dict[int, Arch] = {}
        for (i, arch), cost in zip(options, costs, strict=True):
            if cost <= target and cost < now:
                found.setdefault(i, arch)
        return list(dict.fromkeys(found.values()))

    def _further(self, arch: Arch, limits: Mapping[str, float]) -> Arch:
        """One option further down, without an evaluation."""

        def excess(network: Arch) -> float:
            over = [float(self.problem.cost(m)([network])[0]) / max(upper, 1e-12) - 1 for m, upper in limits.items()]
            return sum(max(0.0, share) for share in over)

        def rank(network: Arch) -> tuple[bool, float, float]:
            score = min((self.scores.get(i, float("inf")) for i in _changed(arch, network)), default=float("inf"))
            return excess(network) >= before, score, excess(network)

        before, children = excess(arch), [several[0] for several in _lower(self.problem, arch).values()]
        if not children:
            raise BudgetError(f"the smallest network does not meet {dict(limits)}; loosen the budget")
        return min(children, key=rank)


def _lower(problem: Problem, arch: Arch) -> dict[int, list[Arch]]:
    """Choice -> the networks with a lower option of it alone, the highest option first."""
    found = {}
    for i, option in enumerate(arch):
        networks = [(*arch[:i], k, *arch[i + 1 :]) for k in reversed(range(option))]
        found[i] = [n for n in map(problem.space.canonical, networks) if n != arch]
    return {i: networks for i, networks in found.items() if networks}


def _changed(one: Arch, two: Arch) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
