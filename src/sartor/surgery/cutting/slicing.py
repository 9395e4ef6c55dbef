"""Running a network with some of its channels: smaller weights, smaller constants, the same operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn.modules.batchnorm import _BatchNorm

from sartor.core import trees
from sartor.core.errors import CapabilityError
from sartor.core.trees import Inputs, Tree
from sartor.surgery.analysis.batches import with_numbers
from sartor.surgery.analysis.opaque import opaque, run
from sartor.surgery.analysis.operators import rule_of
from sartor.surgery.analysis.operators.recurrent import GATES
from sartor.surgery.analysis.operators.rule import Call
from sartor.surgery.analysis.skeleton import Block, Skeleton, changed_later
from sartor.surgery.analysis.structure import feed, filled
from sartor.surgery.analysis.trace import BATCH
from sartor.surgery.analysis.tracker import Dims, argument, operator_name, tensors
from sartor.surgery.analysis.units import Dim, Labels
from sartor.surgery.cutting.masking import MASKED, masked_batch_norm

Kept = NDArray[np.bool_]
"""Whether each unit is kept; the last entry is True."""


class Cut:
    """The sizes of one cut (`operators.rule.Sizes`).

    Args:
        kept: Which units stay, `(units + 1,)`.
        examples: The size of the batch.
    """

    def __init__(self, skeleton: Skeleton, kept: Kept, examples: int) -> None:
        self.skeleton, self._kept, self.examples = skeleton, kept, examples
        self._masks: dict[int, Kept | None] = {}
        self._calls: dict[fx.Node, Call] = {}
        self._tensors: dict[tuple[int, torch.device], slice | Tensor] = {}
        off = [block for block in skeleton.blocks.values() if not kept[block.switch]]
        self.skipped: frozenset[fx.Node] = frozenset().union(*(block.members for block in off))
        """What is not computed."""
        self.shortcuts: dict[fx.Node, fx.Node] = {block.end: block.shortcut for block in off}
        """Sums of skipped blocks -> what they are instead."""
        self.added: dict[fx.Node, fx.Node] = {}
        """Layers -> what is added to their input."""

    def of(self, examples: int) -> Cut:
        """The same channels for another number of examples."""
        return Cut(self.skeleton, self._kept, examples)

    def mask(self, dim: Dim) -> Kept | None:
        """Whether each index is kept, `(n,)`; None if all are."""
        if dim is None:
            return None
        key = id(dim)
        if key not in self._masks:
            roots = self.skeleton.roots(dim)
            mask: Kept | None = None if roots is None else np.asarray(self._kept[roots].all(1))
            self._masks[key] = None if mask is None or bool(mask.all()) else mask
        return self._masks[key]

    def kept(self, dim: Labels) -> Sequence[int]:
        mask = self.mask(dim)
        return range(len(dim)) if mask is None else np.flatnonzero(mask).tolist()

    def count(self, dim: Dim, start: int, stop: int) -> int:
        if self.skeleton.period(dim):  # several batches after one another
            return (stop - start) * self.examples // BATCH
        mask = self.mask(dim)
        return stop - start if mask is None else int(mask[start:stop].sum())

    def scale(self, value: int, dim: Dim) -> int:
        if dim is None:
            return value
        mask = self.mask(dim)
        left = value if mask is None else value * int(mask.sum()) // len(mask)
        return left * self.examples // BATCH if self.skeleton.period(dim) else left

    def dims(self, node: fx.Node) -> Dims:
        return self.skeleton.tracker.dims(node)

    def inner(self, node: fx.Node) -> Dim:
        return self.skeleton.tracker.inner.get(node)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return self.skeleton.tracker.shape(node)

    def call(self, node: fx.Node) -> Call:
        """What to call instead of the node."""
        known = self._calls.get(node)
        if known is None:
            known = self._calls[node] = self._call(node)
        return known

    def _call(self, node: fx.Node) -> Call:
        rule = rule_of(node)
        if rule is not None and rule.resize is not None and node in self.skeleton.resized:
            call = rule.resize(self, node)
        else:
            call = Call(node.target, node.args, dict(node.kwargs))  # type: ignore[arg-type]
        numbers = self.skeleton.numbers.get(node)
        return call if numbers is None else with_numbers(call, numbers, self.examples)

    def leading(self, dim: Dim) -> int | None:
        """How many of the first indices are kept, if those and no others are; all of them give None too."""
        mask = self.mask(dim)
        if mask is None:
            return None
        count = int(mask.sum())
        return count if mask[:count].all() else None

    def narrow(self, value: Tensor, dims: Dims) -> Tensor:
        """The part of a whole weight that is kept; a view where the first indices are."""
        for d, dim in enumerate(dims):
            if self.mask(dim) is None:
                continue
            index = self._index(dim, value.device)
            value = value.narrow(d, 0, index.stop) if isinstance(index, slice) else value.index_select(d, index)
        return value

    def _index(self, dim: Dim, device: torch.device) -> slice | Tensor:
        key = id(dim), device
        if key not in self._tensors:
            first = self.leading(dim)
            assert dim is not None
            self._tensors[key] = slice(first) if first is not None else torch.tensor(self.kept(dim), device=device)
        return self._tensors[key]


@dataclass
class Engine:
    """Runs cuts of a network on its own weights.

    Attributes:
        network: Holds the weights, and says which parts are in training.
    """

    skeleton: Skeleton
    network: nn.Module
    _cuts: dict[tuple[bytes, int], Cut] = field(default_factory=dict)

    @cached_property
    def norms(self) -> dict[fx.Node, _BatchNorm]:
        """Batch norms that follow their module's mode and momentum."""
        modules = dict(self.network.named_modules())
        found = {}
        for node in self.skeleton.calls:
            if operator_name(node) == "batch_norm" and isinstance(node.args[3], fx.Node):
                name = self.skeleton.weights.get(node.args[3].name, "")
                module = modules.get(name.rpartition(".")[0])
                if isinstance(module, _BatchNorm):
                    found[node] = module
        return found

    @cached_property
    def switches(self) -> Mapping[fx.Node, int]:
        """Operators that drop values in training -> the argument that says whether they do."""
        found = {}
        for node in self.skeleton.calls:
            if "dropout" in operator_name(node) and argument(node, 2, "train") is False:
                found[node] = 2
            elif operator_name(node) in GATES and isinstance(node.args[6], bool):  # between layers; not packed ones
                found[node] = 6
        return found

    def cut(self, kept: Kept, examples: int) -> Cut:
        """A cut, remembered if it was the last."""
        key = kept.tobytes(), examples
        if key not in self._cuts:
            if len(self._cuts) > 64:
                self._cuts.clear()
            self._cuts[key] = Cut(self.skeleton, kept, examples)
        return self._cuts[key]

    def __call__(self, inputs: Inputs, kept: Kept, masks: Tensor | None = None) -> Tree:
        """The network's output, in the structure in which the network gives it.

        Args:
            inputs: Each `(batch, ...)`.
            kept: Which units run, `(units + 1,)`.
            masks: What the channels of each unit are multiplied by, `(batch or 1, units + 1)`.
        """
        cut = self.cut(kept, trees.size(inputs))
        return Pass(self, cut, inputs, masks).run()


