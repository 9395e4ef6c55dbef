from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy

from sartor.core.contracts import Problem, Task
from sartor.core.errors import CapabilityError, DataError, DivergedError
from sartor.core.metrics import Metric
from sartor.core.records import Objective
from sartor.data.losses import squared
from sartor.supernet.heldout import HeldOut, quality

from problems import small_problem  # isort: skip


def problem(count=40, goal="max", metrics=None):
    """Example `i` is the number `i`; they come sorted, in batches of seven."""
    x = torch.arange(count, dtype=torch.float64)[:, None]

    def valid():
        return [(x[i : i + 7], x[i : i + 7, 0].long()) for i in range(0, count, 7)]

    def loss(output, y):
        return torch.nn.functional.cross_entropy(output, y, reduction="none")

    known = tuple(Metric(name, goal, make=make) for name, make in (metrics or {"unused": None}).items())
    task = Task(
        train=lambda _: [],
        valid=valid,
        test=lambda: [],
        loss=loss,
        distance=squared,
        metrics=known,
        example=x[:1],
    )
    return Problem(None, (Objective("accuracy", goal),), task=task)


def test_batches_are_random_examples_without_repetition():
    held = HeldOut(problem(), 0, by="a test")
    seen = set()
    for _ in range(30):
        x, y = held.batch(16)
        assert torch.equal(x[:, 0].long(), y)
        assert len(set(y.tolist())) == 16
        seen |= set(y.tolist())
    assert seen == set(range(40))
    assert len(held.batch(100)[0]) == 40


def test_a_large_split_is_thinned_at_random():
    kept = [set(HeldOut(problem(400), s, by="a test", pool=50 * 8).batch(100)[1].tolist()) for s in range(40)]
    assert all(len(k) == 50 for k in kept)
    mean = sum(sum(k) / 50 for k in kept) / 40
    assert mean == pytest.approx(199.5, abs=4 * 400 / 12**0.5 / (40 * 50) ** 0.5)
    assert kept[0] == set(HeldOut(problem(400), 0, by="a test", pool=50 * 8).batch(50)[1].tolist())


def test_the_generator_is_all_of_the_state():
    one = HeldOut(problem(), 0, by="a test")
    one.batch(5)
    two = HeldOut(problem(), 0, by="a test")
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.batch(8)[0], two.batch(8)[0])


def test_a_problem_without_examples():
    with pytest.raises(DataError, match="hold out more"):
        HeldOut(problem(0), 0, by="a test").batch(1)
    with pytest.raises(CapabilityError, match="needs a task"):
        HeldOut(replace(small_problem(), task=None), 0, by="a test")


def test_quality_is_the_metric_or_a_probability():
    output, y = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 1, 0])
    accuracy = {"accuracy": lambda: MulticlassAccuracy(2, average="micro")}
    assert quality(problem(metrics=accuracy), output, y) == pytest.approx(2 / 3)
    assert quality(problem(goal="min", metrics=accuracy), output, y) == pytest.approx(-2 / 3)
    right = output.softmax(1)[[0, 1, 2], y]
    assert quality(problem(), output, y) == pytest.approx(math.exp(float(right.log().mean())))
    with pytest.raises(DivergedError, match="lower lr"):
        quality(problem(), output * torch.nan, y)
