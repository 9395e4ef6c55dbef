"""Multiply-adds of a network: every operator that it calls is counted, is free, or is named as not counted.

*MACs* are multiply-adds with weights: convolutions, linear and recurrent layers, and any matrix product one of whose
factors does not depend on the network's inputs. Products of two activations (attention matrices) are told apart, see
docs/decisions/0010-what-macs-count.md. One formula per operator serves the counting of a network that runs and the
tables of all its cuts (`sartor.surgery.analysis.accounting`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher

from sartor.core import trees
from sartor.core.dispatch import Watching, operator_name, running
from sartor.core.trees import Inputs

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

LOOKUPS = frozenset(("embedding", "embedding_bag", "_embedding_bag"))
"""Operators that read rows of a table: they multiply nothing."""
_FREE = frozenset(
    [
        *("batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm", "native_layer_norm", "prelu"),
        *("native_batch_norm", "_native_batch_norm_legit_no_training", "native_group_norm", "local_response_norm"),
        *("cat", "concat", "concatenate", "stack", "pad", "constant_pad_nd", "copy", "clone", "contiguous", "repeat"),
        *("index", "index_select", "gather", "take", "scatter", "index_put", "roll", "flip", "_to_copy", "to"),
        *("sum", "mean", "norm", "linalg_vector_norm", "softmax", "log_softmax", "cumsum", "where", "masked_fill"),
        *("item", "_local_scalar_dense", "is_nonzero", "equal", "type_as", "dropout", "feature_dropout", "relu6"),
        *("hardtanh", "hardswish", "hardsigmoid", "selu", "celu", "rrelu", "bernoulli", "detach", "lift_fresh"),
        *("reshape", "flatten", "unflatten", "unbind", "chunk", "split", "tensor_split", "tile", "expand_as", "fill"),
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "amax", "amin"),
        *("max", "min"),
        *("var", "std", "var_mean", "std_mean", "_weight_norm", "zero", "narrow", "select", "addcmul", "lerp"),
        *(f"{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for rank in "123"),
        *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d", "pixel_shuffle"),
    ]
)
"""Operators with nothing to count by definition: normalisation, statistics, pooling, what moves values about."""
_WHOLE = ("fft_", "_fft", "stft", "istft", "cdist", "_cdist", "grid_sampler")
_NAMED = (*_WHOLE, "linalg_", "_linalg")
"""How the names of operators begin whose work grows with channels and is not counted: who uses them is told so. Of the
first, what they are made of is not looked at.
"""
_KNOWN = ("aten", "prim", "prims")
"""Whose operators do nothing to speak of, unless it is said above."""


def is_free(func: Any, name: str) -> bool:
    """Whether an operator has nothing to count: it works element by element, or moves values about."""
    return name in _FREE or torch.Tag.pointwise in getattr(func, "tags", ()) or bool(getattr(func, "is_view", False))


class Origins:
    """Which tensors depend on the network's inputs, and on which parameters: told by their memory.

    Args:
        inputs: Of the network.
        parameters: Name -> parameter.
    """

    def __init__(self, inputs: Iterable[Tensor], parameters: Mapping[str, Tensor]) -> None:
        self._live = {_memory(x) for x in inputs}
        self._of = {_memory(p): frozenset((name,)) for name, p in parameters.items()}

    def live(self, x: Tensor) -> bool:
        """Whether it depends on the inputs."""
        return _memory(x) in self._live

    def parameters(self, x: Tensor) -> frozenset[str]:
        """Of a tensor that does not depend on the inputs: the parameters that it is made of."""
        return frozenset() if self.live(x) else self._of.get(_memory(x), frozenset())

    def counts(self, product: Product) -> bool:
        """Whether a product is one with weights."""
        if product.each:
            return any(self._is_map(x) for factor in product.factors for x in factor[-1:]) and not all(
                self._constant(factor) for factor in product.factors
            )
        return not product.factors or any(self._constant(factor) for factor in product.factors)

    def _constant(self, factor: tuple[Tensor, ...]) -> bool:
        return not any(self.live(x) for x in factor)

    def _is_map(self, x: Tensor) -> bool:
        """Whether it is made of parameters that differ in more than one dimension: no scale per channel."""
        return bool(self.parameters(x)) and sum(n > 1 for n in x.shape) > 1

    def follow(self, given: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """What a call gives depends on what it is given."""
        own = {_memory(x) for x in given}
        live, names = any(self.live(x) for x in given), frozenset().union(*(self.parameters(x) for x in given))
        for memory in {_memory(x) for x in made}:
            if live:
                self._live.add(memory)
            elif memory not in own:  # new, maybe where another tensor was
                self._live.discard(memory)
                self._of.pop(memory, None)
            if names and not live:
                self._of[memory] = self._of.get(memory, frozenset()) | names


def _memory(x: Tensor) -> int:
    try:
        return int(x.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors and the like have none
        return id(x)


class Uncounted(NamedTuple):
    """What a layer does that MACs do not tell.

    Attributes:
        layer: Its name, "" for the network itself.
        operator: What it calls.
        why: `activations`: a product of two of them; `lookup`; `work`: of an operator that multiplies, and is not
            counted; `unknown`: an operator that nobody knows, with parameters.
        macs: How many multiply-adds, where that is known, else 0.
        params: Parameters that go into it and into nothing that is counted.
    """

    layer: str
    operator: str
    why: str
    macs: int = 0
    params: int = 0


@dataclass(frozen=True)
class Count:
    """Multiply-adds of one forward pass, and what they leave out.

    Attributes:
        macs: With weights.
        params: All parameters; a shared one counts once.
        uncounted: The rest, by layer and operator.
    """

    macs: int
    params: int
    uncounted: tuple[Uncounted, ...]

    @property
    def blind(self) -> tuple[Uncounted, ...]:
        """Layers whose work nobody knows."""
        return tuple(u for u in self.uncounted if u.why == "unknown" and u.params)

    @property
    def between_activations(self) -> int:
        """Multiply-adds of products of two activations."""
        return sum(u.macs for u in self.uncounted if u.why == "activations")


def count(module: nn.Module, example: Inputs) -> Count:
    """Count one forward pass in the module's present mode.

    Args:
        module: The network.
        example: Inputs, each `(batch, ...)`, on its device; the numbers are of the whole batch.
    """
    parameters = dict(module.named_parameters())
    path: list[tuple[str, type]] = []
    counter = _Counter(Origins(trees.leaves(example), parameters), path)
    with ExitStack() as around:
        around.enter_context(torch.compiler.set_stance("force_eager"))  # compiled parts run as they were written
        for context in (torch.no_grad(), enable_python_dispatcher(), running(module, path), counter):
            around.enter_context(context)
        trees.call(module, example)
    params = sum(p.numel() for p in parameters.values())
    return Count(counter.macs, params, tuple(counter.uncounted({n: p.numel() for n, p in parameters.items()})))


def count_call(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], live: Iterable[Tensor]) -> int:
    """Multiply-adds with weights inside a call of an operator that is made of others.

    Args:
        func: The operator.
        args: Its arguments.
        kwargs: Its named arguments.
        live: The tensors among them that depend on the network's inputs.
    """
    counter = _Counter(Origins(live, {}), [])
    with torch.no_grad(), enable_python_dispatcher(), counter:
        func(*args, **kwargs)
    return counter.macs


@dataclass
class _Notes:
    """What is noted while a network runs."""

    macs: int = 0
    work: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    counted: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    free: set[str] = field(default_factory=set)
    other: dict[str, tuple[str, str, str]] = field(default_factory=dict)


class _Counter(Watching):  # type: ignore[no-untyped-call]
    """Counts what is called."""

    def __init__(self, origins: Origins, path: list[tuple[str, type]]) -> None:
        super().__init__()
        self._origins, self._path, self._notes = origins, path, _Notes()

    @property
    def macs(self) -> int:
        """Multiply-adds with weights so far."""
        return self._notes.macs

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        del types
        name, kwargs = operator_name(func), kwargs or {}
        if not (name in FORMULAS or name in LOOKUPS or is_free(func, name) or name.startswith(_WHOLE)):
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        made = func(*args, **kwargs)
        self._note(func, name, args, kwargs, made)
        return made

    def _note(self, func: Any, name: str, args: Any, kwargs: Any, made: Any) -> None:
        given, results = trees.leaves((args, kwargs)), trees.leaves(made)
        names = frozenset().union(*(self._origins.parameters(x) for x in given))
        self._notes.touched |= names
        live = any(self._origins.live(x) for x in given)
        if name in FORMULAS and results:
            self._multiply(Call(name, func._overloadname, args, kwargs, results[0], _shape), names, live=live)
        elif live and names:
            self._consume(func, name, names)
        elif live and not is_free(func, name) and (name.startswith(_NAMED) or func.namespace not in _KNOWN):
            self._notes.work[self._layer(), name, "work"] += 0
        self._origins.follow(given, results)

    def _multiply(self, call: Call, names: frozenset[str], *, live: bool) -> None:
        notes = self._notes
        for product in FORMULAS[call.name](call):
            size = call.multiplied(product)
            if self._origins.counts(product):
                notes.macs += size
                notes.counted |= names
            elif not product.each and live:
                notes.work[self._layer(), call.name, "activations"] += size
        if live:
            notes.free |= names  # biases, scales

    def _consume(self, func: Any, name: str, names: frozenset[str]) -> None:
        """Parameters meet activations in an operator that multiplies nothing, or nobody knows what."""
        if is_free(func, name):
            self._notes.free |= names
            return
        why = "lookup" if name in LOOKUPS else "unknown"
        self._notes.other |= dict.fromkeys(names, (self._layer(), name, why))

    def _layer(self) -> str:
        return self._path[-1][0] if self._path else ""

    def uncounted(self, sizes: Mapping[str, int]) -> Iterator[Uncounted]:
        """What is not counted, by layer and operator.

        Args:
            sizes: Parameter -> how many numbers it has.
        """
        notes, params = self._notes, defaultdict[tuple[str, str, str], int](int)
        for name, size in sizes.items():
            if name in notes.counted or name not in notes.touched:
                continue
            owner = name.rpartition(".")[0]
            if name in notes.other:
                layer, operator, why = notes.other[name]
                params[layer or owner, operator, why] += size  # networks that are graphs run no modules
            elif name not in notes.free:  # it is looked at, and nobody sees what becomes of it
                params[owner, "no operator", "unknown"] += size
        for key in dict.fromkeys((*notes.work, *params)):
            yield Uncounted(*key, notes.work[key], params[key])


def _shape(x: Tensor) -> Sequence[int]:
    return x.shape
