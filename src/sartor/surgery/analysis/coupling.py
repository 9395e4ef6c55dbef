"""Which channels of a network belong together.

The graph is gone through once; every operator's rule hands the labels of its inputs on to its outputs
(`sartor.surgery.analysis.units`, `sartor.surgery.analysis.operators`). What is left are *families* of units that pass
the same tensors in the same numbers, so that any of them may go. A family is a *group*, one decision how many of its
units stay; families of a few units share the decision with a larger one that the same layer bears.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sartor.core import copies, trees
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.rng import global_seed
from sartor.core.trees import Inputs
from sartor.surgery.analysis.batches import Counted, Number
from sartor.surgery.analysis.operators import labelled, why_not
from sartor.surgery.analysis.operators.shape import fuse_permutations
from sartor.surgery.analysis.recording import Traced
from sartor.surgery.analysis.trace import BATCH, UntraceableError, around, line, trace
from sartor.surgery.analysis.trace import place as module_of
from sartor.surgery.analysis.tracker import Birth, Dims, Tracker, blame, flat, tensors
from sartor.surgery.analysis.units import Dim, Labels, Units

ALONE = 8
"""A family of fewer units is no choice of its own."""
ENOUGH = 4
"""Where channels are a product (heads and their channels, groups and theirs), the outer factor is cut if there are
this many of it; otherwise the larger one."""

_TRIES = 8
"""How often it is tried to leave a part alone, where a network cannot be traced: each may take seconds."""

_MUCH = 0.2
"""A part with this share of the parameters is worth being named."""

_log = logging.getLogger(__name__)

Roots = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Channels that one decision sets.

    Attributes:
        name: The first layer whose outputs they are.
        families: Units that are alike; of each family about the same share stays.
        layers: All layers whose outputs they are.
    """

    name: str
    families: tuple[Roots, ...]
    layers: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of units."""
        return sum(len(family) for family in self.families)


@dataclass(frozen=True)
class Fixed:
    """A layer whose outputs cannot be cut, and why."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Coupling:
    """What the analysis of a network has found.

    Attributes:
        traced: Its graph in evaluation mode.
        tracker: The labels of that graph.
        further: Those of the graph in training mode, if that has further layers.
        groups: What can be cut.
        fixed: What cannot.
        numbers: Arguments of calls that count examples although no label says so.
    """

    traced: Traced
    tracker: Tracker
    further: Tracker | None
    groups: tuple[Group, ...]
    fixed: tuple[Fixed, ...]
    numbers: Mapping[fx.Node, tuple[Number, ...]] = field(default_factory=dict)

    def with_constants(self, constants: Mapping[str, Tensor]) -> Coupling:
        """The same, with other values of the tensors that the network makes itself."""
        return replace(self, traced=replace(self.traced, constants=dict(constants)))

    def weights(self) -> Iterator[tuple[str, Dims]]:
        """Every parameter and buffer of the graph with its labels."""
        for name, dims in self.tracker.weights.items():
            yield name, [None if isinstance(dim, str) else dim for dim in dims]


def couple(
    network: nn.Module,
    example: Inputs,
    ignore: Sequence[str] = (),
    counted: Counted | None = None,
    fakes: FakeTensorMode | None = None,
) -> Coupling:
    """Analyse a network.

    Args:
        network: Its mode is put back.
        example: One example, each input `(1, ...)`; only shapes and types count.
        ignore: Names of modules to leave as they are; what enters and leaves them is not cut either.
        counted: What is known to count examples, from an earlier analysis.
        fakes: Shared with other recordings of the same network (`recording.valueless`).

    Raises:
        CapabilityError: It cannot be traced; the message names modules to ignore, if that has been found to help.
        ConfigError: It does not run on such inputs, or `ignore` names something that it does not have.
    """
    try:
        return _coupled(network, example, ignore, counted or Counted(), fakes)
    except UntraceableError as error:
        advice = _helpful(network, example, ignore, error)
        part = "" if advice else _part(network, example)
        more = f"; leave that part alone: ignore = {json.dumps(advice)}" if advice else part
        raise CapabilityError(f"{error}{more}") from error


def _helpful(network: nn.Module, example: Inputs, ignore: Sequence[str], error: UntraceableError) -> list[str]:
    """Names of modules without which the network can be traced, and something of it be cut; none if none are found."""
    names, open_names = [*ignore], list(error.running)
    for _ in range(_TRIES):
        if not open_names:
            break
        name = open_names.pop(0)
        tried = without(names, name)
        try:
            if _coupled(network, example, tried, Counted(), None).groups:
                return tried
        except UntraceableError as further:
            if further.running and further.running != error.running:  # there is another such part
                names, open_names, error = tried, list(further.running), further
        except (CapabilityError, ConfigError):  # it cannot be left alone by itself
            continue
    return []


