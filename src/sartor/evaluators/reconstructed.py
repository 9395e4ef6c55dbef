"""Metrics of a network cut out of a trained one once its layers are fitted to the original's; nothing is trained.

Seconds per network, without gradients: for strategies that try some hundred networks. See
`sartor.surgery.cutting.reconstruction` for the method and its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from sartor.core.abilities import Pretrained, require
from sartor.core.contracts import Batch, Evaluator, Problem
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Proposal
from sartor.core.rng import derive, global_seed, torch_rng
from sartor.training import evaluate

__all__ = ["Reconstructed"]


class Reconstructed(Evaluator):
    """Metrics on the validation split; neither the fidelity nor a parent matters, and all networks see the same data.

    Args:
        examples: Training batches that the layers are fitted to, at most; the space takes as many examples as its
            setting `reconstruct` says.
        batches: Validation batches to evaluate on; None takes all.
        device: `auto` (CUDA if there is one), `cpu` or `cuda`: where the evaluation runs.

    Raises:
        CapabilityError: The problem has no task, or its space does not cut trained networks.
        ConfigError: A number of batches is out of range.
    """

    def __init__(
        self, problem: Problem, *, examples: int = 8, batches: int | None = None, device: str = "auto"
    ) -> None:
        if problem.task is None:
            raise CapabilityError(
                "Reconstructed needs a task, which the problem lacks; add one: [task] name = 'digits'"
            )
        if examples < 1 or (batches is not None and batches < 1):
            raise ConfigError(f"examples is {examples} and batches is {batches}; both must be at least 1")
        self.task = problem.task
        self.space = problem.space
        trained = require(problem.space, Pretrained, self)
        if not trained.reconstructs:
            raise CapabilityError(
                "Reconstructed needs a space that fits networks to the trained one they are cut out of; "
                f"{type(problem.space).__name__} as it is set does not: it needs trained weights, and reconstruct > 0"
            )
        self.reconstruct = trained.reconstruct
        self.examples, self.batches, self.device = examples, batches, device
        self._seen: list[Batch] = []

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        """The task's metrics."""
        if not self._seen:
            self._seen = list(islice(self.task.train(torch_rng(0, "calibration")), self.examples))
        arch = self.space.canonical(proposal.arch)
        with global_seed(derive(seed, "initialisation")):
            module = self.space.build(arch)
        self.reconstruct(arch, module, self._seen)
        return evaluate(module, islice(self.task.valid(), self.batches), self.task, device=self.device)
