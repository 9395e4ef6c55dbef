"""Drop-path: in training, terms of a network's sums are left out at random, image by image, ever more of them.

Sources: Larsson et al., "FractalNet" (ICLR 2017), whose rule that one path is always left is kept; growing linearly
over the training it is the ScheduledDropPath of Zoph et al. (CVPR 2018).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from sartor.core.errors import ConfigError

_NAME = "_drop_path_"
_SUMS = (operator.add, operator.iadd, torch.add)


class Rate:
    """How likely a path is left out now; the one that all sums of a network look at."""

    def __init__(self) -> None:
        self.value = 0.0


class DropSum(nn.Module):
    """A sum of which the paths are left out at random; what is kept is scaled up.

    Args:
        paths: Per term, whether it may be left out; other terms are values passed on as they are.
        rate: Of all sums.
    """

    def __init__(self, paths: tuple[bool, ...], rate: Rate) -> None:
        super().__init__()
        self.paths, self.rate = paths, rate

    def forward(self, *terms: Tensor) -> Tensor:
        """The sum of terms `(batch, ...)`, in which one is always left per image."""
        p = self.rate.value
        scales = self._scales(terms[0], p) if p else None
        total: Tensor | None = None
        for i, term in enumerate(terms):
            scaled = term if scales is None or not self.paths[i] else term * scales[i].view(-1, *[1] * (term.ndim - 1))
            total = scaled if total is None else total + scaled
        assert total is not None
        return total

    def _scales(self, x: Tensor, p: float) -> Tensor:
        """Zero or above per term and image, `(terms, batch)`."""
        drawn = torch.rand(len(self.paths), len(x), device=x.device)
        kept = drawn >= p
        if all(self.paths):  # an image that loses all keeps the path that was nearest to staying, as it is
            alone = (drawn == drawn.amax(0)) & ~kept.any(0)
            return (kept / (1 - p) + alone.to(drawn.dtype)).to(x.dtype)
        return (kept / (1 - p)).to(x.dtype)


def dropping(module: nn.Module, rate: Rate) -> nn.Module:
    """A network with the same weights in which sums leave out paths.

    A path is a term that a layer of the network makes; a value that is added as it is stays.

    Args:
        module: The network; it stays as it is.
        rate: Of all sums.

    Raises:
        ConfigError: The network cannot be traced, or has no sum with a path.
    """
    try:
        graph = fx.Tracer().trace(module)
    except Exception as error:
        raise ConfigError(
            f"drop_path needs a network whose sums can be found, and {type(module).__name__} cannot be traced: "
            f"{error}; set drop_path = 0"
        ) from error
    sums: dict[str, nn.Module] = {}
    for node in list(graph.nodes):
        terms = list(_terms(node)) if _is_root(node) else []
        paths = tuple(_is_path(module, term) for term in terms)
        if len([t for t in terms if t.op != "get_attr"]) > 1 and any(paths):
            sums[f"{_NAME}{len(sums)}"] = DropSum(paths, rate)
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_module(f"{_NAME}{len(sums) - 1}", tuple(terms)))
            _erase(graph, node)
    if not sums:
        raise ConfigError(
            f"drop_path leaves out terms of sums, and {type(module).__name__} has none; set drop_path = 0"
        )
    holder = dict(module.named_modules())
    return fx.GraphModule({**{k: v for k, v in holder.items() if k}, **_attributes(module, graph), **sums}, graph)


def _attributes(module: nn.Module, graph: fx.Graph) -> dict[str, object]:
    """Parameters and buffers that the graph reads by name."""
    names = [str(n.target) for n in graph.nodes if n.op == "get_attr"]
    return {name: operator.attrgetter(name)(module) for name in names}


def _is_sum(node: fx.Node) -> bool:
    named = node.op == "call_function" and node.target in _SUMS
    method = node.op == "call_method" and node.target in ("add", "add_")
    plain = len(node.args) == 2 and not node.kwargs and all(isinstance(a, fx.Node) for a in node.args)
    return (named or method) and plain


def _is_root(node: fx.Node) -> bool:
    """A sum that is no term of another one alone."""
    return _is_sum(node) and not (len(node.users) == 1 and _is_sum(next(iter(node.users))))


def _terms(node: fx.Node) -> Iterator[fx.Node]:
    for term in node.args:
        assert isinstance(term, fx.Node)
        if _is_sum(term) and len(term.users) == 1:
            yield from _terms(term)
        else:
            yield term


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """A sum that nobody takes any longer, and the sums that are terms of it alone."""
    if _is_sum(node) and not node.users:
        before = node.all_input_nodes
        graph.erase_node(node)
        for term in before:
            _erase(graph, term)


def _is_path(module: nn.Module, node: fx.Node) -> bool:
    """Whether a layer makes it: not an input, a sum, several values side by side, nor an identity."""
    if node.op != "call_module" or str(node.target).startswith(_NAME):  # an earlier sum is no layer
        return False
    return not isinstance(module.get_submodule(str(node.target)), nn.Identity)
