"""The one small problem that every contract test runs on."""

from __future__ import annotations

import torch

from sartor.core.contracts import Problem, Task
from sartor.core.metrics import Metric
from sartor.core.records import Constraint, Objective
from sartor.costs.macs import Macs
from sartor.costs.memory import Memory
from sartor.data.losses import cross_entropy, imitation
from sartor.spaces.tiny import Tiny


def small_problem() -> Problem:
    """Three width choices, two budget levels on MACs, a limit on peak memory, two batches per epoch."""
    space = Tiny(classes=2, size=4, widths=(2, 4, 6, 8))
    macs, memory = Macs(space), Memory(space)
    full = float(macs([space.reference])[0])
    return Problem(
        space=space,
        objectives=(Objective("accuracy", "max"),),
        constraints=(
            Constraint("macs", 0.6 * full, (0.35 * full,)),
            Constraint("memory_bytes", 0.9 * float(memory([space.reference])[0])),
        ),
        costs={"macs": macs, "memory_bytes": memory},
        task=Task(
            train=lambda generator: _batches(generator, 3),
            valid=lambda: _batches(torch.Generator().manual_seed(1), 2),
            test=lambda: _batches(torch.Generator().manual_seed(2), 2),
            loss=cross_entropy,
            distance=imitation,
            metrics=(Metric("unused", "max"),),  # quality is synthetic, or the probability of the right answers
            logits=True,
            example=torch.zeros(1, *space.input_shape),
            classes=2,
        ),
    )


def _batches(generator: torch.Generator, count: int):
    for _ in range(count):
        x = torch.randn(16, 1, 4, 4, generator=generator)
        yield x, (x[:, 0, :2].mean((1, 2)) > x[:, 0, 2:].mean((1, 2))).long()
