"""What enters and leaves a network: names, shapes and types of its inputs, and the structure of its outputs.

A file of a network knows flat lists of tensors. Their names there, and a small JSON text next to them, bring back what
the module took (one tensor, a tuple, a dict) and gave (any tree).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.errors import TargetError
from sartor.core.foreign import first_line
from sartor.core.trees import Inputs, Tree
from sartor.exporting.sizes import BATCH
from sartor.exporting.structure import decoded, encoded, names
from sartor.exporting.tracing import evaluating

ENTRY = "sartor"
"""The key in the metadata of a file."""
VERSION = 1
"""Of the JSON text."""

Kind: TypeAlias = Literal["tensor", "tuple", "dict"]
Shape: TypeAlias = tuple[int | str | None, ...]
"""Sizes; equal symbols are equal sizes, None is any size."""


@dataclass(frozen=True)
class Port:
    """One tensor that enters.

    Attributes:
        name: What a caller calls it.
        place: What the file calls it.
        shape: None if unknown.
        dtype: None if unknown.
    """

    name: str
    place: str
    shape: Shape | None = None
    dtype: torch.dtype | None = None

    def __str__(self) -> str:
        return f"{self.name!r}, {_described(self.shape, self.dtype)}"

    def fits(self, value: object, sizes: dict[str, int]) -> bool:
        """Whether `value` may enter; `sizes` of symbols, known from the inputs before, are added to."""
        if not isinstance(value, Tensor) or (self.dtype is not None and value.dtype != self.dtype):
            return False
        if self.shape is None:
            return True
        return len(self.shape) == value.dim() and all(
            wanted is None or found == (sizes.setdefault(wanted, found) if isinstance(wanted, str) else wanted)
            for wanted, found in zip(self.shape, value.shape, strict=True)
        )


@dataclass(frozen=True)
class Signature:
    """Of a network.

    Attributes:
        kind: What the module is called with.
        inputs: In the order of the file.
        outputs: Names in the file, in its order.
        tree: An output, of which only the structure counts; None if a program gives it by itself.
    """

    kind: Kind
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    tree: Tree

    @classmethod
    def of(cls, module: nn.Module, example: Inputs) -> Signature:
        """Of a module, which is run once in eval mode.

        Inputs are called by the keys of a dict or the parameters of `forward`, `input` if there is one only; outputs
        by keys and fields, `output` if there is one only (`structure.names`). Names in a file differ by underscores
        where they are taken.

        Args:
            module: The network.
            example: What it is called with, each `(batch, ...)`, on its device.

        Raises:
            TargetError: the module cannot run the example, or returns no tensors.
        """
        who = type(module).__name__
        if any(t.is_meta for _, t in _state(module)):
            raise TargetError(
                f"{who} is on the meta device, so it has no weights to write; fill it with some (to_empty, then "
                "load_state_dict)"
            )
        try:
            with evaluating(module):
                output = trees.call(module, example)
        except Exception as error:
            raise TargetError(
                f"{who} cannot run inputs of shapes {trees.shapes(example)}: {first_line(error, named=True)}"
            ) from error
        if not trees.leaves(output):
            raise TargetError(f"{who} returns a {type(output).__name__} without tensors; a network must return tensors")
        encoded(output)  # what no file can hold is refused here
        given, taken = _named(module, example), {name for name, _ in _state(module)}
        ports = [
            Port(name, _free(name, taken), (BATCH, *t.shape[1:]) if t.dim() else (), t.dtype)
            for name, t in given.items()
        ]
        outputs = [_free(name, taken) for name in names(output, "output")]
        return cls(kind_of(example), tuple(ports), tuple(outputs), output)

    @classmethod
    def read(cls, text: str | None, ports: Sequence[Port], outputs: Sequence[str]) -> Signature:
        """Of a file with these inputs and outputs.

        Args:
            text: What `text` has given, or None: one output is then a tensor, several are a dict by name.
            ports: In the order of the file; their names are replaced by those in `text`.
            outputs: In the order of the file.

        Raises:
            TargetError: the text is damaged, or belongs to another file.
        """
        if text is None:
            tree = torch.empty(0) if len(outputs) == 1 else {name: torch.empty(0) for name in outputs}
            return cls("tensor" if len(ports) == 1 else "dict", tuple(ports), tuple(outputs), tree)
        try:
            kind, names, tree = _parsed(text, len(ports), len(outputs))
        except (ValueError, TypeError, RecursionError) as error:
            raise TargetError(
                f"metadata entry {ENTRY!r} of the file does not describe it: {error}; export the network again, or "
                f"remove the entry"
            ) from error
        return cls(kind, tuple(replace(p, name=n) for p, n in zip(ports, names, strict=True)), tuple(outputs), tree)

    def text(self) -> str:
        """JSON from which `read` makes the same of a file's own names, shapes and types."""
        names = [port.name for port in self.inputs]
        words = {"version": VERSION, "kind": self.kind, "inputs": names, "output": encoded(self.tree)}
        return json.dumps(words, separators=(",", ":"))

    def ordered(self, inputs: Inputs) -> list[Tensor]:
        """The tensors in the order of the file; a tuple is taken in this order, a dict by name.

        Raises:
            TargetError: they are others, or of other shapes or types, than the network takes.
        """
        values, sizes = self._values(inputs), dict[str, int]()
        for port, value in zip(self.inputs, values, strict=True):
            before = dict(sizes)
            if not port.fits(value, sizes):
                known = {symbol: size for symbol, size in before.items() if symbol in (port.shape or ())}
                note = f" (where {', '.join(f'{k} is {v}' for k, v in known.items())})" if known else ""
                raise TargetError(f"the network needs input {port}{note}; got {_found(value)}")
        return values

    def packed(self, values: Sequence[Tensor]) -> Inputs:
        """What the module is called with, from tensors in the order of the file."""
        if self.kind == "dict":
            return {port.name: value for port, value in zip(self.inputs, values, strict=True)}
        return values[0] if self.kind == "tensor" else tuple(values)

    def rebuilt(self, values: Iterable[Tensor]) -> Tree:
        """The output that consists of these tensors, which come in the order of the file."""
        rest = iter(values)
        return trees.mapped(lambda _: next(rest), self.tree)

    def giving(self, tree: Tree) -> Signature:
        """The same with outputs in the structure of `tree`: the module's own classes, where they are at hand."""
        return replace(self, tree=tree)

    def _values(self, inputs: Inputs) -> list[Any]:
        names = [port.name for port in self.inputs]
        if isinstance(inputs, Mapping):
            wrong = [f"no {n!r}" for n in names if n not in inputs] + [f"{n!r}" for n in inputs if n not in names]
            if not wrong:
                return [inputs[name] for name in names]
            got = ", ".join(wrong)
        else:
            values = list(inputs) if isinstance(inputs, tuple | list) else [inputs]
            if len(values) == len(names):
                return values
            got = f"{len(values)} of {len(names)} in order"
        raise TargetError(f"the network needs inputs {'; '.join(map(str, self.inputs))}; got {got}")


