"""What every task must do; a task needs nothing but its test, `tests/tasks/test_NAME.py`, with a `sample`."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sartor
from cnn import small_task
from sartor.core import plugins, trees
from sartor.core.contracts import Problem, Task
from sartor.core.errors import DataError, LeakError
from sartor.core.records import Constraint
from sartor.core.rng import global_seed, torch_rng
from sartor.costs.macs import Macs
from sartor.jobs.verify import verify
from sartor.report.table import summary_text
from sartor.run.result import read
from sartor.spaces.widths import Widths
from sartor.supernet.slimmable import Slimmable
from sartor.training import Recipe, check_fits, evaluate, fit

NAMES = plugins.names("tasks")


@dataclass
class Sample:
    """A small task that can be learned, and a network that fits it.

    Attributes:
        task: Once it has seen the network, if it wants to.
    """

    name: str
    settings: dict[str, Any]
    network: nn.Module
    task: Task

    @property
    def table(self) -> dict[str, Any] | None:
        """The task as a config names it; None if its settings are no words and numbers."""
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in self.settings.items()}
        known = all(isinstance(v, str | int | float | bool) for v in plain.values())
        return {"name": self.name, **plain} if known else None

    def fresh(self) -> nn.Module:
        """The network."""
        return copy.deepcopy(self.network)


def made(name: str, folder: Path) -> Sample:
    """The sample of a task, from its test."""
    try:
        make = importlib.import_module(f"tasks.test_{name}").sample
    except (ModuleNotFoundError, AttributeError):
        pytest.fail(
            f"the task {name!r} has no sample; write tests/tasks/test_{name}.py with a function sample(folder) that "
            "gives settings of a small task that can be learned, with its data written below folder, and a network "
            "that fits it"
        )
    settings, network = make(folder)
    task = plugins.load("tasks", name)(**settings)
    network.eval()
    return Sample(name, dict(settings), network, task.informed(copy.deepcopy(network)) if task.informed else task)


@pytest.fixture(params=NAMES, scope="module")
def one(request, tmp_path_factory):
    return made(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def task(one):
    return one.task


def epoch(task, seed):
    return list(task.train(torch_rng(seed)))


def equal(a, b):
    left, right = ([t for batch in batches for t in trees.leaves(batch)] for batches in (a, b))
    return len(left) == len(right) and all(torch.equal(p, q) for p, q in zip(left, right, strict=True))


def run(module, inputs):
    """The network on inputs, spread over its arguments by hand."""
    if isinstance(inputs, torch.Tensor):
        return module(inputs)
    return module(**inputs) if isinstance(inputs, dict) else module(*inputs)


def first(task):
    return next(iter(task.valid()))


def test_no_task_is_left_out():
    assert len(NAMES) >= 12


def test_a_task_without_a_sample_says_what_to_write(tmp_path):
    with pytest.raises(pytest.fail.Exception, match=r"write tests/tasks/test_weather\.py with a function sample"):
        made("weather", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_keywords_with_defaults_and_documented(name):
    make = plugins.load("tasks", name)
    parameters = inspect.signature(make).parameters
    assert make.__name__ == name
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters.values())
    words = inspect.getdoc(make)
    assert not [p for p in parameters if f"{p}: " not in words]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "digits"])
def test_without_data_a_task_says_what_is_missing(name):
    with pytest.raises(DataError, match=r"needs|give the setting"):
        plugins.load("tasks", name)()


def test_batches_are_like_the_example(one):
    task = one.task
    assert isinstance(task, Task)
    assert task.name == one.name
    example = trees.named(task.example)
    assert all(len(t) == 1 for t in example.values())
    for batches in (epoch(task, 0), list(task.valid()), list(task.test())):
        assert batches
        for x, y in batches:
            found = trees.named(x)
            assert found.keys() == example.keys()
            for name, t in found.items():
                assert (t.dtype, t.dim()) == (example[name].dtype, example[name].dim())
            assert len({len(t) for t in trees.leaves((x, y))}) == 1
            if task.classes is not None and isinstance(y, torch.Tensor) and y.dim() == 1:
                assert y.dtype == torch.int64
                assert 0 <= int(y.min()) <= int(y.max()) < task.classes


def test_losses_are_one_per_example_and_can_be_learned_from(one):
    x, y = first(one.task)
    network = one.fresh()
    with global_seed(1):
        rebuilt(network)
    output = run(network, x)
    losses = one.task.loss(output, y)
    assert losses.shape == (trees.size(x),)
    assert losses.isfinite().all()
    alone = one.task.loss(trees.rows(output, slice(0, 1)), trees.rows(y, slice(0, 1)))
    torch.testing.assert_close(losses[:1], alone)
    losses.mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_an_output_is_nearest_to_itself(one):
    """Its distance to itself is 0, or for logits that of their entropy; and no step makes it smaller."""
    x, _ = first(one.task)
    with torch.no_grad():
        teacher = run(one.network, x)
    output = trees.mapped(lambda t: t.detach().clone().requires_grad_(t.is_floating_point()), teacher)
    distance = one.task.distance(output, teacher)
    assert distance.shape == (trees.size(x),)
    assert distance.isfinite().all()
    if not one.task.logits:
        torch.testing.assert_close(distance.detach(), torch.zeros(trees.size(x)))
    distance.sum().backward()
    learned = [t for t in trees.leaves(output) if t.requires_grad]
    assert all(t.grad is None or t.grad.abs().max() < 1e-5 for t in learned)
    moved = trees.mapped(
        lambda t: (t + torch.randn(t.shape, generator=torch_rng(0))).requires_grad_() if t.is_floating_point() else t,
        teacher,
    )
    farther = one.task.distance(moved, teacher)
    assert (farther.detach() > distance.detach()).all()
    farther.sum().backward()
    assert all(t.grad.abs().max() > 0 for t in trees.leaves(moved) if t.requires_grad)


def rebuilt(network):
    """New weights, wherever a layer knows how."""
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def test_training_makes_the_deciding_metric_better(one):
    """So its goal is the right one: the loss and the metric want the same."""
    network = one.fresh()
    with global_seed(3):
        rebuilt(network)
    metric = one.task.metric
    before = evaluate(network, one.task.valid(), one.task)[metric.name]
    recipe = Recipe(epochs=8, lr=0.01, optimizer="adamw", warmup=0, device="cpu")
    fit(network, one.task, recipe, seed=0)
    after = evaluate(network, one.task.valid(), one.task)[metric.name]
    assert after > before if metric.goal == "max" else after < before


def test_an_epoch_is_decided_by_its_generator(task):
    torch.rand(1)
    first_time = epoch(task, 0)
    torch.rand(5)
    assert equal(first_time, epoch(task, 0))
    assert not equal(first_time, epoch(task, 1))


def test_epochs_of_one_generator_differ(task):
    generator = torch_rng(0)
    assert not equal(list(task.train(generator)), list(task.train(generator)))


def test_the_held_out_splits_never_change(task):
    assert equal(list(task.valid()), list(task.valid()))
    assert equal(list(task.test()), list(task.test()))


def test_global_generators_are_left_alone_between_any_two_batches(task):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for batches in (task.train(torch_rng(0)), task.valid(), task.test()):
        for _ in batches:
            assert torch.equal(before, torch.get_rng_state())
            assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


def test_an_epoch_knows_its_length_without_drawing(task):
    generator = torch_rng(0)
    before = generator.get_state()
    batches = task.train(generator)
    length = len(batches)
    assert torch.equal(before, generator.get_state())
    assert length == len(list(batches))
    assert len(task.valid()) == len(list(task.valid()))


def test_the_sample_network_can_be_evaluated_on_it(one):
    check_fits(one.task, one.fresh())
    found = evaluate(one.fresh(), one.task.valid(), one.task)
    assert list(found) == [m.name for m in one.task.metrics]
    assert all(math.isfinite(v) for v in found.values())
    assert all(0 <= found[m.name] <= 1 for m in one.task.metrics if m.unit == "share")


def test_a_sealed_task_keeps_the_test_split_shut():
    with pytest.raises(LeakError):
        small_task().sealed().test()


def test_distillation_teaches_the_narrowest_network(one):
    """In-place distillation by the task's distance reaches the weights that the narrowest network shares.

    The loss of the widest network counts for nothing here, and all random paths are the narrowest.
    """
    with global_seed(0):
        network = one.fresh()
        rebuilt(network)
    space = Widths(network=network, example=one.task.example)
    macs = Macs(space)
    silent = replace(one.task, loss=lambda output, _: 0 * sum(t.flatten(1).sum(1) for t in floats(output)))
    problem = Problem(
        space=space,
        objectives=(one.task.metric.objective,),
        constraints=(Constraint("macs", 0.6 * float(macs([space.reference])[0])),),
        costs={"macs": macs},
        task=silent,
    )
    training = Slimmable(problem, 0, by=test_no_task_is_left_out, epochs=1, lr=0.1, schedule="cosine", half_life=0.1)
    narrowest = [torch.eye(len(c.options), dtype=torch.float64)[:1] for c in space.choices]
    x, y = next(iter(one.task.train(torch_rng(0))))
    training._step(x, y, narrowest)
    weights = [p for p in training.supernet.parameters() if p.dim() > 1]
    assert len(weights) >= 2
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in weights)


def floats(output):
    return [t for t in trees.leaves(output) if t.is_floating_point()]


@pytest.fixture(scope="module")
def fitted(one, tmp_path_factory):
    """A whole job on the sample: four networks of random widths; the best one trained, exported, timed and tested."""
    folder = tmp_path_factory.mktemp("fitted") / one.name
    found = sartor.fit(
        one.fresh(),
        one.table or one.task,
        budget={"macs": "60%"},
        target="torch_cpu",
        strategy={"name": "random_search", "trials": 4, "batch": 4},
        evaluator={"name": "train"},
        training={"epochs": 2, "lr": 0.01, "optimizer": "adamw", "warmup": 0, "device": "cpu"},
        verification={"rounds": 4, "sessions": 1, "processes": 1},
        recipe={},
        folder=folder,
    )
    return found, json.loads((folder / "result.json").read_text())


def test_a_job_delivers_the_right_network(one, fitted):
    """By what the files say, and with nothing of sartor: the best trial inside, and the better one of two networks."""
    found, result = fitted
    (point,), (metric, *_) = result["points"], result["metrics"]
    lines = (found.folder / "search" / "journal.jsonl").read_text().splitlines()
    trials = [t for t in map(json.loads, lines) if t["kind"] == "trial" and t["error"] is None]
    assert len(trials) == 4
    inside = [t for t in trials if t["metrics"]["macs"] <= point["budget"]["macs"]]
    best = {"max": max, "min": min}[metric["goal"]](inside, key=lambda t: t["metrics"][metric["name"]])
    assert point["searched"]["arch"] == best["arch"]
    searched, uniform = point["searched"], point["uniform"]
    if uniform is not None and uniform["arch"] != searched["arch"]:
        ours, theirs = (network["valid"][metric["name"]] for network in (searched, uniform))
        better = theirs > ours if metric["goal"] == "max" else theirs < ours
        assert point["delivered"] == ("uniform" if better else "searched")
    assert point["verdict"] == "PASS"
    assert point[point["delivered"]]["macs"] <= point["budget"]["macs"]


def test_a_job_reports_the_score_of_the_network_that_it_delivers(one, fitted):
    found, result = fitted
    (point,) = result["points"]
    scores = point[point["delivered"]]["scores"]
    assert scores.keys() == {m.name for m in one.task.metrics}
    for metric in one.task.metrics:
        measure = metric.make()
        with torch.no_grad():
            for x, y in one.task.test():
                measure.update(run(found.network, x), y)
        score = scores[metric.name]
        assert score["value"] == pytest.approx(float(measure.compute()), rel=1e-5, abs=1e-7)
        if metric.interval == "none":
            assert score["low"] is None
        else:
            assert score["low"] <= score["value"] <= score["high"]
    assert found.metrics == {name: s["value"] for name, s in scores.items()}


def test_a_job_is_reported_in_the_words_of_its_metric(one, fitted):
    found, _ = fitted
    text, metric = summary_text(found.result), one.task.metric
    assert f"{metric.name} (test)" in text
    assert metric.text(found.metrics[metric.name]) in text
    if not any("accuracy" in m.name for m in one.task.metrics):
        assert "accuracy" not in text + found.result.points[0].sentence + found.result.points[0].reason
    assert ("%" in text) == (metric.unit == "share")


def test_a_result_is_read_as_it_was_written(fitted):
    found, result = fitted
    again, trace = read(found.folder)
    assert again == found.result
    assert [m["goal"] for m in result["metrics"]] == [m.goal for m in again.metrics]
    assert len(trace.trials) == 4


def test_a_finished_job_is_verified(one, fitted):
    """The quality of the exported files is what the result says; how long they take is not judged here."""
    found, _ = fitted
    objects = {"space": one.fresh()} | ({} if one.table else {"task": one.task})
    checked = verify(found.folder, objects=objects)
    names = {m.name for m in one.task.metrics}
    assert {c.what for c in checked.checks} >= names
    assert [c for c in checked.checks if c.what != "latency" and not c.holds] == []
    assert set(checked.verdicts) == {"PASS"}
