"""From a cut to a network of its own: plain PyTorch, the original's class and names where its code allows.

The original is copied and its weights are replaced by their kept parts; the numbers that its modules remember
(`in_channels`, `num_heads`, ...) are changed alike. If the result computes what the cut computes, that is the network.
If not, because the channels stand as numbers in the code of some `forward`, the network is built of the traced graph,
with the original's layers under their original names.
"""

from __future__ import annotations

import dataclasses
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.dropout import _DropoutNd

from sartor.core import copies, trees
from sartor.core.errors import CapabilityError
from sartor.core.trees import Tree
from sartor.surgery.analysis.batches import Number, fitted
from sartor.surgery.analysis.opaque import opaque
from sartor.surgery.analysis.operators.rule import Call
from sartor.surgery.analysis.skeleton import changed_later
from sartor.surgery.analysis.structure import Step, paths
from sartor.surgery.analysis.trace import BATCH, around, place
from sartor.surgery.analysis.tracker import argument, number, operator_name, tensor, tensors
from sartor.surgery.cutting import recurrent
from sartor.surgery.cutting.slicing import Cut, Engine
from sartor.training.evaluation import mode

Numbers: TypeAlias = "defaultdict[str, defaultdict[int, set[int]]]"

_LEAVES = (_ConvNd, nn.Linear, _NormBase, nn.LayerNorm, nn.GroupNorm, _DropoutNd)
"""Layers that a network built of the graph takes over as modules."""


def as_module(engine: Engine, cut: Cut, *, borrowed: bool = False) -> nn.Module:
    """A copy of the network with smaller weights and smaller numbers; whether it computes the same is not checked.

    Args:
        engine: Of the network.
        cut: What is kept.
        borrowed: Whether parameters of which nothing is cut may be the network's own: for what is only looked at.
    """
    sizes = _remembered(engine, cut)
    own = {id(p): p for p in engine.network.parameters()} if borrowed else {}
    network = copies.faithful(engine.network, own | _memo(engine.network, _weights(engine, cut)))
    for name, module in network.named_modules():
        _renumber(module, sizes.get(name, {}))
    for node in engine.skeleton.calls:
        owner = place(node)
        layer = network.get_submodule(owner) if operator_name(node).startswith("conv") else None
        if isinstance(layer, _ConvNd):
            _regroup(layer, node, cut)
        norm = network.get_submodule(owner) if operator_name(node) == "group_norm" else None
        if isinstance(norm, nn.GroupNorm):
            norm.num_groups = cut.scale(number(node, 1), cut.inner(node))
    with mode(network, training=True):  # to forget what modules remember of the whole network's evaluation
        return network


def as_graph(engine: Engine, cut: Cut) -> nn.Module:
    """The network as a graph with the original's layers."""
    return _Builder(engine, cut).build()


def _weights(engine: Engine, cut: Cut) -> dict[str, Tensor]:
    """Every weight that is not kept whole, by name, as contiguous copies."""
    found: dict[str, Tensor] = {}
    state = dict(engine.network.named_parameters(remove_duplicate=False))
    whole: dict[str, Tensor] = {**state, **dict(engine.network.named_buffers(remove_duplicate=False))}
    for name, dims in engine.skeleton.coupling.weights():
        if name in whole and any(cut.mask(dim) is not None for dim in dims):
            found[name] = cut.narrow(whole[name].detach(), dims).clone(memory_format=torch.contiguous_format)
    return found


def _memo(network: nn.Module, weights: dict[str, Tensor]) -> dict[int, Any]:
    """For a copy: in place of these weights, wherever they stand, come new ones."""
    memo: dict[int, Any] = {}
    for name, value in weights.items():
        owner, _, leaf = name.rpartition(".")
        old = getattr(network.get_submodule(owner), leaf)
        memo[id(old)] = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
    return memo


