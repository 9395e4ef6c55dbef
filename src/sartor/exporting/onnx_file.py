"""Write a PyTorch module as one ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto
from torch import Tensor, nn

from sartor.core import copies, trees
from sartor.core.errors import ConfigError, TargetError
from sartor.core.records import ExportSettings
from sartor.core.trees import Inputs
from sartor.exporting.pt2_file import obstacle
from sartor.exporting.signature import ENTRY, Port, Signature
from sartor.exporting.sizes import Axes, NarrowError, axes, batched
from sartor.exporting.tracing import Adapted, evaluating, quiet, reason, several

LARGEST = 2**31 - 2**20
"""A protobuf file cannot hold more bytes; weights go to a second file from here on."""

OLDEST = 7
"""The first opset that the exporter knows."""

FIXED = ExportSettings(batch="fixed")

DTYPES: Mapping[str, torch.dtype] = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    "FLOAT16": torch.float16,
    "BFLOAT16": torch.bfloat16,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "BOOL": torch.bool,
    "COMPLEX64": torch.complex64,
    "COMPLEX128": torch.complex128,
}
"""ONNX's types of elements in PyTorch's words."""


def export_onnx(module: nn.Module, example: Inputs, path: Path, settings: ExportSettings | None = None) -> Signature:
    """Write `module`, in eval mode, to `path`.

    The batch dimension, which all inputs share, is left open where the module allows it (ONNX Runtime is not slower for
    it, see docs/measuring.md), else it is fixed to the example's. Inputs and outputs are called as in `Signature.of`,
    and an entry of the file's metadata says how they belong together.

    Args:
        module: Takes tensors and returns a tree of tensors; its training flags are left as they were.
        example: What it is called with, each `(batch, ...)`.
        path: The file; below 2 GB it is the only one.
        settings: Which opset, and which sizes are open beside the batch.

    Returns:
        What enters and leaves, in the module's own classes.

    Raises:
        ConfigError: there is no such opset, or no such size.
        NarrowError: the module cannot be exported with these sizes open.
        TargetError: the exporter cannot express the module; the message names the operator where it is known.
    """
    settings = settings or ExportSettings()
    check_opset(settings.opset)
    _check_has_form(module)
    signature = Signature.of(module, example)
    program = trace_onnx(module, example, settings=settings, signature=signature)
    written = program.model.opset_imports[""]
    if settings.opset not in {0, written}:
        raise TargetError(
            f"export.opset {settings.opset}: {type(module).__name__} has no form in it, only in opset {written}; ask "
            "for that, or leave the setting out"
        )
    weights = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path, external_data=weights > LARGEST)
    return signature


def trace_onnx(
    module: nn.Module,
    example: Inputs,
    *,
    settings: ExportSettings = FIXED,
    optimize: bool = True,
    signature: Signature | None = None,
) -> Any:
    """The exporter's `ONNXProgram` of `module` in eval mode.

    Args:
        module: The network.
        example: What it is called with, each `(batch, ...)`.
        settings: Which opset, and what is open: the batch falls back to fixed if the module's code fixes it.
        optimize: Whether the exporter rewrites the graph (folds constants and batch norms).
        signature: Of the module; found by a call if not given.
    """
    _check_has_form(module)
    signature = signature or Signature.of(module, example)
    with evaluating(module), quiet():
        program = _exported(copies.ready(module, example), example, signature, settings, optimize)
    _rename(program.model.graph, signature)
    program.model.metadata_props[ENTRY] = signature.text()
    return program


def _check_has_form(module: nn.Module) -> None:
    """Refuse what the exporter writes and no runtime opens.

    Raises:
        TargetError: An LSTM projects its states, for which ONNX has no operator.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.LSTM) and part.proj_size:
            raise TargetError(
                f"ONNX has no LSTM that projects its states, and {name or type(module).__name__} has proj_size = "
                f"{part.proj_size}; use the target torch_cpu, or proj_size = 0 and a linear layer behind it"
            )


