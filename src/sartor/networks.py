"""Networks by name, shapes of inputs as text, and multiply-adds and parameters of any module."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from sartor.core.errors import ConfigError, MissingExtraError
from sartor.core.rng import global_seed

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


def load_network(spec: str, *, seed: int = 0) -> nn.Module:
    """An untrained network.

    Args:
        spec: `torchvision:NAME`, `timm:NAME`, or `package.module:callable`, which is called without arguments; modules
            in the current directory can be imported.
        seed: Of the initial weights.

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
        network = makers[where](name) if where in makers else _call(where, name)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{spec!r} gives a {type(network).__name__}; it must give a torch.nn.Module")
    return network


def _torchvision(name: str) -> object:
    known = torchvision.models.list_models()
    if name not in known:
        raise ConfigError(f"torchvision has no model {name!r}{_near(name, known)}")
    extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}  # else they warn
    return torchvision.models.get_model(name, weights=None, **extra)


def _timm(name: str) -> object:
    try:
        timm = importlib.import_module("timm")  # an optional dependency: only those who name it need it
    except ImportError as error:
        raise MissingExtraError("networks of timm need it: pip install timm") from error
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r}{_near(name, timm.list_models())}")
    return timm.create_model(name, pretrained=False)


def _call(module_name: str, attribute: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module is there and imports something that is not
        raise ConfigError(f"there is no module {module_name!r} to import, also not in {here}") from error
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
        ConfigError: not at least two positive whole numbers.
    """
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1:
        raise ConfigError(f"an input shape is positive whole numbers, batch first, like 1,3,224,224; not {text!r}")
    return shape


def macs_params(module: nn.Module, example: Tensor) -> tuple[int, int]:
    """Multiply-adds of one forward pass, and the number of parameters.

    Counted are convolutions (grouped and transposed ones too), linear layers and the projections of
    `nn.MultiheadAttention`; not normalisation, activations, pooling, or products of two activations (the attention
    matrix). A layer that runs twice counts twice; a shared parameter counts once.

    Args:
        module: The network; its training flags are left as they were.
        example: One input, `(batch, ...)`, on the network's device; the numbers are of the whole batch.
    """
    counted = [0]

    def count(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        counted[0] += _macs(layer, (*inputs, *named.values()), output)

    kinds = (*_CONVS, nn.Linear, nn.MultiheadAttention)
    hooks = [
        part.register_forward_hook(count, with_kwargs=True) for part in module.modules() if isinstance(part, kinds)
    ]
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        # the fused attention of an eval-mode encoder layer never calls its parts, so no hook would see them
        with torch.no_grad(), _unfused():
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
        for part, training in flags:
            part.training = training
    return counted[0], sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _unfused() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _macs(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> int:
    if isinstance(layer, nn.MultiheadAttention):
        return _attention(layer, inputs)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.Linear):
        return int(output.numel() * weight.shape[1])
    # a filter meets every position of the output once; of a transposed convolution, every position of the input
    positions = inputs[0].numel() if isinstance(layer, _TRANSPOSED) else output.numel()
    return int(positions * prod(weight.shape[1:]))


def _attention(layer: nn.MultiheadAttention, inputs: tuple[Any, ...]) -> int:
    """Of the projections of query, key, value and output: called as functions, so no hook sees them."""
    query, key, value = (int(t.numel()) for t in inputs[:3])
    return int(layer.embed_dim) * (query + key + value + query)
