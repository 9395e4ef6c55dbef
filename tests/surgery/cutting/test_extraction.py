from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, fx, nn

from nets import Branches, Numbers, Residual, Tokens, random_
from sartor.exporting.onnx_file import export_onnx
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.extraction import as_graph, as_module
from sartor.surgery.cutting.slicing import Engine

KINDS = {"Residual": Residual, "Branches": Branches, "Tokens": Tokens, "Numbers": Numbers}


@pytest.fixture(scope="module")
def cuts():
    """Of every network the engine and a cut that keeps the last three quarters of every family."""
    found = {}
    for name, kind in KINDS.items():
        network = random_(kind()).eval()
        engine = Engine(Skeleton(couple(network, torch.zeros(1, 3, 8, 8))), network)
        kept = np.ones(len(engine.skeleton.units) + 1, dtype=bool)
        for group in engine.skeleton.coupling.groups:
            for family in group.families:
                kept[family[: len(family) // 4]] = False
        found[name] = engine, kept
    return found


def networks(cuts):
    """Of every network the class and the graph."""
    for name, (engine, kept) in cuts.items():
        cut = engine.cut(kept, 2)
        if name != "Numbers":
            yield name, engine, kept, as_module(engine, cut)
        yield name, engine, kept, as_graph(engine, cut)


def inputs(batch: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.detach().abs().max()))


def test_it_computes_what_the_cut_computes_for_any_batch(cuts):
    for _, engine, kept, small in networks(cuts):
        for batch in (1, 2, 5):
            close(small(inputs(batch)), engine(inputs(batch), kept))


def test_the_class_and_the_names_are_those_of_the_original(cuts):
    for name, engine, _, small in networks(cuts):
        if not isinstance(small, fx.GraphModule):
            assert type(small) is KINDS[name]
        assert set(small.state_dict()) == set(engine.network.state_dict())
        assert not small.training
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in engine.network.parameters())


def test_layers_know_their_new_sizes(cuts):
    engine, kept = cuts["Residual"]
    for small in (as_module(engine, engine.cut(kept, 2)), as_graph(engine, engine.cut(kept, 2))):
        at = dict(small.named_modules())
        assert (at["stem"].in_channels, at["stem"].out_channels) == (3, 6)
        assert (at["bn_expand"].num_features, at["reduce"].in_channels) == (9, 9)
        depthwise = at["depthwise"]
        assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (6, 6, 6)
        assert (at["head"].in_features, at["head"].out_features) == (12, 5)
    engine, kept = cuts["Branches"]
    for small in (as_module(engine, engine.cut(kept, 2)), as_graph(engine, engine.cut(kept, 2))):
        at = dict(small.named_modules())
        assert (at["mix"].in_channels, at["mix"].out_channels) == (15, 12)
        assert (at["grouped"].in_channels, at["grouped"].out_channels, at["grouped"].groups) == (12, 18, 3)
        assert (at["norm"].num_groups, at["norm"].num_channels) == (3, 18)
        assert (at["up"].in_channels, at["up"].out_channels) == (18, 8)
    engine, kept = cuts["Tokens"]
    small = as_module(engine, engine.cut(kept, 2))
    assert small.heads == 3
    assert small.before.normalized_shape == (18,)
    assert (small.qkv.in_features, small.qkv.out_features) == (18, 54)
    assert engine.network.heads == 4


def test_weights_are_copies(cuts):
    for _, engine, _, small in networks(cuts):
        mine = {p.data_ptr() for p in (*small.parameters(), *small.buffers())}
        assert not mine & {p.data_ptr() for p in (*engine.network.parameters(), *engine.network.buffers())}
        assert all(p.is_contiguous() and p.requires_grad for p in small.parameters())


def test_it_is_copied_and_trained_like_any_network(cuts):
    x, y = inputs(16), torch.arange(16) % 5
    for _, _, _, small in networks(cuts):
        twin = copy.deepcopy(small)
        assert torch.equal(twin(x), small(x))
        twin.train()
        optimizer = torch.optim.Adam(twin.parameters(), 0.01)
        losses = []
        for _ in range(8):
            loss = nn.functional.cross_entropy(twin(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        assert all(p.grad is not None for p in twin.parameters())
        assert not torch.equal(next(iter(twin.parameters())), next(iter(small.parameters())))


def test_a_graph_follows_the_mode():
    network = random_(Residual())
    engine = Engine(Skeleton(couple(network, torch.zeros(1, 3, 8, 8))), network)
    small = as_graph(engine, engine.cut(np.ones(len(engine.skeleton.units) + 1, dtype=bool), 2))
    assert small.training
    close(small(inputs(4)), network(inputs(4)))
    close(small.bn.running_mean, network.bn.running_mean)
    close(small.eval()(inputs(4)), network.eval()(inputs(4)))


def test_it_is_exported_again(cuts):
    for _, _, _, small in networks(cuts):
        x = inputs(2, 3)
        close(torch.export.export(small, (x,)).module()(x), small(x))


def test_onnx_runtime_agrees(cuts, tmp_path):
    chosen = {"Residual": as_module, "Numbers": as_graph}  # exporting takes seconds: one of each kind
    for i, (name, make) in enumerate(chosen.items()):
        engine, kept = cuts[name]
        small = make(engine, engine.cut(kept, 2))
        x = inputs(1, 3)
        wanted = small(x).detach()
        path = tmp_path / f"{i}.onnx"
        export_onnx(small, x, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        close(torch.from_numpy(found), wanted)


def test_nothing_of_sartor_is_inside(cuts, tmp_path):
    x = inputs(1)
    files = []
    for i, (name, _, _, small) in enumerate(networks(cuts)):
        modules = {type(m).__module__.split(".")[0] for m in small.modules()}
        assert modules <= {"torch", "nets"}
        if isinstance(small, fx.GraphModule):
            calls = [n.target for n in small.graph.nodes if n.op == "call_function"]
            assert not any(str(getattr(t, "__module__", "")).startswith("sartor") for t in calls), name
        if name == "Numbers":
            torch.export.save(torch.export.export(small, (x,)), tmp_path / f"{i}.pt2")
            torch.save(small(x).detach(), tmp_path / f"{i}.pt")
            files.append(i)
    script = (
        "import sys, torch\n"
        "sys.modules['sartor'] = None\n"
        f"x = torch.load({str(tmp_path / 'x.pt')!r})\n"
        f"for i in {files}:\n"
        f"    y = torch.export.load({str(tmp_path)!r} + f'/{{i}}.pt2').module()(x)\n"
        f"    torch.testing.assert_close(y, torch.load({str(tmp_path)!r} + f'/{{i}}.pt'), rtol=1e-4, atol=1e-4)\n"
    )
    torch.save(x, tmp_path / "x.pt")
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 6)
        self.c, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
        self.c.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.c(self.b(torch.relu(self.a(x))))))


def test_tied_weights_stay_tied():
    network = random_(Tied()).eval()
    engine = Engine(Skeleton(couple(network, torch.zeros(1, 6))), network)
    kept = np.ones(len(engine.skeleton.units) + 1, dtype=bool)
    for group in engine.skeleton.coupling.groups:
        kept[group.families[0][0]] = False
    x = torch.randn(3, 6)
    for make in (as_module, as_graph):
        small = make(engine, engine.cut(kept, 2))
        assert len(list(small.parameters())) == 7
        close(small(x), engine(x, kept))
    small = as_module(engine, engine.cut(kept, 2))
    assert small.a.weight is small.c.weight
    assert small.a.weight.shape == (7, 6)
