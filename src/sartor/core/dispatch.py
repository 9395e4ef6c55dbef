"""Watching a network run, operator by operator and module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils._python_dispatch import TorchDispatchMode


class Watching(ProxyTorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees operators before autograd and autocast take them apart, as the modules call them.

    That place in the dispatcher is open to a few kinds of modes only, of which this is one; nothing else of its parent
    is used. Derive from it, with a `__torch_dispatch__` of one's own, and enter it inside `enable_python_dispatcher()`.
    """

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)  # type: ignore[no-untyped-call]
        self._mode_key = torch._C._TorchDispatchModeKey.PROXY

    def __enter__(self) -> Self:
        TorchDispatchMode.__enter__(self)  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        TorchDispatchMode.__exit__(self, *error)  # type: ignore[no-untyped-call]


@contextmanager
def running(network: nn.Module, path: list[tuple[str, type]]) -> Iterator[None]:
    """Keep in `path` the names and classes of the modules that are running; scripted ones take no hooks."""
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        entry = (name, type(module))

        def enter(_module: nn.Module, _args: Any, entry: tuple[str, type] = entry) -> None:
            path.append(entry)

        def leave(_module: nn.Module, _args: Any, _result: Any) -> None:
            path.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def operator_name(func: Any) -> str:
    """The name of an operator without overload and in-place mark: `add` for `aten.add_.Tensor`."""
    packet = getattr(func, "overloadpacket", None)
    name = str(getattr(packet, "__name__", None) or getattr(func, "__name__", func))
    return name if name.startswith("_") else name.rstrip("_")