def input_names(module: nn.Module, example: Inputs) -> list[str]:
    """What a caller calls the inputs of a network, in the order of the example's tensors."""
    return list(_named(module, example))


def kind_of(inputs: Inputs) -> Kind:
    """What a module is called with."""
    return "tensor" if isinstance(inputs, Tensor) else "dict" if isinstance(inputs, Mapping) else "tuple"


def _named(module: nn.Module, example: Inputs) -> dict[str, Tensor]:
    if isinstance(example, Mapping):
        return dict(example)
    values = [example] if isinstance(example, Tensor) else list(example)
    if len(values) == 1:
        return {"input": values[0]}
    found: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind not in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
            break
        found.append(parameter.name)
    found += [f"input_{i}" for i in range(len(found), len(values))]  # of `*args`
    return dict(zip(found[: len(values)], values, strict=True))


def _state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _parsed(text: str, inputs: int, outputs: int) -> tuple[Kind, list[str], Tree]:
    match json.loads(text):
        case {"version": 1, "kind": "tensor" | "tuple" | "dict" as kind, "inputs": list() as names, "output": node}:
            tree = decoded(node)
        case _:
            raise ValueError("its form is unknown")
    found = len(names), len(trees.leaves(tree))
    if found != (inputs, outputs) or (kind == "tensor" and inputs != 1) or len(set(map(str, names))) != len(names):
        raise ValueError(f"it has {found[0]} inputs and {found[1]} outputs, the file {inputs} and {outputs}")
    return kind, [str(name) for name in names], tree


def _described(shape: Shape | None, dtype: torch.dtype | None) -> str:
    kind = "a tensor" if dtype is None else str(dtype).removeprefix("torch.")
    if shape is None:
        return kind
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    return f"{kind} of shape ({sizes}{',' if len(shape) == 1 else ''})"


def _found(value: object) -> str:
    return _described(tuple(value.shape), value.dtype) if isinstance(value, Tensor) else f"a {type(value).__name__}"
