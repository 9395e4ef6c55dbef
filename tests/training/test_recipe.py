from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from cnn import small_cnn, small_task
from sartor.core.errors import ConfigError
from sartor.data.losses import cross_entropy, squared
from sartor.training import Recipe, fit


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 0),
        ("optimizer", "lion"),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("label_smoothing", 1.0),
        ("distil_weight", 1.1),
        ("temperature", 0.0),
        ("ema", 1.0),
        ("amp", "int8"),
        ("clip", -1.0),
        ("validate", -1),
        ("warmup", -1.0),
    ],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(ConfigError, match=setting):
        Recipe(**{setting: value})


def test_nesterov_needs_momentum():
    with pytest.raises(ConfigError, match="nesterov"):
        Recipe(momentum=0.0)


def test_of_a_table():
    assert Recipe.of({"epochs": 3}) == Recipe(epochs=3)
    assert Recipe.of(None) == Recipe()
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        Recipe.of({"epoch": 3})


def test_only_weights_of_layers_decay():
    module = small_cnn()
    decayed, plain = Recipe(weight_decay=0.5).make_optimizer(module).param_groups
    assert decayed["weight_decay"] == 0.5
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert plain["weight_decay"] == 0
    assert {p.ndim for p in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(module.parameters()))


def test_frozen_parameters_are_not_trained():
    module = small_cnn()
    module[0].requires_grad_(False)
    trained = [p for g in Recipe().make_optimizer(module).param_groups for p in g["params"]]
    assert len(trained) == len(list(module.parameters())) - 2
    with pytest.raises(ConfigError, match="nothing to train"):
        Recipe().make_optimizer(module.requires_grad_(False))


def test_schedule_rises_linearly_and_falls_to_zero():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = Recipe(warmup=2).make_schedule(optimizer, steps=5, epochs=6)
    rates = []
    for _ in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1
    assert rates[20] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


@pytest.mark.parametrize(("warmup", "epochs", "steps"), [(1, 1, 1), (100, 2, 3), (0, 1, 4)])
def test_a_short_training_still_learns(warmup, epochs, steps):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = Recipe(warmup=warmup).make_schedule(optimizer, steps, epochs)
    rates = []
    for _ in range(steps * epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == 1
    assert min(rates) > 0


def test_distillation_is_the_tasks_distance_softened_for_logits():
    """Its gradient is that of Hinton's divergence, times T squared."""
    task, recipe = small_task(), Recipe(distil_weight=0.3, temperature=2.0)
    output, teacher = torch.randn(4, 2, requires_grad=True), torch.randn(4, 2)
    target = torch.tensor([0, 1, 1, 0])
    (found,) = torch.autograd.grad(recipe.loss(task, output, target, teacher).sum(), output)
    plain = functional.cross_entropy(output, target, reduction="sum")
    soft = functional.log_softmax(output / 2, 1), functional.log_softmax(teacher / 2, 1)
    divergence = functional.kl_div(*soft, reduction="sum", log_target=True)
    (wanted,) = torch.autograd.grad(0.7 * plain + 0.3 * 4 * divergence, output)
    torch.testing.assert_close(found, wanted)


def test_what_is_no_logits_has_no_temperature_and_no_smoothing():
    task = replace(small_task(), loss=squared, distance=squared, logits=False, name="depth")
    output, target, teacher = torch.randn(4, 1), torch.randn(4, 1), torch.randn(4, 1)
    found = Recipe(distil_weight=0.25, temperature=9.0).loss(task, output, target, teacher)
    torch.testing.assert_close(found, 0.75 * squared(output, target) + 0.25 * squared(output, teacher))
    with pytest.raises(ConfigError, match="the task depth has no logits of classes"):
        Recipe(label_smoothing=0.1).check(task)
    with pytest.raises(ConfigError, match="the task depth has no logits of classes"):
        fit(small_cnn(), task, Recipe(label_smoothing=0.1), seed=0)
    Recipe(label_smoothing=0.1).check(small_task())


def test_a_distillation_on_one_channel_is_not_nothing():
    """A softmax over one channel is 1 whatever it says; the distance of an image is not."""
    task = replace(small_task(), loss=squared, distance=squared, logits=False)
    output = torch.zeros(4, 1, 5, 5, requires_grad=True)
    taught = Recipe(distil_weight=1.0).loss(task, output, torch.zeros(4, 1, 5, 5), torch.ones(4, 1, 5, 5))
    (slope,) = torch.autograd.grad(taught.sum(), output)
    assert bool((slope != 0).all())


def test_labels_are_smoothed_where_they_count():
    """Of labels per pixel, one class is none: its pixels have no label to be smoothed."""
    task = replace(small_task(), loss=partial(cross_entropy, ignore=7), ignore=7, classes=3)
    output, target = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randint(3, (2, 4, 4))
    target[0, 1:], target[1, :, 2] = 7, 7
    found = Recipe(label_smoothing=0.2).loss(task, output, target, None)
    wanted = functional.cross_entropy(output, target, reduction="none", ignore_index=7, label_smoothing=0.2)
    counts = (target != 7).flatten(1).sum(1)
    torch.testing.assert_close(found, wanted.flatten(1).sum(1) / counts)
    (slopes,) = torch.autograd.grad(found.sum(), output)
    assert not slopes.movedim(1, 3)[target == 7].any()
