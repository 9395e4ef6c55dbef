"""Write a PyTorch module as one ONNX file, and check that a runtime computes what PyTorch does."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sartor.core.contracts import Session
from sartor.core.errors import TargetError
from sartor.core.rng import torch_rng

LARGEST = 2**31 - 2**20
"""A protobuf file cannot hold more bytes; weights go to a second file from here on."""


def export_onnx(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write `module`, in eval mode, to `path`.

    The batch dimension is left open where the module allows it (ONNX Runtime is not slower for it, see
    docs/measuring.md), else it is fixed to the example's.

    Args:
        module: Takes one tensor and returns one; its training flags are left as they were.
        example: One input, `(batch, ...)`.
        path: The file; below 2 GB it is the only one.

    Raises:
        TargetError: the exporter cannot express the module; the message names the operator where it is known.
    """
    program = trace_onnx(module, example, batch="open")
    weights = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path, external_data=weights > LARGEST)


def trace_onnx(module: nn.Module, example: Tensor, *, batch: str = "fixed", optimize: bool = True) -> Any:
    """The exporter's `ONNXProgram` of `module` in eval mode, input `input`, output `output`.

    Args:
        module: The network.
        example: One input, `(batch, ...)`.
        batch: "open" (falls back to fixed if the module's code fixes it) or "fixed".
        optimize: Whether the exporter rewrites the graph (folds constants and batch norms).
    """
    options: dict[str, Any] = {"dynamo": True, "verbose": False, "optimize": optimize}
    options |= {"input_names": ["input"], "output_names": ["output"]}
    with evaluating(module), quiet():
        if batch == "open":
            shapes = ({0: torch.export.Dim("batch")},)
            with suppress(Exception):  # whatever stops an open batch is found again, or gone, below
                return torch.onnx.export(module, (several(example),), dynamic_shapes=shapes, **options)
        try:
            return torch.onnx.export(module, (example,), **options)
        except Exception as error:
            raise TargetError(f"cannot export {type(module).__name__} to ONNX: {reason(error)}") from error


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside the block; every submodule's own flag comes back after it."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in flags:
            part.training = training


def several(example: Tensor) -> Tensor:
    """At least two inputs: tracing takes a batch of one for a constant."""
    return example if len(example) > 1 else torch.cat([example, example])


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and log lines of an exporter: what matters comes as an exception."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def reason(error: BaseException) -> str:
    """The operator that the exporter stumbled over, else the first line of the innermost cause."""
    lines = []
    cause: BaseException | None = error
    while cause is not None:
        lines += [line.strip() for line in str(cause).splitlines() if line.strip()]
        cause = cause.__cause__
    for line in lines:
        found = re.search(r"(?:no decompositions? registered|no onnx function|not supported|unsupported).*", line, re.I)
        operator = re.search(r"[a-z_]\w*(?:\.|::)[a-z_]\w*(?:\.\w+)?", found[0] if found else "", re.I)
        if operator:
            return f"no ONNX form of operator {operator[0]}; replace it by operators that ONNX has"
    first = next((line for line in reversed(lines) if "Error" in line or "rror:" in line), lines[0] if lines else "")
    return first[:300] or type(error).__name__


def parity(session: Session, module: nn.Module, example: Tensor, *, tolerance: float = 1e-3, inputs: int = 3) -> float:
    """The largest relative error of a session against PyTorch on standard normal inputs.

    The error is scaled by the range of PyTorch's own outputs: an untrained network may put out 1e-13, where any
    absolute tolerance passes anything.

    Args:
        session: What a target made of the module.
        module: The network, on the CPU or any device.
        example: Gives the shape and the type of the inputs, `(batch, ...)`.
        tolerance: Largest error allowed.
        inputs: How many inputs to try.

    Raises:
        TargetError: the error is above `tolerance`, or the outputs differ in shape or are not finite.
    """
    device = next((p.device for p in module.parameters()), example.device)
    rng, worst = torch_rng(0, "parity"), 0.0
    for _ in range(inputs):
        x = torch.randn(example.shape, generator=rng).to(example.dtype)
        with evaluating(module):
            expected = module(x.to(device))
        if not isinstance(expected, Tensor):
            raise TargetError(f"{type(module).__name__} returns a {type(expected).__name__}; it must return one tensor")
        worst = max(worst, relative_error(session(x), expected.cpu()))
    if not worst <= tolerance:
        raise TargetError(
            f"outputs must be within {tolerance:g} of PyTorch's range; {type(module).__name__} on "
            f"{type(session).__name__.strip('_')} is off by {worst:.2g}; raise the precision of the target"
        )
    return worst


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two tensors of one shape, as a fraction of the range of `expected`."""
    a, b = found.detach().double(), expected.detach().double()
    if a.shape != b.shape or not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        return float("inf")
    difference = float((a - b).abs().max()) if b.numel() else 0.0
    span = float(b.max() - b.min()) if b.numel() else 0.0
    scale = span or float(b.abs().max() if b.numel() else 0.0)
    return 0.0 if difference == 0 else difference / scale if scale else float("inf")
