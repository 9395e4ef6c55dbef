"""A network as the teacher of smaller ones: its outputs, how large they are, and how far others are from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from sartor.core import copies, trees
from sartor.core.contracts import Batch
from sartor.core.errors import DataError
from sartor.core.metrics import SHARE, Metric
from sartor.core.trees import Inputs, Tree
from sartor.data.losses import scaled
from sartor.data.quality import mean_of

SCALED = 256
"""Training examples on which the size of the outputs is measured."""

ROUNDING = 1e-10
"""Spread below this share of the mean square is that of rounding: the output is constant."""


class Teacher:
    """A frozen copy of a network: what becomes of the caller's does not matter.

    Args:
        network: As it comes; left as it is.
        device: Where the copy runs; its outputs come back to the CPU.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.device = device
        self.network = copies.faithful(network).eval().requires_grad_(False).to(device)

    def __call__(self, inputs: Inputs) -> Tree:
        """The outputs, on the CPU."""
        with torch.no_grad():
            output = trees.call(self.network, trees.to(inputs, self.device))
        return trees.mapped(lambda t: t.cpu(), output)  # not `trees.to`: outputs are read at once, copies must be done

    def fingerprint(self) -> str:
        """SHA-256 of names and values of all parameters and buffers."""
        digest = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def scales_of(teacher: Teacher, batches: Iterable[Batch]) -> dict[str, float]:
    """The variance of every floating-point output about its mean over the first `SCALED` examples and all positions.

    A constant output has its mean square, and one that is 0 has 1.

    Raises:
        DataError: There are no batches, no output of floating-point numbers, or one that is NaN or infinite.
    """
    sums: dict[str, Tensor] = {}
    seen = 0
    for inputs, _ in batches:
        for name, value in trees.named(teacher(inputs)).items():
            if value.is_floating_point():
                full = value.double()
                part = torch.stack([torch.tensor(full.numel()).double(), full.sum(), full.square().sum()])
                sums[name] = sums.get(name, torch.zeros(3, dtype=torch.float64)) + part
        seen += trees.size(inputs)
        if seen >= SCALED:
            break
    if not sums:
        raise DataError(
            f"nothing to imitate: {seen} training examples, and no output of floating-point numbers; it needs both"
        )
    return {name: _scale(name, *part.tolist()) for name, part in sums.items()}


def _scale(name: str, count: float, total: float, squares: float) -> float:
    mean, square = total / count, squares / count
    variance = square - mean**2
    if not variance < float("inf"):
        raise DataError(f"the network's output {name!r} is NaN or infinite on training examples; correct the network")
    return variance if variance > ROUNDING * square else square or 1.0


class Taught:
    """Batches of inputs with the teacher's outputs; of batches that never change, they are computed once if small.

    Args:
        batches: One pass over the inputs.
        teacher: Gives the outputs.
        room: Bytes of outputs that may be kept; 0 keeps none.
    """

    def __init__(self, batches: Callable[[], Iterable[Batch]], teacher: Teacher, room: int = 0) -> None:
        self.batches, self.teacher, self.room = batches, teacher, room
        self.kept: list[Tree] | None = None

    def __len__(self) -> int:
        return len(self.batches())  # type: ignore[arg-type] # a TypeError is the answer for those without a length

    def __iter__(self) -> Iterator[Batch]:
        if self.kept is not None:
            for (inputs, _), output in zip(self.batches(), self.kept, strict=True):
                yield inputs, output
            return
        outputs: list[Tree] | None = []
        size = 0
        for inputs, _ in self.batches():
            output = self.teacher(inputs)
            size += sum(t.numel() * t.element_size() for t in trees.leaves(output))
            outputs = [*outputs, output] if outputs is not None and size <= self.room else None
            yield inputs, output
        self.kept = outputs


def likeness(scales: Mapping[str, float], *, agreement: bool, positions: bool) -> tuple[Metric, ...]:
    """The metrics of an imitation.

    Args:
        scales: Of the outputs, by name.
        agreement: Whether the output is one tensor of logits, whose largest should be the same.
        positions: Whether those are of positions, `(batch, classes, ...)`.
    """
    found: tuple[Metric, ...] = (mean_of(partial(relative_error, scales=scales), "relative_error", "min"),)
    if not agreement:
        return found
    if positions:
        return (*found, mean_of(_agreeing, "agreement", "max", SHARE))
    return (*found, Metric("agreement", "max", SHARE, "proportion", Agreement))


def relative_error(output: Tree, teacher: Tree, scales: Mapping[str, float]) -> Tensor:
    """Root of the mean over outputs of (squared error / variance) of each example, `(batch,)`.

    0 is a perfect copy; 1 is as far off as the teacher's mean, whatever the input.
    """
    return scaled(output, teacher, scales).double().sqrt()


def _agreeing(output: Tree, teacher: Tree) -> Tensor:
    ours, theirs = trees.leaves(output)[0].argmax(1), trees.leaves(teacher)[0].argmax(1)
    return (ours == theirs).double().flatten(1).mean(1) if ours.dim() > 1 else (ours == theirs).double()


class Agreement(MeanMetric):
    """Share of examples whose largest logit is the teacher's."""

    def update(self, output: Tree, teacher: Tree) -> None:  # type: ignore[override] # a metric of two trees
        super().update(_agreeing(output, teacher))


def unknown(*_: Any, **__: Any) -> Any:
    """Stands for loss, distance and metrics as long as there is no teacher.

    Raises:
        DataError: Always.
    """
    raise DataError("the task imitate learns from a network that it has not seen yet; use task.informed(network)")
