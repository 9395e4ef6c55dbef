"""Networks by name, inputs as text, and multiply-adds and parameters of any module."""

from __future__ import annotations

import difflib
import importlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
import torchvision
from torch import Tensor, nn

from sartor.core import copies, trees
from sartor.core.counting import Count, count
from sartor.core.errors import ConfigError, MissingExtraError
from sartor.core.rng import global_seed
from sartor.core.trees import Inputs
from sartor.exporting.weights_file import load_weights

Shapes: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]
"""Shapes of one example without the batch: of one input, of several by place, or by name."""

_log = logging.getLogger(__name__)

TYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
"""Of inputs that a command line can ask for."""

LARGEST = 2**40
"""Values of an input, at most."""


def load_network(spec: str, *, seed: int = 0, classes: int | None = None) -> nn.Module:
    """An untrained network.

    Args:
        spec: `torchvision:NAME`, `timm:NAME`, or `package.module:callable`, which is called without arguments; modules
            in the current directory can be imported.
        seed: Of the initial weights.
        classes: Number of outputs, for those who take it (networks of torchvision and timm); None takes the usual.

    Raises:
        ConfigError: there is no such network, or the callable does not give one.
        MissingExtraError: timm is not installed.
    """
    where, colon, name = spec.partition(":")
    if not colon or not where or not name:
        raise ConfigError(
            f"a network is torchvision:NAME, timm:NAME or package.module:callable, not {spec!r}"
            + ("; an .onnx file is opened by a target" if spec.endswith(".onnx") else "")
        )
    makers = {"torchvision": _torchvision, "timm": _timm}
    with global_seed(seed):
        network = makers[where](name, classes) if where in makers else _call(where, name)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{spec!r} gives a {type(network).__name__}; it must give a torch.nn.Module")
    return network


class Original(NamedTuple):
    """A network to cut.

    Attributes:
        network: Belongs to nobody else; its weights are plain ones.
        folded: Weights that were computed from others before (weight norm, pruning masks, ...), and from what.
    """

    network: nn.Module
    folded: tuple[str, ...]


def original(spec: str | nn.Module, weights: str = "", *, seed: int = 0, classes: int | None = None) -> Original:
    """A network of one's own to cut: by name as in `load_network`, or a copy of a module; with weights from a file.

    A network that `torch.compile` or `DataParallel` wraps is taken out of it.
    """
    found = load_network(spec, seed=seed, classes=classes) if isinstance(spec, str) else spec
    found = copies.faithful(found)
    if weights:
        load_weights(found, Path(weights).expanduser())
    folded = copies.fold(found)
    if folded:
        _log.warning("%s: folded into plain weights, which can be cut: %s", type(found).__name__, ", ".join(folded))
    return Original(found, folded)


def blank(network: nn.Module, like: Inputs | Shapes) -> Inputs:
    """One example with zeros for what is floating-point, each input `(1, ...)`, on the network's device.

    Args:
        network: Floating-point inputs have the type of its parameters.
        like: An example, whose whole numbers and truths are kept; or shapes without the batch: one, several by place,
            or by name.
    """
    first = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))

    def zeros(like: Tensor | Sequence[int]) -> Tensor:
        if not isinstance(like, Tensor):
            return torch.zeros(1, *like, dtype=first.dtype, device=first.device)
        if like.is_floating_point():
            return torch.zeros(1, *like.shape[1:], dtype=first.dtype, device=first.device)
        return torch.zeros_like(like[:1], device=first.device) if like.is_meta else like[:1].to(first.device, copy=True)

    if isinstance(like, Mapping):
        return {name: zeros(value) for name, value in like.items()}
    alone = isinstance(like, Tensor) or all(isinstance(n, int) for n in like)
    return zeros(like) if alone else tuple(zeros(value) for value in like)  # type: ignore[arg-type]


def shapes(example: Inputs) -> Any:
    """Shapes without the batch: of one input, of several by place, or by name."""
    return trees.mapped(lambda t: tuple(t.shape[1:]), example)


def listed(shapes: Any) -> Any:
    """Shapes as JSON has them."""
    if isinstance(shapes, Mapping):
        return {name: listed(shape) for name, shape in shapes.items()}
    return [listed(shape) for shape in shapes] if isinstance(shapes, tuple) else shapes


def lively(like: Inputs, examples: int, generator: torch.Generator | None = None) -> Inputs:
    """A batch of random inputs, each `(examples, ...)`, shaped like those of one example.

    Floating-point inputs are drawn from a normal distribution; whole numbers are those of the example in another order,
    so that what is allowed stays allowed (0 and 1 where the example has no values); truths are those of the example.

    Args:
        like: An example; on the meta device it has no values.
        examples: How many.
        generator: None takes torch's global one.
    """

    def batch(value: Tensor) -> Tensor:
        device, shape = torch.device("cpu") if value.is_meta else value.device, (examples, *value.shape[1:])
        if value.is_floating_point():
            return torch.randn(shape, dtype=value.dtype, device=device, generator=generator)
        if value.dtype == torch.bool:
            return torch.zeros(shape, dtype=torch.bool) if value.is_meta else value.expand(shape).clone()
        if value.is_meta or not bool(value.any()):
            return torch.randint(2, shape, generator=generator).to(device, value.dtype)
        line = value[0].reshape(-1)
        rows = [line[torch.randperm(len(line), generator=generator).to(device)] for _ in range(examples)]
        return torch.stack(rows).reshape(shape)

    found: Inputs = trees.mapped(batch, like)
    return found


