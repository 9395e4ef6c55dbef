"""The operators that a network calls, written down while it runs on tensors without values: in tenths of a second.

torch.export gives the same graph and takes ten times as long, nearly all of it for what is not needed here (guards,
signatures, checks of the program that it writes). Whatever is unusual raises, and torch.export is asked instead
(`sartor.surgery.analysis.trace`), so that its errors and its view of the network remain the last word.
See docs/decisions/0005-recording.md.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from sartor.core import copies, trees
from sartor.core.dispatch import Watching, running
from sartor.core.trees import Inputs, Tree
from sartor.networks import unfused
from sartor.surgery.analysis.structure import arguments, outline


class UnusualError(Exception):
    """Something that only torch.export can judge."""


@dataclass(frozen=True)
class Box:
    """A module that is left as it is.

    Attributes:
        given: Its arguments, `(args, kwargs)`, with tensors without values.
        result: What it returns, likewise.
    """

    given: tuple[tuple[Tree, ...], dict[str, Tree]]
    result: Tree


@dataclass(frozen=True)
class Traced:
    """A network as a list of operators.

    Attributes:
        graph: Placeholders first (weights, constants, inputs), calls of aten operators, one output: the tensors.
        weights: Name of a placeholder -> name of the parameter or buffer; of several names of one tensor, the first.
        constants: Name of a placeholder -> a tensor that the network holds, or makes, itself.
        inputs: Argument of `forward`, in the order of its signature -> name of its placeholder.
        structure: The network's result with tensors without values (`structure.filled`).
        boxes: Name of a module that is left as it is -> how it is called, and what it returns.
    """

    graph: fx.Graph
    weights: Mapping[str, str]
    constants: Mapping[str, Tensor]
    inputs: Mapping[str, str]
    structure: Tree
    boxes: Mapping[str, Box] = field(default_factory=dict)


def valueless() -> FakeTensorMode:
    """What makes tensors without values of others, and knows again what it has made: recordings may share it."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def record(network: nn.Module, inputs: Inputs, fakes: FakeTensorMode | None = None) -> Traced:
    """Run `network` in its present mode on something shaped like `inputs`; it is not touched.

    Args:
        network: With weights that may have values.
        inputs: Likewise.
        fakes: Shared with other recordings of the same network, whose weights are then looked at once.

    Raises:
        Exception: It cannot be run without values, or does something unusual: whatever the run raised.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise UnusualError("a scripted module")
    mode = fakes or valueless()
    tape = _Tape(mode)
    twin = _twin(network, tape)
    given = trees.mapped(mode.from_tensor, inputs)
    entrances = {name: tape.enter(name, value).name for name, value in arguments(network, given).items()}
    with ExitStack() as around:
        # the fused attention that runs without gradients is one operator that nobody knows
        for context in (torch.no_grad(), unfused(), mode, enable_python_dispatcher(), running(twin, tape.path)):
            around.enter_context(context)
        with _Recorder(tape):
            result = trees.call(twin, given)
    structure = outline(result, type(network).__name__)
    tape.graph.output([tape.node(leaf) for leaf in trees.leaves(result)])
    tape.graph.eliminate_dead_code()
    return Traced(tape.graph, tape.weights, tape.constants, entrances, structure)


@dataclass
class _Tape:
    """The graph so far, and which node stands for which tensor."""

    mode: FakeTensorMode
    graph: fx.Graph = field(default_factory=fx.Graph)
    weights: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    nodes: dict[int, fx.Node] = field(default_factory=dict)
    made: dict[int, fx.Node] = field(default_factory=dict)  # by storage
    alive: list[Tensor] = field(default_factory=list)  # an id must not be given twice
    path: list[tuple[str, type]] = field(default_factory=list)
    first: fx.Node | None = None

    def enter(self, name: str, value: Tensor) -> fx.Node:
        """A placeholder, in front of all calls."""
        if self.first is None:
            node = self.graph.placeholder(name)
        else:
            with self.graph.inserting_before(self.first):
                node = self.graph.placeholder(name)
        self.know(value, node)
        node.meta["val"] = value
        return node

    def know(self, value: Tensor, node: fx.Node) -> None:
        self.nodes[id(value)] = node
        self.alive.append(value)

    def node(self, value: Tensor) -> fx.Node:
        known = self.nodes.get(id(value))
        if known is None:
            if isinstance(value, FakeTensor):
                return self._made(value)
            known = self.enter(f"constant_{len(self.constants)}", value)
            known.meta["val"] = self.mode.from_tensor(value)
            self.constants[known.name] = value
        return known

    def _made(self, value: Tensor) -> fx.Node:
        """Of a new tensor (`torch.zeros`), whose first owner gets another object than the dispatcher has seen."""
        known = self.made.get(value.untyped_storage()._cdata)
        if known is None or known.meta["val"].shape != value.shape or known.meta["val"].dtype != value.dtype:
            raise UnusualError("a tensor out of nowhere")
        self.know(value, known)
        return known

    def argument(self, value: Any) -> Any:
        """What stands in the graph for an argument."""
        if isinstance(value, Tensor):
            return self.node(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self.argument(v) for v in value)
        return value

    def call(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> fx.Node:
        given = self.argument(args), {name: self.argument(value) for name, value in kwargs.items()}
        node = self.graph.call_function(target, *given)
        self.first = self.first or node
        node.meta["nn_module_stack"] = dict(enumerate(self.path))
        node.meta["stack_trace"] = _users_line(sys._getframe(2))
        return node

    def result(self, node: fx.Node, value: Any) -> None:
        """The value of a node; the parts of several get nodes of their own."""
        node.meta["val"] = value
        if isinstance(value, Tensor):
            self.know(value, node)
            if not node.all_input_nodes:
                self.made[value.untyped_storage()._cdata] = node
            return
        for i, part in enumerate(value):
            if isinstance(part, Tensor):
                taken = self.graph.call_function(operator.getitem, (node, i))
                taken.meta = {**node.meta, "val": part}
                self.know(part, taken)


_DETACH = torch.ops.aten.detach_.default
_FRESH = torch.ops.aten.lift_fresh_copy.default
"""How a constant enters a graph that runs more than once."""


class _Recorder(Watching):  # type: ignore[no-untyped-call]
    """Writes down what is called, as torch.export would see it."""

    def __init__(self, tape: _Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if torch.Tag.inplace_view in func.tags and func is not _DETACH:  # it would change what is recorded so far
            raise UnusualError("a shape that is changed in place")
        value = func(*args, **kwargs)
        several = isinstance(value, (tuple, list)) and any(isinstance(v, Tensor) for v in value)
        if isinstance(value, Tensor) or several:
            target = _FRESH if func is torch.ops.aten.lift_fresh.default else func
            self.tape.result(self.tape.call(target, args, kwargs), value)
        return value


def _twin(network: nn.Module, tape: _Tape) -> nn.Module:
    """The network with weights without values: what it remembers while it runs is not the original's business."""
    memo: dict[int, Any] = {}
    named = [*network.named_parameters(), *network.named_buffers()]  # tied ones under their first name
    for name, value in named:
        memo[id(value)] = fake = tape.mode.from_tensor(value)
        tape.weights[tape.enter(name.replace(".", "_"), fake).name] = name
    return copies.faithful(network, memo)


def _users_line(frame: FrameType | None) -> str:
    """Where the call comes from in the network's own code, as in a traceback."""
    while frame is not None:
        if not _is_tool(frame.f_code.co_filename):
            return f'File "{frame.f_code.co_filename}", line {frame.f_lineno}'
        frame = frame.f_back
    return ""


_TOOLS = (str(Path(torch.__file__).parent), __file__)


@cache
def _is_tool(file: str) -> bool:
    return file.startswith(_TOOLS)
