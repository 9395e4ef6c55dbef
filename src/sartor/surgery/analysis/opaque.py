"""Parts of a network that are left as they are: traced as a black box, run as the modules they are."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from sartor.core import trees
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.rng import global_seed
from sartor.core.trees import Inputs, Tree
from sartor.surgery.analysis.recording import Box
from sartor.surgery.analysis.structure import filled, outline


def opaque(*tensors: Tensor, module: str) -> Any:
    """Marks the place of a module in a graph; whoever runs the graph calls the module instead.

    Its inputs are all tensors among the module's arguments, its value the result if that is one tensor, else a tuple
    of all tensors in it.
    """
    raise NotImplementedError(f"{module} is run by the network that holds it; {len(tensors)} inputs")


def run(module: nn.Module, box: Box, tensors: Sequence[Tensor]) -> Any:
    """The value of a module's mark, for these inputs."""
    args, kwargs = filled(box.given, tensors)
    found = module(*args, **kwargs)
    return found if isinstance(found, Tensor) else tuple(trees.leaves(found))


class _StandIn(nn.Module):
    """Has the outputs of a module, and its inputs, and nothing in between.

    Every output is filled with its number, by which it is known in the graph.
    """

    def __init__(self, box: Box, device: torch.device) -> None:
        super().__init__()
        self.box, self.device = box, device

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        total = torch.zeros((), device=self.device)
        for x in trees.leaves((args, kwargs)):
            total = total + x.sum().to(total.dtype)
        made = [
            (torch.full(o.shape, float(k), dtype=total.dtype, device=self.device) + total).to(o.dtype)
            for k, o in enumerate(trees.leaves(self.box.result))
        ]
        return filled(self.box.result, made)


@contextmanager
def stand_ins(network: nn.Module, ignore: Sequence[str], inputs: Inputs) -> Iterator[Mapping[str, Box]]:
    """Replace the modules called `ignore` while the network is traced; how each is called.

    Raises:
        ConfigError: There is no such module, it is never called, called twice, or hands on something else than tensors.
    """
    modules = dict(network.named_modules())
    for name in ignore:
        if name not in modules or not name:
            raise ConfigError(
                f"ignore names {name!r}, which {type(network).__name__} has no module of; name one of its parts"
            )
    boxes: dict[str, Box] = {}
    hooks = [modules[name].register_forward_hook(_watch(name, boxes), with_kwargs=True) for name in ignore]
    try:
        if ignore:
            with torch.no_grad(), global_seed(0):
                trees.call(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    unused = [name for name in ignore if name not in boxes]
    if unused:
        raise ConfigError(f"ignore names {unused[0]!r}, which is not called; leave it out")
    device = next(iter(trees.leaves(inputs))).device
    try:
        for name in ignore:
            network.set_submodule(name, _StandIn(boxes[name], device))
        yield boxes
    finally:
        for name in ignore:
            network.set_submodule(name, modules[name])


def _watch(name: str, boxes: dict[str, Box]) -> Any:
    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        del module
        wrong = f"{name!r} takes or gives something else than tensors; ignore the module around it"
        if any(_counts((args, kwargs))) or not trees.leaves(output):  # a number may be that of the batch
            raise ConfigError(wrong)
        if name in boxes:
            raise ConfigError(f"{name!r} is called more than once; ignore the module around it")
        try:
            boxes[name] = Box(outline((args, kwargs), name), outline(output, name))
        except CapabilityError as error:
            raise ConfigError(wrong) from error

    return note


def _counts(tree: Tree) -> Iterator[bool]:
    """For everything that is no tensor, whether it is a number that may count examples."""
    inside = None if isinstance(tree, Tensor) else trees.children(tree)
    for _, value in inside or ():
        yield from _counts(value)
    if inside is None:
        yield isinstance(tree, int) and not isinstance(tree, bool)


def collapse(graph: fx.Graph, boxes: Mapping[str, Box], place: Mapping[fx.Node, str]) -> None:
    """Make one node of all that a stand-in did."""
    for name, known in boxes.items():
        region = [n for n in graph.nodes if n.op == "call_function" and place.get(n) == name]
        inside = set(region)
        inputs = [n.args[0] for n in region if n.target is torch.ops.aten.sum.default]
        results = {_number(n): n for n in region if any(user not in inside for user in n.users)}
        values = trees.leaves(known.result)
        alone = isinstance(known.result, Tensor)
        with graph.inserting_before(region[-1]):
            box = graph.call_function(opaque, tuple(inputs), {"module": name})
        box.meta = dict(region[-1].meta)
        box.meta["val"] = values[0] if alone else tuple(values)
        after = box
        for k, result in results.items():
            new = box
            if not alone:
                with graph.inserting_after(after):
                    new = after = graph.call_function(operator.getitem, (box, k))
                new.meta = dict(result.meta)
            for user in [u for u in result.users if u not in inside]:
                user.replace_input_with(result, new)
        for node in reversed(region):
            graph.erase_node(node)


def _number(result: fx.Node) -> int:
    """Which output of a stand-in it is."""
    node = result
    while node.target is not torch.ops.aten.full.default:
        node = node.all_input_nodes[0]
    return int(node.args[1])  # type: ignore[arg-type]