def untrained(spec: str, classes: int | None, *, training: bool) -> nn.Module:
    """The network by name with new weights, from torch's global generator."""
    seed = int(torch.randint(2**31, (), device="cpu"))  # a number, also where only shapes are wanted: device("meta")
    found = copies.unwrapped(load_network(spec, seed=seed, classes=classes))
    copies.fold(found)
    return found.train(training)


def _torchvision(name: str, classes: int | None) -> object:
    known = torchvision.models.list_models()
    if name not in known:
        raise ConfigError(f"torchvision has no model {name!r}{_near(name, known)}")
    extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}  # else they warn
    outputs = {} if classes is None else {"num_classes": classes}
    return torchvision.models.get_model(name, weights=None, **extra, **outputs)


def _timm(name: str, classes: int | None) -> object:
    try:
        timm = importlib.import_module("timm")  # an optional dependency: only those who name it need it
    except ImportError as error:
        raise MissingExtraError("networks of timm need it: pip install timm") from error
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r}{_near(name, timm.list_models())}")
    return timm.create_model(name, pretrained=False, **({} if classes is None else {"num_classes": classes}))


def _call(module_name: str, attribute: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module is there and imports something that is not
        raise ConfigError(
            f"there is no module {module_name!r} to import, also not in {here}; start the command where it lies"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(
            f"{module_name} has no {attribute!r}{_near(attribute, [n for n in dir(module) if n[0] != '_'])}"
        )
    maker = getattr(module, attribute)
    if not callable(maker):
        raise ConfigError(
            f"{module_name}:{attribute} is a {type(maker).__name__}; it must be callable without arguments"
        )
    try:
        return maker()
    except TypeError as error:
        raise ConfigError(f"{module_name}:{attribute} must be callable without arguments: {error}") from error


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def input_shape(text: str) -> tuple[int, ...]:
    """`"1,3,224,224"` -> `(1, 3, 224, 224)`; `x` may stand for the comma.

    Raises:
        ConfigError: not at least two positive whole numbers, or more values than any machine holds.
    """
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1 or prod(shape) > LARGEST:
        raise ConfigError(f"an input shape is positive whole numbers, batch first, like 1,3,224,224; not {text!r}")
    return shape


def inputs_of(texts: Sequence[str]) -> Inputs:
    """`["1,3,64,64"]` -> one input, `["1,3,64,64", "1,10"]` -> a tuple, `["a=1,3,64,64", "b=1,10"]` -> a dict.

    A type may stand before or behind it, with a colon between: `ids=int64:1,16`. `x` may stand for the comma.

    Returns:
        Tensors on the meta device: shapes, batch first, and types.

    Raises:
        ConfigError: A text is no shape, only some have a name, or two the same; the message names the input.
    """
    pairs = [_named_text(text) for text in texts]
    names = [name for name, _ in pairs if name]
    if names and (len(names) < len(pairs) or len(set(names)) < len(names)):
        raise ConfigError(
            f"inputs are all by name, each another, as in --input a=1,3,64,64 --input b=1,10, or all by place; "
            f"got {', '.join(texts)}"
        )
    if not texts:
        raise ConfigError("a network needs at least one input: --input 1,3,224,224")
    found = [_outlined(text, name or f"number {i}", several=len(pairs) > 1) for i, (name, text) in enumerate(pairs, 1)]
    if names:
        return dict(zip(names, found, strict=True))
    return found[0] if len(found) == 1 else tuple(found)


def _named_text(text: str) -> tuple[str, str]:
    name, equals, rest = text.rpartition("=")
    if equals and not name.strip().isidentifier():
        raise ConfigError(f"an input is called as in the network's forward: name=1,3,64,64; got {text!r}")
    return name.strip(), rest


def _outlined(text: str, name: str, *, several: bool) -> Tensor:
    left, colon, right = text.partition(":")
    shape, kind = (right, left) if colon and not left.strip()[:1].isdecimal() else (left, right)
    dtype = getattr(torch, kind.strip(), None) if colon else torch.float32
    if dtype not in TYPES:
        known = ", ".join(str(t).removeprefix("torch.") for t in TYPES)
        raise ConfigError(f"input {name} has the type {kind!r}; types are {known}, as in {_as_in(name)}int64:1,16")
    try:
        return torch.empty(input_shape(shape), dtype=dtype, device="meta")
    except ConfigError as error:
        raise ConfigError(f"input {name}: {error}") if several else error from None


def _as_in(name: str) -> str:
    return f"{name}=" if name.isidentifier() else ""


def macs_params(module: nn.Module, example: Inputs) -> tuple[int, int]:
    """Multiply-adds with weights of one forward pass, and the number of parameters (see `counted`)."""
    found = counted(module, example)
    return found.macs, found.params


def counted(module: nn.Module, example: Inputs) -> Count:
    """Multiply-adds of one forward pass in evaluation, parameters, and what they leave out.

    Counted are convolutions (grouped, transposed and deformable ones too), linear and recurrent layers and products
    with a matrix of weights, wherever they are called: in layers, in the projections of `nn.MultiheadAttention`, as
    functions; not normalisation, activations, pooling, or products of two activations (the attention matrix). A layer
    that runs twice counts twice; a shared parameter counts once.

    Args:
        module: The network; left as it was.
        example: Inputs, each `(batch, ...)`, on the network's device; the numbers are of the whole batch.
    """
    with copies.undisturbed(module):
        module.eval()
        with unfused():  # the fused attention of an eval-mode encoder layer is one call, in which no product is seen
            return count(module, example)


@contextmanager
def unfused() -> Iterator[None]:
    """Attention layers run as the operators they are made of, without gradients and in eval mode, too."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
