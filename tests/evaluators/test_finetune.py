from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from cnn import graded_task
from sartor.core import state as states
from sartor.core.abilities import Heritable
from sartor.core.contracts import Problem, Space
from sartor.core.errors import CapabilityError, ConfigError, StateError
from sartor.core.records import Choice, Constraint, Objective, Proposal
from sartor.core.rng import derive, global_seed, torch_rng
from sartor.costs.macs import Macs
from sartor.evaluators.finetune import Finetune
from sartor.run.journal import FileJournal, read_trials
from sartor.run.runner import Limits, run
from sartor.spaces.tiny import Tiny
from sartor.strategies.netadapt import Netadapt
from sartor.supernet.calibrate import recalibrate
from sartor.training import Recipe, evaluate

CPU = {"device": "cpu"}
WIDE, NARROW = (3, 3, 3), (3, 1, 3)


@pytest.fixture
def problem():
    space = Tiny(classes=2, size=8)
    macs = Macs(space)
    limit = 0.3 * float(macs([space.reference])[0])
    constraints = (Constraint("macs", limit),)
    return Problem(space, (Objective("accuracy", "max"),), constraints, {"macs": macs}, graded_task())


def supernet(problem, seed=0):
    with global_seed(seed):
        return problem.space.supernet()


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_it_is_heritable_and_without_a_parent_a_plain_evaluator(problem, tmp_path):
    evaluator = Finetune(problem, recipe=CPU, steps=2)
    assert isinstance(evaluator, Heritable)
    plain = evaluator(Proposal(WIDE), 3)
    assert plain == evaluator.inherit(Proposal(WIDE), 3, parent=None, keep=tmp_path / "weights" / "000.safetensors")
    with safe_open(tmp_path / "weights" / "000.safetensors", "pt") as file:
        assert json.loads(file.metadata()["sartor"])["arch"] == list(WIDE)


def test_it_costs_its_share_of_an_epoch(problem):
    """Which has four batches, counted once."""
    counts, train = [], problem.task.train

    def counted(generator):
        counts.append(1)
        return iter(list(train(generator)))

    evaluator = Finetune(replace(problem, task=replace(problem.task, train=counted)), steps=5)
    assert [evaluator.epochs(f) for f in (1.0, 0.5, 0.01)] == [1.25, 0.5, 0.25]
    assert len(counts) == 1
    assert Finetune(problem, steps=0).epochs(1.0) == 0


def test_without_steps_it_evaluates_the_networks_weights(problem):
    found = Finetune(problem, recipe=CPU, steps=0, calibrate=0)(Proposal(NARROW), 5)
    assert found == evaluate(supernet(problem).extract(NARROW), problem.task.valid(), problem.task)
    found = Finetune(problem, recipe=CPU, steps=0, calibrate=2)(Proposal(NARROW), 5)
    module = supernet(problem).extract(NARROW)
    recalibrate(module, list(problem.task.train(torch_rng(0, "calibration")))[:2])
    assert found == evaluate(module, problem.task.valid(), problem.task)


@pytest.mark.parametrize("steps", [1, 7, 13])
def test_the_steps_are_those_of_plain_torch(problem, tmp_path, steps):
    """Also over the end of an epoch, which has four batches."""
    recipe = {**CPU, "nesterov": False, "weight_decay": 0.0, "epochs": 9, "warmup": 3.0, "lr": 9.0}
    Finetune(problem, recipe=recipe, steps=steps, lr=0.1, calibrate=0).inherit(
        Proposal(WIDE), 4, parent=None, keep=tmp_path / "kept"
    )
    module, generator = supernet(problem).extract(WIDE).train(), torch_rng(derive(4, "training"), "data")
    batches = [b for _ in range(4) for b in problem.task.train(generator)][:steps]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for x, y in batches:
        optimizer.zero_grad()
        problem.task.loss(module(x), y).mean().backward()
        optimizer.step()
        schedule.step()
    wanted, found = module.state_dict(), load_file(tmp_path / "kept")
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_the_fidelity_shortens_the_fine_tune(problem):
    full, half = Finetune(problem, recipe=CPU, steps=4, lr=0.1), Finetune(problem, recipe=CPU, steps=2, lr=0.1)
    assert full(Proposal(WIDE, fidelity=0.5), 0) == half(Proposal(WIDE), 0) != full(Proposal(WIDE), 0)


