"""Whether a runtime computes what PyTorch does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.contracts import Session
from sartor.core.errors import TargetError
from sartor.core.rng import torch_rng
from sartor.core.trees import Inputs, Tree
from sartor.exporting.tracing import evaluating


def parity(session: Session, module: nn.Module, example: Inputs, *, tolerance: float = 1e-3, draws: int = 3) -> float:
    """The largest relative error of any output of a session against PyTorch on random inputs (see `drawn`).

    The error is scaled by the range of PyTorch's own outputs: an untrained network may put out 1e-13, where any
    absolute tolerance passes anything.

    Args:
        session: What a target made of the module.
        module: The network, on the CPU or any device.
        example: Gives the shapes and the types of the inputs, each `(batch, ...)`.
        tolerance: Largest error allowed.
        draws: How many inputs to try.

    Raises:
        TargetError: the error of an output is above `tolerance`, or outputs differ in names or shape, or are not
            finite.
    """
    device = trees.device_of(module, example)
    rng, worst = torch_rng(0, "parity"), dict[str, float]()
    who = f"{type(module).__name__} on {type(session).__name__.strip('_')}"
    for _ in range(draws):
        inputs = drawn(example, rng)
        with evaluating(module):
            expected = trees.call(module, trees.to(inputs, device))
        for name, error in errors(session(inputs), expected, who).items():
            worst[name] = max(error, worst.get(name, 0.0))
    name = max(worst, key=worst.__getitem__)
    if not worst[name] <= tolerance:
        raise TargetError(
            f"outputs must be within {tolerance:g} of PyTorch's range; {who} is off by {worst[name]:.2g} in output "
            f"{name!r}; raise the precision of the target"
        )
    return worst[name]


def errors(found: Tree, expected: Tree, who: str = "the network") -> dict[str, float]:
    """Name of an output -> its relative error.

    Raises:
        TargetError: there are no outputs, or others than expected.
    """
    a, b = trees.named(found, "output"), trees.named(trees.to(expected, "cpu"), "output")
    if not b:
        raise TargetError(f"{who} must return tensors; PyTorch returns a {type(expected).__name__} without any")
    if a.keys() != b.keys():
        raise TargetError(f"{who} must return {', '.join(b)}, as in PyTorch; it returns {', '.join(a) or 'nothing'}")
    return {name: relative_error(a[name], b[name]) for name in b}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two tensors of one shape, as a fraction of the range of `expected`.

    Of whole numbers and booleans (labels, masks), whose differences mean nothing, it is the share that differs.
    """
    if found.shape != expected.shape:
        return float("inf")
    if not (expected.is_floating_point() or expected.is_complex()):
        return float((found != expected).double().mean()) if expected.numel() else 0.0
    wide = torch.complex128 if expected.is_complex() else torch.float64
    a, b = found.detach().to(wide), expected.detach().to(wide)
    known = a != b  # infinities that are the same on both sides (of what a mask excludes, say) are no difference
    if not bool(known.any()):
        return 0.0
    if not bool(torch.isfinite(a[known]).all() and torch.isfinite(b[known]).all()):
        return float("inf")
    difference, b = float((a - b)[known].abs().max()), b[torch.isfinite(b)]
    largest = float(b.abs().max())
    span = largest if expected.is_complex() else float(b.max() - b.min())
    scale = span or largest
    return 0.0 if difference == 0 else difference / scale if scale else float("inf")


def drawn(
    example: Inputs, rng: torch.Generator, batch: int | None = None, shapes: Sequence[Sequence[int]] | None = None
) -> Inputs:
    """Random inputs like `example`: standard normal, or drawn from the example's own values if those are no floats.

    Whole numbers are indices, lengths or masks more often than not: any other value might not be allowed, nor might a
    row without any of them. So a row is the example's first one in another order, repeated where it is longer.

    Args:
        example: Each `(batch, ...)`.
        rng: All randomness.
        batch: Size of the batch; as in the example by default.
        shapes: Of all tensors in order, whatever their batch; those of the example by default.
    """
    wanted = iter(shapes or [t.shape for t in trees.leaves(example)])

    def like(tensor: Tensor) -> Tensor:
        shape = tuple(next(wanted))
        shape = shape if batch is None or not shape else (batch, *shape[1:])
        if tensor.is_floating_point() or tensor.is_complex():
            return torch.randn(shape, generator=rng).to(tensor.dtype)
        if not tensor.numel():
            return torch.zeros(shape, dtype=tensor.dtype)
        own = tensor.detach().cpu()
        row = own[0].reshape(-1) if own.dim() > 1 else own.reshape(-1)
        count = math.prod(shape[1:]) if own.dim() > 1 else math.prod(shape)
        line = row.repeat(-(-count // len(row)))[:count]
        rows = [line[torch.randperm(count, generator=rng)] for _ in range(shape[0] if own.dim() > 1 else 1)]
        return torch.stack(rows).reshape(shape)

    return trees.mapped(like, example)  # type: ignore[no-any-return]
