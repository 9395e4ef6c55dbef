"""Narrow networks of one family as ONNX models within milliseconds, by slicing the widest one's weights.

An export by tracing takes seconds, a latency model wants hundreds of networks, and the time a network takes depends on
its shapes only. So the widest network is traced once, and a narrower one is the same graph with sliced parameters. Some
numbers in a graph follow the widths too (groups of a depthwise convolution, the zeros of a padding shortcut, the sizes
of a reshape): which ones, and how, is learned from every network that had to be traced after all. They follow from the
shapes of parameters, and from the integers that modules hold and recorded graphs call their operators with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir.passes.common as passes
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxscript import optimizer
from torch import Tensor, fx, nn

from sartor.core import trees
from sartor.core.contracts import Session
from sartor.core.copies import faithful
from sartor.core.errors import TargetError
from sartor.core.rng import torch_rng
from sartor.core.trees import Inputs
from sartor.exporting.agreement import drawn, parity
from sartor.exporting.onnx_file import trace_onnx

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Integers: TypeAlias = Mapping[tuple[str, str, int], int]
"""What modules and graphs hold: (module, attribute, position) or (node, "", position) -> its value."""
Place: TypeAlias = tuple[str, str | int, str, int]
"""Where a number stands: ("attribute", node, name, i), ("constant", name, "", i) or ("fill", name, "", axis)."""
Ints: TypeAlias = NDArray[np.int64]

KEPT = 2**29
"""Bytes of traced networks that are kept."""
TINY = 1e-30
"""Weights below this become zero: numbers that fall below float32's normal range make a processor crawl."""


class OnnxTemplate:
    """Sessions of narrower networks of one family.

    A family may have a few graphs (a padding shortcut is left out where two widths are equal). Each is used once two
    networks of it have been traced and the outputs of a sliced one have been compared with PyTorch's. What fits no
    graph is traced: slow, and right.

    Args:
        module: The widest network; a copy is taken.
        example: What it is called with, each `(batch, ...)`; the batch of all products is this one.
        open_session: Makes a session of a serialised model.

    Attributes:
        sliced: Products made by slicing.
        traced: Products that had to be traced.
    """

    def __init__(self, module: nn.Module, example: Inputs, open_session: Callable[[bytes], Session]) -> None:
        self._example, self._open = example, open_session
        self._weights = sane_weights(module, example)
        self._graphs: list[_Family] = []
        self._learn(module, _shapes(module), _integers_of(module))
        self.sliced, self.traced = 0, 0
        self._files: dict[str, bytes] = {}

    def __call__(self, module: nn.Module) -> Session:
        """A session of a network with the shapes of `module`, which may be on the meta device.

        Raises:
            TargetError: the network can be neither sliced nor traced.
        """
        shapes = _shapes(module)
        if not self._covers(shapes):
            return self._whole(module)
        integers = _integers_of(module)
        for family in self._graphs:
            session = self._slice(family, shapes, integers) if family.trusted else None
            if session is not None:
                return session
        graph, family = self._learn(module, shapes, integers)
        if family.trusted is None and family.rules.learned > 1:
            family.trusted = self._agrees(family, module, shapes, integers)
        self.traced += 1
        return self._open(graph.filled(graph.numbers, self._sliced_weights(shapes)))

    def _covers(self, shapes: Shapes) -> bool:
        """Whether the widest network has all these parameters, and none of them smaller."""
        wide = self._weights
        return shapes.keys() == wide.keys() and all(
            len(s) == wide[n].dim() and all(a <= b for a, b in zip(s, wide[n].shape, strict=True))
            for n, s in shapes.items()
        )

    def _slice(self, family: _Family, shapes: Shapes, integers: Integers) -> Session | None:
        numbers = family.rules.predict(shapes, integers)
        if numbers is None:
            return None
        try:
            session = self._open(family.graph.filled(numbers, self._sliced_weights(shapes)))
            session(self._example)  # some runtimes notice shapes that do not fit only when they run
        except TargetError:  # another graph, or a number that had not varied before does here
            return None
        self.sliced += 1
        return session

    def _agrees(self, family: _Family, module: nn.Module, shapes: Shapes, integers: Integers) -> bool:
        session = self._slice(family, shapes, integers)
        if session is None:
            return False
        self.sliced -= 1
        try:
            parity(session, with_weights(module, self._sliced_weights(shapes)), self._example)
        except TargetError:
            return False
        return True

    def _learn(self, module: nn.Module, shapes: Shapes, integers: Integers) -> tuple[_Graph, _Family]:
        graph = _Graph.traced(with_weights(module, self._sliced_weights(shapes)), self._example)
        family = next((f for f in self._graphs if f.graph.signature() == graph.signature()), None)
        if family is None:
            family = _Family(graph, _Rules(graph.own_parameters()))
            self._graphs.append(family)
        family.rules.learn(shapes, integers, graph.numbers)
        return graph, family

    def _whole(self, module: nn.Module) -> Session:
        """Traced, with weights of its own; small ones are kept, as a network is often asked for again."""
        key = _likeness(module)
        file = self._files.get(key)
        if file is None:
            self.traced += 1
            program = trace_onnx(with_sane_weights(module, self._example), self._example)
            file = program.model_proto.SerializeToString()
            if sum(map(len, self._files.values())) + len(file) <= KEPT:
                self._files[key] = file
        return self._open(file)

    def _sliced_weights(self, shapes: Shapes) -> dict[str, Tensor]:
        """Leading channels of the widest network, scaled so that a layer's output keeps its size with fewer inputs."""
        return {name: _leading(self._weights[name], shape) for name, shape in shapes.items()}


