"""What a rule is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import fx

from sartor.surgery.analysis.tracker import Dims, Tracker
from sartor.surgery.analysis.units import Dim, Labels

Couple: TypeAlias = Callable[[Tracker, fx.Node], "Dims | list[Dims]"]
"""Labels of the output (or outputs) from those of the inputs; unites and pins units on the way."""


class Sizes(Protocol):
    """The sizes of a cut network."""

    def scale(self, value: int, dim: Dim) -> int:
        """What becomes of a number of the traced graph that counts the indices of `dim`."""

    def count(self, dim: Dim, start: int, stop: int) -> int:
        """How many of the indices from `start` to `stop` are kept."""

    def kept(self, dim: Labels) -> Sequence[int]:
        """The indices that are kept."""

    def dims(self, node: fx.Node) -> Dims:
        """The labels of a node's tensor."""

    def inner(self, node: fx.Node) -> Dim:
        """What the rule has left in `Tracker.inner`."""

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of a node's tensor in the traced graph."""


@dataclass(frozen=True)
class Call:
    """A call of an operator with the constants of a cut network; tensors are still nodes."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


Resize: TypeAlias = Callable[[Sizes, fx.Node], Call]
"""The call that does in a cut network what the node does in the whole one."""


@dataclass(frozen=True)
class Rule:
    """How one operator treats channels.

    Attributes:
        couple: Its labels.
        resize: Its constants after cutting; None if it has none that count channels.
        mixes: The inputs whose entries are summed up along some dimensions, as (node, dimensions): what must be zero
            there when a channel is switched off for some examples only.
    """

    couple: Couple
    resize: Resize | None = None
    mixes: Callable[[fx.Node], Sequence[tuple[fx.Node, tuple[int, ...]]]] | None = None


def serve(rule: Rule, overloads: str) -> dict[str, Rule]:
    """A rule under the names of the overloads that it serves, `max.dim max.default`; a bare name is its `default`."""
    return {name if "." in name else f"{name}.default": rule for name in overloads.split()}


def named(node: fx.Node, name: str) -> Any:
    """An argument by its name in the operator's schema, or the schema's default.

    Raises:
        LookupError: The operator has no such argument.
    """
    for i, entry in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if entry.name == name:
            return node.args[i] if len(node.args) > i else node.kwargs.get(name, entry.default_value)
    raise LookupError(f"{node.target} has no argument {name!r}")


class Whole:
    """The sizes of a network that is not cut (`Sizes`).

    Args:
        tracker: With the labels so far.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def scale(self, value: int, dim: Dim) -> int:  # noqa: ARG002 - nothing is cut
        return value

    def count(self, dim: Dim, start: int, stop: int) -> int:  # noqa: ARG002 - nothing is cut
        return stop - start

    def kept(self, dim: Labels) -> Sequence[int]:
        return range(len(dim))

    def dims(self, node: fx.Node) -> Dims:
        return self._tracker.dims(node)

    def inner(self, node: fx.Node) -> Dim:
        return self._tracker.inner.get(node)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return self._tracker.shape(node)


def replaced(node: fx.Node, index: int, name: str, value: Any) -> Call:
    """The node's own call with one argument replaced."""
    args, kwargs = list(node.args), dict(node.kwargs)
    if len(args) > index:
        args[index] = value
    else:
        kwargs[name] = value
    return Call(node.target, tuple(args), kwargs)  # type: ignore[arg-type]
