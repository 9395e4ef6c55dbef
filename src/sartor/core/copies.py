"""A network of one's own, as its user has it: whatever is done to the copy, the user's stays as it was.

Everything that takes a module and changes or runs it (tracing, cutting, exporting, teaching) copies it here, so that
all of them see the same network.
"""

from __future__ import annotations

import copy
import copyreg
import functools
import logging
import types
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from sartor.core import foreign, trees
from sartor.core.errors import ConfigError
from sartor.core.trees import Inputs

_log = logging.getLogger(__name__)
_PARTS = ("_parameters", "_buffers", "_modules")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_COPYING = (
    "__deepcopy__",
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__new__",
)
_STATES = (nn.Module.__setstate__, _ConvNd.__setstate__, _NormBase.__setstate__)
"""Of old files, these fill in what they lack; nothing else."""
_HELD = (nn.Module, Tensor, type(None))
_MISSING = object()


def faithful(module: nn.Module, instead: Mapping[int, Any] | None = None) -> nn.Module:
    """A copy that computes the same and shares nothing with the original that running it could change.

    Training flags, hooks, frozen parameters and attributes are as they were. Wrappers that only say how a module runs
    (`torch.compile`, `DataParallel`) are taken off, inside too. Functions that know parts of the original (hooks, a
    `forward` that was put in place of another) know those of the copy. What cannot be copied (a lock, an open file) is
    shared, and a tensor with a history is copied without it.

    Args:
        module: Left as it is.
        instead: `id` of a tensor -> what stands in its place in the copy.

    Raises:
        ConfigError: A class forbids copying.
    """
    source = unwrapped(module)
    memo: dict[int, Any] = dict(instead or {})
    memo |= {id(t): t.detach().clone() for t in _tensors(source) if t.grad_fn is not None and id(t) not in memo}
    try:
        made = _copied(source, dict(memo))
    except Exception:  # noqa: BLE001 - whatever a foreign class raises when it is copied
        memo |= _uncopied(source, memo)
        try:
            made = _copied(source, dict(memo))
        except Exception as error:
            raise ConfigError(
                f"{type(source).__name__} cannot be copied ({foreign.first_line(error, named=True)}), and sartor "
                "leaves the original as it is; give a module that copy.deepcopy takes"
            ) from error
    return made


def ready(module: nn.Module, inputs: Inputs) -> nn.Module:
    """A copy in evaluation mode that has run once, so that what its forward makes first is there; to be exported.

    Its parameters are the original's, which running and tracing leave alone.
    """
    made = faithful(module, {id(weight): weight for weight in module.parameters()}).eval()
    with torch.no_grad():
        trees.call(made, inputs)
    return made


