"""The graph of a network, as torch.export sees it: one node per operator, with the names of all weights.

The batch has a fixed size while tracing; which numbers in the graph come from it is told by the labels
(`sartor.surgery.analysis.units`), so that the graph can be run with any batch. See docs/decisions/0004-torch-export.md.
"""

from __future__ import annotations

import io
import logging
import operator
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export.graph_signature import InputKind
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_unflatten

from sartor.core import copies, trees
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.trees import Inputs, Tree
from sartor.surgery.analysis.opaque import collapse, stand_ins
from sartor.surgery.analysis.recording import Traced, record
from sartor.surgery.analysis.structure import arguments, outline, same_batch

BATCH = 2
"""Examples in the traced batch: one would be taken for a dimension that broadcasts."""


class UntraceableError(CapabilityError):
    """The network's code cannot be followed.

    Args:
        message: Why, and where.
        running: Names of the modules whose code was running, innermost first.
    """

    def __init__(self, message: str, running: Sequence[str]) -> None:
        super().__init__(message)
        self.running = tuple(running)


def trace(
    network: nn.Module,
    example: Inputs,
    ignore: Sequence[str] = (),
    *,
    examples: int = BATCH,
    fakes: FakeTensorMode | None = None,
) -> Traced:
    """The graph of `network` in its present mode, for inputs like `example`, each `(1, ...)`.

    Args:
        network: Left as it is.
        example: Only shapes and types count, unless something is ignored.
        ignore: Names of modules that are not looked into.
        examples: The size of the batch.
        fakes: Shared by several recordings of one network.

    Raises:
        ConfigError: It does not run on such inputs, they are no batch, or `ignore` names something that it does not
            have.
        UntraceableError: Its Python code cannot be followed, because it depends on values, say. The message names the
            line.
        CapabilityError: It hands on something else than tensors.
    """
    found = _traced(network, example, ignore, examples, _exported, fakes)
    assert found is not None, "what is exported is there, or raises"
    return found


def retraced(
    network: nn.Module, example: Inputs, ignore: Sequence[str], examples: int, fakes: FakeTensorMode | None = None
) -> Traced | None:
    """The same the quick way, for another size of the batch, say; None where that is not enough, or it does not run."""
    try:
        return _traced(network, example, ignore, examples, lambda _network, _inputs: None, fakes)
    except Exception:  # noqa: BLE001 - the network's own code, with numbers it was not written for
        return None


def _traced(
    network: nn.Module,
    example: Inputs,
    ignore: Sequence[str],
    examples: int,
    otherwise: Callable[[nn.Module, Inputs], Traced | None],
    fakes: FakeTensorMode | None,
) -> Traced | None:
    try:
        same_batch(arguments(network, example))
    except DataError as error:
        raise ConfigError(str(error)) from error
    inputs = trees.joined([example] * examples)
    network = copies.faithful(network) if ignore else network  # parts of it are run, and replaced
    with ExitStack() as around, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        around.enter_context(_silence())
        around.enter_context(torch.compiler.set_stance("force_eager"))  # functions that the network has compiled
        with stand_ins(network, ignore, inputs) as boxes:
            traced = _recorded(network, inputs, fakes) or otherwise(network, inputs)
    if traced is None:
        return None
    collapse(traced.graph, boxes, {n: place(n) for n in traced.graph.nodes})
    return replace(traced, boxes=boxes)


def _recorded(network: nn.Module, inputs: Inputs, fakes: FakeTensorMode | None) -> Traced | None:
    """The quick way; None where it meets anything unusual."""
    try:
        return record(network, inputs, fakes)
    except Exception:  # noqa: BLE001 - whatever it was, torch.export judges it
        return None


def _exported(network: nn.Module, inputs: Inputs) -> Traced:
    """The thorough way."""
    args, kwargs = trees.arguments(inputs)
    network = copies.faithful(network)  # its forward leaves tensors without values behind
    try:
        with _leaves_only(network) as structures:
            program = torch.export.export(network, args, kwargs, strict=False)
    except (ConfigError, CapabilityError):
        raise
    except Exception as error:  # torch.export raises whatever its tracer or the network's own code does
        _check_runs(network, inputs)
        raise UntraceableError(_explain(network, error), _running(network, error)) from error
    graph = _inlined(program.graph_module)
    weights, constants, entrances = dict[str, str](), dict[str, Tensor](), list[str]()
    known = _first_names(network)
    entries = [node for node in graph.nodes if node.op == "placeholder"]  # under names of their own, in the same order
    for spec, entry in zip(program.graph_signature.input_specs, entries, strict=True):
        name = entry.name
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            assert spec.target is not None
            weights[name] = known.get(spec.target, spec.target)
        elif spec.kind == InputKind.CONSTANT_TENSOR:
            assert spec.target is not None
            constants[name] = program.constants[spec.target]
        elif spec.kind == InputKind.USER_INPUT:
            entrances.append(name)
        else:
            raise CapabilityError(f"{type(network).__name__} hands {spec.kind.name} objects around; only tensors work")
    placed: Any = _as_given(inputs, *tree_unflatten(entrances, program.call_spec.in_spec))
    named: dict[str, Any] = arguments(network, placed)
    return Traced(graph, weights, constants, named, structures[-1])


@contextmanager
def _leaves_only(network: nn.Module) -> Iterator[list[Tree]]:
    """Let the network return a list of its tensors: torch.export knows few containers; what it returned itself."""
    forward, structures = network.forward, list[Tree]()

    @wraps(forward)
    def flat(*args: Any, **kwargs: Any) -> list[Tensor]:
        result = forward(*args, **kwargs)
        structures.append(outline(result, type(network).__name__))
        return trees.leaves(result)

    network.forward = flat
    try:
        yield structures
    finally:
        del network.forward


