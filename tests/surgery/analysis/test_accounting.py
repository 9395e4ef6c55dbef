from __future__ import annotations

from itertools import accumulate
from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import several
from nets import Branches, Numbers, Residual, Tokens, Waves
from sartor.costs.memory import Memory
from sartor.networks import macs_params
from sartor.spaces.compression import Compression
from sartor.spaces.widths import Widths
from sartor.surgery.analysis.accounting import Accounts
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.ladders import ladders
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.supernet import CutSupernet

SHARES = (0.25, 0.5, 0.75, 1.0)


def account(network: nn.Module, *shape: int) -> tuple[Accounts, CutSupernet]:
    skeleton = Skeleton(couple(network.eval(), torch.zeros(1, *shape)))
    steps = ladders(skeleton.coupling.groups, SHARES, 2)
    return Accounts(skeleton, network, steps), CutSupernet(skeleton, network, steps, plain=False)


CASES = {
    "residual": (Residual, (3, 8, 8)),
    "concatenation, groups, transposed": (Branches, (3, 8, 8)),
    "attention on tokens": (Tokens, (3, 8, 8)),
    "one dimension": (Waves, (2, 20)),
    "a parameter of its own": (Numbers, (3, 8, 8)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tables_are_what_is_counted_on_the_networks_themselves(case):
    kind, shape = case
    accounts, supernet = account(kind(), *shape)
    rng = np.random.default_rng(0)
    options = [len(step.choice.options) for step in accounts.ladders]
    archs = [tuple(n - 1 for n in options), (0,) * len(options)]
    archs += [tuple(int(rng.integers(n)) for n in options) for _ in range(6)]
    counted = [macs_params(supernet.extract(arch), torch.zeros(1, *shape)) for arch in archs]
    macs, params = accounts.macs(), accounts.params()
    assert macs is not None
    assert params is not None
    assert macs(archs).tolist() == [m for m, _ in counted]
    assert params(archs).tolist() == [p for _, p in counted]
    assert len(set(counted)) > 3


@pytest.mark.parametrize("case", [c for c in CASES.values() if c[0] is not Branches])
def test_the_layers_make_the_same_sum(case):
    kind, shape = case
    accounts, _ = account(kind(), *shape)
    layers = accounts.layers()
    assert len({layer.name for layer in layers}) == len(layers)
    kinds = {layer.kind for layer in layers}
    assert kinds <= {"conv", "linear", "depthwise", "grouped"}
    for arch in ((0,) * len(accounts.ladders), tuple(len(s.choice.options) - 1 for s in accounts.ladders)):
        keys = [layer.key(arch) for layer in layers]
        total = sum(k.taps * prod(k.out_size) * k.c_out * (1 if k.kind == "depthwise" else k.c_in) for k in keys)
        macs = accounts.macs()
        assert macs is not None
        assert total == macs([arch]).item()


def test_geometry_of_the_layers_by_hand():
    accounts, _ = account(Residual(), 3, 8, 8)
    found = {layer.name: layer for layer in accounts.layers()}
    assert list(found) == ["stem", "expand", "reduce", "depthwise", "pointwise", "head"]
    stem = found["stem"]
    assert (stem.kind, stem.in_size, stem.kernel, stem.stride, stem.bias) == ("conv", (8, 8), 3, 1, False)
    assert stem.c_in.sizes == (3,)
    assert stem.c_out.sizes == (2, 4, 6, 8)
    depthwise = found["depthwise"]
    assert (depthwise.kind, depthwise.stride, depthwise.out) == ("depthwise", 2, (4, 4))
    assert found["head"].kind == "linear"
    assert found["head"].c_in.choice == found["pointwise"].c_out.choice


def test_a_layer_whose_inputs_several_choices_set_comes_in_parts():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
            self.c = nn.Conv2d(10, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.cat([self.a(x), self.b(x)], 1))

    accounts, _ = account(Two(), 3, 4, 4)
    found = {layer.name: (layer.c_in.choice, layer.c_in.sizes[-1]) for layer in accounts.layers()}
    assert found == {"a": (None, 3), "b": (None, 3), "c": (0, 4), "c[1,0]": (1, 6)}


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))


