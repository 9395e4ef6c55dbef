"""A lab for evaluations that are looked up: nothing is journaled, and a trial costs microseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sartor.core.contracts import Evaluator
from sartor.core.errors import BudgetSpentError, CapabilityError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import derive


class SimulatedLab:
    """Evaluates proposals in order and forgets nothing.

    Trials get the same seeds as in a real run. An evaluator's mistake ends the simulation: a table does not fail.

    Args:
        evaluator: Looks metrics up.
        seed: Of the run; trial `i` gets the stream `("trial", i)`.
        max_trials: No further trial is run after these.
        costs: The cost metrics of an arch.
    """

    def __init__(
        self, evaluator: Evaluator, seed: int, *, max_trials: int, costs: Callable[[Arch], Mapping[str, float]]
    ) -> None:
        self.evaluator, self.seed, self.max_trials, self.costs = evaluator, seed, max_trials, costs
        self.trials: list[Trial] = []

    def evaluate(
        self,
        proposals: Sequence[Proposal],
        ahead: Sequence[Proposal] = (),  # noqa: ARG002 - nothing is gained by beginning early
    ) -> list[Trial]:
        """Trials in the order of `proposals`.

        Raises:
            BudgetSpentError: All trials are made; those of this call that came before are kept.
        """
        return [self._one(proposal) for proposal in proposals]

    def log(self, **scalars: float) -> None:
        """Nobody reads them."""

    def artifact(self, name: str) -> Path:
        """There is no folder.

        Raises:
            CapabilityError: Always.
        """
        raise CapabilityError(
            f"a simulation keeps no files, such as {name!r}; strategies that train cannot be simulated"
        )

    def progress(self, done: float, total: float, label: str = "") -> None:
        """Nobody looks."""

    def _one(self, proposal: Proposal) -> Trial:
        index = len(self.trials)
        if index >= self.max_trials:
            raise BudgetSpentError(f"all {self.max_trials} trials are used")
        arch = tuple(map(int, proposal.arch))
        metrics = {**self.costs(arch), **self.evaluator(proposal, derive(self.seed, "trial", index))}
        trial = Trial(index, arch, float(proposal.fidelity), metrics, None, proposal.parent)
        self.trials.append(trial)
        return trial
