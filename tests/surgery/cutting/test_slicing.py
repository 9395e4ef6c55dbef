from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nets import Branches, Residual, Tokens, random_
from sartor.core.rng import global_seed
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.extraction import as_module
from sartor.surgery.cutting.slicing import Engine


def engine_of(network: nn.Module, *shape: int) -> Engine:
    network = random_(network).double().eval()
    return Engine(Skeleton(couple(network, torch.zeros(1, *shape, dtype=torch.float64))), network)


@pytest.fixture(scope="module")
def engines():
    return {kind.__name__: engine_of(kind(), 3, 8, 8) for kind in (Residual, Branches, Tokens)}


def without(engine, gone):
    """All units but some of some groups: `group name -> places in its families`."""
    kept = np.ones(len(engine.skeleton.units) + 1, dtype=bool)
    found = {g.name: g for g in engine.skeleton.coupling.groups}
    for name, places in gone.items():
        for family in found[name].families:
            kept[family[places]] = False
    return kept


def zeroed(engine, kept, x):
    """What plain PyTorch gives with zeros in the whole weights, wherever a channel is cut."""
    network, units = engine.network, engine.skeleton.units
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for name, dims in engine.skeleton.coupling.weights():
        for d, dim in enumerate(dims):
            roots = units.resolve(dim)
            if roots is not None:
                state[name].data.index_fill_(d, torch.from_numpy(np.flatnonzero(~kept[roots].all(1))), 0)
    out = network(x)
    network.load_state_dict(before)
    return out


CUTS = [
    ("Residual", {"stem": [0, 3, 4]}),
    ("Residual", {"stem": [6, 7], "expand": [8, 9, 10, 11], "pointwise": [1]}),
    ("Branches", {"left": [0, 5, 6], "squeeze": [2]}),
    ("Branches", {"mix": [1, 2], "left": [7], "up": [0, 9]}),
    ("Tokens", {"qkv": [0, 2]}),
    ("Tokens", {"qkv": [3], "up": [0, 1, 2, 30]}),
]


@pytest.mark.parametrize(("name", "gone"), CUTS)
def test_a_slice_is_the_network_with_those_channels_zero(engines, name, gone):
    engine = engines[name]
    kept = without(engine, gone)
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)
        with torch.no_grad():
            found, wanted = engine(x, kept), zeroed(engine, kept, x)
            whole = engine.network(x)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12 * float(wanted.abs().max()))
        assert not torch.allclose(found, whole)


def test_with_all_channels_it_is_the_network(engines):
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    for engine in engines.values():
        torch.testing.assert_close(engine(x, without(engine, {})), engine.network(x), rtol=1e-12, atol=1e-12)


def test_layer_norm_takes_the_statistics_of_the_channels_that_are_left(engines):
    engine = engines["Tokens"]
    kept = without(engine, {"patches": [1, 5, 6, 7]})
    left = torch.tensor([i for i in range(24) if i not in (1, 5, 6, 7)])
    seen = []
    network = as_module(engine, engine.cut(kept, 2))
    network.before.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(network(x), engine(x, kept), rtol=1e-12, atol=1e-12)
    whole = engine.network.before
    wanted = nn.functional.layer_norm(seen[0][0], (20,), whole.weight[left], whole.bias[left])
    torch.testing.assert_close(seen[0][1], wanted)


@pytest.mark.parametrize("gone", [[5, 6, 7], [0, 3]])
def test_in_training_the_statistics_of_the_channels_that_run_move_and_no_others(gone):
    engine = engine_of(Residual(), 3, 8, 8)
    network = engine.network.train()
    kept = without(engine, {"stem": gone})
    left = [i for i in range(8) if i not in gone]
    child = as_module(engine, engine.cut(kept, 2)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(engine(x, kept), child(x), rtol=1e-12, atol=1e-12)
    for name in ("running_mean", "running_var"):
        moved = getattr(network.bn, name)
        torch.testing.assert_close(moved[left], getattr(child.bn, name), rtol=1e-12, atol=1e-12)
        assert not torch.equal(moved[left], before[f"bn.{name}"][left])
        assert torch.equal(moved[gone], before[f"bn.{name}"][gone])
    assert network.bn.num_batches_tracked == before["bn.num_batches_tracked"] + 1


def test_a_batch_norm_that_is_frozen_alone_stays_so():
    engine = engine_of(Residual(), 3, 8, 8)
    network = engine.network.train()
    network.bn.eval()
    before = network.bn.running_mean.clone(), network.bn_expand.running_mean.clone()
    engine(torch.randn(4, 3, 8, 8, dtype=torch.float64), without(engine, {"stem": [0]}))
    assert torch.equal(network.bn.running_mean, before[0])
    assert not torch.equal(network.bn_expand.running_mean, before[1])


def test_gradients_arrive_at_the_channels_that_run_and_nowhere_else(engines):
    engine = engines["Residual"]
    engine.network.zero_grad()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    engine(x, without(engine, {"expand": [2, 11]})).square().sum().backward()
    slope = engine.network.expand.weight.grad.abs().sum((1, 2, 3))
    assert (slope > 0).nonzero().flatten().tolist() == [0, 1, *range(3, 11)]
    engine.network.zero_grad()


def test_dropout_follows_the_mode():
    engine = engine_of(Tokens(dropout=0.5), 3, 8, 8)
    kept = without(engine, {"up": [0, 1, 2]})
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def twice():
        with global_seed(0):
            return engine(x, kept), engine(x, kept)

    assert torch.equal(*twice())
    engine.network.train()
    one, two = twice()
    assert not torch.equal(one, two)
    everything = without(engine, {})
    with global_seed(3):
        wanted = engine.network(x)
    with global_seed(3):
        torch.testing.assert_close(engine(x, everything), wanted)


def test_a_cut_knows_its_sizes(engines):
    engine = engines["Residual"]
    cut = engine.cut(without(engine, {"stem": [0, 5]}), 6)
    weights = dict(engine.skeleton.coupling.weights())
    dim = weights["stem.weight"][0]
    assert cut.kept(dim) == [1, 2, 3, 4, 6, 7]
    assert cut.count(dim, 0, 4) == 3
    assert cut.scale(16, dim) == 12
    assert cut.scale(16, None) == 16
    assert cut.leading(dim) is None
    first = engine.cut(without(engine, {"stem": [6, 7]}), 6)
    assert first.leading(dim) == 6
    assert first.narrow(engine.network.stem.weight, weights["stem.weight"]).shape == (6, 3, 3, 3)
    assert first.narrow(engine.network.stem.weight, weights["stem.weight"]).data_ptr() == (
        engine.network.stem.weight.data_ptr()
    )
    assert cut is engine.cut(without(engine, {"stem": [0, 5]}), 6)


class Deep(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.read, self.head = kind(4, 8, 2, batch_first=True, dropout=0.5), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.read(x)[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_drop_values_between_them_in_training_alone(kind):
    engine = engine_of(Deep(kind), 5, 4)
    everything = np.ones(len(engine.skeleton.units) + 1, dtype=bool)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    masks = torch.ones(1, len(everything), dtype=torch.float64)
    assert torch.equal(engine(x, everything), engine(x, everything))
    engine.network.train()
    for given in (None, masks):
        with global_seed(1):
            wanted = engine.network(x)
        with global_seed(1):
            found = engine(x, everything, given)
        torch.testing.assert_close(found, wanted)
        assert not torch.allclose(engine(x, everything, given), wanted)
