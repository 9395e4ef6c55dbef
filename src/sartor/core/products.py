"""What operators multiply: one formula for each, in dimensions of its tensors.

Who counts a network that runs (`sartor.core.counting`) and who makes tables of all its cuts
(`sartor.surgery.analysis.work`) read the same formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch

Place: TypeAlias = tuple[Any, int]
"""A dimension: the tensor (or what stands for it) and its number."""


class Product(NamedTuple):
    """Multiply-adds that one call does: the product of the sizes of these dimensions.

    Attributes:
        positions: How often the weights are used.
        into: Channels that are summed up; None if nothing is.
        out: Channels that are made; None if it is a single number.
        taps: Further dimensions of the weights.
        factors: The two factors, each as what it is made of; empty where one is a weight in any case.
        each: Whether it is element by element, and counts only where one factor is a map of weights.
    """

    positions: tuple[Place, ...]
    into: Place | None
    out: Place | None
    taps: tuple[Place, ...] = ()
    factors: tuple[tuple[Any, ...], ...] = ()
    each: bool = False

    @property
    def places(self) -> tuple[Place, ...]:
        """All dimensions."""
        return (*self.positions, *(p for p in (self.into, self.out) if p is not None), *self.taps)


@dataclass(frozen=True)
class Call:
    """A call of an operator.

    Attributes:
        name: Of the operator, without overload and in-place mark.
        overload: Its variant: `dim` of `aten.max.dim`.
        args: Positional arguments; tensors, or what stands for them.
        kwargs: Named arguments.
        out: The first tensor of the result.
        shape: Shape of a tensor, or of what stands for it.
    """

    name: str
    overload: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    out: Any
    shape: Callable[[Any], Sequence[int]]

    def dims(self, x: Any, start: int = 0, stop: int | None = None) -> tuple[Place, ...]:
        """Some dimensions of a tensor, all by default."""
        return tuple((x, d) for d in range(*slice(start, stop).indices(len(self.shape(x)))))

    def last(self, x: Any) -> Place:
        """The last dimension of a tensor."""
        return x, len(self.shape(x)) - 1

    def is_tensor(self, x: Any) -> bool:
        """Whether an argument is a tensor, or stands for one."""
        return not isinstance(x, (bool, int, float, complex, torch.SymInt, torch.SymFloat)) and x is not None

    def size(self, place: Place) -> int:
        """The size of a dimension."""
        return int(self.shape(place[0])[place[1]])

    def multiplied(self, product: Product) -> int:
        """How many multiply-adds it is."""
        return prod(self.size(place) for place in product.places)


Formula: TypeAlias = Callable[[Call], list[Product]]


def _linear(call: Call) -> list[Product]:
    x, weight = call.args[:2]
    if len(call.shape(weight)) == 1:
        return [Product(call.dims(x, 0, -1), call.last(x), None)]
    return [Product(call.dims(x, 0, -1), call.last(x), (weight, 0))]


def _convolution(call: Call) -> list[Product]:
    """A filter meets every position of the output once."""
    weight, out = call.args[1], call.out
    channel = len(call.shape(out)) - len(call.shape(weight)) + 1
    positions = tuple(place for place in call.dims(out) if place[1] != channel)
    return [Product(positions, (weight, 1), (out, channel), call.dims(weight, 2))]


def _transposed(call: Call) -> list[Product]:
    """Every position of the input meets a filter once."""
    x, weight = call.args[:2]
    channel = len(call.shape(x)) - len(call.shape(weight)) + 1
    positions = tuple(place for place in call.dims(x) if place[1] != channel)
    return [Product(positions, (weight, 1), (x, channel), call.dims(weight, 2))]


def _either(call: Call) -> list[Product]:
    return _transposed(call) if call.args[6] else _convolution(call)


def _by_time(call: Call) -> list[Product]:
    """`conv_tbc`: the weight is `(taps, inputs, outputs)`."""
    weight = call.args[1]
    return [Product(call.dims(call.out, 0, 2), (weight, 1), (weight, 2), ((weight, 0),))]


def _bilinear(call: Call) -> list[Product]:
    """The weight is `(outputs, first inputs, second inputs)`."""
    weight = call.args[2]
    return [Product(call.dims(call.out, 0, -1), (weight, 1), (weight, 0), ((weight, 2),))]


def _matrices(call: Call) -> list[Product]:
    return [_product(call, *call.args[:2])]


def _plus(call: Call) -> list[Product]:
    """`addmm` and the like: a term and a product."""
    return [_product(call, *call.args[1:3])]


def _product(call: Call, a: Any, b: Any) -> Product:
    *positions, out = call.dims(call.out) or (None,)
    return Product(tuple(p for p in positions if p is not None), call.last(a), out, (), ((a,), (b,)))


def _summed_batches(call: Call) -> list[Product]:
    """`addbmm`: a term and a product that is summed up over the batch."""
    a, b = call.args[1:3]
    return [Product(call.dims(a, 0, 2), call.last(a), call.last(b), (), ((a,), (b,)))]


def _einsum(call: Call) -> list[Product]:
    """One operand after another; where nothing is summed up, the product is element by element."""
    operands, known, found = list(call.args[1]), dict[str, Place](), list[Product]()
    terms, result = letters(str(call.args[0]), [len(call.shape(x)) for x in operands])
    for i, (operand, term) in enumerate(zip(operands, terms, strict=True)):
        later = set(result).union(*terms[i + 1 :])
        here = {letter: (operand, d) for d, letter in enumerate(term)}
        both = here | {k: p for k, p in known.items() if k not in here or call.size(here[k]) == 1}
        summed = [both[k] for k in known if k in here and k not in later]
        kept = [p for k, p in both.items() if k in later]
        if i:
            factors = tuple(operands[:i]), (operand,)
            into, taps = (summed[0], tuple(summed[1:])) if summed else (None, ())
            found.append(Product(tuple(kept[:-1]), into, kept[-1] if kept else None, taps, factors, not summed))
        known = {k: p for k, p in both.items() if k in later}
    return found


def letters(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of every operand of an einsum and of its result; an ellipsis becomes capital Greek ones."""
    equation = equation.replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    extra = max((r - len(s.replace("...", "")) for s, r in zip(terms, ranks, strict=True) if "..." in s), default=0)
    greek = "".join(chr(0x391 + i) for i in range(extra))
    filled = [
        s.replace("...", greek[extra - (r - len(s.replace("...", ""))) :]) for s, r in zip(terms, ranks, strict=True)
    ]
    if "->" not in equation:
        joined = "".join(filled)
        right = greek + "".join(sorted(c for c in set(joined) - set(greek) if joined.count(c) == 1))
    return filled, right.replace("...", greek)