def test_memory_by_hand():
    accounts, _ = account(Chain(), 3, 8, 8)
    a, b = accounts.ladders
    assert a.choice.options == (1, 2, 3, 4)
    assert b.choice.options[-1] == 6
    for arch in ((3, len(b.choice.options) - 1), (0, 0), (1, 0)):
        n, m = a.choice.options[arch[0]], b.choice.options[arch[1]]
        lives = [step([arch]).item() for step in accounts.memory()]
        # what enters and what leaves; activations work in place
        assert lives == [64 * (3 + n), 64 * (n + m), 64 * m + m, m + 2]


def test_memory_holds_the_other_branch_of_a_sum():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1)
            self.head = nn.Conv2d(4, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.head(x + self.c(self.b(x)))

    accounts, _ = account(Sum(), 3, 2, 2)
    arch = tuple(len(step.choice.options) - 1 for step in accounts.ladders)
    assert [step([arch]).item() / 4 for step in accounts.memory()] == [3 + 4, 4 + 8, 4 + 8 + 4, 4 + 1]


def test_memory_holds_all_inputs_until_they_are_read():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 8), nn.Linear(6, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.head(self.a(x) + self.b(y))

    skeleton = Skeleton(couple(Two().eval(), {"y": torch.zeros(1, 6), "x": torch.zeros(1, 4)}))
    accounts = Accounts(skeleton, Two(), ladders(skeleton.coupling.groups, (0.5, 1.0), 1))
    assert [step([(1,)]).item() for step in accounts.memory()] == [4 + 6 + 8, 6 + 8 + 8, 8 + 1]


def test_an_image_that_is_looked_at_twice_costs_twice():
    case = several.CASES["twins"]
    skeleton = Skeleton(couple(case.network(), case.batch(1)))
    layers = Accounts(skeleton, case.network(), ladders(skeleton.coupling.groups, (0.5, 1.0), 1)).layers()
    assert [(layer.in_size, layer.out) for layer in layers] == [((16, 8), (16, 8)), ((16, 8), (6, 3)), ((1, 2), (1, 2))]


def test_three_choices_in_one_weight_have_no_tables():
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(4, 8)
            self.core = nn.Parameter(torch.randn(6, 8, 10))
            self.head = nn.Linear(10, 2)
            self.last = nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.einsum("ni,nj,ijk->nk", self.a(x), self.b(x), self.core)
            return self.head(y + self.last(x))

    accounts, _ = account(Bilinear(), 4)
    assert len(accounts.ladders) == 3
    assert accounts.params() is None
    assert accounts.macs() is None  # the einsum multiplies with that weight: built networks are counted


class Steps(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **settings: int | bool) -> None:
        super().__init__()
        self.read = kind(24, 32, batch_first=True, **settings)
        self.head = nn.Linear(64 if settings.get("bidirectional") else 32, 2)

    def forward(self, x):
        return self.head(self.read(x)[0])


def allocated(network, x):
    """Most numbers that are alive while it runs, `x` among them, as torch's allocator tells."""
    with torch.no_grad(), profile(profile_memory=True, activities=[ProfilerActivity.CPU]) as found:
        network(x)
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return x.numel() + max(sizes) / x.element_size()


@pytest.mark.parametrize("settings", [{}, {"num_layers": 3}, {"bidirectional": True}])
@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_memory_counts_what_recurrent_operators_allocate(kind, settings):
    """LSTMs take more here: oneDNN, which runs them on this processor, packs their weights."""
    network, x = Steps(kind, **settings).eval(), torch.randn(1, 50, 24)
    whole = allocated(network, x)
    for space in (
        Widths(network=network, input_shape=(50, 24)),
        Compression(network=network, input_shape=(50, 24), changes=("skips",)),
    ):
        memory = Memory(space, bytes_per_value=1)
        assert 0.85 * whole < memory([space.reference]).item() < 1.2 * whole
        half = space.scaled(0.5)
        assert 0.8 < memory([half]).item() / allocated(space.build(half).eval(), x) < 1.25