def test_the_learning_rate_is_the_recipes_if_none_is_given(problem):
    recipe = Recipe(device="cpu", lr=0.07)
    named, default = Finetune(problem, recipe=CPU, steps=3, lr=0.07), Finetune(problem, recipe=recipe, steps=3)
    assert Finetune(problem, recipe=recipe, steps=3, lr=None)(Proposal(WIDE), 0) == named(Proposal(WIDE), 0)
    assert default(Proposal(WIDE), 0) != named(Proposal(WIDE), 0)


def test_a_child_starts_from_the_parents_weights(problem, tmp_path):
    parent, child = tmp_path / "0", tmp_path / "1"
    Finetune(problem, recipe=CPU, steps=5, lr=0.1).inherit(Proposal(WIDE), 0, parent=None, keep=parent)
    still = Finetune(problem, recipe=CPU, steps=0, calibrate=0)
    still.inherit(Proposal(NARROW, parent=0), 1, parent=parent, keep=child)
    weights, kept = load_file(parent), load_file(child)
    assert not same(weights, supernet(problem).extract(WIDE).state_dict())
    for name, value in kept.items():
        assert torch.equal(value, weights[name][tuple(slice(n) for n in value.shape)])


def test_brothers_and_other_families_do_not_change_each_other(problem, tmp_path):
    for i in (0, 1):
        Finetune(problem, recipe=CPU, steps=2, lr=0.1).inherit(Proposal(WIDE), i, parent=None, keep=tmp_path / str(i))
    busy = Finetune(problem, recipe=CPU, steps=2, lr=0.1)

    def child(evaluator, parent, arch=NARROW):
        return evaluator.inherit(Proposal(arch, parent=parent), 9, parent=tmp_path / str(parent), keep=None)

    first = child(busy, 0)
    child(busy, 0, (0, 0, 0))
    other = child(busy, 1)
    assert child(busy, 0) == first != other
    assert child(Finetune(problem, recipe=CPU, steps=2, lr=0.1), 0) == first
    assert busy(Proposal(NARROW), 9) == Finetune(problem, recipe=CPU, steps=2, lr=0.1)(Proposal(NARROW), 9)
    os.replace(tmp_path / "1", tmp_path / "0")  # noqa: PTH105 - a rewound search puts another trial's weights there
    assert child(busy, 0) == other


def test_the_supernets_file_is_the_start(problem, tmp_path):
    save_file(supernet(problem, 8).state_dict(), tmp_path / "supernet.safetensors")
    still = Finetune(problem, recipe=CPU, steps=0, calibrate=0, supernet=tmp_path / "supernet.safetensors")
    assert still(Proposal(NARROW), 0) == evaluate(
        supernet(problem, 8).extract(NARROW), problem.task.valid(), problem.task
    )


def test_what_is_wrong_is_told(problem, tmp_path):
    evaluator = Finetune(problem, recipe=CPU, steps=1)
    with pytest.raises(CapabilityError, match="run the search in a folder"):
        evaluator(Proposal(NARROW, parent=0), 0)
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(StateError, match="cannot read the weights"):
        evaluator.inherit(Proposal(NARROW, parent=0), 0, parent=tmp_path / "text", keep=None)
    with pytest.raises(CapabilityError, match="needs a task"):
        Finetune(replace(problem, task=None))
    for settings in ({"steps": -1}, {"calibrate": -1}, {"batches": 0}):
        with pytest.raises(ConfigError, match="at least"):
            Finetune(problem, **settings)

    class Alone(Space):
        choices = (Choice("width", (1, 2)),)

        def build(self, arch):
            return nn.Linear(1, 1)

    with pytest.raises(CapabilityError, match="Finetune needs Shareable"):
        Finetune(replace(problem, space=Alone()))


# A whole search with parents' weights.


