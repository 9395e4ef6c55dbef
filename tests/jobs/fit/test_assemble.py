from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nets
from nets import random_
from sartor import archs
from sartor.core.errors import ConfigError, DataError, SartorError
from sartor.jobs.fit.assemble import analytic_costs, assemble, fitted_to_task, stand_in
from sartor.spaces.blocks import Blocks
from sartor.spaces.tiny import Tiny
from sartor.spaces.widths import Widths
from sartor.tasks.digits import digits
from sartor.timing.meter import Effort
from small import settings


def test_a_space_is_told_what_the_data_look_like_unless_the_user_said_so():
    task = digits(size=16)
    assert fitted_to_task({"name": "tiny"}, task) == {"name": "tiny", "classes": 10, "in_channels": 1, "size": 16}
    assert fitted_to_task({"name": "tiny", "classes": 7}, task)["classes"] == 7


def test_the_same_names_give_the_same_weights_and_leave_the_global_generator_alone():
    parts = assemble(settings())
    before = torch.get_rng_state()
    a, b = (parts.build(parts.space.reference, "train").state_dict() for _ in range(2))
    other = parts.build(parts.space.reference, "other").state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], other[k]) for k in a)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"space": {}}, ConfigError, r"no \[space\]"),
        ({"space": {"width": 1}}, ConfigError, r"\[space\] has no name"),
        ({"space": {"name": "tinny"}}, ConfigError, "did you mean 'tiny'"),
        ({"space": {"name": "tiny", "withs": [1]}}, ConfigError, "did you mean 'widths'"),
        ({"space": {"name": "tiny", "classes": 7}}, DataError, "7"),
        ({"space": {"name": "tiny", "in_channels": 3}}, SartorError, "channel"),
        ({"strategy": {"name": "ows", "epochs": "many"}}, ConfigError, "epochs must be a whole number"),
        ({"strategy": {"name": "aowss"}}, ConfigError, "did you mean"),
        ({"strategy": {"epochs": 3}}, ConfigError, r"\[strategy\] has no name"),
        ({"target": {"name": "onnxruntime", "thread": 1}}, ConfigError, "did you mean 'threads'"),
        ({"training": {"epocs": 3}}, ConfigError, "did you mean 'epochs'"),
        ({"training": {"epochs": 0}}, ConfigError, "at least 1"),
        ({"latency_model": {"plan": "clever"}}, ConfigError, "one of 'uniform', 'coverage', 'optimal'"),
        ({"task": {"name": "image_folder", "root": "nowhere"}}, DataError, "nowhere"),
        ({"tusk": {}}, ConfigError, "did you mean 'task'"),
        ({"strategy": {"name": 3}}, ConfigError, r"\[strategy\] name must be a string, got 3; known: "),
        ({"space": {"name": False}}, ConfigError, r"\[space\] name must be a string, got False; known: "),
        ({"export": {"opset": 3}}, ConfigError, r"export\.opset must be from 7 to \d+, .*got 3"),
        ({"export": {"opset": "new"}}, ConfigError, "opset must be a whole number"),
        ({"export": {"dynamic": ["heigth"]}}, ConfigError, "did you mean 'height'"),
        ({"export": {"otherwise": "maybe"}}, ConfigError, "otherwise must be one of"),
        ({"export": {"opsets": 3}}, ConfigError, "did you mean 'opset'"),
    ],
)
def test_mistakes_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        assemble(settings(**changes))


def test_objects_go_before_tables():
    space = Tiny(widths=(4, 20))
    assert assemble(settings(), space=space).space is space


def test_a_stand_in_tells_one_space_from_another():
    assert stand_in(Tiny()) == stand_in(Tiny())
    assert stand_in(Tiny()) != stand_in(Tiny(depth=4))


