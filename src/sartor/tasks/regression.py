"""Numbers from arrays or a table: one or more columns are predicted from the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from sartor.core import trees
from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError
from sartor.core.metrics import Metric
from sartor.data.batches import EVALUATED, Batches, check_batch, fingerprint
from sartor.data.losses import absolute, per_example, squared
from sartor.data.pooled import r2, rmse
from sartor.data.quality import mean_of
from sartor.data.sources import NONE, Scaling, Sources, arranged, channels_first, check_form

__all__ = ["regression"]

LOSSES = ("l2", "l1", "huber")

Error: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def regression(
    *,
    data: str | Path = "",
    test: float | str | Path = 0.1,
    inputs: str | Sequence[str] = (),
    target: str | Sequence[str] = (),
    form: str = "",
    loss: str = "l2",
    delta: float = 1.0,
    unit: str = "",
    scale_inputs: bool = True,
    scale_target: bool = True,
    split: str = "",
    batch: int = 64,
    valid: float = 0.1,
    seed: int = 0,
) -> Task:
    """Regression: the root mean squared error decides; it, the mean absolute error and R2 are in the target's own unit.

    `data` is a table (`.csv` with a header, `.parquet`) or named arrays (`.npz`, a folder of `.npy` files), the first
    axis the examples. The network gives what the target's shape says, `(batch, columns)`, scaled: one unit is the
    target's standard deviation over the training split, 0 its mean (`describe` of the task has both).

    Args:
        data: The file or folder.
        test: A file of the same names with the test examples, or the share that is held out for the final report.
        inputs: Names of arrays or columns; by default all but the target, `test` and `group`.
        target: Name, or names of columns; by default `y` or `target`, or else a table's last column.
        form: How the network gets several inputs: `"apart"` (as arguments), `"named"` (as named arguments), `"stacked"`
            (one tensor, joined along the second axis); empty: stacked if all are columns, else apart.
        loss: `"l2"` (squared error), `"l1"` (absolute error) or `"huber"`; of the scaled target.
        delta: Where Huber's loss turns from squared to absolute error, in standard deviations of the target.
        unit: Of the target, for reports.
        scale_inputs: Whether inputs get mean 0 and deviation 1 per column or channel over the training split.
        scale_target: Whether the target does.
        split: `"official"`: an array or column `test` is true for test examples; `"group"`: examples with the same
            `group` stay in one split; `"random"`; empty: as far as those two are there, they are respected.
        batch: Examples per training batch.
        valid: Share of the training examples held out for the search.
        seed: Of the splits, which do not depend on the seed of a run.

    Raises:
        DataError: A file, array or column is missing or does not fit; a value is no number, NaN or infinite. While
            training: the network's output has another shape than the target.
        ConfigError: A setting is out of range.
    """
    check_batch(batch)
    check_form(form)
    if loss not in LOSSES or delta <= 0:
        raise ConfigError(f"needs loss one of {LOSSES} and delta > 0, got {loss!r} and {delta}")
    sources = Sources.open(data, test)
    wanted = _target_names(sources, target)
    names = sources.inputs(inputs, wanted)
    arrays = {name: channels_first(sources.array(name, "inputs")) for name in names}
    goal = _targets(sources, wanted)
    count = _agreed(sources, arrays, goal, wanted)
    splits = sources.splits(split, count, valid=valid, seed=seed, counted=wanted[0])
    scaling = _of_target(goal[splits.train], sources.where(wanted[0])) if scale_target else NONE
    scalings = {name: Scaling.of(a.__getitem__, splits.train) if scale_inputs else NONE for name, a in arrays.items()}
    flat = all(a.dim() == 2 and a.shape[1] == 1 for a in arrays.values())
    take = _Rows(arrays, goal, scalings, scaling, form or ("stacked" if flat else "apart"))
    errors: Mapping[str, Error] = {"l2": squared, "l1": absolute, "huber": partial(_huber, delta=delta)}
    distance = _matching(errors[loss])
    return Task(
        train=lambda generator: Batches(splits.train, take, batch, generator),
        valid=lambda: Batches(splits.valid, take, EVALUATED),
        test=lambda: Batches(splits.test, take, EVALUATED),
        loss=distance,
        distance=distance,
        metrics=_metrics(scaling.std, unit),
        example=take(splits.valid[:1], None)[0],
        name="regression",
        fingerprint=fingerprint(splits, arrays, goal),
        describe={
            "source": str(data),
            "inputs": names,
            "target": wanted,
            "target_mean": scaling.mean.flatten().tolist(),
            "target_std": scaling.std.flatten().tolist(),
            **splits.sizes(),
        },
    )


@dataclass(frozen=True)
class _Rows:
    """Scaled inputs and targets by the index of the example."""

    arrays: Mapping[str, Tensor]
    target: Tensor
    scalings: Mapping[str, Scaling]
    scaling: Scaling
    form: str

    def __call__(self, index: Tensor, generator: torch.Generator | None) -> Batch:  # noqa: ARG002 - nothing is drawn
        parts = {name: self.scalings[name](values[index]) for name, values in self.arrays.items()}
        return arranged(parts, self.form), self.scaling(self.target[index])


def _target_names(sources: Sources, target: str | Sequence[str]) -> list[str]:
    if target:
        return [target] if isinstance(target, str) else list(target)
    usual = [name for name in ("y", "target") if name in sources.names]
    if not usual and sources.archives[0].word != "column":
        known = ", ".join(sources.names)
        raise DataError(f"{sources.archives[0].path} has no array y or target, only {known}; give the setting 'target'")
    return [usual[0] if usual else sources.names[-1]]


def _targets(sources: Sources, names: Sequence[str]) -> Tensor:
    """`(n, columns)`, or the one array as it is, `(n, ...)`."""
    found = [torch.from_numpy(sources.array(name, "target").astype("float64")) for name in names]
    found = [t[:, None] if t.dim() == 1 else t for t in found]
    if len(found) > 1 and any(t.dim() != 2 or len(t) != len(found[0]) for t in found):
        raise DataError(f"several targets must be columns of one length, got {trees.shapes(found)} for {list(names)}")
    return torch.cat(found, 1) if len(found) > 1 else found[0]


def _of_target(trained: Tensor, where: str) -> Scaling:
    """By column for `(n, columns)`; one for all of what has positions."""
    columns = trained if trained.dim() == 2 else trained.reshape(-1, 1)
    if bool((columns == columns[:1]).all()):
        raise DataError(
            f"{where} is {float(columns[0, 0])} in all of the training split: there is nothing to predict; give "
            "targets that differ"
        )
    found = Scaling.of(columns.__getitem__, torch.arange(len(columns)))
    return found if trained.dim() == 2 else Scaling(found.mean.squeeze(), found.std.squeeze())


def _agreed(sources: Sources, arrays: Mapping[str, Tensor], goal: Tensor, wanted: Sequence[str]) -> int:
    for name, values in arrays.items():
        if len(values) != len(goal):
            raise DataError(
                f"{sources.where(name)} has {len(values)} examples, the target {', '.join(wanted)} has {len(goal)}; "
                "they must be one per example"
            )
    return len(goal)


def _matching(error: Error) -> Error:
    return lambda output, target: error(*_matched(output, target))


def _matched(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both of one shape: `(batch,)` and `(batch, 1)` would silently be subtracted as a matrix.

    Raises:
        DataError: They hold other values than each other, not only other axes of length 1.
    """
    if not isinstance(output, Tensor) or _long(output) != _long(target):
        raise DataError(
            f"the network gives {trees.shapes(output)}, the target is {tuple(target.shape)}; give its last layer as "
            "many outputs as the target has columns"
        )
    return output.reshape(target.shape), target


def _long(values: Tensor) -> list[int]:
    return [len(values), *(size for size in values.shape[1:] if size != 1)]


def _huber(output: Tensor, target: Tensor, delta: float) -> Tensor:
    return per_example(functional.huber_loss(output, target, reduction="none", delta=delta))


def _metrics(std: Tensor, unit: str) -> tuple[Metric, ...]:
    def missed(output: Tensor, target: Tensor) -> Tensor:
        ours, wanted = _matched(output, target)
        return absolute(ours.double() * std.to(ours.device), wanted.double() * std.to(ours.device))

    return (rmse(unit, std), mean_of(missed, "mae", "min", unit), r2())