def _remembered(engine: Engine, cut: Cut) -> dict[str, dict[int, int]]:
    """Module name -> what becomes of numbers of channels that occur inside it; ambiguous ones are left out."""
    own: Numbers = defaultdict(lambda: defaultdict(set))
    inside: Numbers = defaultdict(lambda: defaultdict(set))
    skeleton = engine.skeleton
    for node in skeleton.calls:
        owner = place(node)
        for other in (node, *tensors(node)):
            value = other.meta.get("val")
            dims = skeleton.tracker.dims(other) if isinstance(value, Tensor) else []
            for size, dim in zip(value.shape if isinstance(value, Tensor) else (), dims, strict=True):
                if dim is not None and not skeleton.period(dim):
                    left = cut.scale(int(size), dim)
                    own[owner][int(size)].add(left)
                    for name in (*around(owner), ""):
                        inside[name][int(size)].add(left)
    return {name: _clear(inside[name]) | _clear(own[name]) for name in inside}


def _clear(numbers: dict[int, set[int]]) -> dict[int, int]:
    return {size: min(left) for size, left in numbers.items() if len(left) == 1}


def _renumber(module: nn.Module, sizes: dict[int, int]) -> None:
    """Change the numbers a module remembers: those of torch's layers by their weights, others by what they were."""
    for kind, change in _CHANGES.items():
        if isinstance(module, kind):
            change(module, sizes)
            return
    for key, value in vars(module).items():
        if not key.startswith("_") and key != "training":
            vars(module)[key] = _renumbered(value, sizes)


def _renumber_linear(module: nn.Linear, _sizes: dict[int, int]) -> None:
    module.out_features, module.in_features = module.weight.shape


def _renumber_layer_norm(module: nn.LayerNorm, sizes: dict[int, int]) -> None:
    old = module.normalized_shape
    module.normalized_shape = (
        tuple(sizes.get(n, n) for n in old) if _without_weight(module) else tuple(module.weight.shape)
    )


def _renumber_norm(module: _NormBase, sizes: dict[int, int]) -> None:
    held = next((t for t in (module.running_mean, module.weight) if t is not None), None)
    full = module.num_features
    module.num_features = sizes.get(full, full) if held is None else len(held)


def _renumber_attention(module: nn.MultiheadAttention, sizes: dict[int, int]) -> None:
    module.num_heads = sizes.get(module.num_heads, module.num_heads)
    module.embed_dim = module.kdim = module.vdim = module.out_proj.weight.shape[0]


def _renumbered(value: Any, sizes: dict[int, int]) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return sizes.get(value, value)
    if type(value) in (tuple, list):
        return type(value)(_renumbered(v, sizes) for v in value)
    return value


