from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from problems import small_problem
from sartor import archs
from sartor.core.errors import CapabilityError, ConfigError, DivergedError
from sartor.core.records import Choice
from sartor.core.rng import torch_rng
from sartor.supernet.slimmable import Slimmable, draw, uniform
from sartor.supernet.statistics import Statistics

WIDTHS = tuple(Choice(f"w{i}", (8, 16, 24, 32), ordered=True) for i in range(3))


class Notes:
    """A lab that only takes notes."""

    def __init__(self, folder=None):
        self.logs, self.bars, self.folder = [], [], folder

    def log(self, **scalars):
        self.logs.append(scalars)

    def progress(self, done, total, label=""):
        self.bars.append((done, total))

    def artifact(self, name):
        return self.folder / name


def slimmable(problem=None, **settings):
    given = {"epochs": 2, "lr": 0.1, "schedule": "constant", "half_life": 0.5} | settings
    return Slimmable(problem or small_problem(), 0, by="a test", **given)


def test_draws_follow_the_probabilities_of_a_random_level():
    levels = [torch.tensor([[0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)] * 2
    paths = draw(levels, 20000, torch_rng(0))
    counts = torch.bincount(paths[:, 0], minlength=4) / 20000
    assert torch.allclose(counts, torch.tensor([0.5, 0.25, 0.25, 0.0]), atol=0.02)
    assert counts[3] == 0
    assert ((paths[:, 0] == 0) == (paths[:, 1] == 0)).all()  # one level per path


def test_draws_depend_on_the_generator_alone():
    one, two = (draw(uniform(WIDTHS), 50, torch_rng(7)) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_one_step_is_the_sandwich_rule_of_plain_torch(parts):
    problem, training = small_problem(), slimmable(paths=parts)
    choices, plain = problem.space.choices, copy.deepcopy(training.supernet).train()
    x, y = next(iter(problem.task.train(torch_rng(0))))
    drawn = draw(uniform(choices), parts or len(x), torch_rng(0, "paths"))
    training.supernet.train()
    losses = training._step(x, y, uniform(choices))

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1 * len(x) / 256, momentum=0.9, weight_decay=1e-5)
    wide = plain(x, archs.gates(problem.space, archs.largest(problem.space)))
    cross_entropy(wide, y).backward()
    soft = wide.detach().softmax(1)
    narrow = plain(x, archs.gates(problem.space, archs.smallest(problem.space)))
    (-(soft * log_softmax(narrow, 1)).sum(1).mean()).backward()
    sizes = {0: [16], 1: [16], 3: [6, 5, 5]}[parts]
    random, paths = [], []
    for n, (images, target) in enumerate(zip(x.split(sizes), soft.split(sizes), strict=True)):
        own = drawn if parts == 0 else drawn[n : n + 1].repeat(len(images), 1)
        hot = [torch.eye(len(c.options))[p] for c, p in zip(choices, own.T, strict=True)]
        random.append(plain(images, hot if parts == 0 else [h[0] for h in hot]))
        paths.append(own)
        (-(target * log_softmax(random[-1], 1)).sum() / len(x)).backward()
    optimizer.step()

    for ours, theirs in zip(training.supernet.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    each = cross_entropy(torch.cat(random), y, reduction="none") - cross_entropy(wide, y, reduction="none")
    assert torch.allclose(losses[2] - losses[0], each.mean().double(), atol=1e-6)
    expected = Statistics(choices, half_life=1)
    expected.add(torch.cat(paths), each.detach())
    assert torch.allclose(training.statistics.moment, expected.moment, atol=1e-5)
    assert torch.equal(training.statistics.gram, expected.gram)


def test_the_learning_rate_follows_the_batch_and_the_schedule():
    training, paths = slimmable(schedule="cosine", epochs=4), uniform(small_problem().space.choices)
    rates = []
    for _ in range(4):
        training.epoch(Notes(), lambda _: paths)
        rates.append(training.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1 * 16 / 256 * f for f in (1, 0.853553, 0.5, 0.146447)], rel=1e-5)


def test_training_lowers_the_loss():
    training, notes, paths = slimmable(epochs=20, lr=2.0, paths=1), Notes(), uniform(small_problem().space.choices)
    while not training.finished:
        training.epoch(notes, lambda _: paths)
    for name in ("loss", "loss_random"):
        first, last = (sum(log[name] for log in part) for part in (notes.logs[:5], notes.logs[-5:]))
        assert last < 0.7 * first
    assert notes.bars[-1] == (20, 20)


def test_a_loss_that_is_not_finite_is_reported():
    problem = small_problem()
    problem = replace(problem, task=replace(problem.task, loss=lambda logits, y: logits.sum(1) * torch.nan))
    with pytest.raises(DivergedError, match="lower lr"):
        slimmable(problem).epoch(Notes(), lambda _: uniform(problem.space.choices))


def test_what_is_saved_can_be_read(tmp_path):
    training, problem = slimmable(), small_problem()
    training.epoch(Notes(), lambda _: uniform(problem.space.choices))
    training.save(Notes(tmp_path), "mean")
    from safetensors.torch import load_file

    again = problem.space.supernet()
    again.load_state_dict(load_file(tmp_path / "supernet.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), training.supernet.parameters(), strict=True))
    written = json.loads((tmp_path / "statistics.json").read_text())
    assert written["choices"] == [c.name for c in problem.space.choices]
    assert sum(written["images"][0]) == pytest.approx(3 * 16)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"epochs": 0}, ConfigError, "epochs"),
        ({"paths": -1}, ConfigError, "paths"),
        ({"schedule": "linear"}, ConfigError, "cosine, constant"),
        ({"half_life": 0.0}, ConfigError, "half_life"),
    ],
)
def test_settings_out_of_range(settings, error, words):
    with pytest.raises(error, match=words):
        slimmable(**settings)


def test_a_problem_without_a_task():
    with pytest.raises(CapabilityError, match="needs a task"):
        slimmable(replace(small_problem(), task=None))
