"""What every task must do."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from cnn import small_task
from pictures import write_folder, write_mnist, write_npz
from sartor.core import plugins
from sartor.core.contracts import Task
from sartor.core.errors import DataError, LeakError
from sartor.core.rng import global_seed, torch_rng
from sartor.training import check_fits, evaluate

# What each task reads: none but the digits has data of its own.
MAKERS = {
    "digits": lambda make, folder: make(size=8),
    "arrays": lambda make, folder: make(train=write_npz(folder / "a.npz", 60), batch=16),
    "torchvision_dataset": lambda make, folder: make(dataset="MNIST", root=write_mnist(folder, 60, 20), batch=16),
    "image_folder": lambda make, folder: make(root=write_folder(folder / "f", 20), size=16, batch=8),
    "loaders": lambda make, folder: make(train=_loader(True), valid=_loader(False), test=_loader(False)),
}


def _loader(shuffle):
    x, y = torch.randn(40, 1, 8, 8, generator=torch_rng(0)), torch.arange(40) % 2
    data = torch.utils.data.TensorDataset(x, y)
    return torch.utils.data.DataLoader(data, batch_size=8, shuffle=shuffle, drop_last=shuffle)


@pytest.fixture(params=plugins.names("tasks"))
def task(request, tmp_path):
    return MAKERS[request.param](plugins.load("tasks", request.param), tmp_path)


def epoch(task, seed):
    return list(task.train(torch_rng(seed)))


def equal(a, b):
    return len(a) == len(b) and all(
        torch.equal(p, q) for m, n in zip(a, b, strict=True) for p, q in zip(m, n, strict=True)
    )


def test_no_task_is_left_out():
    assert len(plugins.names("tasks")) >= 5
    assert set(MAKERS) == set(plugins.names("tasks"))


def test_a_report_says_which_task_it_was(task):
    assert task.name in plugins.names("tasks")


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_settings_are_keywords_with_defaults_and_documented(name):
    make = plugins.load("tasks", name)
    parameters = inspect.signature(make).parameters
    assert make.__name__ == name
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters.values())
    words = inspect.getdoc(make)
    assert not [p for p in parameters if f"{p}: " not in words]


@pytest.mark.parametrize("name", [n for n in plugins.names("tasks") if n != "digits"])
def test_without_data_a_task_says_what_is_missing(name):
    with pytest.raises(DataError, match=r"needs|give the setting"):
        plugins.load("tasks", name)()


def test_batches_fit_the_example_and_the_classes(task):
    assert isinstance(task, Task)
    assert task.example.shape[0] == 1
    assert next(iter(task.metrics)) == "accuracy"
    for batches in (epoch(task, 0), list(task.valid()), list(task.test())):
        assert batches
        for x, y in batches:
            assert x.shape[1:] == task.example.shape[1:]
            assert (x.dtype, y.dtype, y.shape) == (torch.float32, torch.int64, x.shape[:1])
            assert int(y.min()) >= 0
            assert int(y.max()) < (task.classes or 2)


def test_losses_are_one_per_example(task):
    (x, y), *_ = task.valid()
    logits = torch.randn(len(x), 10, generator=torch_rng(0))
    losses = task.loss(logits, y)
    assert losses.shape == y.shape
    torch.testing.assert_close(losses[:1], task.loss(logits[:1], y[:1]))


def test_an_epoch_is_decided_by_its_generator(task):
    torch.rand(1)
    first = epoch(task, 0)
    torch.rand(5)
    assert equal(first, epoch(task, 0))
    assert not equal(first, epoch(task, 1))


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


def test_a_network_can_be_evaluated_on_it(task):
    with global_seed(0):
        module = nn.Sequential(nn.Flatten(), nn.Linear(task.example.numel(), task.classes or 2))
    check_fits(task, module)
    assert 0 <= evaluate(module, task.valid(), task)["accuracy"] <= 1


def test_a_sealed_task_keeps_the_test_split_shut():
    with pytest.raises(LeakError):
        small_task().sealed().test()