def test_a_stand_in_of_a_network_knows_its_weights():
    one, same, other = random_(nets.residual()), random_(nets.residual()), random_(nets.residual(), seed=1)
    assert stand_in(one) == stand_in(same)
    assert stand_in(one) != stand_in(other)
    assert stand_in(one)["name"] == "object nets.Residual"
    with torch.no_grad():
        same.bn.running_mean[0] += 1e-6
    assert stand_in(one) != stand_in(same)


def test_a_network_means_its_widths():
    network = random_(nets.digits())
    space = assemble(settings(), space=network).space
    assert isinstance(space, Widths)
    assert space.trained
    assert space.input_shape == (1, 8, 8)


def test_widths_are_told_what_the_data_look_like():
    table = fitted_to_task({"name": "widths", "network": "nets:digits"}, digits(size=16))
    assert (table["classes"], table["in_channels"], table["size"]) == (10, 1, 16)


def test_spaces_that_want_to_see_the_data_are_shown_them():
    network = random_(nets.digits())
    blind, seen = (Widths(network=network, input_shape=(1, 8, 8), importance="taylor") for _ in range(2))
    assemble(settings(), space=seen)
    narrow = [space.build(archs.smallest(space)).state_dict() for space in (blind, seen)]
    assert not all(torch.equal(narrow[0][k], narrow[1][k]) for k in narrow[0])


def test_analytic_costs_go_by_their_metrics():
    assert set(analytic_costs(Tiny())) == {"macs", "params", "memory_bytes"}


@pytest.mark.parametrize("name", ["rounds", "sessions", "processes"])
def test_a_verification_that_measures_nothing_is_refused_before_the_search(name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        assemble(settings(verification={name: 0}))


def test_a_verdict_takes_three_processes_unless_told_otherwise():
    assert assemble(settings(verification={})).verification.effort == Effort(rounds=40, sessions=5, processes=3)


class Grey(torch.nn.Module):
    def __init__(self, channels=1):
        super().__init__()
        self.body, self.head = torch.nn.Conv2d(channels, 8, 3), torch.nn.Linear(8, 10)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)).mean((2, 3)))


@pytest.mark.parametrize(("task", "network"), [(1, 3), (3, 1)])
def test_grey_and_colour_apart_are_found_before_a_trace_and_name_the_setting(task, network):
    message = f"Grey expects images of {network} channels?, the task gives {task} .*; set task.channels = {network}, or"
    with pytest.raises(DataError, match=message):
        assemble(settings(space={"name": "object"}, task={"name": "digits", "channels": task}), space=Grey(network))
    assemble(settings(space={"name": "object"}, task={"name": "digits", "channels": network}), space=Grey(network))


def test_a_loss_must_take_what_narrower_networks_give_too():
    """Uncut the network is of its class and gives two outputs in training; a narrower one is a graph and gives one."""

    class Numbered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(1, 16, 3), nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Any:
            y = self.head(self.body(x).relu().view(-1, 16, 36).mean(2))
            return (y, y) if self.training else y

    task = digits(size=8)
    space = Widths(network=Numbered(), input_shape=(1, 8, 8))
    pairs_only = replace(task, loss=lambda o, y: task.loss(o[0] if isinstance(o, tuple) else o[None][0][:, :, None], y))
    with pytest.raises(DataError, match="the loss of the task digits"):
        assemble(settings(), space=space, task=pairs_only)
    both = replace(task, loss=lambda o, y: task.loss(o[0] if isinstance(o, tuple) else o, y))
    with pytest.raises(DataError, match="the distance of the task digits"):
        assemble(settings(training={"distil_weight": 0.5}), space=space, task=both)
    assert assemble(settings(), space=space, task=both).space is space


def test_costs_of_graphs_are_there_where_the_space_tells_them():
    graphs = analytic_costs(Blocks(layers=3, repeats=1, widths=(4,), size=8))
    assert list(graphs) == ["macs", "params", "memory_bytes", "edges", "density"]
    assert list(analytic_costs(Tiny())) == ["macs", "params", "memory_bytes"]
