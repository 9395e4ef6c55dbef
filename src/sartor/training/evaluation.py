"""Evaluate a network on a task, and tell whether the two fit each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError


def resolve(device: str) -> torch.device:
    """`auto` is CUDA if there is one, else the CPU.

    Raises:
        ConfigError: There is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r} is not here ({torch.cuda.device_count()} CUDA devices); use auto or cpu")
    return found


def device_of(module: nn.Module) -> torch.device:
    """Where the network is: the device of its first parameter or buffer, the CPU if it has none."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[None]:
    """`module` in train or eval mode; every submodule is put back to what it was."""
    before = [(m, m.training) for m in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, was in before:
            part.training = was


def evaluate(module: nn.Module, batches: Iterable[Batch], task: Task, *, device: str = "") -> dict[str, float]:
    """The task's metrics over all batches, in eval mode; mode and place of `module` are put back.

    Args:
        module: The network.
        batches: `(x, y)` pairs: `task.valid()`, `task.test()`.
        task: What names the metrics.
        device: Where to run, `auto`, `cpu` or `cuda`; empty: where the network is.

    Raises:
        DataError: There are no batches.
    """
    home = device_of(module)
    place = resolve(device) if device else home
    metrics = {name: make().to(place) for name, make in task.metrics.items()}
    seen = 0
    module.to(place)
    try:
        with mode(module, training=False), torch.no_grad():
            for x, y in batches:
                output = module(x.to(place, non_blocking=True))
                for metric in metrics.values():
                    metric.update(output, y.to(place, non_blocking=True))
                seen += len(x)
    finally:
        module.to(home)
    if not seen:
        raise DataError("there is nothing to evaluate on: the split has no batches; hold out more data")
    return {name: float(metric.compute()) for name, metric in metrics.items()}


def accuracy_interval(accuracy: float, n: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy measured on `n` examples (Wilson 1927).

    It describes the draw of the examples only, not how the result varies from training to training.

    Raises:
        ValueError: `accuracy` is not in [0, 1] or `n` is not positive.
    """
    if not 0 <= accuracy <= 1 or n < 1:
        raise ValueError(f"needs an accuracy in [0, 1] and n >= 1, got {accuracy} and {n}")
    z = 1.959963984540054  # the 97.5 % quantile of the normal distribution
    centre = (accuracy + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def check_fits(task: Task, module: nn.Module) -> None:
    """Run the task's example through the network and compare its output with the task's classes.

    Raises:
        DataError: The network cannot take the example, or has another number of outputs than the task has classes.
    """
    shape = tuple(task.example.shape)
    who = type(module).__name__
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and len(shape) == 4 and first.in_channels != shape[1]:
        raise DataError(
            f"{who} expects images of {first.in_channels} channels, the task gives {shape[1]} (example {shape}); "
            "change the channels of the task or of the network's first layer"
        )
    try:
        with mode(module, training=False), torch.no_grad():
            output = module(task.example.to(device_of(module)))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{who} cannot take the task's example of shape {shape}: {reason}") from error
    if task.classes is not None and tuple(output.shape) != (shape[0], task.classes):
        raise DataError(
            f"{who} gives outputs of shape {tuple(output.shape)}, the task has {task.classes} classes and needs "
            f"{(shape[0], task.classes)}; replace the network's last layer"
        )
