"""A small network and small data for the tests of training, tasks and evaluators."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torchmetrics.classification import MulticlassHingeLoss

from nets import Residual
from sartor.core.contracts import Task
from sartor.core.metrics import Metric
from sartor.core.rng import global_seed, torch_rng
from sartor.data.images import Images, image_task
from sartor.training import Recipe, fit


def small_cnn(channels: int = 1, classes: int = 2, *, norm: bool = True, dropout: float = 0.0) -> nn.Module:
    """Three strided convolutions; its weights are always the same."""
    with global_seed(7):
        blocks: list[nn.Module] = []
        for a, b in ((channels, 16), (16, 32), (32, 32)):
            blocks += [nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b) if norm else nn.Identity(), nn.ReLU()]
        head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(128, classes)]
        return nn.Sequential(*blocks, *head)


def bright_images(count: int, seed: int, size: int = 8) -> Images:
    """Noise whose upper (class 0) or lower half (class 1) is brighter."""
    generator = torch_rng(seed, "bright")
    pixels = torch.randint(0, 200, (count, 1, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    pixels[labels == 0, :, : size // 2] += 50
    pixels[labels == 1, :, size // 2 :] += 50
    return Images(pixels, labels)


def small_task(batch: int = 16, augment: str = "shift") -> Task:
    """Two classes, 72 training images (so that the last batch of 16 is not full)."""
    parts = [bright_images(n, seed) for seed, n in enumerate((72, 40, 40))]
    return image_task(*parts, classes=2, batch=batch, augment=augment, source="noise")


def graded_task() -> Task:
    """The small task with a metric that tells any two networks apart, which the accuracy on 40 images does not."""
    task = small_task()
    return replace(task, metrics=(*task.metrics, Metric("hinge", "min", make=lambda: MulticlassHingeLoss(2))))


def trained_residual(task: Task) -> nn.Module:
    """A residual network for the task's pictures, trained for some epochs; in eval mode."""
    with global_seed(0):
        network = Residual(2)
        network.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    fit(network, task, Recipe(epochs=4, lr=0.05, device="cpu"), seed=0)
    return network.eval()


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Bit for bit, buffers included."""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