def load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill a network with a state dict; buffers that its forward makes first are made.

    Raises:
        RuntimeError: It is that of another network.
    """
    for name, value in state.items():
        owner, _, leaf = name.rpartition(".")
        with suppress(AttributeError):  # of another network: told below
            buffers = module.get_submodule(owner)._buffers
            if leaf in buffers and buffers[leaf] is None:
                buffers[leaf] = torch.empty_like(value)
    module.load_state_dict(dict(state))


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Whatever runs the module inside the block leaves nothing behind in it.

    Training flags, attributes, hooks, what plain containers hold and the values of buffers come back; parameters are
    not looked at. Cheaper than a copy, for where the network itself must run.
    """
    parts = [(part, dict(vars(part)), _held(part)) for part in module.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for part, attributes, containers in parts:
            vars(part).clear()
            vars(part).update(attributes)
            for container, content in containers:
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(content)
        with torch.no_grad():
            for buffer, value in buffers:
                if not buffer.is_meta and not torch.equal(buffer, value):
                    buffer.copy_(value)


def _held(part: nn.Module) -> list[tuple[Any, Any]]:
    """The plain containers among a module's attributes, and what is in them."""
    found = [value for value in vars(part).values() if type(value) in (dict, OrderedDict, list, set)]
    return [(value, copy.copy(value)) for value in found]


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside `torch.compile` and `DataParallel`."""
    while True:
        inner = _inner(module)
        if inner is None:
            return module
        module = inner


def fold(module: nn.Module) -> tuple[str, ...]:
    """Replace weights that are computed from others (weight norm, masks, parametrisations) by plain ones.

    In place; the network computes in evaluation what it computed before.

    Returns:
        What was folded, `layer.weight (weight norm)`.
    """
    found: list[str] = []
    flags = [(part, part.training) for part in module.modules()]
    module.eval()  # spectral norm takes a step whenever its weight is looked at in training
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would rather have the new forms
            for name, part in list(module.named_modules()):
                folded = [f"{name}.{leaf} ({kind})".lstrip(".") for leaf, kind in _fold(part)]
                if folded and isinstance(part, nn.RNNBase):
                    _settle(part)
                found += folded
    finally:
        for part, training in flags:
            part.training = training
    return tuple(found)


def _inner(module: nn.Module) -> nn.Module | None:
    """What a wrapper wraps."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return cast(nn.Module, module.module)
    return module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None


def _copied(source: nn.Module, memo: dict[int, Any]) -> nn.Module:
    for part in reversed(list(source.modules())):  # inner wrappers first
        if _inner(part) is not None:
            bare = memo[id(part)] = copy.deepcopy(unwrapped(part), memo)
            _hand_on_hooks(part, bare, memo)
    _copy_plain(source, memo)
    made: nn.Module = copy.deepcopy(source, memo)
    mend = _Mended(memo)
    for part in made.modules():
        for name, value in vars(part).items():
            if name not in _PARTS and _may_hold(value):
                vars(part)[name] = mend(value)
    return made


def _copy_plain(source: nn.Module, memo: dict[int, Any]) -> None:
    """Copy the modules that say nothing of how they are copied, as `deepcopy` does, without its general machinery.

    A module holds a dozen containers, nearly all of them empty: looking at each takes most of the time of `deepcopy`.
    """
    parts = [part for part in source.modules() if id(part) not in memo and _is_plain(part)]
    memo.update((id(part), type(part).__new__(type(part))) for part in parts)  # before any is filled: they know others
    for part in parts:
        entries = vars(memo[id(part)])
        for name, value in vars(part).items():
            if name != "_compiled_call_impl":
                entries[name] = value if _is_fixed(value) else _entry(value, memo)


def _is_fixed(value: Any) -> bool:
    """Whether a value is its own copy."""
    return type(value) in _PLAIN or (type(value) is tuple and all(type(v) in _PLAIN for v in value))


def _entry(value: Any, memo: dict[int, Any]) -> Any:
    """The copy of an attribute; of a dict of modules or weights, without asking for each key."""
    kind = type(value)
    if kind not in (dict, OrderedDict, set) or id(value) in memo:
        return copy.deepcopy(value, memo)
    if value and (kind is set or not all(isinstance(v, _HELD) for v in value.values())):
        return copy.deepcopy(value, memo)
    made = memo[id(value)] = kind()
    if value:
        made.update((copy.deepcopy(key, memo), copy.deepcopy(entry, memo)) for key, entry in value.items())
    return made


@functools.cache
def _copies_as_modules_do(kind: type[nn.Module]) -> bool:
    """Whether the class leaves it to `deepcopy` and to torch how it is copied."""
    bases = [base for base in kind.__mro__[:-1] if base is not nn.Module]
    own = any(name in vars(base) for base in bases for name in _COPYING)
    return not own and kind.__setstate__ in _STATES and kind not in copyreg.dispatch_table


def _is_plain(part: nn.Module) -> bool:
    return _copies_as_modules_do(type(part)) and "__deepcopy__" not in vars(part)  # type: ignore[arg-type]


def _hand_on_hooks(wrapper: nn.Module, bare: nn.Module, memo: dict[int, Any]) -> None:
    """Hooks of a wrapper go to what it wraps."""
    for name in ("_forward_pre_hooks", "_forward_hooks"):
        vars(bare)[name].update(copy.deepcopy(vars(wrapper)[name], memo))
        for flag in (f"{name}_with_kwargs", f"{name}_always_called"):
            vars(bare).get(flag, {}).update(vars(wrapper).get(flag, {}))


class _Mended:
    """Finds the references that `deepcopy` leaves at the original, in functions and weak references.

    Args:
        memo: `id` of an original -> its copy.
    """

    def __init__(self, memo: dict[int, Any]) -> None:
        self.memo = memo
        self.done: dict[int, tuple[Any, Any]] = {}  # with the value itself, so that its id is not given twice

    def __call__(self, value: Any) -> Any:
        """The value with its references mended; containers are changed in place."""
        if id(value) not in self.done:
            self.done[id(value)] = value, value  # for what contains itself
            self.done[id(value)] = value, self._mended(value)
        return self.done[id(value)][1]

    def _mended(self, value: Any) -> Any:
        if isinstance(value, dict):
            for key, entry in list(value.items()):
                if (new := self(entry)) is not entry:
                    value[key] = new
        elif isinstance(value, list):
            value[:] = [self(entry) for entry in value]
        elif type(value) is tuple:
            return tuple(self(entry) for entry in value)
        elif isinstance(value, types.FunctionType | types.MethodType | functools.partial | weakref.ref):
            return self._function(value)
        return value

    def _counterpart(self, value: Any) -> Any:
        """Of something that a function knows: a part of the network, or a container of its own."""
        if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
            return self(value)
        found = self.memo.get(id(value), _MISSING)
        if found is not _MISSING:
            return found
        plain = type(value) in (list, dict, set)  # what a hook writes down is not the user's business
        return copy.deepcopy(value, self.memo) if plain else value

    def _function(self, value: Any) -> Any:
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self._counterpart(value.__self__))
        if isinstance(value, functools.partial):
            named = {key: self._counterpart(v) for key, v in value.keywords.items()}
            return functools.partial(self(value.func), *map(self._counterpart, value.args), **named)
        if isinstance(value, weakref.ref):
            old = value()
            new = self._counterpart(old)
            return value if new is old else weakref.ref(new)
        compiled = vars(value).get("_torchdynamo_orig_callable")
        return self._closure(value) if compiled is None else self(compiled)

    def _closure(self, value: types.FunctionType) -> types.FunctionType:
        """A function whose cells and defaults know the copy."""
        cells = value.__closure__ or ()
        old = [[c.cell_contents for c in cells if _filled(c)], [*(value.__defaults__ or ())]]
        old.append([*(value.__kwdefaults__ or {}).values()])
        new = [[self._counterpart(v) for v in part] for part in old]
        if all(a is b for part, other in zip(old, new, strict=True) for a, b in zip(part, other, strict=True)):
            return value
        contents = iter(new[0])
        closure = tuple(types.CellType(next(contents)) if _filled(c) else c for c in cells)
        made = types.FunctionType(value.__code__, value.__globals__, value.__name__, tuple(new[1]) or None, closure)
        made.__kwdefaults__ = dict(zip(value.__kwdefaults__ or {}, new[2], strict=True)) or None
        made.__dict__.update(vars(value))
        return made


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _attributes(module: nn.Module) -> Iterator[Any]:
    for part in module.modules():
        yield from (value for name, value in vars(part).items() if name not in _PARTS and _may_hold(value))