class Dies(Finetune):
    """Interrupts the process at the n-th trial: before it, or after its weights are written."""

    def __init__(self, problem, *, calls, after):
        super().__init__(problem, recipe=CPU, steps=2, lr=0.05)
        self.calls, self.after = calls, after

    def inherit(self, proposal, seed, *, parent, keep):
        self.calls -= 1
        if self.calls < 0 and not self.after:
            raise KeyboardInterrupt
        metrics = super().inherit(proposal, seed, parent=parent, keep=keep)
        if self.calls < 0:
            raise KeyboardInterrupt
        return metrics


def search(problem, folder, *, calls=10**9, after=False, limits=None, on_step=None):
    strategy = Netadapt(problem, 0, step=0.15)
    judge = Dies(problem, calls=calls, after=after)
    return run(strategy, problem, judge, folder=folder, seed=0, limits=limits or Limits(), on_step=on_step)


def outcome(folder: Path):
    files = {p.name: p.read_bytes() for p in (folder / "artifacts" / "weights").iterdir()}
    return (
        read_trials(FileJournal(folder / "journal.jsonl")),
        states.load(folder / "state.safetensors")["strategy"],
        files,
    )


@pytest.fixture
def whole(problem, tmp_path):
    assert search(problem, tmp_path / "whole")
    return outcome(tmp_path / "whole")


def test_killed_in_any_trial_and_resumed_is_uninterrupted(problem, tmp_path, whole):
    count = len(whole[0])
    assert count >= 8
    for calls in range(count):
        folder = tmp_path / str(calls)
        with pytest.raises(KeyboardInterrupt):
            search(problem, folder, calls=calls, after=bool(calls % 2))
        assert search(problem, folder)
        assert outcome(folder) == whole


def test_killed_between_any_checkpoint_and_its_clean_up_is_uninterrupted(problem, tmp_path, whole, monkeypatch):
    def stop(step):
        raise KeyboardInterrupt

    from sartor.run.lab import JournaledLab

    with monkeypatch.context() as patch:
        patch.setattr(JournaledLab, "forget", lambda self, parents, count=None: None)
        while True:
            try:
                search(problem, tmp_path / "again", on_step=stop)
            except KeyboardInterrupt:
                if states.load(tmp_path / "again" / "state.safetensors")["finished"]:
                    break
    assert len(outcome(tmp_path / "again")[2]) == len(whole[0])  # nothing was removed yet
    assert search(problem, tmp_path / "again")
    assert outcome(tmp_path / "again") == whole


def test_a_larger_limit_goes_on_with_the_parents_weights(problem, tmp_path, whole):
    for trials in (1, 3, 4, 6):
        assert not search(problem, tmp_path / "parts", limits=Limits(trials=trials))
    assert search(problem, tmp_path / "parts")
    assert outcome(tmp_path / "parts") == whole


def test_only_the_networks_accepted_keep_their_weights(whole):
    trials, state, files = whole
    accepted = set(state["accepted"])
    assert set(files) == {f"{i:03}.safetensors" for i in accepted}
    assert {t.parent for t in trials if t.parent is not None} <= accepted
    assert len(accepted) < len(trials)


def test_weights_that_are_gone_stop_the_search(problem, tmp_path):
    assert not search(problem, tmp_path, limits=Limits(trials=1))
    (tmp_path / "artifacts" / "weights" / "000.safetensors").unlink()
    with pytest.raises(StateError, match="the weights of trial 0, the parent of trial 1, are not at"):
        search(problem, tmp_path)


def test_a_copy_of_an_evaluator_is_as_good(problem, tmp_path):
    evaluator = Finetune(problem, recipe=CPU, steps=1, lr=0.1)
    wanted = evaluator.inherit(Proposal(WIDE), 0, parent=None, keep=tmp_path / "0")
    twin = copy.copy(evaluator)
    child = twin.inherit(Proposal(NARROW, parent=0), 1, parent=tmp_path / "0", keep=None)
    assert evaluator(Proposal(WIDE), 0) == wanted
    assert twin.inherit(Proposal(NARROW, parent=0), 1, parent=tmp_path / "0", keep=None) == child
