from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dispatch.python import enable_python_dispatcher

from sartor.core.dispatch import Watching, operator_name, running


class Seen(Watching):
    def __init__(self, path):
        super().__init__()
        self.path, self.calls = path, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append((operator_name(func), self.path[-1][0] if self.path else None))
        return func(*args, **(kwargs or {}))


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.Linear(3, 3)

    def forward(self, x):
        return self.part(x).relu_()


def test_operators_are_seen_whole_and_where_they_are_called():
    network, path, x = nn.Sequential(Inner(), nn.Softmax(1)), [], torch.zeros(2, 3)
    with torch.no_grad(), enable_python_dispatcher(), running(network, path), Seen(path) as seen:
        network(x)
    assert [(n, p) for n, p in seen.calls if n != "detach"] == [
        ("linear", "0.part"),
        ("relu", "0"),
        ("softmax", "1"),
    ]
    assert path == []
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_hooks_go_after_an_error_too():
    network, path = Inner(), []
    with pytest.raises(RuntimeError), running(network, path):
        network(torch.zeros(2, 4))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripted_modules_take_no_hooks():
    path = []
    with running(nn.Sequential(torch.jit.script(nn.Linear(3, 3)), nn.ReLU()), path):
        pass
    assert path == []


def test_names_are_without_overload_and_mark():
    assert operator_name(torch.ops.aten.add_.Tensor) == "add"
    assert operator_name(torch.ops.aten._softmax.default) == "_softmax"
