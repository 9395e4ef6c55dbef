from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from problems import small_problem
from sartor import archs
from sartor.core.errors import CapabilityError, ConfigError, DivergedError, StateError
from sartor.core.records import Choice
from sartor.core.rng import torch_rng
from sartor.supernet.slimmable import Slimmable, Statistics, draw, uniform

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


def statistics(choices=WIDTHS, half_life=1.0, smoothness=0.0):
    return Statistics(choices, half_life=half_life, smoothness=smoothness)


def slimmable(problem=None, **settings):
    given = {"epochs": 2, "lr": 0.1, "schedule": "constant", "half_life": 0.5, "smoothness": 1.0} | settings
    return Slimmable(problem or small_problem(), 0, by="a test", **given)


def centred(table):
    return table - table.mean()


def test_mean_is_the_mean_of_the_differences_divided_by_the_number_of_choices():
    paths, d = draw(uniform(WIDTHS), 500, torch_rng(0)), torch.randn(500, generator=torch_rng(1))
    s = statistics()
    s.add(paths[:200], d[:200])
    s.add(paths[200:], d[200:])
    for i, table in enumerate(s.tables("mean").unary):
        plain = torch.stack([d[paths[:, i] == k].double().mean() / 3 for k in range(4)])
        assert torch.allclose(table, plain, atol=1e-6)


def test_least_squares_recovers_additive_effects():
    effects = torch.rand(3, 4, generator=torch_rng(0), dtype=torch.float64)
    paths = draw(uniform(WIDTHS), 400, torch_rng(1))
    s = statistics()
    s.add(paths, effects[torch.arange(3), paths].sum(1))
    for i, table in enumerate(s.tables("least_squares").unary):
        assert torch.allclose(centred(table) * 3, centred(effects[i]), atol=1e-6)


def test_least_squares_is_not_fooled_when_the_other_layers_narrow():
    """Option 0 of the first layer is only seen while the second layer is poor; it is as good as the others."""
    effects = torch.tensor([[0.0] * 4, [3.0, 2.0, 1.0, 0.0], [0.0] * 4], dtype=torch.float64)
    paths = draw(uniform(WIDTHS), 2000, torch_rng(0))
    rich = paths[:, 1] > 1
    paths = paths[~(rich & (paths[:, 0] == 0))]
    s = statistics()
    s.add(paths, effects[torch.arange(3), paths].sum(1))
    mean, fitted = s.tables("mean").unary[0], s.tables("least_squares").unary[0]
    assert mean[0] - mean[1:].mean() > 0.2
    assert float(centred(fitted).abs().max()) < 1e-6


@pytest.mark.parametrize("estimator", ["mean", "least_squares"])
def test_an_option_never_seen_gets_what_its_neighbours_say(estimator):
    effects = torch.tensor([9.0, 4.0, 1.0, 0.0], dtype=torch.float64)
    paths = draw(uniform(WIDTHS), 20000, torch_rng(0))
    paths = paths[paths[:, 0] != 1]
    s = statistics(smoothness=1e-3)
    s.add(paths, effects[paths[:, 0]])
    table = s.tables(estimator).unary[0] * 3
    # second differences are smallest with (9, 4.07, 1, 0): far from the zero that an empty sum would say
    assert 3.5 < float(table[1] - table[3]) < 5.5


def test_an_unordered_option_never_seen_gets_the_mean():
    choices = (Choice("op", ("a", "b", "c")), Choice("w", (1, 2), ordered=True))
    paths = torch.tensor([[0, 0], [1, 1], [0, 1], [1, 0]] * 50)
    s = statistics(choices, smoothness=1e-3)
    s.add(paths, torch.tensor([2.0, 4.0, 2.0, 4.0] * 50))
    table = s.tables("mean").unary[0] * 2
    assert torch.allclose(table, torch.tensor([2.0, 4.0, 3.0], dtype=torch.float64), atol=1e-2)


def test_images_count_half_after_the_half_life():
    s = statistics(half_life=3)
    s.add(torch.zeros(10, 3, dtype=torch.long), torch.ones(10))
    before = s.tables("mean").unary[0][0]
    for _ in range(3):
        s.forget()
    assert s.mass()[0].tolist() == pytest.approx([5, 0, 0, 0])
    assert torch.allclose(s.tables("mean").unary[0][0], before, atol=1e-6)


def test_statistics_without_images_are_an_error():
    with pytest.raises(StateError, match="train at least one epoch"):
        statistics().tables("mean")


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


def test_one_step_is_the_sandwich_rule_of_plain_torch():
    problem, training = small_problem(), slimmable()
    plain = copy.deepcopy(training.supernet).train()
    x, y = next(iter(problem.task.train(torch_rng(0))))
    paths = draw(uniform(problem.space.choices), len(x), torch_rng(1))
    training.supernet.train()
    losses = training._step(x, y, paths)

    choices = problem.space.choices
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1 * len(x) / 256, momentum=0.9, weight_decay=1e-5)
    wide = plain(x, archs.gates(problem.space, archs.largest(problem.space)))
    cross_entropy(wide, y).backward()
    soft, hot = wide.detach().softmax(1), [torch.eye(len(c.options))[p] for c, p in zip(choices, paths.T, strict=True)]
    for gates in (archs.gates(problem.space, archs.smallest(problem.space)), hot):
        random = plain(x, gates)
        (-(soft * log_softmax(random, 1)).sum(1).mean()).backward()
    optimizer.step()

    for ours, theirs in zip(training.supernet.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    each = cross_entropy(random, y, reduction="none") - cross_entropy(wide, y, reduction="none")
    assert torch.allclose(losses[2] - losses[0], each.mean().double(), atol=1e-6)
    expected = Statistics(choices, half_life=1, smoothness=1.0)
    expected.add(paths, each.detach())
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
    training, notes, paths = slimmable(epochs=20, lr=2.0), Notes(), uniform(small_problem().space.choices)
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
