from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy

from sartor.core.contracts import Batch, Task
from sartor.core.metrics import SHARE, Metric
from sartor.training import doubts as made
from sartor.training import evaluate
from sartor.training.doubts import FEW

CLASSES = 4


def task(batches: list[Batch], metric: Metric | None = None) -> Task:
    accuracy = Metric("accuracy", "max", SHARE, make=_accuracy, interval="proportion")
    return Task(
        example=batches[0][0][:1],
        train=lambda _: batches,
        valid=lambda: batches,
        test=list,
        loss=nn.functional.cross_entropy,
        distance=nn.functional.cross_entropy,
        metrics=(metric or accuracy,),
    )


def _accuracy() -> Any:
    return MulticlassAccuracy(CLASSES, average="micro")


def labelled(labels: Tensor, size: int) -> list[Batch]:
    """Inputs that say their labels."""
    x = nn.functional.one_hot(labels, CLASSES).float()
    return list(zip(x.split(size), labels.split(size), strict=True))


SORTED, MIXED = torch.arange(200) // 50, torch.arange(200) % CLASSES


def doubts(network: nn.Module, of: Task) -> list[str]:
    return made.doubts(network, of, evaluate(network, of.valid(), of)[of.metric.name])


DATA = {
    "one batch": lambda: labelled(MIXED, 200),
    "many batches": lambda: labelled(MIXED, 16),
    "sorted by class, one batch": lambda: labelled(SORTED, 200),
    "sorted by class, many batches": lambda: labelled(SORTED, 16),
}


class Constant(nn.Module):
    """Says the same whatever it sees."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return torch.eye(CLASSES)[self.answer].expand(len(x), -1)


@pytest.mark.parametrize("data", DATA)
def test_a_network_that_knows_is_trusted_and_one_that_does_not_is_doubted(data: str):
    known = task(DATA[data]())
    assert doubts(nn.Identity(), known) == []
    for answer in range(CLASSES):
        (line,) = doubts(Constant(answer), known)
        assert "no better than chance" in line
        assert "accuracy" in line


def test_less_is_better_where_the_metric_says_so():
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    error = Metric("mse", "min", make=MeanSquaredError)
    regression = task([(x, x)], error)
    assert doubts(nn.Identity(), regression) == []
    assert "no better than chance: mse" in doubts(Zero(), regression)[0].replace(" on the validation split", "")


class Zero(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def test_targets_that_have_sizes_of_their_own_are_not_exchanged():
    rows = [torch.randn(30, width) for width in (2, 3, 4, 5)]
    assert doubts(Zero(), task([(x, x) for x in rows], Metric("mse", "min", make=MeanSquaredError))) == []


def test_few_examples_are_said():
    (line,) = doubts(nn.Identity(), task(labelled(MIXED[: FEW - 1], 16)))
    assert f"has {FEW - 1} examples" in line
    assert doubts(nn.Identity(), task(labelled(MIXED[:FEW], 16))) == []


def test_one_example_alone_says_nothing_of_chance():
    (line,) = doubts(Constant(1), task(labelled(MIXED[:1], 1)))
    assert "has 1 examples" in line
