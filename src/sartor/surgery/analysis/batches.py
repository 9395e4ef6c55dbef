"""What the sizes of several batches tell of a graph: numbers, and dimensions, that count examples and have no label.

Labels follow the batch from the inputs. Where a network asks how many examples there are and goes on with the number
(`torch.arange(len(x))`), only a second look with another batch shows where that number has gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from sartor.surgery.analysis.operators.rule import Call

Path: TypeAlias = tuple[int | str, ...]
"""Where an argument stands: its place or name, and its place in lists."""


class Number(NamedTuple):
    """An argument that is `slope` times the number of examples, and `start`."""

    path: Path
    slope: int | float
    start: int | float

    def at(self, examples: int) -> int | float:
        """Its value."""
        return self.slope * examples + self.start


@dataclass(frozen=True)
class Counted:
    """What counts examples, of the calls of a graph in their order.

    Attributes:
        numbers: Arguments of a call.
        dims: Dimensions of its value that are the batch.
    """

    numbers: Mapping[int, tuple[Number, ...]] = field(default_factory=dict)
    dims: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.numbers or self.dims)


def leaves(args: Any, kwargs: Mapping[str, Any]) -> dict[Path, Any]:
    """All arguments of a call, those in lists one by one."""
    found: dict[Path, Any] = {}

    def visit(value: Any, path: Path) -> None:
        if isinstance(value, (list, tuple)):
            for i, entry in enumerate(value):
                visit(entry, (*path, i))
        else:
            found[path] = value

    visit(tuple(args), ())
    for name, value in kwargs.items():
        visit(value, (name,))
    return found


def fitted(path: Path, values: Mapping[int, Any]) -> Number | None:
    """The number that has these values for so many examples; None if there is none."""
    if len({type(v) for v in values.values()}) > 1 or type(next(iter(values.values()))) not in (int, float):
        return None
    (a, first), *_, (b, last) = sorted(values.items())
    whole = isinstance(first, int)
    slope = (last - first) // (b - a) if whole else (last - first) / (b - a)
    number = Number(path, slope, first - slope * a)
    return number if all(number.at(n) == value for n, value in values.items()) else None


def with_numbers(call: Call, numbers: Sequence[Number], examples: int) -> Call:
    """The call with these arguments for so many examples."""
    args, kwargs = call.args, dict(call.kwargs)
    for number in numbers:
        head, *rest = number.path
        if isinstance(head, str):
            kwargs[head] = _set(kwargs[head], rest, number.at(examples))
        else:
            args = _set(args, number.path, number.at(examples))
    return Call(call.target, args, kwargs)


def _set(value: Any, path: Sequence[Any], new: Any) -> Any:
    if not path:
        return new
    parts = list(value)
    parts[path[0]] = _set(parts[path[0]], path[1:], new)
    return type(value)(parts)