def _part(network: nn.Module, example: Inputs) -> str:
    """What to cut instead: large parts that take tensors and can be followed by themselves; "" if there is none."""
    found = [
        f"{name} on inputs of the shapes {trees.shapes(inputs)}"
        for name, inputs in _calls(network, example).items()
        if _can_be_cut(network.get_submodule(name), inputs)
    ]
    words = " and ".join(found)
    return f"; what can be cut of it by itself, as a network of its own, is {words}" if found else ""


def _calls(network: nn.Module, example: Inputs) -> dict[str, Inputs]:
    """Parts that hold much of the parameters and are called with tensors alone, the largest first, and with which."""
    whole = sum(p.numel() for p in network.parameters())
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    taken = dict[str, Inputs]()
    twin = copies.faithful(network).eval()

    def note(name: str, args: tuple[Any, ...]) -> None:
        if args and all(isinstance(x, Tensor) for x in args):
            taken.setdefault(name, args[0] if len(args) == 1 else args)

    for name in sizes:
        twin.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: note(name, args))
    try:
        with torch.no_grad(), global_seed(0):
            trees.call(twin, example)
    except Exception:  # noqa: BLE001 - the network's own code; what was called before is known
        _log.debug("%s does not run on the example", type(network).__name__)
    large = sorted((n for n in taken if sizes[n] >= _MUCH * whole), key=lambda n: -sizes[n])
    return {name: taken[name] for name in large}


def _can_be_cut(part: nn.Module, inputs: Inputs) -> bool:
    try:
        return bool(_coupled(part, inputs, (), Counted(), None).groups)
    except (CapabilityError, ConfigError):
        return False


def without(ignored: Sequence[str], name: str) -> list[str]:
    """What is left alone, with `name` in place of all that is inside it."""
    return [*(known for known in ignored if not f"{known}.".startswith(f"{name}.")), name]


def _coupled(
    network: nn.Module, example: Inputs, ignore: Sequence[str], counted: Counted, fakes: FakeTensorMode | None
) -> Coupling:
    modes = [(m, m.training) for m in network.modules()]
    try:
        units, weights = Units(), dict[str, list[Dim | str]]()
        traced = trace(network.eval(), example, ignore, fakes=fakes)
        tracker = _label(traced, units, weights, counted.dims)
        further = None
        if _unseen(network, traced, ignore):  # heads that only training uses
            further = _label(trace(network.train(), example, ignore, fakes=fakes), units, weights)
    finally:
        for module, training in modes:
            module.training = training
    groups = _groups([tracker] if further is None else [tracker, further])
    calls = [node for node in traced.graph.nodes if node.op == "call_function"]
    numbers = {calls[i]: found for i, found in counted.numbers.items()}
    return Coupling(traced, tracker, further, groups, _fixed(tracker, groups), numbers)


def _unseen(network: nn.Module, traced: Traced, ignore: Sequence[str]) -> bool:
    """Whether some parameter takes no part in evaluation."""
    hidden = {id(p) for name in ignore for p in network.get_submodule(name).parameters()}
    used = {
        traced.weights[n.name]
        for n in traced.graph.nodes
        if n.op == "placeholder" and n.users and n.name in traced.weights
    }
    first = {id(p): name for name, p in reversed(list(network.named_parameters(remove_duplicate=False)))}
    return any(first[id(p)] not in used and id(p) not in hidden for p in network.parameters())


def _label(
    traced: Traced,
    units: Units,
    weights: dict[str, list[Dim | str]],
    counted: Mapping[int, tuple[int, ...]] = MappingProxyType({}),
) -> Tracker:
    fuse_permutations(traced.graph)
    tracker = Tracker(traced, units, weights)
    entrances, batch = set(traced.inputs.values()), units.batch(BATCH)
    calls = 0
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            if node.name in entrances:
                rank = node.meta["val"].dim()
                tracker.of[node] = [batch, *[None] * (rank - 1)]
        elif node.op == "output":
            units.where = "output"
            for result in _results(node.args[0]):
                tracker.fix(result, None, "it is an output of the network")
        else:
            units.where = blame(node)
            _follow(tracker, node)
            for d in counted.get(calls, ()):
                if isinstance(node.meta["val"], Tensor) and tracker.of[node][d] is None:
                    tracker.of[node][d] = batch  # type: ignore[call-overload]
            calls += 1
    return tracker


