"""What every evaluator must do."""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchmetrics.classification import MulticlassHingeLoss

from nets import Residual
from problems import small_problem
from sartor import archs
from sartor.core import plugins
from sartor.core.contracts import Evaluator, Problem
from sartor.core.records import Proposal
from sartor.core.rng import global_seed
from sartor.data.quality import accuracy, of
from sartor.spaces.widths import Widths

# Settings that make each affordable; none of the others needs any.
MAKERS = {
    "train": lambda make, problem, folder: make(problem, recipe={"epochs": 2, "device": "cpu"}),
    "inherited": lambda make, problem, folder: make(problem, supernet=supernet(problem, folder), device="cpu"),
    "finetune": lambda make, problem, folder: make(problem, steps=3, lr=0.05, recipe={"device": "cpu"}),
    "distil": lambda make, problem, folder: make(cut_problem(problem), recipe={"epochs": 2, "device": "cpu"}),
    "reconstructed": lambda make, problem, folder: make(cut_problem(problem), device="cpu"),
    "probe": lambda make, problem, folder: make(cut_problem(problem), recipe={"epochs": 2, "device": "cpu"}),
    "synthetic": lambda make, problem, folder: make(problem, noise=0.01),
    "tabular": lambda make, problem, folder: make(problem, table=table(problem, folder), noise=0.01),
}


def cut_problem(problem):
    """The same with the widths of a network that comes with its weights."""
    with global_seed(0):
        network = Residual(2)
        network.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    space = Widths(network=network, input_shape=(1, 8, 8), divisor=2, multipliers=(0.25, 0.5, 0.75))
    return replace(problem, space=space)


def supernet(problem, folder):
    with global_seed(0):
        save_file(problem.space.supernet().state_dict(), folder / "supernet.safetensors")
    return folder / "supernet.safetensors"


def table(problem, folder):
    keys = [problem.space.key(a) for a in archs.enumerate_all(problem.space)]
    rows = [f"{key},{40 + i / 8}" for i, key in enumerate(keys)]
    (folder / "table.csv").write_text("\n".join(["arch_str,bars_test_3", *rows]))
    return folder / "table.csv"


def sealed_problem() -> Problem:
    problem = small_problem()
    # The hinge loss tells any two networks apart, which the accuracy on a few examples does not.
    metrics = (*accuracy(2), *of({"hinge": partial(MulticlassHingeLoss, 2)}))
    return replace(problem, task=replace(problem.task, metrics=metrics).sealed())


@pytest.fixture(params=plugins.names("evaluators"))
def evaluator(request, tmp_path):
    return MAKERS[request.param](plugins.load("evaluators", request.param), sealed_problem(), tmp_path)


def test_no_evaluator_is_left_out():
    assert len(plugins.names("evaluators")) >= 3
    assert set(MAKERS) == set(plugins.names("evaluators"))


@pytest.mark.parametrize("name", plugins.names("evaluators"))
def test_settings_are_keywords_with_defaults_and_documented(name):
    cls = plugins.load("evaluators", name)
    assert issubclass(cls, Evaluator)
    assert not inspect.isabstract(cls)
    assert cls.__name__.lower() == name.replace("_", "")
    problem, *settings = inspect.signature(cls).parameters.values()
    assert problem.name == "problem"
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in settings)
    assert not [p.name for p in settings if f"{p.name}: " not in inspect.getdoc(cls)]


def test_metrics_are_finite_and_hold_the_objective(evaluator):
    metrics = evaluator(Proposal((1, 2, 3)), 0)
    assert "accuracy" in metrics
    assert all(type(v) is float and math.isfinite(v) for v in metrics.values())


def test_the_seed_decides(evaluator, tmp_path):
    """Called again, and after other calls, the same proposal and seed give the same metrics."""
    twin = copy.copy(evaluator)
    first = evaluator(Proposal((3, 0, 1)), 5)
    evaluator(Proposal((0, 0, 0)), 6)
    torch.rand(3)
    assert evaluator(Proposal((3, 0, 1)), 5) == first
    assert twin(Proposal((3, 0, 1)), 5) == first


def test_a_trial_costs_no_more_epochs_at_a_lower_fidelity(evaluator):
    costs = [evaluator.epochs(f) for f in (0.01, 0.3, 1.0)]
    assert costs == sorted(costs)
    assert costs[0] >= 0
    assert all(type(v) is float and math.isfinite(v) for v in costs)
    assert (costs[-1] > 0) == hasattr(evaluator, "recipe")


def test_global_generators_are_left_alone(evaluator):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    evaluator(Proposal((1, 1, 1)), 0)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002