def _renumber_convolution(module: _ConvNd, _sizes: dict[int, int]) -> None:
    first, second = module.weight.shape[:2]
    depthwise = module.groups > 1 and module.groups == module.in_channels
    per = module.in_channels // module.groups
    if isinstance(module, _ConvTransposeNd):
        module.groups = first if depthwise else max(1, first // per) if module.groups > 1 else 1
        module.in_channels, module.out_channels = first, second * module.groups
    else:
        outputs = module.out_channels // module.groups
        if depthwise or (module.groups > 1 and second == per):
            module.groups = first // outputs
        module.in_channels, module.out_channels = second * module.groups, first


def _renumber_group_norm(module: nn.GroupNorm, sizes: dict[int, int]) -> None:
    old = module.num_channels
    module.num_channels = sizes.get(old, old) if _without_weight(module) else len(module.weight)


def _without_weight(module: nn.Module) -> bool:
    return getattr(module, "weight", None) is None


_CHANGES: Mapping[type[nn.Module], Callable[[Any, dict[int, int]], None]] = MappingProxyType(
    {
        _ConvNd: _renumber_convolution,
        nn.Linear: _renumber_linear,
        nn.LayerNorm: _renumber_layer_norm,
        _NormBase: _renumber_norm,
        nn.GroupNorm: _renumber_group_norm,
        nn.MultiheadAttention: _renumber_attention,
        nn.RNNBase: recurrent.renumber_layer,
        nn.RNNCellBase: recurrent.renumber_cell,
    }
)


class _Builder:
    """A network from the traced graph."""

    def __init__(self, engine: Engine, cut: Cut) -> None:
        self.engine, self.cut, self.skeleton = engine, cut, engine.skeleton
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, Any] = {}
        self.root = nn.Module()
        self.modules = dict(engine.network.named_modules())
        self.recurrent = recurrent.layers(engine.skeleton, self.modules)
        self.state: dict[str, Tensor] = {
            **dict(engine.network.named_parameters(remove_duplicate=False)),
            **dict(engine.network.named_buffers(remove_duplicate=False)),
        }
        self.narrow = _weights(engine, cut)
        self.size: fx.Node | None = None
        self.others = [cut.of(examples) for examples in OTHERS]

    def build(self) -> nn.Module:
        traced = self.skeleton.coupling.traced
        owned = self._owned()
        self.inputs = {placed: self.graph.placeholder(name) for name, placed in traced.inputs.items()}
        for node in self.skeleton.nodes:
            if node.op == "output":
                results: Any = fx.map_arg(node.args[0], self._copy)
                self.graph.output(_written(self.graph, traced.structure, iter(results)))
            elif node.op == "placeholder":
                self.copies[node] = self.inputs.get(node.name)
            elif node in self.cut.skipped:
                continue
            elif node in self.cut.shortcuts:
                kept = self._copy(self.cut.shortcuts[node])
                self.copies[node] = self.graph.call_method("clone", (kept,)) if changed_later(node) else kept
            else:
                self._step(node, owned)
        for node in reversed(self.graph.nodes):  # zeros that a recurrent layer makes itself, states that nobody reads
            if not node.users and (node.target is operator.getitem or operator_name(node) == "zeros"):
                self.graph.erase_node(node)
        network = fx.GraphModule(self.root, self.graph, type(self.engine.network).__name__)
        return network.train(self.engine.network.training)

    def _step(self, node: fx.Node, owned: Mapping[fx.Node, str]) -> None:
        """A layer or call, with the sum that may be put in front of it."""
        further = self.cut.added.get(node)
        if further is not None:
            x = tensor(node, 0)
            before = self._copy(x)
            self.copies[x] = self.graph.call_function(torch.add, (before, self._copy(further)))
        if node in owned:
            self._layer(node, owned[node])
        elif node in self.recurrent:
            self._recurrent(node, self.recurrent[node])
        else:
            self.copies[node] = self._call(node)
        if further is not None:
            self.copies[x] = before

    def _owned(self) -> dict[fx.Node, str]:
        """Nodes that are all that a layer of the network does, and the layer's name."""
        by_name: dict[str, list[fx.Node]] = defaultdict(list)
        for node in self.skeleton.calls:
            if isinstance(self.modules.get(place(node)), _LEAVES):
                by_name[place(node)].append(node)
        found = {}
        for name, nodes in by_name.items():
            weights = [n for n in tensors(nodes[0])[1:] if n.op == "placeholder"]
            mine = [self.skeleton.weights.get(w.name, "") for w in weights]
            plain = all(w.rpartition(".")[0] == name for w in mine) and len(tensors(nodes[0])) == 1 + len(weights)
            if len(nodes) == 1 and plain and not _parametrized(self.modules[name]):
                found[nodes[0]] = name
        return found

    def _narrowed(self, name: str) -> nn.Module:
        """A copy of a layer with the weights that are kept."""
        whole = self.modules[name]
        mine = (*whole._parameters, *whole._buffers)
        weights = {leaf: self.narrow[f"{name}.{leaf}"] for leaf in mine if f"{name}.{leaf}" in self.narrow}
        layer = copies.faithful(whole, _memo(whole, weights))
        layer._forward_hooks.clear()  # what they do is in the graph
        layer._forward_pre_hooks.clear()
        return layer

    def _recurrent(self, node: fx.Node, name: str) -> None:
        layer = self._narrowed(name)
        _renumber(layer, {})
        self._place(name, layer)
        given = [self._copy(state) for state in recurrent.states(node, name)]
        x, lstm = self._copy(tensor(node, 0)), operator_name(node) == "lstm"
        self.copies[node] = recurrent.called(self.graph, name, x, given, lstm=lstm)

    def _layer(self, node: fx.Node, name: str) -> None:
        layer = self._narrowed(name)
        x = tensor(node, 0)
        shape = zip(self.skeleton.tracker.shape(x), self.skeleton.tracker.dims(x), strict=True)
        _renumber(layer, {n: self.cut.scale(n, dim) for n, dim in shape if dim is not None})
        if isinstance(layer, nn.GroupNorm):
            layer.num_groups = self.cut.scale(number(node, 1), self.cut.inner(node))
        if isinstance(layer, _ConvNd):
            _regroup(layer, node, self.cut)
        self._place(name, layer)
        self.copies[node] = self.graph.call_module(name, (self._copy(x),))

    def _place(self, name: str, layer: nn.Module) -> None:
        owner, leaf = self._owner(name)
        owner.add_module(leaf, layer)

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """The module that holds what is called `name`, made if need be, and the last part of the name."""
        owner = self.root
        *path, leaf = name.split(".")
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        return owner, leaf

    def _call(self, node: fx.Node) -> Any:
        call = self._opened(node)
        if call.target is opaque:
            return self._box(str(call.kwargs["module"]), fx.map_arg(call.args, self._copy))
        args, kwargs = call.args, call.kwargs
        if call.target is operator.getitem and isinstance(self.copies.get(args[0]), tuple):
            return self.copies[args[0]][args[1]]
        target = _FUNCTIONS.get(operator_name(node), call.target)
        if target is torch.ops.aten.view.default and self.cut.shortcuts:  # what it sees now may lie otherwise in memory
            target = torch.ops.aten.reshape.default
        return self.graph.call_function(target, fx.map_arg(args, self._copy), fx.map_arg(kwargs, self._copy))

    def _box(self, name: str, given: tuple[Any, ...]) -> Any:
        """A module that is left as it is: its result if that is one tensor, else all tensors in it."""
        box = self.skeleton.coupling.traced.boxes[name]
        self._place(name, copies.faithful(self.modules[name]))
        args, kwargs = _written(self.graph, box.given, iter(given))
        result = self.graph.call_module(name, args, kwargs)
        found = tuple(self._part(result, path) for path in paths(box.result))
        return result if isinstance(box.result, Tensor) else found

    def _part(self, whole: fx.Node, path: tuple[Step, ...]) -> fx.Node:
        for kind, key in path:
            whole = self.graph.call_function(operator.getitem if kind == "item" else getattr, (whole, key))
        return whole

    def _opened(self, node: fx.Node) -> Call:
        """The call with numbers that count examples as expressions of the batch at hand."""
        call = self.cut.call(node)
        if node not in self.skeleton.resized and node not in self.skeleton.numbers:
            return call
        calls = [other.call(node) for other in self.others]
        args = self._general(node, [call.args, *(other.args for other in calls)])
        kwargs = {name: self._general(node, [v, *(o.kwargs[name] for o in calls)]) for name, v in call.kwargs.items()}
        return Call(call.target, args, kwargs)

    def _general(self, node: fx.Node, values: Sequence[Any]) -> Any:
        """One argument out of those for batches of `BATCH` and of `OTHERS`."""
        first = values[0]
        if all(value is first or (type(value) is type(first) and value == first) for value in values):
            return first
        if isinstance(first, (list, tuple)) and all(len(value) == len(first) for value in values):
            return type(first)(self._general(node, parts) for parts in zip(*values, strict=True))
        number = fitted((), dict(zip((BATCH, *OTHERS), values, strict=True)))
        if number is not None:
            return self._counted(number)
        raise CapabilityError(
            f"{type(self.engine.network).__name__}: {operator_name(node)} in {place(node) or 'its own forward'} takes "
            f"{list(values)} for batches of {(BATCH, *OTHERS)}, which no graph can hold; put it into a module of its "
            "own, and ignore that"
        )

    def _counted(self, number: Number) -> Any:
        """A number that depends on how many examples there are."""
        if self.size is None:
            first, *_, last = (*self.inputs.values(), *self.inputs.values())
            with self.graph.inserting_after(last):
                self.size = self.graph.call_function(torch.ops.aten.sym_size.int, (first, 0))
        whole = number.slope == 1 and isinstance(number.slope, int)
        found = self.size if whole else self.graph.call_function(operator.mul, (self.size, number.slope))
        return self.graph.call_function(operator.add, (found, number.start)) if number.start else found

    def _copy(self, node: fx.Node) -> Any:
        if node.graph is self.graph:
            return node
        if self.copies.get(node) is None:
            self.copies[node] = self._attribute(node)
        return self.copies[node]

    def _attribute(self, node: fx.Node) -> fx.Node:
        """A weight that no layer of its own holds."""
        traced = self.skeleton.coupling.traced
        if node.name in traced.constants:
            name = f"constant_{node.name}"
            value = self.cut.narrow(traced.constants[node.name], self.skeleton.tracker.dims(node))
            self.root.register_buffer(name, value.clone(), persistent=False)
            return self.graph.get_attr(name)
        name = self.skeleton.weights[node.name]
        owner, leaf = self._owner(name)
        if not hasattr(owner, leaf):
            old = self.state[name]
            value = self.narrow[name] if name in self.narrow else old.detach().clone()
            if isinstance(old, nn.Parameter):
                owner.register_parameter(leaf, nn.Parameter(value, old.requires_grad))
            else:
                holder = self.modules.get(name.rpartition(".")[0])
                kept = holder is None or leaf not in holder._non_persistent_buffers_set
                owner.register_buffer(leaf, value, persistent=kept)
        return self.graph.get_attr(name)


