"""Write a PyTorch module as a `torch.export` file, which loads without the module's code; read one that runs none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sartor.core import copies, trees
from sartor.core.errors import TargetError
from sartor.core.foreign import first_line
from sartor.core.records import ExportSettings
from sartor.core.trees import Inputs, Tree
from sartor.exporting.pt2_check import check_pt2
from sartor.exporting.signature import ENTRY, Kind, Port, Signature
from sartor.exporting.sizes import BATCH, Axes, NarrowError, axes, batched
from sartor.exporting.structure import plain
from sartor.exporting.tracing import Adapted, evaluating, quiet, reason, several


@dataclass(frozen=True)
class Program:
    """A network, with what enters and leaves it.

    Attributes:
        module: Is called like the module that it was.
        signature: None if it takes something else than tensors: nothing is checked then.
    """

    module: Callable[..., Tree]
    signature: Signature | None

    def __call__(self, inputs: Inputs) -> Tree:
        """The network's output, in its structure.

        Raises:
            TargetError: see `Signature.ordered` and `run`.
        """
        return self.restored(self.run(self.accepted(inputs)))

    def accepted(self, inputs: Inputs) -> Inputs:
        """The inputs in the form that `module` takes.

        Raises:
            TargetError: see `Signature.ordered`.
        """
        return self.signature.packed(self.signature.ordered(inputs)) if self.signature else inputs

    def run(self, inputs: Inputs) -> Tree:
        """The output of `module` as it comes.

        Raises:
            TargetError: it cannot take the inputs: a program has rules of its own on sizes that are open.
        """
        args, kwargs = trees.arguments(inputs)
        try:
            return self.module(*args, **kwargs)
        except Exception as error:
            shapes = trees.shapes(inputs)
            raise TargetError(
                f"the program cannot run inputs of shapes {shapes}: {first_line(error, named=True)}"
            ) from error

    def giving(self, tree: Tree) -> Program:
        """The same with outputs in the structure of `tree`."""
        return replace(self, signature=self.signature and self.signature.giving(tree))

    def restored(self, output: Tree) -> Tree:
        """The output of `module` in the structure of the network's."""
        if self.signature is None or self.signature.tree is None:
            return output
        return self.signature.rebuilt(trees.leaves(output))


def export_pt2(module: nn.Module, example: Inputs, path: Path, settings: ExportSettings | None = None) -> Signature:
    """Write `module`, in eval mode, to `path`; the batch dimension stays open where the module allows it.

    The file's own program gives dicts for dataclasses, and plain tuples for named ones, since it knows no classes.

    Args:
        module: Takes tensors and returns a tree of tensors; its training flags are left as they were.
        example: What it is called with, each `(batch, ...)`, on the module's device.
        path: The file, `.pt2` by custom.
        settings: Which sizes are open beside the batch; an opset means nothing here.

    Returns:
        What enters and leaves, in the module's own classes.

    Raises:
        ConfigError: there is no such size.
        NarrowError: the module cannot be traced with these sizes open.
        TargetError: the module cannot be traced.
    """
    settings = settings or ExportSettings()
    signature = Signature.of(module, example)
    open_ = axes(example, [port.name for port in signature.inputs], settings.dynamic)
    with evaluating(module), quiet():
        program = _traced(copies.ready(module, example), example, settings, open_)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # a path would have to end with .pt2
            torch.export.save(program, file, extra_files={ENTRY: signature.text()})
    return signature


def load_pt2(path: Path, device: str = "cpu") -> Program:
    """The network in a `.pt2` file, on `device`.

    Raises:
        TargetError: there is no such file, it is damaged, or it could run code (see `sartor.exporting.pt2_check`).
    """
    if not path.is_file():
        raise TargetError(f"no file {path}; prepare the network first, or give the path of a .pt2 file")
    check_pt2(path)
    extra = {ENTRY: ""}
    with quiet():
        try:
            program = torch.export.load(path, extra_files=extra)
        except Exception as error:
            raise TargetError(f"cannot read {path} as a torch.export file: {reason(error)}") from error
        return Program(program.module().to(device), _signature(program, str(extra[ENTRY]) or None))


def obstacle(module: nn.Module, example: Inputs, open_: Axes | None = None) -> str:
    """Why a module cannot be traced with an open batch, and with further open sizes; "" if it can."""
    wanted = batched(open_ or [{} for _ in trees.leaves(example)], example)
    with evaluating(module), quiet():
        try:
            _program(module, several(example), wanted, torch.export.Dim.DYNAMIC)
        except Exception as error:  # noqa: BLE001 - whatever stops a trace
            return reason(error)
    return ""


def _traced(module: nn.Module, example: Inputs, settings: ExportSettings, open_: Axes) -> torch.export.ExportedProgram:
    if settings.batch == "open":
        example_, open_ = several(example), batched(open_, example)
    else:
        example_ = example
    batch, error = torch.export.Dim(BATCH), None
    for dimension in (batch, torch.export.Dim.DYNAMIC) if any(open_) else ():  # the second allows rules on the batch
        try:
            return _program(module, example_, open_, dimension)
        except Exception as found:  # noqa: BLE001 - whatever stops an open batch is found again, or gone, below
            error = found
    if settings.dynamic and error is not None:
        raise NarrowError(reason(error)) from error
    try:
        return _program(module, example, [{} for _ in open_], None)
    except Exception as error:
        raise TargetError(f"cannot trace {type(module).__name__}: {reason(error)}") from error


def _program(module: nn.Module, example: Inputs, open_: Axes, batch: Any) -> torch.export.ExportedProgram:
    @wraps(module.forward)  # names of parameters are taken from it
    def forward(*args: Tensor, **kwargs: Tensor) -> Tree:
        return plain(module(*args, **kwargs))

    args, kwargs = trees.arguments(example)
    found = [{axis: torch.export.Dim.DYNAMIC if axis else batch for axis in symbols} for symbols in open_]
    shapes: Any = dict(zip(kwargs, found, strict=True)) if kwargs else tuple(found)
    if not any(found):
        shapes = None
    return torch.export.export(Adapted(module, forward), args, kwargs, dynamic_shapes=shapes, strict=False)


def _signature(program: torch.export.ExportedProgram, text: str | None) -> Signature | None:
    """Of a program that takes tensors either by position or by name."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    args, kwargs = program.call_spec.in_spec.children()
    places, leaves = program.graph_signature.user_inputs, args.children() or kwargs.children()
    if (args.num_children and kwargs.num_children) or not all(leaf.is_leaf() for leaf in leaves):
        return None
    found = [nodes[place].meta.get("val") if isinstance(place, str) else None for place in places]
    values = [value for value in found if isinstance(value, Tensor)]
    if not values or len(values) < len(found):
        return None
    names = kwargs.context if kwargs.num_children else places
    symbols = {str(s) for value in values for s in value.shape if not isinstance(s, int)}
    words = {symbol: BATCH if len(symbols) == 1 else symbol for symbol in symbols}
    ports = tuple(
        Port(str(name), str(place), tuple(words.get(str(s), s) for s in value.shape), value.dtype)
        for name, place, value in zip(names, places, values, strict=True)
    )
    outputs = [name for name in program.graph_signature.user_outputs if isinstance(name, str)]
    signature = Signature.read(text, ports, outputs)
    if kwargs.num_children:  # which know their names themselves, and may stand in another order
        signature = replace(signature, kind="dict", inputs=ports)
    if text is not None:
        return signature
    positional: Kind = "tensor" if len(ports) == 1 else "tuple"
    return replace(signature, kind="dict" if kwargs.num_children else positional, tree=None)