def _results(value: Any) -> Iterator[fx.Node]:
    if isinstance(value, fx.Node):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _results(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _results(entry)


def _follow(tracker: Tracker, node: fx.Node) -> None:
    _check_shape(node)
    if labelled(tracker, node) is not None:
        return
    value = node.meta.get("val")
    for given in tensors(node):
        tracker.fix(given, None, f"{why_not(node)} ({line(node)})")
    if isinstance(value, Tensor):
        tracker.of[node] = _examples(tracker, node, value)
    elif isinstance(value, (list, tuple)):
        tracker.of[node] = [_examples(tracker, node, v) if isinstance(v, Tensor) else [] for v in value]


def _check_shape(node: fx.Node) -> None:
    """Sizes must be numbers.

    Raises:
        UntraceableError: They depend on values.
    """
    value = node.meta.get("val")
    for part in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(part, Tensor) and not all(isinstance(n, int) for n in part.shape):
            raise UntraceableError(
                f"the shape of what {blame(node)} gives ({line(node)}) depends on values: nothing can be cut there",
                list(around(module_of(node))),
            )


def _examples(tracker: Tracker, node: fx.Node, value: Tensor) -> Dims:
    """What an operator without a rule gives: static, but for a first dimension that is the batch all the way."""
    found: Dims = [None] * value.dim()
    for given in tensors(node):
        shape = tracker.shape(given)
        labels = (
            tracker.units.resolve(tracker.dims(given)[0]) if shape and found and shape[0] == value.shape[0] else None
        )
        if labels is not None and tracker.units.is_batch(labels).all():
            found[0] = tracker.dims(given)[0]
    return found


class _Arrays:
    """All distinct label arrays, and their present representatives."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.units = trackers[0].units
        found: dict[int, Labels] = {}
        self.weight: set[int] = set()
        for tracker in trackers:
            for dims in tracker.of.values():
                found |= {id(d): d for d in flat(dims)}
            found |= {id(d): d for d in tracker.inner.values() if d is not None}
        for entries in trackers[0].weights.values():
            mine = {id(d): d for d in entries if isinstance(d, np.ndarray)}
            found |= mine
            self.weight |= mine.keys()
        self.labels = found
        self.resolved: dict[int, Labels] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look all representatives up again; drop what has become static, and the batch."""
        source = self.resolved or self.labels
        self.resolved = {}
        for key, labels in source.items():
            now = self.units.resolve(labels)
            if now is not None:
                now = np.where(self.units.is_batch(now), -1, now)
                now = now[:, (now >= 0).any(0)]
                if now.shape[1]:
                    self.resolved[key] = now


def _groups(trackers: Sequence[Tracker]) -> tuple[Group, ...]:
    arrays = _Arrays(trackers)
    families, layers = _born(arrays, trackers)
    while _one_factor(arrays, families):
        arrays.refresh()
        families, layers = _born(arrays, trackers)
    members: dict[int, list[int]] = defaultdict(list)
    for unit in sorted(families):
        members[families[unit]].append(unit)
    whole = {layer_of(tracker, birth) for tracker in trackers for birth in tracker.births if birth.together}
    joined = _joined(layers, {family: len(units) for family, units in members.items()}, whole)
    grouped: dict[int, list[int]] = defaultdict(list)
    for family in members:
        grouped[joined[family]].append(family)
    named: dict[int, list[str]] = defaultdict(list)
    for layer, born in layers.items():
        for key in dict.fromkeys(joined[family] for family in born):
            named[key].append(layer)
    taken: set[str] = set()
    groups = [
        Group(_unused(names[0], taken), tuple(np.array(members[f]) for f in grouped[key]), tuple(names))
        for key, names in named.items()
    ]
    return tuple(g for g in groups if any(len(f) > 1 for f in g.families))


def _born(arrays: _Arrays, trackers: Sequence[Tracker]) -> tuple[dict[int, int], dict[str, list[int]]]:
    """Unit -> family of the units that layers bring, and layer -> families it brings."""
    families = _families(arrays)
    layers = _births(trackers, families)
    born = {family for families_of in layers.values() for family in families_of}
    return {unit: family for unit, family in families.items() if family in born}, layers


def _families(arrays: _Arrays) -> dict[int, int]:
    """Unit -> number of its family, for units that some weight has: alike are those that all tensors treat alike."""
    size = len(arrays.units)
    signs, owned = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=bool)
    for place, (key, labels) in enumerate(arrays.resolved.items(), start=1):
        for k, column in enumerate(labels.T):
            units, counts = np.unique(column[column >= 0], return_counts=True)
            with np.errstate(over="ignore"):
                mark = (counts.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(place * 64 + k)
                signs[units] = (signs[units] ^ mark) * np.uint64(0xD6E8FEB86659FD93) + np.uint64(1)
            owned[units] |= key in arrays.weight
    members = np.flatnonzero(owned)
    _, family = np.unique(signs[members], return_inverse=True)
    return dict(zip(members.tolist(), family.tolist(), strict=True))


def _of(labels: Labels | None, families: Mapping[int, int]) -> list[int]:
    if labels is None:
        return []
    return list(dict.fromkeys(families[u] for u in np.unique(labels[labels >= 0]).tolist() if u in families))


def _one_factor(arrays: _Arrays, families: Mapping[int, int]) -> bool:
    """Where an index depends on two families, pin one of them; whether there was such a place."""
    lookup = np.full(len(arrays.units) + 1, -1)
    lookup[list(families)] = list(families.values())
    count = np.bincount(lookup[lookup >= 0])
    lost: set[int] = set()
    for labels in arrays.resolved.values():
        if labels.shape[1] == 1:
            continue
        for row in np.unique(lookup[labels], axis=0).tolist():
            here = [f for f in row if f >= 0 and f not in lost]
            if len(here) > 1:
                outer, inner = here[:2]
                lost.add(inner if count[outer] >= ENOUGH or count[outer] >= count[inner] else outer)
    if lost:
        arrays.units.where = "product"
        gone = np.flatnonzero(np.isin(lookup, list(lost)))
        arrays.units.pin(gone[:, None], "channels are a product here, and its other factor is cut")
    return bool(lost)


def _births(trackers: Sequence[Tracker], families: Mapping[int, int]) -> dict[str, list[int]]:
    """Layer -> the families among its outputs."""
    found: dict[str, list[int]] = {}
    for tracker in trackers:
        for birth in tracker.births:
            born = _of(tracker.units.resolve(birth.labels), families)
            if born and _has_batch(tracker, birth.node):
                found.setdefault(layer_of(tracker, birth), born)
    return found


def _has_batch(tracker: Tracker, node: fx.Node) -> bool:
    """Whether a tensor depends on the input; a table of position biases, say, does not."""
    found = (tracker.units.resolve(dim) for dim in flat(tracker.of[node]))
    return any(dim is not None and bool(tracker.units.is_batch(dim).any()) for dim in found)


def layer_of(tracker: Tracker, birth: Birth) -> str:
    """The name of the layer of a birth: its weight's without the last part."""
    if tracker.is_weight(birth.weight):
        name = tracker.name(birth.weight)
        return re.sub(r"[._]weight(_ih(_l\d+(_reverse)?)?)?$", "", name)
    return blame(birth.node)


def _unused(name: str, taken: set[str]) -> str:
    """The name, with a number if another group has it already."""
    found, k = name, 1
    while found in taken:
        k += 1
        found = f"{name}[{k}]"
    taken.add(found)
    return found


def _joined(births: Mapping[str, Sequence[int]], sizes: Mapping[int, int], whole: set[str]) -> dict[int, int]:
    """Family -> representative of its group: small families join the largest one that a layer bears with them; of a
    layer among `whole`, all do.
    """
    parent: dict[int, int] = {}

    def find(x: int) -> int:
        while parent.setdefault(x, x) != x:
            x = parent[x]
        return x

    for layer, born in births.items():
        largest = max(born, key=lambda family: sizes[family])
        for family in born:
            if sizes[family] < ALONE or layer in whole:
                parent[find(family)] = find(largest)
            find(family)
    return {family: find(family) for family in parent}


def _fixed(tracker: Tracker, groups: Sequence[Group]) -> tuple[Fixed, ...]:
    units = tracker.units
    why: dict[int, str] = {}
    for pin in units.pins:
        for unit in units.find(pin.labels[:, 0]).tolist():
            why.setdefault(unit, f"{pin.reason} at {pin.what}" if pin.what not in pin.reason else pin.reason)
    cut = {layer for group in groups for layer in group.layers}
    found = {}
    for birth in tracker.births:
        layer = layer_of(tracker, birth)
        if layer in cut or layer in found:
            continue
        roots = units.leaves(birth.labels)
        reason = next((why[u] for u in roots if u in why), "it has a single unit")
        found[layer] = Fixed(layer, reason)
    return tuple(found.values())