def _as_given(inputs: Inputs, args: Any, kwargs: Any) -> Any:
    """Arguments as they come in an `Inputs`."""
    return args[0] if isinstance(inputs, Tensor) else kwargs if isinstance(inputs, dict) else tuple(args)


def place(node: fx.Node) -> str:
    """The name of the innermost module a node comes from, `""` for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = ""
    for name, _ in stack.values():
        path = name
    return re.sub(r"@\d+$", "", str(path))


def around(name: str) -> Iterator[str]:
    """The names of a module and of those that it is in, innermost first; not the network's own, `""`."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def line(node: fx.Node) -> str:
    """Where the network's own code calls the operator, as `file:line`."""
    return _last_line(re.findall(r'File "([^"]+)", line (\d+)', str(node.meta.get("stack_trace") or "")))


def _last_line(frames: list[tuple[str, str]]) -> str:
    own = [f for f in frames if "/torch/" not in f[0].replace("\\", "/")]
    return ":".join(own[-1]) if own else ""


def _first_names(network: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer -> the first name of the same tensor (weights may be tied)."""
    first: dict[int, str] = {}
    named = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def _check_runs(network: nn.Module, inputs: Inputs) -> None:
    """Tell a network that cannot be traced from one that does not run at all.

    Raises:
        ConfigError: It does not take this input.
    """
    try:
        with torch.no_grad():
            trees.call(network, inputs)
    except Exception as error:
        raise ConfigError(
            f"{type(network).__name__} does not run on {_words(inputs)}: {error}; give "
            "the shape that it was made for (--input 1,3,224,224, or size), of several inputs each with its name "
            "(--input image=1,3,64,64 --input ids=1,16:int64)"
        ) from error


def _words(inputs: Inputs) -> str:
    """Shapes, and names of several inputs, of one example."""
    if isinstance(inputs, Tensor):
        return f"an input of shape {(1, *inputs.shape[1:])}"
    return "inputs of the shapes " + ", ".join(
        f"{name} {(1, *value.shape[1:])}" for name, value in trees.named(inputs, "input").items()
    )


@contextmanager
def _silence() -> Iterator[None]:
    """torch.export prints the graph so far when it gives up; the error says what matters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _explain(network: nn.Module, error: Exception) -> str:
    frames = [(f.filename, str(f.lineno)) for f in traceback.extract_tb(error.__traceback__)]
    where = _last_line([f for f in frames if "/sartor/" not in f[0].replace("\\", "/")])
    inside = _last_line(re.findall(r'File "([^"]+)", line (\d+)', str(error))) or where
    first = next((text.strip() for text in str(error).splitlines() if text.strip()), type(error).__name__)
    if _packs(error):
        return (
            f"{type(network).__name__} cannot be traced: {where or 'its forward'} gives a packed sequence to a "
            "recurrent layer, and how long that is depends on values. Give the padded batch to the layer, or put "
            "packing, layer and unpacking into a module of their own and leave that alone with ignore"
        )
    return (
        f"{type(network).__name__} cannot be traced: {inside or 'its forward'} ({first[:200]}). Networks whose path "
        "depends on values, not shapes, cannot be cut"
    )


def _packs(error: Exception) -> bool:
    """Whether some code that was running held a packed sequence."""
    frames = [frame.f_locals.values() for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(isinstance(value, PackedSequence) for held in frames for value in held)


def _running(network: nn.Module, error: Exception) -> list[str]:
    """The names of the modules whose code was running, innermost first, and those around them."""
    names = {id(module): name for name, module in network.named_modules() if name}
    frames = [names.get(id(frame.f_locals.get("self")), "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = [name for name in reversed(frames) if name]
    return list(dict.fromkeys([*found, *around(found[0] if found else "")]))


def _inlined(module: fx.GraphModule) -> fx.Graph:
    """The graph with sub-graphs (regions without gradient, or under autocast) in line."""
    inliner = _Inliner()
    for node in module.graph.nodes:
        inliner.copied[node] = inliner.copy(module, node)
    return inliner.graph


class _Inliner:
    """Copies graphs into one."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.copied: dict[fx.Node, Any] = {}

    def copy(self, source: fx.GraphModule, node: fx.Node) -> Any:
        """The copy of a node: a node, a sub-graph, or what a sub-graph returned."""
        if node.op == "get_attr":
            return getattr(source, str(node.target))
        if str(node.target).startswith("aten._assert_"):  # of types and devices: they give nothing, and hold anyway
            return None
        if node.op == "call_function":
            body = next((a for a in node.args if self._is_graph(a)), None)
            if body is not None:
                given = [
                    self.copied[a] if isinstance(a, fx.Node) else a for a in node.args[node.args.index(body) + 1 :]
                ]
                return self.run(self.copied[body], given)  # type: ignore[index]
            whole = self.copied[node.args[0]] if node.target is operator.getitem else None  # type: ignore[index]
            if isinstance(whole, (tuple, list)):
                return whole[node.args[1]]  # type: ignore[index]
        return self.graph.node_copy(node, lambda n: self.copied[n])

    def _is_graph(self, value: Any) -> bool:
        return isinstance(value, fx.Node) and isinstance(self.copied.get(value), fx.GraphModule)

    def run(self, body: fx.GraphModule, given: Sequence[Any]) -> Any:
        """Copy a sub-graph; what it returns."""
        holes = iter(given)
        for node in body.graph.nodes:
            if node.op == "output":
                return fx.map_arg(node.args[0], lambda n: self.copied[n])
            self.copied[node] = next(holes) if node.op == "placeholder" else self.copy(body, node)
        raise ConfigError("a graph has no output; return one")
