"""Parts of a network that are left as they are: traced as a black box, run as the modules they are."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from sartor.core.errors import ConfigError
from sartor.core.rng import global_seed


def opaque(*tensors: Tensor, module: str) -> Any:
    """Marks the place of a module in a graph; whoever runs the graph calls the module instead."""
    raise NotImplementedError(f"{module} is run by the network that holds it; {len(tensors)} inputs")


@dataclass
class _Shapes:
    """What a module was seen to return."""

    outputs: list[Tensor] = field(default_factory=list)


class _StandIn(nn.Module):
    """Has the outputs of a module, and its inputs, and nothing in between."""

    def __init__(self, seen: _Shapes) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, *args: Any) -> Any:
        tensors = [a for a in args if isinstance(a, Tensor)]
        total = torch.zeros((), dtype=self.seen.outputs[0].dtype)
        for x in tensors:
            total = total + x.sum().to(total.dtype)
        made = [torch.zeros(o.shape, dtype=o.dtype) + total for o in self.seen.outputs]
        return made[0] if len(made) == 1 else tuple(made)


@contextmanager
def stand_ins(network: nn.Module, ignore: Sequence[str], x: Tensor) -> Iterator[None]:
    """Replace the modules called `ignore` while the network is traced.

    Raises:
        ConfigError: There is no such module, it is never called, or hands on something else than tensors.
    """
    modules = dict(network.named_modules())
    for name in ignore:
        if name not in modules or not name:
            raise ConfigError(f"ignore names {name!r}, which {type(network).__name__} has no module of")
    seen = {name: _Shapes() for name in ignore}
    hooks = [modules[name].register_forward_hook(_watch(name, seen[name])) for name in ignore]
    try:
        if ignore:
            with torch.no_grad(), global_seed(0):
                network(x)
    finally:
        for hook in hooks:
            hook.remove()
    unused = [name for name in ignore if not seen[name].outputs]
    if unused:
        raise ConfigError(f"ignore names {unused[0]!r}, which is not called; leave it out")
    try:
        for name in ignore:
            network.set_submodule(name, _StandIn(seen[name]))
        yield
    finally:
        for name in ignore:
            network.set_submodule(name, modules[name])


def _watch(name: str, seen: _Shapes) -> Any:
    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        del module
        results = list(output) if isinstance(output, (tuple, list)) else [output]
        if not all(isinstance(r, Tensor) for r in (*results, *args)):
            raise ConfigError(f"{name!r} takes or gives something else than tensors; ignore the module around it")
        if seen.outputs:
            raise ConfigError(f"{name!r} is called more than once; ignore the module around it")
        seen.outputs = results

    return note


def collapse(graph: fx.Graph, ignore: Sequence[str], place: Mapping[fx.Node, str]) -> None:
    """Make one node of all that a stand-in did."""
    for name in ignore:
        region = [n for n in graph.nodes if n.op == "call_function" and place.get(n) == name]
        inside = set(region)
        inputs = list(dict.fromkeys(i for n in region for i in n.all_input_nodes if i not in inside))
        results = [n for n in region if any(user not in inside for user in n.users)]
        with graph.inserting_before(region[-1]):
            box = graph.call_function(opaque, tuple(inputs), {"module": name})
        box.meta = dict(region[-1].meta)
        box.meta["val"] = results[0].meta["val"] if len(results) == 1 else tuple(r.meta["val"] for r in results)
        for k, result in enumerate(results):
            new = box
            if len(results) > 1:
                with graph.inserting_after(box):
                    new = graph.call_function(operator.getitem, (box, k))
                new.meta = dict(result.meta)
            for user in [u for u in result.users if u not in inside]:
                user.replace_input_with(result, new)
        for node in reversed(region):
            graph.erase_node(node)
