"""Losses of examples, and how far an output is from a teacher's: all give one number per example, `(batch,)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from sartor.core import trees
from sartor.core.errors import DataError
from sartor.core.trees import Tree

UNCOUNTED = -100
"""The class that torch does not count."""


def cross_entropy(logits: Tensor, target: Tensor, *, ignore: int = UNCOUNTED) -> Tensor:
    """Cross-entropy of each example, the mean over its positions where it has some, `(batch,)`.

    Args:
        logits: `(batch, classes)` or `(batch, classes, ...)`.
        target: Classes, `(batch,)` or `(batch, ...)`.
        ignore: A class whose positions do not count; an example without others has loss 0.
    """
    return counted_mean(functional.cross_entropy(logits, target, reduction="none", ignore_index=ignore), target, ignore)


def counted_mean(values: Tensor, target: Tensor, ignore: int | None) -> Tensor:
    """The mean of each example over its positions that count, `(batch,)`; 0 where none does.

    Args:
        values: `(batch,)` or `(batch, ...)`.
        target: Classes, of the same shape.
        ignore: A class whose positions do not count; None if all do.
    """
    if ignore is None or values.dim() == 1:
        return per_example(values)
    counts = target != ignore
    return torch.where(counts, values, 0.0).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=1)


def absolute(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error (L1) of each example, `(batch, ...) -> (batch,)`."""
    return per_example((output - target).abs())


def squared(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error (L2) of each example, `(batch, ...) -> (batch,)`."""
    return per_example((output - target).square())


def per_example(values: Tensor) -> Tensor:
    """The mean over everything but the batch, `(batch, ...) -> (batch,)`."""
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def imitation(output: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy between the softmaxes of two outputs, the mean over positions, `(batch, classes, ...) -> (batch,)`.

    Hinton et al. 2015, equation 2 at temperature 1; its gradient is that of the Kullback-Leibler divergence.
    """
    return per_example(functional.cross_entropy(output, teacher.softmax(1), reduction="none"))


def apart(output: Tree, teacher: Tree) -> Tensor:
    """Mean squared error between two trees of tensors, the mean over their tensors, `(batch,)`.

    Tensors that are no floating-point numbers (indices, masks) cannot be learned from and do not count.

    Raises:
        DataError: The trees differ in structure or shape, or hold nothing that can be learned from.
    """
    return _over_tensors(output, teacher, lambda a, b, _: squared(a, b))


def relative(output: Tree, teacher: Tree) -> Tensor:
    """As `apart`, each tensor in units of its variance in the teacher, so that none drowns the others, `(batch,)`."""
    return _over_tensors(output, teacher, lambda a, b, _: squared(a, b) / spread(b))


def scaled(output: Tree, teacher: Tree, scales: Mapping[str, float]) -> Tensor:
    """As `apart`, each tensor in units of its scale, by the names of `trees.named`, `(batch,)`.

    Unlike those of `relative`, fixed scales make the distance of an example independent of its batch.
    """
    return _over_tensors(output, teacher, lambda a, b, name: squared(a, b) / scales[name])


def spread(values: Tensor) -> Tensor:
    """Mean square of `values` about their mean over the batch and all else, a scalar above 0."""
    return (values - values.mean()).square().mean().clamp(min=torch.finfo(values.dtype).tiny)


def _over_tensors(output: Tree, teacher: Tree, error: Callable[[Tensor, Tensor, str], Tensor]) -> Tensor:
    ours, theirs = trees.named(output), trees.named(teacher)
    if ours.keys() != theirs.keys() or any(ours[k].shape != theirs[k].shape for k in ours):
        raise DataError(
            f"an output of {trees.shapes(output)} cannot be compared with one of {trees.shapes(teacher)}; student and "
            "teacher must give the same tensors"
        )
    pairs = [(a, theirs[k].to(a.dtype), k) for k, a in ours.items() if a.is_floating_point()]
    if not pairs:
        raise DataError(f"an output of {trees.shapes(output)} holds no floating-point tensor to imitate; return scores")
    return torch.stack([error(a, b, k) for a, b, k in pairs]).mean(0)
