"""Multiply-adds of a network: every operator that it calls is counted, is free, or is named as not counted.

*MACs* are multiply-adds with weights: convolutions, linear and recurrent layers, and any matrix product one of whose
factors does not depend on the network's inputs. Products of two activations (attention matrices) are told apart, see
docs/decisions/0010-what-macs-count.md. The formulas are those of `sartor.core.products`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher

from sartor.core import trees
from sartor.core.dispatch import Watching, operator_name, running
from sartor.core.products import FORMULAS, Call, Product
from sartor.core.trees import Inputs

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