def _may_hold(value: Any) -> bool:
    """Whether an attribute may be, or hold, more than numbers and text: most are nothing, and there are many."""
    return type(value) not in _PLAIN and not (type(value) in (dict, OrderedDict, list, tuple, set) and not value)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Tensors that the modules hold as attributes or buffers, in containers too."""
    for part in module.modules():
        yield from (b for b in part._buffers.values() if b is not None)
    for value in _attributes(module):
        yield from (leaf for leaf in _walk(value, set()) if isinstance(leaf, Tensor))


def _walk(value: Any, seen: set[int]) -> Iterator[Any]:
    """The leaves of plain containers and plain objects."""
    if id(value) in seen or isinstance(value, nn.Module):
        return
    seen.add(id(value))
    inside = _inside(value)
    if inside is None:
        yield value
    for entry in inside or ():
        yield from _walk(entry, seen)


def _inside(value: Any) -> list[Any] | None:
    """What a container or a plain object holds; None for what is neither."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    odd = callable(value) or isinstance(value, Tensor | types.ModuleType)
    return list(vars(value).values()) if hasattr(value, "__dict__") and not odd else None


def _uncopied(module: nn.Module, memo: dict[int, Any]) -> dict[int, Any]:
    """What cannot be copied, to be shared: the innermost objects that stop `deepcopy`."""
    weights = [*module.parameters(), *module.buffers(), *module.modules()]
    known = {**memo, **{id(value): value for value in weights}}
    found: dict[int, Any] = {}

    def search(value: Any, seen: set[int]) -> None:
        if id(value) in seen or id(value) in known:
            return
        seen.add(id(value))
        try:
            copy.deepcopy(value, {**known, **found})
        except Exception:  # noqa: BLE001 - whatever a foreign class raises when it is copied
            for entry in _inside(value) or ():
                search(entry, seen)
            try:
                copy.deepcopy(value, {**known, **found})
            except Exception:  # noqa: BLE001 - the same
                found[id(value)] = value
                _log.info("%s: a %s cannot be copied and is shared", type(module).__name__, type(value).__name__)

    for value in _attributes(module):
        search(value, set())
    return found