class Pass:
    """One forward pass."""

    def __init__(self, engine: Engine, cut: Cut, inputs: Inputs, masks: Tensor | None) -> None:
        self.engine, self.cut, self.masks = engine, cut, masks
        self.tracker = engine.skeleton.tracker
        places = engine.skeleton.coupling.traced.inputs
        self.inputs = {
            places[name]: x for name, x in feed(tuple(places), inputs, type(engine.network).__name__).items()
        }
        first = next(iter(self.inputs.values()))
        self.examples, self.device = len(first), first.device
        self.values: dict[fx.Node, Any] = {}
        state: dict[str, Tensor] = dict(engine.network.named_parameters(remove_duplicate=False))
        self.state = state | dict(engine.network.named_buffers(remove_duplicate=False))
        self.masked: dict[tuple[fx.Node, tuple[int, ...]], Tensor] = {}

    def run(self, watch: Callable[[fx.Node], None] | None = None) -> Tree:
        """All nodes in order; `watch` is told of each once its value is known, and may replace it in `values`."""
        for node in self.engine.skeleton.calls:
            self.step(node)
            if watch is not None:
                watch(node)
            self.forget(node)
        return self.output()

    def output(self) -> Tree:
        """What the network gives, once all nodes are known."""
        skeleton = self.engine.skeleton
        found: Any = map_arg(skeleton.nodes[-1].args[0], self.value)
        return filled(skeleton.coupling.traced.structure, found)

    def step(self, node: fx.Node) -> None:
        """Compute the value of a node whose inputs are known."""
        if node in self.cut.shortcuts:
            kept = self.value(self.cut.shortcuts[node])
            self.values[node] = kept.clone() if changed_later(node) else kept
        elif node not in self.cut.skipped:
            self.values[node] = self.call(node)

    def forget(self, node: fx.Node) -> None:
        """Drop what nobody needs after this node."""
        for gone in self.engine.skeleton.last_uses.get(node, ()):
            self.values.pop(gone, None)

    def value(self, node: fx.Node) -> Any:
        if node in self.values:
            return self.values[node]
        assert node.op == "placeholder"
        self.values[node] = found = self.weight(node)
        return found

    def weight(self, node: fx.Node) -> Tensor:
        traced = self.engine.skeleton.coupling.traced
        if node.name in self.inputs:
            return self.inputs[node.name]
        if node.name in traced.constants:
            whole = traced.constants[node.name].to(self.device)
            dims = self.tracker.dims(node)
        else:
            name = traced.weights[node.name]
            whole, dims = self.state[name], self.tracker.dims(node)
        return self.cut.narrow(whole, dims)

    def call(self, node: fx.Node) -> Any:
        engine, call = self.engine, self.cut.call(node)
        norm = engine.norms.get(node)
        if norm is not None:
            return self.norm(node, norm)
        args, kwargs = call.args, call.kwargs
        if call.target is opaque:
            name = kwargs["module"]
            box = engine.skeleton.coupling.traced.boxes[name]
            return run(engine.network.get_submodule(name), box, map_arg(args, self.value))
        at = engine.switches.get(node) if engine.network.training else None
        if at is not None:
            args = (*args[:at], True, *args[at + 1 :])
            call = Call(call.target, args, kwargs)
        if self.masks is not None and node in engine.skeleton.blocks:
            return self.joined(engine.skeleton.blocks[node])
        special = MASKED.get(operator_name(node)) if self.masks is not None else None
        if special is not None:
            return special(self, node, call)
        if self.masks is not None:
            self.hide(node)
            return call.target(*map_arg(args, self.hidden(node)), **map_arg(kwargs, self.hidden(node)))
        return call.target(*map_arg(args, self.value), **map_arg(kwargs, self.value))

    def joined(self, block: Block) -> Tensor:
        """The sum that ends a block which some examples skip."""
        assert self.masks is not None
        first, second = (self.value(n) for n in tensors(block.end))
        shortcut: Tensor = self.value(block.shortcut)
        branch: Tensor = second if shortcut is first else first
        share = self.masks[:, block.switch].to(branch)
        at = next((d for d, dim in enumerate(self.tracker.dims(block.end)) if self.engine.skeleton.period(dim)), 0)
        if len(share) > 1 and branch.shape[at] != len(share):
            raise CapabilityError("examples cannot be told apart where this block ends; use one arch per batch")
        return shortcut + branch * share.reshape([-1 if d == at else 1 for d in range(branch.dim())])

    def norm(self, node: fx.Node, norm: _BatchNorm) -> Tensor:
        x, weight, bias, mean, var = (None if a is None else self.value(a) for a in node.args[:5])  # type: ignore[arg-type]
        assert isinstance(x, Tensor)
        eps = float(node.args[7])  # type: ignore[arg-type]
        if not norm.training:
            return nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        mask = self.mask_of(node.args[0], (1,))  # type: ignore[arg-type]
        if mask is not None and len(mask) > 1:
            out = masked_batch_norm(x, (mask != 0).to(x), (weight, bias, mean, var), momentum, eps)
        else:
            out = nn.functional.batch_norm(x, mean, var, weight, bias, True, momentum, eps)
        self.write_back(node, (mean, var))
        return out

    def write_back(self, node: fx.Node, moments: tuple[Any, Any]) -> None:
        """Running statistics that were gathered, not viewed, go back to their places."""
        for given, value in zip(node.args[3:5], moments, strict=True):
            assert isinstance(given, fx.Node)
            dim = self.tracker.dim(given, 0)
            if self.cut.mask(dim) is not None and self.cut.leading(dim) is None:
                whole = self.state[self.engine.skeleton.weights[given.name]]
                with torch.no_grad():
                    whole[torch.tensor(self.cut.kept(dim), device=whole.device)] = value  # type: ignore[arg-type]

    def hide(self, node: fx.Node) -> None:
        """Prepare the inputs whose entries the node mixes, with zeros where a unit is off."""
        rule = rule_of(node)
        for given, dims in rule.mixes(node) if rule is not None and rule.mixes is not None else ():
            mask = self.mask_of(given, dims)
            value = self.value(given)
            if mask is not None:
                self.masked[given, (id(node),)] = value * mask

    def hidden(self, node: fx.Node) -> Any:
        def value(given: fx.Node) -> Any:
            found = self.masked.pop((given, (id(node),)), None)
            return self.value(given) if found is None else found

        return value

    def mask_of(self, node: fx.Node, dims: Sequence[int]) -> Tensor | None:
        """What `node`'s value is multiplied by along `dims`: broadcasts to it; None if nothing is off."""
        if self.masks is None or not isinstance(node, fx.Node) or self.tracker.is_weight(node):
            return None
        labels, value = self.tracker.dims(node), self.value(node)
        whole: Tensor | None = None
        for d in dims:
            part = self._line(labels[d], labels, d, value)
            if part is not None:
                whole = part if whole is None else whole * part
        return whole

    def weight_mask(self, node: fx.Node, d: int) -> Tensor | None:
        """What a weight is multiplied by along `d`, broadcasting to it; None if nothing is off."""
        labels, weight = self.tracker.dims(node), self.value(node)
        mask = None if self.masks is None else self._line(labels[d], labels, d, weight)
        return None if mask is None or bool((mask == 1).all()) else mask

    def _line(self, dim: Dim, labels: Dims, d: int, value: Tensor) -> Tensor | None:
        skeleton = self.engine.skeleton
        roots = None if dim is None else skeleton.roots(dim)
        if roots is None or skeleton.units.is_batch(roots).all():
            return None
        assert self.masks is not None
        assert dim is not None
        columns = torch.as_tensor(np.where(skeleton.units.is_batch(roots), -1, roots)[self.cut.kept(dim)])
        table = self.masks.to(value)[:, columns].prod(-1)  # (batch or 1, kept)
        shape = [1] * value.dim()
        shape[d] = table.shape[1]
        if len(table) == 1:
            return table.reshape(shape)
        at = next((i for i, other in enumerate(labels) if skeleton.period(other)), None)
        if at is None and bool((table == table[0]).all()):
            return table[0].reshape(shape)
        if at is None or at == d:
            raise CapabilityError("examples with different widths cannot be told apart here; use one width per batch")
        example = (torch.arange(value.shape[at]) // skeleton.period(labels[at])) % self.examples
        shape[at] = value.shape[at]
        rows = table[example.to(table.device)]  # (positions, kept)
        return rows.reshape(shape) if at < d else rows.T.reshape(shape)
