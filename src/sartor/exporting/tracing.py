"""What exporters need around a module: eval mode, silence, a forward of another form, and reasons in plain words."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sartor.core import copies, trees
from sartor.core.trees import Inputs


class Adapted(nn.Module):
    """A module with another `forward`; parameters, buffers and parts are the same objects under the same names.

    Args:
        module: Whose state it has.
        forward: What it does instead; it may call `module`.
    """

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        shared = {name: vars(module)[name] for name in ("_parameters", "_buffers", "_modules")}
        self.__dict__.update(shared, training=module.training, forward=forward)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside the block; the module is as it was after it."""
    with copies.undisturbed(module), torch.no_grad():
        module.eval()
        yield


def several(example: Inputs) -> Inputs:
    """At least two examples: tracing takes a batch of one for a constant."""
    return example if trees.size(example) > 1 else trees.joined([example, example])


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
    fixed = re.search(r"specialized it to be a constant \((\d+)\)", "\n".join(lines))
    if fixed:
        return f"its code turns a size that is to be open into the number {fixed[1]}"
    for line in lines:
        found = re.search(r"(?:no decompositions? registered|no onnx function|not supported|unsupported).*", line, re.I)
        called = re.match(r"Error calling function '(\w+)'", line)
        if called:
            return f"its exporter fails on operator {called[1].replace('_', '.', 1)}; replace it by other operators"
        operator = re.search(r"[a-z_]\w*(?:\.|::)[a-z_]\w*(?:\.\w+)?", found[0] if found else "", re.I)
        if operator:
            return f"no ONNX form of operator {operator[0]}; replace it by operators that ONNX has"
    first = next((line for line in reversed(lines) if "Error" in line or "rror:" in line), lines[0] if lines else "")
    return first[:300] or type(error).__name__
