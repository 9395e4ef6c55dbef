"""No labels: a network's own outputs are what a smaller one learns, from examples of its input."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError
from sartor.core.metrics import Metric
from sartor.core.rng import torch_rng
from sartor.data.batches import EVALUATED, Batches, Seeded, Splits, check_batch, fingerprint
from sartor.data.losses import scaled
from sartor.data.sources import check_form
from sartor.data.teacher import Taught, Teacher, likeness, scales_of, unknown
from sartor.data.unlabelled import Look, Unlabelled, read
from sartor.training.evaluation import resolve

__all__ = ["imitate"]


def imitate(
    *,
    data: str | Path = "",
    test: float | str | Path | Iterable[Any] = 0.1,
    valid: float | Iterable[Any] = 0.1,
    train: Iterable[Any] | None = None,
    inputs: str | Sequence[str] = (),
    form: str = "apart",
    size: int = 224,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    augment: str = "shift_flip",
    batch: int = 32,
    logits: bool | None = None,
    device: str = "auto",
    keep_gb: float = 1.0,
    upright: bool = False,
    seed: int = 0,
) -> Task:
    """Imitation: the loss is the distance to the outputs of the network that is to be made smaller, whatever they are.

    `data` is a folder with images anywhere below it, or named arrays as `regression` takes them (`.npz`, `.npy`,
    `.parquet`, `.csv`, a folder of `.npy` files). Arrays of bytes `(n, H, W)`, `(n, H, W, C)` or `(n, C, H, W)` are
    images; other whole numbers (tokens) reach the network as they are; the rest as float32. In Python, `train`, `valid`
    and `test` may be loaders, or anything that can be iterated again and again, of batches: inputs alone, or pairs
    (inputs, anything); a pair of two tensors is such a pair, so two inputs are `((a, b), None)` or a dict.

    The distance of an example is the mean over the network's floating-point outputs of the squared error, each in units
    of the output's variance on training examples. The metric `relative_error` is its root: 0 is a perfect copy, 1 is as
    far off as the mean output. `agreement` is the share of examples with the same largest logit.

    The task learns from a network once it has seen it: `task.informed(network)` gives the task to train on, with a
    frozen copy as the teacher; until then its loss and metrics raise an error.

    Args:
        data: The folder or file.
        test: A folder or file like `data` with the test examples, or the share that is held out for the final report;
            or a loader.
        valid: Share of the other examples held out for the search; or a loader.
        train: A loader, in place of `data`.
        inputs: Arrays that the network gets, in the order of its arguments; not needed if there is one, or an `x`.
        form: How it gets several: `"apart"` (as arguments), `"named"` (as named arguments) or `"stacked"` (in one
            tensor, along the channels).
        size: Height and width of images from a folder: the shorter side is scaled to it, the middle is cut out.
        mean: Per channel, of pixels scaled to [0, 1]: what the network was trained with. By default that of ImageNet
            for colour, and 0 for grey.
        std: Standard deviation, likewise; 1 for grey.
        augment: Of training images: `"shift_flip"`, `"shift"`, `"flip"` or `""`; other inputs are left alone.
        batch: Examples per training batch.
        logits: Whether the output is one tensor of logits, `(batch, classes, ...)`; None: if it is one `(batch, k)`
            with k above 1.
        device: Where the teacher runs.
        keep_gb: The teacher's outputs for the held-out splits, and decoded images, are kept in memory up to this size
            each; what does not fit is made anew each time.
        upright: Whether images from a folder are turned as their EXIF data says; without, they are as they are stored,
            and the log says if some are turned.
        seed: Of the splits, which do not depend on the seed of a run.

    Raises:
        DataError: Data is missing, damaged or does not fit; a loader is missing. From `informed`: the network gives
            nothing that can be imitated.
        ConfigError: A setting is out of range.
    """
    check_batch(batch)
    check_form(form)
    if size < 1 or keep_gb < 0:
        raise ConfigError(f"needs size >= 1 and keep_gb >= 0, got {size} and {keep_gb}")
    room = int(keep_gb * 2**30)
    if train is not None:
        given = _of_loaders(train, valid, test)
    else:
        if not isinstance(valid, int | float) or not isinstance(test, int | float | str | Path):
            raise DataError("loaders valid and test go with a loader train; give all three, or data and shares")
        look = Look(size, mean, std, augment, form, room, upright)
        given = _of_data(*read(data, test, inputs, look, valid=valid, seed=seed), str(data), batch)
    task = Task(
        train=given.train,
        valid=given.valid,
        test=given.test,
        loss=unknown,
        distance=unknown,
        metrics=(Metric("relative_error", "min", "", "per_example", unknown),),
        example=trees.rows(_first(given.valid())[0], slice(0, 1)),
        name="imitate",
        fingerprint=given.fingerprint,
        describe=given.describe,
    )
    return replace(task, informed=partial(_informed, task, given, logits, device, room))


@dataclass(frozen=True)
class _Given:
    """Inputs of the three splits; `plain` is the training split without augmentation, in fixed order."""

    train: Callable[[torch.Generator], Iterable[Batch]]
    valid: Callable[[], Iterable[Batch]]
    test: Callable[[], Iterable[Batch]]
    plain: Callable[[], Iterable[Batch]]
    fingerprint: str
    describe: Mapping[str, Any]


def _informed(task: Task, given: _Given, logits: bool | None, device: str, room: int, network: nn.Module) -> Task:
    """The task of learning from `network`."""
    teacher = Teacher(network, resolve(device))
    scales = scales_of(teacher, given.plain())
    distance = partial(scaled, scales=scales)
    output = teacher(task.example)
    found = trees.leaves(output)
    one = len(found) == 1 and found[0].is_floating_point() and found[0].dim() >= 2 and found[0].shape[1] > 1
    if logits and not one:
        raise ConfigError(
            f"logits = true needs one output (batch, classes, ...), the network gives {trees.shapes(output)}"
        )
    agreement = one and (found[0].dim() == 2 if logits is None else logits)
    fixed = {name: Taught(getattr(given, name), teacher, room // 2) for name in ("valid", "test")}
    identity = f"{given.fingerprint} {teacher.fingerprint()}".encode()
    return replace(
        task,
        train=lambda generator: Taught(partial(given.train, generator), teacher),
        valid=lambda: fixed["valid"],
        test=lambda: fixed["test"],
        loss=distance,
        distance=distance,
        metrics=likeness(scales, agreement=agreement, positions=agreement and found[0].dim() > 2),
        fingerprint=hashlib.sha256(identity).hexdigest(),
        describe={**given.describe, "teacher": type(network).__name__, "output_variances": scales},
        informed=None,
    )


def _of_data(examples: Unlabelled, splits: Splits, source: str, batch: int) -> _Given:
    return _Given(
        train=lambda generator: Batches(splits.train, examples, batch, generator),
        valid=lambda: Batches(splits.valid, examples, EVALUATED),
        test=lambda: Batches(splits.test, examples, EVALUATED),
        plain=lambda: Batches(splits.train, examples, EVALUATED),
        fingerprint=fingerprint(splits, *examples.identity()),
        describe={"source": source} | splits.sizes(),
    )


def _of_loaders(train: Iterable[Any], valid: Any, test: Any) -> _Given:
    for name, loader in (("valid", valid), ("test", test)):
        if isinstance(loader, int | float | str | Path):
            raise DataError(f"{name} must be a loader, too, as train is one; got {loader!r}")
    return _Given(
        train=lambda generator: Seeded(train, _inputs_of, generator),
        valid=lambda: Seeded(valid, _inputs_of),
        test=lambda: Seeded(test, _inputs_of),
        plain=lambda: Seeded(train, _inputs_of, torch_rng(0, "scales")),
        fingerprint="",
        describe={"source": "own loaders"},
    )


def _inputs_of(batch: Any) -> Batch:
    """A batch of a loader as inputs and no target; DataLoader collates tuples into lists.

    Raises:
        DataError: There are no inputs in it.
    """
    if isinstance(batch, tuple | list) and len(batch) in (1, 2):
        batch = batch[0]
    if isinstance(batch, Tensor) and batch.dim():
        return batch, None
    values = list(batch.values()) if isinstance(batch, Mapping) else batch
    if isinstance(values, tuple | list) and values and all(isinstance(v, Tensor) for v in values):
        return (dict(batch) if isinstance(batch, Mapping) else tuple(values)), None
    raise DataError(
        "a loader must give inputs (a tensor, or a tuple or dict of tensors), or pairs (inputs, anything); got "
        f"{type(batch).__name__}"
    )


def _first(batches: Iterable[Batch]) -> Batch:
    for batch in batches:
        return batch
    raise DataError("the validation split gives no batches; give it some data")