def _attention(call: Call) -> list[Product]:
    """Queries with keys, and what comes of it with values."""
    q, k, v = call.args[:3]
    keys = k, len(call.shape(k)) - 2
    first = Product(call.dims(q, 0, -1), call.last(q), keys, (), ((q,), (k,)))
    return [first, Product(call.dims(call.out, 0, -1), keys, call.last(call.out), (), ((q, k), (v,)))]


def _recurrent(call: Call) -> list[Product]:
    """Every matrix of weights once per step and example; packed sequences are `(steps of all, channels)`."""
    return _steps(call, call.args[3 if call.overload == "data" else 2])


def _cell(call: Call) -> list[Product]:
    return _steps(call, call.args[2:4])


def _steps(call: Call, weights: Iterable[Any]) -> list[Product]:
    uses = call.dims(call.args[0], 0, -1)
    return [Product(uses, (w, 1), (w, 0)) for w in weights if len(call.shape(w)) == 2]


def _each(call: Call) -> list[Product]:
    """A product element by element: one per entry of the result."""
    factors = tuple((x,) for x in call.args[:2] if call.is_tensor(x))
    *positions, out = call.dims(call.out) or (None,)
    kept = tuple(p for p in positions if p is not None)
    return [Product(kept, None, out, (), factors, each=True)] if len(factors) == 2 else []


FORMULAS: Mapping[str, Formula] = MappingProxyType(
    {
        "linear": _linear,
        **{f"conv{rank}d": _convolution for rank in "123"},
        **{f"conv_transpose{rank}d": _transposed for rank in "123"},
        "convolution": _either,
        "_convolution": _either,
        "conv_tbc": _by_time,
        "deform_conv2d": _convolution,
        "bilinear": _bilinear,
        **dict.fromkeys(("matmul", "linalg_matmul", "mm", "bmm", "mv", "dot", "vdot"), _matrices),
        **dict.fromkeys(("addmm", "baddbmm", "addmv"), _plus),
        "addbmm": _summed_batches,
        "einsum": _einsum,
        "scaled_dot_product_attention": _attention,
        **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
        **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
        **dict.fromkeys(("mul", "multiply", "__mul__"), _each),
    }
)
"""Operator -> its multiply-adds."""