@dataclass
class _Family:
    """Networks with one graph; `trusted` once a sliced one was compared with PyTorch."""

    graph: _Graph
    rules: _Rules
    trusted: bool | None = None


class _Rules:
    """How the numbers of a graph follow from shapes of parameters and integers: what every traced network agrees with.

    A number that varied is a size of its own node's parameters (outputs before inputs), else of any parameter (or half
    of it), else an integer that varied, too, else the difference of two sizes (or half of it). One that never varied is
    a constant, except that groups of convolutions and uniform tensors follow their own node's parameters where they
    can. As long as several formulas fit and disagree about a new network, that network must be traced, which rules some
    of them out.
    """

    def __init__(self, own: Mapping[Place, Sequence[str]]) -> None:
        self._own = own
        self._seen: list[tuple[Ints, Integers, Mapping[Place, int]]] = []
        self._fitting: dict[Place, _Formulas] = {}

    @property
    def learned(self) -> int:
        """The number of networks seen."""
        return len(self._seen)

    def learn(self, shapes: Shapes, integers: Integers, numbers: Mapping[Place, int]) -> None:
        self._keys = [(name, axis) for name, shape in shapes.items() for axis in range(min(2, len(shape)))]
        self._seen.append((self._sizes(shapes), dict(integers), dict(numbers)))
        sizes = np.stack([seen for seen, *_ in self._seen])  # (networks, sizes)
        self._fitting = {}
        for place in numbers:
            values = np.array([seen[place] for *_, seen in self._seen])
            near = [i for i, (name, _) in enumerate(self._keys) if name in self._own.get(place, ())]
            near.sort(key=lambda i: self._keys[i][1])  # output sizes first
            if (values != values[0]).any():
                self._fitting[place] = _Formulas.fitting(sizes, values, near, held=self._held(values))
            elif place[0] == "fill" or place[2] == "group":
                found = _Formulas.fitting(sizes, values, near, anywhere=False)
                self._fitting |= {place: found} if found else {}

    def predict(self, shapes: Shapes, integers: Integers) -> dict[Place, int] | None:
        """All numbers of a network with parameters of these shapes, or None where the formulas disagree."""
        sizes, numbers = self._sizes(shapes), dict(self._seen[0][-1])
        for place, formulas in self._fitting.items():
            value = formulas.value(sizes, integers)
            if value is None:
                return None
            numbers[place] = value
        return numbers

    def _held(self, values: Ints) -> list[tuple[str, str, int]]:
        """The integers that were `values` in every network."""
        first, *others = (integers for _, integers, _ in self._seen)
        return [
            key
            for key, value in first.items()
            if value == values[0] and all(o.get(key) == v for o, v in zip(others, values[1:], strict=True))
        ]

    def _sizes(self, shapes: Shapes) -> Ints:
        return np.array([shapes[name][axis] for name, axis in self._keys], dtype=np.int64)


