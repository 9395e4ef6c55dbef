"""Whether a network and a task fit each other: found by a few examples, before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sartor.core import copies, trees
from sartor.core.contracts import Batch, Task
from sartor.core.errors import DataError
from sartor.core.rng import derive, global_seed, torch_rng
from sartor.core.trees import Tree
from sartor.training.evaluation import mode

T = TypeVar("T")

FEW = 8
"""Examples of a batch that are tried: enough for batch norms, and no minute of a large network."""


def check_fits(task: Task, module: nn.Module, *, taught: bool = False) -> None:
    """Run a few examples of every split that may be seen through the network, its loss, its distance and its metrics.

    Training examples are also run backward, in training mode, in which some networks return something else. Neither
    the network nor torch's global generator is changed.

    Args:
        task: With its loss, its distance and its metrics.
        module: On any device.
        taught: Whether a teacher takes part in the training: what the network returns in training mode must then have a
            distance from what it returns in evaluation.

    Raises:
        DataError: The network cannot take the inputs, gives another number of outputs than the task has classes, or
            something that loss, distance or a metric cannot take, or that has no gradient. The message says what the
            network returned and what the task wanted, by their shapes.
    """
    who, place = type(module).__name__, trees.device_of(module)
    with global_seed(derive(0, "fits")):
        with copies.undisturbed(module), mode(module, training=False), torch.no_grad():
            output = _run(module, trees.to(task.example, place), f"{who} cannot take {_an(task)}", task)
            if task.classes is not None and task.logits:
                _check_classes(who, output, task.classes)
            for batch in task.valid():
                few, wanted = _few(batch, place)
                output = _run(module, few, f"{who} cannot take the task's inputs of shape {trees.shapes(few)}", task)
                _check_losses(task, who, output, wanted, output)
                _check_metrics(task, who, output, wanted)
                break
        for batch in task.train(torch_rng(0, "fits")):
            _check_training(task, copies.faithful(module), *_few(batch, place), taught=taught)
            break


def channels_apart(task: Task, module: nn.Module) -> str:
    """That the network takes pictures of other channels than the task gives, and the remedy; "" if that is not so.

    Whether the network runs on them all the same is for the caller to find out: its first convolution may see something
    else than the pictures.
    """
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or not isinstance(task.example, Tensor) or task.example.dim() != 4:
        return ""
    wanted, given = first.in_channels, task.example.shape[1]
    if wanted == given or wanted not in {1, 3}:
        return ""
    return (
        f"{type(module).__name__} expects images of {wanted} channel{'s' * (wanted > 1)}, the task gives {given} "
        f"(example {trees.shapes(task.example)}); set task.channels = {wanted}, or change the network's first layer"
    )


def _few(batch: Batch, place: torch.device) -> Batch:
    found: Batch = trees.to(trees.rows(batch, slice(0, FEW)), place)
    return found


def _run(module: nn.Module, inputs: Any, otherwise: str, task: Task) -> Tree:
    try:
        return _tried(partial(trees.call, module, inputs), otherwise)
    except DataError as error:
        why = channels_apart(task, module)
        if not why:
            raise
        raise DataError(why) from error


def _check_classes(who: str, output: Tree, classes: int) -> None:
    shape = trees.shapes(output)
    if not isinstance(output, Tensor) or output.dim() < 2 or output.shape[1] != classes:
        raise DataError(
            f"{who} gives outputs of shape {shape}, the task has {classes} classes and needs (batch, {classes}, ...); "
            "replace the network's last layer"
        )


def _check_losses(task: Task, who: str, output: Tree, target: Tree, teacher: Tree | None, when: str = "") -> None:
    given = _given(who, output, target, when)
    rows = trees.size(output)
    losses: dict[str, Callable[[], Any]] = {"loss": lambda: task.loss(output, target)}
    if teacher is not None:
        losses["distance"] = lambda: task.distance(output, teacher)
    for name, work in losses.items():
        found = _tried(work, f"the {name} of the task {task.name} fails {given}")
        if not isinstance(found, Tensor) or tuple(found.shape) != (rows,):
            raise DataError(
                f"the {name} of the task {task.name} gives {trees.shapes(found)} {given}; it must give one number per "
                f"example, ({rows},): use reduction = 'none' and the mean over all but the batch"
            )


def _check_metrics(task: Task, who: str, output: Tree, target: Tree) -> None:
    given = _given(who, output, target)
    for metric in task.metrics:
        made = metric.make() if metric.make is not None else None
        if made is None or not all(hasattr(made, part) for part in ("to", "update", "compute")):
            raise DataError(f"metric {metric.name!r} needs `make`: what has update(output, target), compute() and to()")
        made = made.to(trees.leaves(output)[0].device)
        _tried(partial(made.update, output, target), f"metric {metric.name!r} fails {given}")
        found = _computed(made)
        if found is not None and (not hasattr(found, "__float__") or getattr(found, "numel", lambda: 1)() != 1):
            raise DataError(
                f"metric {metric.name!r} gives {trees.shapes(found)} {given}; compute() must give one number, such as "
                "the mean over classes"
            )


def _computed(metric: Any) -> Any:
    """What a metric gives for a few examples, for which it need not be defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return metric.compute()
        except Exception:  # noqa: BLE001 - of somebody else's code
            return None


def _check_training(task: Task, module: nn.Module, inputs: Any, target: Tree, *, taught: bool) -> None:
    """One step without its end: forward in training mode, loss, backward."""
    who, when = type(module).__name__, " in training mode"
    if trees.size(inputs) < 2 or not any(p.requires_grad for p in module.parameters()):
        return  # batch norms need two; what trains nothing is said where the optimiser is made
    with torch.no_grad():
        teacher = trees.call(module.eval(), inputs) if taught else None
    module.train()
    output = _run(module, inputs, f"{who} cannot take the task's inputs of shape {trees.shapes(inputs)}{when}", task)
    _check_losses(task, who, output, target, teacher, when)
    given = _given(who, output, target, when)
    loss = task.loss(output, target).mean()
    if not loss.requires_grad:
        raise DataError(
            f"the loss of the task {task.name} has no gradient {given} ({_types(output)}); a network must return what "
            "its weights change smoothly: scores, and not their argmax"
        )
    _tried(loss.backward, f"the loss of the task {task.name} cannot be run backward {given}")


def _given(who: str, output: Tree, target: Tree, when: str = "") -> str:
    return f"for an output of {trees.shapes(output)} and a target of {trees.shapes(target)} of {who}{when}"


def _types(output: Tree) -> str:
    return ", ".join(dict.fromkeys(str(leaf.dtype).removeprefix("torch.") for leaf in trees.leaves(output)))


def _tried(work: Callable[[], T], otherwise: str) -> T:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise DataError(f"{otherwise}: {reason}") from error


def _an(task: Task) -> str:
    return f"the task's example of shape {trees.shapes(task.example)}"
