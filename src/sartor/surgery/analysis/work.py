"""What the operators of a traced network multiply, in dimensions of its tensors: so that cuts can be counted."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from sartor.core import trees
from sartor.core.counting import Origins, count_call, is_free
from sartor.core.products import FORMULAS, Call, Place, Product
from sartor.core.rng import global_seed
from sartor.networks import counted
from sartor.surgery.analysis import opaque
from sartor.surgery.analysis.recording import Box
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.trace import BATCH
from sartor.surgery.analysis.tracker import operator_name
from sartor.surgery.analysis.units import Dim


class Size(NamedTuple):
    """A dimension, and how many indices it has before anything is cut."""

    dim: Dim
    full: int


class Use(NamedTuple):
    """Multiply-adds of one node for one example: the product of `times` and of all sizes.

    Attributes:
        node: Where.
        label: Which of several products of the node, "" if it is the only one.
        times: What no cut changes.
        into: Channels that are summed up, if cuts change them or it is a layer.
        out: Channels that are made, likewise.
        positions: Other dimensions that cuts change.
    """

    node: fx.Node
    label: str
    times: float
    into: Size
    out: Size
    positions: tuple[Size, ...] = ()

    @property
    def sizes(self) -> tuple[Size, ...]:
        """All that cuts may change."""
        return (self.into, self.out, *self.positions)


_ONE = Size(None, 1)


def uses(skeleton: Skeleton, network: nn.Module) -> tuple[Use, ...] | None:
    """The multiply-adds of a traced network; None where a part that is left as it is does not run by itself."""
    try:
        return Work(skeleton, network).uses
    except Exception:  # noqa: BLE001 - foreign code on inputs that are made up: built networks are counted instead
        return None


class Work:
    """The multiply-adds of a traced network's nodes, in order.

    Args:
        skeleton: Of the network.
        network: Whose parts that are left as they are get counted by running them.
    """

    def __init__(self, skeleton: Skeleton, network: nn.Module) -> None:
        self._skeleton, self._network = skeleton, network
        traced, named = skeleton.coupling.traced, {name for name, _ in network.named_parameters()}
        entrances = set(traced.inputs.values())
        holders = [node for node in skeleton.nodes if node.op == "placeholder"]
        weights = {traced.weights[n.name]: n.meta["val"] for n in holders if traced.weights.get(n.name) in named}
        self._origins = Origins([n.meta["val"] for n in holders if n.name in entrances], weights)
        self.uses = tuple(self._uses())

    def _uses(self) -> Iterator[Use]:
        for node in self._skeleton.calls:
            if node.target is opaque.opaque:
                yield self._whole(node, self._box(node))
            elif operator_name(node) in FORMULAS:
                yield from self._formula(node)
            elif isinstance(node.target, OpOverload) and not is_free(node.target, operator_name(node)):
                yield from self._inside(node)
            self._origins.follow(_values(node.all_input_nodes), _values([node]))

    def _formula(self, node: fx.Node) -> Iterator[Use]:
        overload = getattr(node.target, "_overloadname", "")
        args: Any = fx.map_arg(node.args, _told)
        call = Call(operator_name(node), overload, args, fx.map_arg(node.kwargs, _told), node, _shape)
        found = [p for p in FORMULAS[call.name](call) if self._origins.counts(_valued(p))]
        for i, product in enumerate(found):
            yield self._use(node, product, self._label(product, i) if len(found) > 1 else "")

    def _label(self, product: Product, number: int) -> str:
        """The name of the weight, without its module."""
        holder = product.out[0] if product.out is not None else None
        name = self._skeleton.weights.get(holder.name, "") if isinstance(holder, fx.Node) else ""
        return name.rpartition(".")[2] or str(number)

    def _use(self, node: fx.Node, product: Product, label: str) -> Use:
        places = [*product.positions, *product.taps]
        open_places = [p for p in places if self._is_open(p)]
        live = any(self._origins.live(value) for value in _values(node.all_input_nodes))
        batch = any(self._skeleton.period(self._size(p).dim) for p in product.places)
        times = prod(self._fixed(p) for p in places if p not in open_places)
        into, out = (_ONE if p is None else self._size(p) for p in (product.into, product.out))
        times /= BATCH if live and not batch else 1
        return Use(node, label, times, into, out, tuple(map(self._size, open_places)))

    def _size(self, place: Place) -> Size:
        node, d = place
        return Size(self._skeleton.tracker.dim(node, d), int(_shape(node)[d]))

    def _is_open(self, place: Place) -> bool:
        """Whether cuts may change a dimension."""
        dim, units = self._size(place).dim, self._skeleton.units
        roots = None if dim is None else self._skeleton.roots(dim)
        return roots is not None and not bool((units.is_batch(roots) | (roots < 0)).all())

    def _fixed(self, place: Place) -> float:
        size = self._size(place)
        return size.full / (BATCH if self._skeleton.period(size.dim) else 1)

    def _whole(self, node: fx.Node, macs: int) -> Use:
        return Use(node, "", macs / BATCH, _ONE, _ONE)

    def _inside(self, node: fx.Node) -> Iterator[Use]:
        """An operator that is made of others; what enters one without a rule is not cut."""
        values = {n: n.meta.get("val") for n in node.all_input_nodes}
        known = {n: value for n, value in values.items() if isinstance(value, Tensor)}
        if len(known) < len(values) or not known:
            return
        bare = {n: torch.empty_like(value, device="meta") for n, value in known.items()}
        live = [bare[n] for n, value in known.items() if self._origins.live(value)]
        args: Any = fx.map_arg(node.args, lambda n: bare[n])
        macs = count_call(node.target, args, fx.map_arg(node.kwargs, lambda n: bare[n]), live)
        if macs:
            yield self._whole(node, macs if live else macs * BATCH)

    def _box(self, node: fx.Node) -> int:
        name = str(node.kwargs["module"])
        module = self._network.get_submodule(name)
        at = next(iter(self._network.parameters()), torch.empty(0)).device
        shapes = [n.meta["val"] for n in node.args if isinstance(n, fx.Node)]
        inputs = tuple(torch.zeros(t.shape, dtype=t.dtype, device=at) for t in shapes)
        with global_seed(0):
            return counted(_Alone(module, self._skeleton.coupling.traced.boxes[name]), inputs).macs


class _Alone(nn.Module):
    """A module that is left as it is, called as its network calls it."""

    def __init__(self, module: nn.Module, box: Box) -> None:
        super().__init__()
        self.module, self.box = module, box

    def forward(self, *tensors: Tensor) -> Any:
        return opaque.run(self.module, self.box, tensors)


def _values(nodes: Any) -> list[Tensor]:
    return [t for n in nodes for t in trees.leaves(n.meta.get("val"))]


def _told(node: fx.Node) -> Any:
    """A node that stands for a tensor; the number that another gives (`.item()`)."""
    value = node.meta.get("val")
    return value if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) else node


def _valued(product: Product) -> Product:
    return product._replace(factors=tuple(tuple(n.meta["val"] for n in factor) for factor in product.factors))


def _shape(node: fx.Node) -> Any:
    return node.meta["val"].shape
