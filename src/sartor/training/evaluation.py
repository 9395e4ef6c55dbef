"""Evaluate a network on a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core import copies, trees
from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError, DivergedError
from sartor.core.metrics import Metric, Score, wilson
from sartor.core.rng import numpy_rng
from sartor.core.trees import Inputs, Tree

T = TypeVar("T")

DRAWS = 2000
"""Of the bootstrap over examples."""


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


def evaluate(
    module: nn.Module,
    batches: Iterable[Batch],
    task: Task,
    *,
    device: str = "",
    watch: Callable[[Tree], None] | None = None,
) -> dict[str, float]:
    """The task's metrics over all batches, in eval mode; mode and place of `module` are put back.

    Args:
        module: The network.
        batches: `(inputs, target)` pairs: `task.valid()`, `task.test()`.
        task: What names the metrics.
        device: Where to run, `auto`, `cpu` or `cuda`; empty: where the network is.
        watch: Is shown what the network gives for each batch.

    Raises:
        DataError: There are no batches.
    """

    def shown(run: Callable[[Inputs], Tree], inputs: Inputs) -> Tree:
        output = run(inputs)
        if watch is not None:
            watch(output)
        return output

    return _on(module, device, lambda run, place: _measured(partial(shown, run), batches, task, place)).values


def score(module: nn.Module, batches: Iterable[Batch], task: Task, *, device: str = "") -> dict[str, Score]:
    """As `evaluate`, each metric with the interval of its kind."""
    return _on(module, device, lambda run, place: _measured(run, batches, task, place)).scores(task)


def score_outputs(run: Callable[[Inputs], Tree], batches: Iterable[Batch], task: Task) -> dict[str, Score]:
    """As `score`, of anything that gives outputs for one example, on the CPU: a target's session, say.

    Args:
        run: Inputs of one example, `(1, ...)`, to its output: a session may be fixed to the example's batch.
        batches: `(inputs, target)` pairs.
        task: What names the metrics.
    """

    def one_by_one(inputs: Inputs) -> Tree:
        return trees.joined([run(trees.rows(inputs, slice(i, i + 1))) for i in range(trees.size(inputs))])

    return _measured(one_by_one, batches, task, torch.device("cpu")).scores(task)


@dataclass(frozen=True)
class _Measured:
    """What the metrics gave: values, how many examples they have seen, and the metrics that know single examples."""

    values: dict[str, float]
    examples: int
    each: dict[str, Any]

    def scores(self, task: Task) -> dict[str, Score]:
        found = {}
        for metric in task.metrics:
            value = self.values[metric.name]
            low, high = self._ends(metric, value)
            found[metric.name] = Score(value, low, high, self.examples)
        return found

    def _ends(self, metric: Metric, value: float) -> tuple[float, float] | tuple[None, None]:
        if metric.interval == "proportion" and 0 <= value <= 1:
            return wilson(value, self.examples)
        each = self.each.get(metric.name)
        if each is None or self.examples < 2 or math.isnan(value):
            return None, None
        if hasattr(each, "resampled"):
            return resampled(each.resampled, self.examples)
        return bootstrap(each.values.cpu())


def _on(module: nn.Module, device: str, work: Callable[[Callable[[Inputs], Tree], torch.device], T]) -> T:
    """What `work` gives on a device, with the network in eval mode; afterwards all is as it was."""
    home = trees.device_of(module)
    place = resolve(device) if device else home
    module.to(place)
    try:
        with copies.undisturbed(module), mode(module, training=False), torch.no_grad():
            return work(partial(trees.call, module), place)
    finally:
        module.to(home)


def _measured(run: Callable[[Inputs], Tree], batches: Iterable[Batch], task: Task, place: torch.device) -> _Measured:
    metrics = {m.name: m.make().to(place) for m in task.metrics if m.make is not None}
    seen = 0
    for inputs, target in batches:
        output, wanted = run(trees.to(inputs, place)), trees.to(target, place)
        for metric in metrics.values():
            metric.update(output, wanted)
        seen += trees.size(inputs)
    if not seen:
        raise DataError("there is nothing to evaluate on: the split has no batches; hold out more data")
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    decides = values.get(task.metric.name, 0.0)
    if not math.isfinite(decides):  # nothing can be compared with it, and the search would choose at random
        raise DivergedError(
            f"{task.metric.name}, which decides, is {decides} over {seen} examples; if the outputs are finite, give "
            "the metric a bound, or let another one decide"
        )
    kinds = {m.name: m.interval for m in task.metrics}
    each = {name: m for name, m in metrics.items() if kinds[name] == "per_example"}
    return _Measured(values, seen, each)


def bootstrap(values: Tensor) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of per-example values, `(n,)`; NaNs (nothing to judge) are left out.

    It describes the draw of the examples only, not how the result varies from training to training.
    """
    known = values[~values.isnan()].double().numpy()
    if not len(known):
        return math.nan, math.nan
    rng = numpy_rng(0, "bootstrap")
    # one draw at a time, so that a large split does not need all of them in memory
    means = [known[rng.integers(len(known), size=len(known))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def resampled(value: Callable[[Tensor], float], examples: int) -> tuple[float, float]:
    """As `bootstrap`, of a value that is no mean over examples (mIoU adds up pixels over the data set).

    Args:
        value: What it would be if each example were there so many times, `(examples,)`; NaN where it has none.
        examples: How many there are.
    """
    rng = numpy_rng(0, "bootstrap")
    drawn = (rng.integers(examples, size=examples) for _ in range(DRAWS))
    found = [value(torch.from_numpy(np.bincount(index, minlength=examples))) for index in drawn]
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)