def _written(graph: fx.Graph, outline: Tree, nodes: Iterator[Any]) -> Any:
    """A tree of nodes as what a graph can hold: plain containers, and calls that make the others.

    Raises:
        CapabilityError: It has a mapping that its class cannot make of a dict.
    """
    if isinstance(outline, Tensor):
        return next(nodes)
    inside = trees.children(outline)
    if inside is None:
        return outline
    parts, kind = {key: _written(graph, value, nodes) for key, value in inside}, type(outline)
    if kind in (dict, tuple, list):
        return parts if kind is dict else kind(parts.values())
    if dataclasses.is_dataclass(outline):
        return graph.call_function(kind, (), parts)
    if isinstance(outline, Mapping):
        _check_makes(kind, outline)
        return graph.call_function(kind, (parts,))
    values = tuple(parts.values())
    return graph.call_function(kind, values if hasattr(outline, "_fields") else (values,))


def _check_makes(kind: type, outline: Mapping[str, Any]) -> None:
    try:
        same = isinstance(kind(dict(outline)), kind)
    except Exception:  # noqa: BLE001 - whatever a foreign class raises
        same = False
    if not same:
        raise CapabilityError(f"a {kind.__name__} cannot be made of a dict; give a dict or a dataclass instead of it")


_FUNCTIONS: Mapping[str, Any] = MappingProxyType(
    {
        name: getattr(nn.functional, name)
        for name in ("linear", *(f"conv{kind}{rank}d" for kind in ("", "_transpose") for rank in "123"))
    }
)
"""Operators under the names by which people, and counters of multiply-adds, know them."""
OTHERS = (1, 3, 5)
"""Further sizes of the batch, which tell what the numbers of a graph are for any."""


def _regroup(layer: _ConvNd, node: fx.Node, cut: Cut) -> None:
    """Give a convolution the groups of its call in a cut."""
    if int(argument(node, 6, "groups", 1)) > 1:
        call = cut.call(node)
        layer.groups = call.args[6] if len(call.args) > 6 else call.kwargs["groups"]
        _set_channels(layer)


def _set_channels(layer: _ConvNd) -> None:
    first, second = layer.weight.shape[:2]
    if isinstance(layer, _ConvTransposeNd):
        layer.in_channels, layer.out_channels = first, second * layer.groups
    else:
        layer.in_channels, layer.out_channels = second * layer.groups, first


def _parametrized(layer: nn.Module) -> bool:
    """Whether its weight is computed from others, or its forward is not torch's own."""
    own = type(layer).forward.__module__
    return torch.nn.utils.parametrize.is_parametrized(layer) or not own.startswith("torch.nn.modules")
