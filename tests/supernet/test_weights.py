from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from problems import small_problem
from sartor.core.errors import CapabilityError, ConfigError, DivergedError
from sartor.core.rng import torch_rng
from sartor.supernet.weights import Training, cosine, decay_active, warmed

from operations import Notes, toy  # isort: skip

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)


def training(problem=None, **settings):
    return Training(problem or toy(), 0, by="a test", **{"epochs": 2, "optimizer": SGD} | settings)


def plain(run):
    """Train on the first options everywhere."""

    def step(x, y):
        loss = run.loss(x, y, run.hard((0, 0, 0)))
        run.descend(loss)
        return loss

    return step


def test_schedules():
    assert [cosine(p, 0.4, 0.1) for p in (0.0, 0.5, 1.0, 1.2)] == pytest.approx([0.4, 0.25, 0.1, 0.1])
    assert [warmed(p, 0.2) for p in (0.0, 0.1, 0.2, 0.9)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert warmed(0.0, 0.0) == 1.0


def test_what_needs_no_gradient_is_not_trained():
    run = training(prepare=lambda net: net.maps[0].requires_grad_(False))
    before = [m.detach().clone() for m in run.supernet.maps]
    run.train(Notes(), plain(run))
    assert len(run.parameters) == len(before) - 1
    assert [torch.equal(a, b) for a, b in zip(before, run.supernet.maps, strict=True)] == [True, False, False]


def test_an_epoch_is_plain_torch_and_what_did_not_run_stays():
    run = training()
    twin, batches = copy.deepcopy(run.supernet), list(toy().task.train(torch_rng(0, "data")))
    (mean,) = run.train(Notes(), plain(run))
    optimizer, losses = SGD(list(twin.parameters())), []
    for x, _ in batches:
        y = x
        for maps in twin.maps:
            y = y @ maps[0].T
        optimizer.zero_grad()
        losses.append(y.sum(1).mean())
        losses[-1].backward()
        optimizer.step()
    assert mean == pytest.approx(float(torch.stack(losses).mean().detach()))
    for ours, theirs in zip(run.supernet.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs)
    assert (run.done, run.batches, run.finished) == (1, 2, False)


def test_progress_counts_batches_once_their_number_is_known():
    run, seen = training(epochs=4), []

    def step(x, y):
        seen.append(run.progress)
        return torch.zeros(1)

    while not run.finished:
        run.train(Notes(), step)
    assert seen == [0.0, 0.0, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
    assert run.progress == 1.0


def test_only_what_ran_decays():
    ran, rested = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    ran.grad = torch.tensor([0.5, 0.0, -1.0])
    decay_active([ran, rested], 0.1)
    assert ran.grad.tolist() == pytest.approx([0.6, 0.0, -0.9])
    assert rested.grad is None


def test_gradients_are_clipped():
    run = training(optimizer=partial(torch.optim.SGD, lr=1.0))
    before = torch.cat([p.detach().flatten() for p in run.parameters])
    x, y = next(iter(run.task.train(torch_rng(0))))
    run.descend(100 * run.loss(x, y, run.hard((0, 1, 2))), clip=0.5)
    assert float((torch.cat([p.detach().flatten() for p in run.parameters]) - before).norm()) == pytest.approx(0.5)


def test_a_loss_that_is_not_finite_and_what_is_saved(tmp_path):
    run = training(toy(loss=lambda output, y: output.sum(1) * torch.nan))
    with pytest.raises(DivergedError, match=r"lower lr \(now 0.1\)"):
        run.train(Notes(), plain(run))
    run = training()
    run.save_weights(Notes(tmp_path))
    again = toy().space.supernet()
    again.load_state_dict(load_file(tmp_path / "supernet.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), run.supernet.parameters(), strict=True))


def test_resumed_is_uninterrupted():
    one, two = training(), training()
    one.train(Notes(), plain(one))
    two.load_state_dict(one.state_dict())
    assert one.train(Notes(), plain(one)) == two.train(Notes(), plain(two))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters, two.parameters, strict=True))


def test_what_it_cannot_train():
    with pytest.raises(ConfigError, match="epochs = 0"):
        training(epochs=0)
    with pytest.raises(CapabilityError, match="needs a task"):
        training(replace(small_problem(), task=None))
