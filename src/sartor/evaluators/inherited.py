"""Cuts the network out of a trained supernet, recalibrates its batch norms and evaluates it: no training.

The calibration batches are the same for every network: what differs between two networks is then the networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from torch import nn

from sartor.core.abilities import Shareable, require
from sartor.core.contracts import Batch, Evaluator, Problem, Supernet
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Proposal
from sartor.core.rng import torch_rng
from sartor.supernet.calibrate import recalibrate
from sartor.supernet.lineage import read_supernet
from sartor.training import evaluate

__all__ = ["Inherited"]


class Inherited(Evaluator):
    """Metrics on the validation split with the supernet's weights; neither the fidelity nor the seed matters.

    Args:
        supernet: File with the supernet's weights (safetensors), as a strategy that trains one writes it; read at the
            first call.
        calibrate: Training batches that the batch-norm statistics are taken from; 0 keeps the supernet's.
        batches: Validation batches to evaluate on; None takes all.
        device: `auto` (CUDA if there is one), `cpu` or `cuda`: where the evaluation runs. The calibration runs on the
            CPU.

    Raises:
        CapabilityError: The problem has no task, or its space has no supernet.
        ConfigError: A number of batches is out of range.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        supernet: str | Path = "",
        calibrate: int = 8,
        batches: int | None = None,
        device: str = "auto",
    ) -> None:
        if problem.task is None:
            raise CapabilityError("Inherited needs a task, which the problem lacks; add one: [task] name = 'digits'")
        if calibrate < 0:
            raise ConfigError(f"calibrate must be at least 0, got {calibrate}")
        if batches is not None and batches < 1:
            raise ConfigError(f"batches must be at least 1, or absent for all, got {batches}")
        self.task = problem.task
        self.space = require(problem.space, Shareable, self)
        self.canonical = problem.space.canonical
        self.path = supernet
        self.calibrate = calibrate
        self.batches = batches
        self.device = device
        self._supernet: Supernet | None = None
        self._calibration: list[Batch] = []

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:  # noqa: ARG002 - nothing is random
        """The task's metrics on the validation split.

        Raises:
            ConfigError: No supernet file was given.
            StateError: The file cannot be read, or holds another supernet.
        """
        module = self._extracted(proposal)
        if self._calibration:
            recalibrate(module, self._calibration)
        return evaluate(module, islice(self.task.valid(), self.batches), self.task, device=self.device)

    def _extracted(self, proposal: Proposal) -> nn.Module:
        if self._supernet is None:
            self._supernet = self._loaded()
            batches = self.task.train(torch_rng(0, "calibration"))
            self._calibration = list(islice(batches, self.calibrate))
        return self._supernet.extract(self.canonical(proposal.arch))

    def _loaded(self) -> Supernet:
        if not str(self.path):
            raise ConfigError("Inherited needs a trained supernet; set supernet = 'RUN/artifacts/supernet.safetensors'")
        return read_supernet(self.space, self.path)