def _fold(part: nn.Module) -> Iterator[tuple[str, str]]:
    """Fold the weights of one module; their names, and what they were."""
    if parametrize.is_parametrized(part):
        kind = type(part)  # torch made it for one module, copies share it, and folding changes it
        part.__class__ = type(kind.__name__, kind.__bases__, {k: v for k, v in vars(kind).items() if k not in _OWN})
        for leaf in list(part.parametrizations):  # type: ignore[arg-type]
            steps = cast(nn.Module, part.parametrizations[leaf])  # type: ignore[index]
            kinds = [_spoken(type(step).__name__) for step in steps.children()]
            originals = list(steps.parameters(recurse=False))
            if hasattr(steps, "original") and isinstance(steps.original, nn.Parameter):
                steps.original = nn.Parameter(steps.original.detach().clone())  # it may be tied to another layer's
            parametrize.remove_parametrizations(part, leaf, leave_parametrized=True)
            value = part._buffers.get(leaf) if originals else None
            if value is not None:  # of several parameters torch makes a buffer where no gradient is taken
                del part._buffers[leaf]
                part.register_parameter(leaf, nn.Parameter(value))
            getattr(part, leaf).requires_grad_(any(p.requires_grad for p in originals))
            yield leaf, " and ".join(kinds)
    while (hook := next((h for h in part._forward_pre_hooks.values() if isinstance(h, _HOOKS)), None)) is not None:
        yield _unhook(part, hook)


def _settle(layer: nn.RNNBase) -> None:
    """Let a recurrent layer, which keeps a list of its weights, know the new ones, in their order."""
    names = [name for name in layer._flat_weights_names if name in layer._parameters]
    layer._parameters = {name: layer._parameters[name] for name in (*names, *layer._parameters)}
    layer._init_flat_weights()


_OWN = ("__dict__", "__weakref__")
_HOOKS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)


def _unhook(part: nn.Module, hook: Any) -> tuple[str, str]:
    leaf = hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name
    learns = any(p.requires_grad for n, p in part._parameters.items() if n.startswith(f"{leaf}_") and p is not None)
    if isinstance(hook, prune.BasePruningMethod):
        kind = "pruning mask"
        prune.remove(part, leaf)  # type: ignore[no-untyped-call]
    elif isinstance(hook, WeightNorm):
        kind = "weight norm"
        torch.nn.utils.remove_weight_norm(part, leaf)
    else:
        kind = "spectral norm"
        torch.nn.utils.remove_spectral_norm(part, leaf)
    getattr(part, leaf).requires_grad_(learns)
    return leaf, kind


def _spoken(name: str) -> str:
    known = {"_WeightNorm": "weight norm", "_SpectralNorm": "spectral norm", "_Orthogonal": "orthogonal"}
    return known.get(name, name)