def onnx_signature(data: bytes) -> Signature:
    """What enters and leaves a serialised ONNX model, whoever wrote it.

    Raises:
        TargetError: something that is no tensor does, or this is no ONNX model.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise TargetError(f"this is no ONNX model: {error}; export it again") from error
    graph = model.graph
    weights = {tensor.name for tensor in chain(graph.initializer, (s.values for s in graph.sparse_initializer))}
    ports = [_port(value) for value in graph.input if value.name not in weights]
    for value in graph.output:
        if not value.type.HasField("tensor_type"):
            raise TargetError(f"output {value.name!r} is a {value.type.WhichOneof('value')}; it must be a tensor")
    text = next((entry.value for entry in model.metadata_props if entry.key == ENTRY), None)
    return Signature.read(text, ports, [value.name for value in graph.output])


def check_opset(opset: int) -> None:
    """Whether ONNX has it; 0 is none in particular.

    Raises:
        ConfigError: It has not.
    """
    newest = onnx.defs.onnx_opset_version()
    if opset and not OLDEST <= opset <= newest:
        raise ConfigError(
            f"export.opset must be from {OLDEST} to {newest}, the newest of the ONNX that is installed, or 0 for the "
            f"exporter's own; got {opset}"
        )


def _exported(
    module: nn.Module, example: Inputs, signature: Signature, settings: ExportSettings, optimize: bool
) -> Any:
    def forward(*values: Tensor) -> tuple[Tensor, ...]:
        output = trees.call(module, signature.packed(values))
        return tuple(leaf.clone() for leaf in trees.leaves(output))  # each a value of its own, to be given a name

    flat, who = Adapted(module, forward), type(module).__name__
    options: dict[str, Any] = {"dynamo": True, "verbose": False, "optimize": optimize}
    options |= {"opset_version": settings.opset} if settings.opset else {}
    open_ = axes(example, [port.name for port in signature.inputs], settings.dynamic)
    if settings.batch == "open":
        open_ = batched(open_, example)
        example_ = several(example)
    else:
        example_ = example
    try:
        if not any(open_):
            return torch.onnx.export(flat, _values(example), **options)
        program: Any = torch.onnx.export(flat, _values(example_), dynamic_shapes=(tuple(open_),), **options)
        _check_open(program.model.graph, open_)
    except Exception as error:
        if settings.dynamic:
            raise NarrowError(obstacle(module, example, open_) or reason(error)) from error
        if not any(open_):
            raise TargetError(f"cannot export {who} to ONNX: {reason(error)}") from error
        return _exported(module, example, signature, replace(settings, batch="fixed"), optimize)  # or stopped again
    return program


def _check_open(graph: Any, open_: Axes) -> None:
    """The exporter may have given up on open sizes by itself."""
    for value, found in zip(graph.inputs, open_, strict=True):
        fixed = [symbol for axis, symbol in found.items() if isinstance(value.shape[axis], int)]
        if fixed:
            raise NarrowError(f"the network's code fixes the size {fixed[0]!r}")


def _values(inputs: Inputs) -> tuple[Tensor, ...]:
    return tuple(trees.leaves(inputs))


def _rename(graph: Any, signature: Signature) -> None:
    """Give inputs and outputs their names, and others to values that have them by chance."""
    ports = {id(value) for value in chain(graph.inputs, graph.outputs)}
    wanted = {*(port.place for port in signature.inputs), *signature.outputs}
    inner = [v for node in graph.all_nodes() for v in node.outputs if id(v) not in ports and v.name]
    inner += [v for v in graph.initializers.values() if id(v) not in ports]
    known = wanted | {value.name for value in inner}
    for value in inner:
        if value.name in wanted:
            name = f"{value.name}_inner"
            while name in known:
                name += "_"
            known.add(name)
            value.name = name
    for value, name in zip(graph.inputs, (port.place for port in signature.inputs), strict=True):
        value.name = name
    for value, name in zip(graph.outputs, signature.outputs, strict=True):
        value.name = name


def _port(value: Any) -> Port:
    if not value.type.HasField("tensor_type"):
        raise TargetError(f"input {value.name!r} is a {value.type.WhichOneof('value')}; it must be a tensor")
    tensor = value.type.tensor_type
    sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim]
    shape = tuple(sizes) if tensor.HasField("shape") else None
    return Port(value.name, value.name, shape, DTYPES.get(TensorProto.DataType.Name(tensor.elem_type)))
