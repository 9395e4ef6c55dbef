from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cnn import graded_task
from sartor.training import batches_of
from sartor.training.steps import of_steps


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_an_epoch_has_so_many_batches(steps):
    task = of_steps(graded_task(), steps)
    assert len(list(task.train(torch.Generator().manual_seed(0)))) == batches_of(task) == steps


def test_further_epochs_are_shuffled_anew():
    task = graded_task()
    count = batches_of(task)
    seen = [x for x, _ in of_steps(task, 2 * count).train(torch.Generator().manual_seed(0))]
    assert not torch.equal(torch.cat(seen[:count]), torch.cat(seen[count:]))


def test_epochs_without_batches_end_it():
    task = replace(graded_task(), train=lambda _: [])
    assert list(of_steps(task, 4).train(torch.Generator())) == []