class _Formulas:
    """Formulas `(size[plus] - size[minus]) // divisor` that fit; `minus` is -1 where nothing is subtracted.

    Or integers, which a network holds, that fit.
    """

    def __init__(self, plus: Ints, minus: Ints, divisor: int, held: Sequence[tuple[str, str, int]] = ()) -> None:
        self._plus, self._minus, self._divisor, self._held = plus, minus, divisor, held

    @classmethod
    def fitting(
        cls,
        sizes: Ints,
        values: Ints,
        near: Sequence[int],
        *,
        anywhere: bool = True,
        held: Sequence[tuple[str, str, int]] = (),
    ) -> _Formulas:
        """The simplest ones.

        Args:
            sizes: `(networks, sizes)`.
            values: `(networks,)`.
            near: Columns of `sizes` to try first.
            anywhere: Whether others are tried, too.
            held: Integers that fit.
        """
        for column in near:
            if (sizes[:, column] == values).all():
                return cls(np.array([column]), np.array([-1]), 1)
        every = np.arange(sizes.shape[1] if anywhere else 0)
        zeros = np.zeros((len(sizes), 1, 1), dtype=np.int64)
        for pairs, divisor in ((False, 1), (False, 2), (True, 1), (True, 2)):
            if pairs and held:
                break
            second = sizes[:, None, every] if pairs else zeros
            i, j = np.nonzero(((sizes[:, every, None] - second) // divisor == values[:, None, None]).all(axis=0))
            if len(i):
                return cls(i, j if pairs else np.full(len(i), -1), divisor)
        return cls(every[:0], every[:0], 1, held)

    def __len__(self) -> int:
        return len(self._plus) + len(self._held)

    def value(self, sizes: Ints, integers: Integers) -> int | None:
        """What they all say, or None if they disagree, are none or give no size."""
        if self._held:
            said = {integers.get(key) for key in self._held}
            return said.pop() if len(said) == 1 else None
        padded = np.append(sizes, 0)
        found = np.unique((padded[self._plus] - padded[self._minus]) // self._divisor)
        return int(found[0]) if len(found) == 1 and found[0] > 0 else None


def with_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `module` (on the meta device, maybe) on the CPU, with these parameters and buffers, in eval mode."""
    copy = faithful(module)
    if any(t.is_meta for t in (*copy.parameters(), *copy.buffers())):
        copy = copy.to_empty(device="cpu")
        for buffer in copy.buffers():  # those that no state dict holds
            buffer.zero_()
    copy.load_state_dict({name.replace("_orig_mod.", ""): value for name, value in weights.items()})
    copy.cpu().eval()
    return copy


def with_sane_weights(module: nn.Module, example: Inputs) -> nn.Module:
    """A copy of `module` (on the meta device, maybe) on the CPU, in eval mode, with weights fit for timing."""
    return with_weights(module, sane_weights(module, example))


def sane_weights(module: nn.Module, example: Inputs) -> dict[str, Tensor]:
    """The state of `module` on the CPU without NaNs and denormals, and such that activations do not die out.

    Random weights where it is on the meta device. Batch norms get the statistics of one random batch: with those of an
    untrained network the activations may shrink below the normal range of float32, which is slow.
    """
    rng, state = torch_rng(0, "template"), dict[str, Tensor]()
    for name, value in module.state_dict().items():
        made = _random(value, rng) if value.is_meta else value.detach().cpu().clone()
        if made.is_floating_point():
            made = torch.where(torch.isfinite(made) & (made.abs() > TINY), made, torch.zeros_like(made))
        state[name] = made.clamp(min=1e-3) if name.endswith("running_var") else made
    copy = with_weights(module, state)
    norms = [part for part in copy.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return state
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        trees.call(copy, drawn(example, rng, batch=8))
    calibrated = {name: value.detach().clone() for name, value in copy.state_dict().items() if name in state}
    for name, value in calibrated.items():
        if name.endswith("running_var"):
            value.clamp_(min=1e-3)
    return calibrated


def _random(value: Tensor, rng: torch.Generator) -> Tensor:
    """Values for a tensor of the meta device: He initialisation of matrices and filters, ones for vectors."""
    if not value.is_floating_point():
        return torch.zeros(value.shape, dtype=value.dtype)
    if value.dim() < 2:
        return torch.ones(value.shape, dtype=value.dtype)
    fan_in = value[0].numel()
    return torch.randn(value.shape, generator=rng).to(value.dtype) * math.sqrt(2.0 / fan_in)


def _leading(wide: Tensor, shape: Sequence[int]) -> Tensor:
    part = wide[tuple(slice(0, size) for size in shape)]
    if part.dim() >= 2 and part.numel():
        part = part * math.sqrt(wide[0].numel() / part[0].numel())
    return part.contiguous()


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _integers_of(module: nn.Module) -> Integers:
    """The integers among the attributes of all modules, and among the arguments in recorded graphs."""
    found: dict[tuple[str, str, int], int] = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            found |= {(path, name, i): v for i, v in enumerate(_ints(value))}
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            found |= {(f"{path}.{node.name}", "", i): v for i, v in enumerate(_ints(node.args))}
    return found


def _likeness(module: nn.Module) -> str:
    """Equal only for modules that are traced to the same graph: shapes, parts, their attributes and recorded code."""
    lines = [f"{name} {tuple(t.shape)}" for name, t in module.state_dict().items()]
    usual = {*vars(nn.Module()), "training"}
    for path, part in module.named_modules():
        recorded = isinstance(part, fx.GraphModule)
        lines.append(f"{path} {type(part).__qualname__} {part.code if recorded else ''}")
        # an address in such a text only means that the network is traced again
        lines += [f"{name} {value!r}" for name, value in vars(part).items() if name not in usual and not recorded]
    return "\n".join(lines)


def _ints(value: object) -> list[int]:
    """The integers in nested tuples and lists, with 0 for what is none, so that positions do not move."""
    if isinstance(value, tuple | list):
        return [i for part in value for i in _ints(part)]
    return [value if isinstance(value, int) and not isinstance(value, bool) else 0]


@dataclass(frozen=True)
class _Graph:
    """A traced graph.

    Attributes:
        skeleton: Without the values of its parameters.
        parameters: Names of those.
        numbers: The integers in it that may depend on widths.
    """

    skeleton: onnx.ModelProto
    parameters: tuple[str, ...]
    numbers: Mapping[Place, int]

    @classmethod
    def traced(cls, module: nn.Module, example: Inputs) -> _Graph:
        """The graph of a module: constants folded, parameters left as they are in its state dict."""
        program = trace_onnx(module, example, optimize=False)
        names = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}

        def foldable(node: Any) -> bool | None:
            return False if any(value is not None and value.name in names for value in node.inputs) else None

        passes.InlinePass()(program.model)
        optimizer.fold_constants(program.model, should_fold=foldable)
        optimizer.remove_unused_nodes(program.model)
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(program.model)
        model = program.model_proto
        graph = model.graph
        del graph.value_info[:]  # they hold the widest network's shapes
        for output in graph.output:  # and so do these, where features come out
            output.type.tensor_type.ClearField("shape")
        kept = [tensor for tensor in graph.initializer if tensor.name not in names]
        parameters = tuple(sorted(tensor.name for tensor in graph.initializer if tensor.name in names))
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return cls(model, parameters, _numbers(graph))

    def signature(self) -> list[Any]:
        """What must be equal in all networks of the family: nodes, wiring, parameters, other constants."""
        graph = self.skeleton.graph
        nodes = [(n.op_type, tuple(n.input), tuple(n.output), tuple(a.name for a in n.attribute)) for n in graph.node]
        constants = [(tensor.name, *_fixed_part(numpy_helper.to_array(tensor))) for tensor in graph.initializer]
        outputs = [value.name for value in graph.output]
        words = [entry.value for entry in self.skeleton.metadata_props]  # the structure of inputs and outputs
        return [nodes, constants, self.parameters, list(self.numbers), outputs, words]

    def own_parameters(self) -> dict[Place, tuple[str, ...]]:
        """For each number: the inputs, among them parameters, of the node that it belongs to."""
        nodes = self.skeleton.graph.node
        users = {name: node for node in nodes for name in node.input}
        own: dict[Place, tuple[str, ...]] = {}
        for place in self.numbers:
            node = nodes[place[1]] if isinstance(place[1], int) else users.get(place[1])
            own[place] = tuple(node.input) if node is not None else ()
        return own

    def filled(self, numbers: Mapping[Place, int], weights: Mapping[str, Tensor]) -> bytes:
        """The serialised model with these integers and parameters."""
        model = onnx.ModelProto()
        model.CopyFrom(self.skeleton)
        graph = model.graph
        tensors: dict[str, list[int]] = {}
        for (kind, key, name, i), value in numbers.items():
            if kind == "attribute":
                _set_attribute(graph.node[key], name, i, value)
            else:
                tensors.setdefault(str(key), []).append(value)
        for tensor in graph.initializer:
            if tensor.name in tensors:
                _set_tensor(tensor, tensors[tensor.name])
        graph.initializer.extend(numpy_helper.from_array(weights[name].numpy(), name) for name in self.parameters)
        return bytes(model.SerializeToString())


def _numbers(graph: Any) -> dict[Place, int]:
    found: dict[Place, int] = {}
    for n, node in enumerate(graph.node):
        for attribute in node.attribute:
            values = [attribute.i] if attribute.type == onnx.AttributeProto.INT else list(attribute.ints)
            found |= {("attribute", n, attribute.name, i): value for i, value in enumerate(values)}
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if _integers(value):
            found |= {("constant", tensor.name, "", i): int(v) for i, v in enumerate(value.reshape(-1))}
        elif _uniform(value):
            found |= {("fill", tensor.name, "", axis): size for axis, size in enumerate(value.shape)}
    return found


def _integers(value: NDArray[Any]) -> bool:
    return value.dtype.kind == "i" and value.ndim <= 1


def _uniform(value: NDArray[Any]) -> bool:
    return value.ndim > 0 and value.size > 0 and bool((value == value.flat[0]).all())


def _fixed_part(value: NDArray[Any]) -> tuple[Any, ...]:
    """What of a constant `_numbers` leaves out."""
    if _integers(value):
        return value.dtype.str, value.shape
    return value.dtype.str, value.ndim, value.flat[0].tobytes() if _uniform(value) else value.tobytes()


def _set_attribute(node: Any, name: str, i: int, value: int) -> None:
    for attribute in node.attribute:
        if attribute.name == name and attribute.type == onnx.AttributeProto.INT:
            attribute.i = value
        elif attribute.name == name:
            attribute.ints[i] = value


def _set_tensor(tensor: Any, numbers: Sequence[int]) -> None:
    old = numpy_helper.to_array(tensor)
    if _integers(old):
        new = np.array(numbers, dtype=old.dtype).reshape(old.shape)
    else:
        new = np.full(numbers, old.flat[0], dtype=old.dtype)
    tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
