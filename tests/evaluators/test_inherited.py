from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cnn import graded_task, small_task
from sartor.core.contracts import Problem, Space
from sartor.core.errors import CapabilityError, ConfigError, StateError
from sartor.core.records import Choice, Objective, Proposal
from sartor.core.rng import global_seed
from sartor.evaluators.inherited import Inherited
from sartor.spaces.tiny import Tiny
from sartor.training import evaluate


@pytest.fixture
def problem():
    return Problem(Tiny(classes=2, size=8), (Objective("accuracy", "max"),), task=graded_task())


@pytest.fixture
def path(problem, tmp_path):
    with global_seed(3):
        net = problem.space.supernet()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean += 3  # stale statistics
    save_file(net.state_dict(), tmp_path / "supernet.safetensors")
    return tmp_path / "supernet.safetensors"


def extracted(problem, arch):
    with global_seed(3):
        return problem.space.supernet().extract(arch)


def test_statistics_are_those_of_the_calibration_batches(problem, path):
    evaluator = Inherited(problem, supernet=path, calibrate=3, device="cpu")
    found = evaluator(Proposal((1, 2, 3)), 0)
    module = extracted(problem, (1, 2, 3)).train()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # torch's own cumulative mean
    with torch.no_grad():
        for x, _ in evaluator._calibration:
            module(x)
    assert len(evaluator._calibration) == 3
    assert found == evaluate(module, problem.task.valid(), problem.task)


def test_no_calibration_keeps_the_supernets_statistics(problem, path):
    found = Inherited(problem, supernet=path, calibrate=0, device="cpu")(Proposal((1, 2, 3)), 0)
    module = extracted(problem, (1, 2, 3))
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean += 3
    assert found == evaluate(module, problem.task.valid(), problem.task)


def test_one_proposal_does_not_change_the_next(problem, path):
    a, b = Inherited(problem, supernet=path), Inherited(problem, supernet=path)
    a(Proposal((3, 3, 3)), 0)
    assert a(Proposal((0, 1, 2)), 1) == b(Proposal((0, 1, 2)), 2)


def test_fewer_validation_batches(problem, path):
    seen = []

    def valid():
        for batch in small_task(batch=300).valid():
            for x, y in zip(batch[0].split(10), batch[1].split(10), strict=True):
                seen.append(len(x))
                yield x, y

    counted = replace(problem, task=replace(problem.task, valid=valid))
    Inherited(counted, supernet=path, batches=2, device="cpu")(Proposal((0, 0, 0)), 0)
    assert seen == [10, 10]


def test_what_is_wrong_is_told(problem, path, tmp_path):
    with pytest.raises(ConfigError, match="needs a trained supernet"):
        Inherited(problem)(Proposal((0, 0, 0)), 0)
    with pytest.raises(StateError, match=r"cannot read the weights .*nothing"):
        Inherited(problem, supernet=tmp_path / "nothing")(Proposal((0, 0, 0)), 0)
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(StateError, match="cannot read the weights"):
        Inherited(problem, supernet=tmp_path / "text")(Proposal((0, 0, 0)), 0)
    with pytest.raises(StateError, match="another supernet"):
        Inherited(replace(problem, space=Tiny(classes=3, size=8)), supernet=path)(Proposal((0, 0, 0)), 0)
    with pytest.raises(CapabilityError, match="needs a task"):
        Inherited(replace(problem, task=None))
    with pytest.raises(ConfigError, match="calibrate"):
        Inherited(problem, calibrate=-1)
    with pytest.raises(ConfigError, match="batches"):
        Inherited(problem, batches=0)


def test_a_space_without_a_supernet_is_refused(problem):
    class Alone(Space):
        choices = (Choice("width", (1, 2)),)

        def build(self, arch):
            return nn.Linear(1, 1)

    with pytest.raises(CapabilityError, match="Inherited needs Shareable"):
        Inherited(replace(problem, space=Alone()))
