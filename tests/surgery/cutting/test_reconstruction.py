from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nets import Branches, Residual, Tokens, Waves, random_
from sartor.core.rng import global_seed
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.ladders import ladders
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.reconstruction import RIDGE, Fitted, _ridge, reconstruct
from sartor.surgery.cutting.supernet import CutSupernet


def supernet(network: nn.Module, *shape: int) -> CutSupernet:
    coupling = couple(network, torch.zeros(1, *shape, dtype=next(network.parameters()).dtype))
    steps = ladders(coupling.groups, (0.5, 0.75, 1.0), 1)
    return CutSupernet(Skeleton(coupling), network, steps, plain=True)


def halved(net: CutSupernet) -> tuple[int, ...]:
    return (0,) * len(net.ladders)


class Doubled(nn.Module):
    """Every layer's second half of channels says the same as its first."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        with torch.no_grad():
            for layer in layers[:-1]:
                for value in (*layer.parameters(), *layer.buffers()):
                    if value.dim():
                        value[len(value) // 2 :] = value[: len(value) // 2]

    def forward(self, x):
        return self.layers(x)


DOUBLED = {
    "conv1d": (lambda: [nn.Conv1d(2, 8, 5, stride=2), nn.ReLU(), nn.Conv1d(8, 3, 3, dilation=2)], (2, 40)),
    "conv2d": (lambda: [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, (3, 1), padding=(1, 0))], (3, 9, 9)),
    "conv3d": (lambda: [nn.Conv3d(1, 4, 2), nn.ReLU(), nn.Conv3d(4, 2, 2, stride=2)], (1, 5, 5, 5)),
    "linear": (lambda: [nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3)], (4, 6)),
    "norm": (
        lambda: [
            nn.Conv2d(3, 8, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.ReLU(),
            nn.Conv2d(8, 4, 1, bias=False),
        ],
        (3, 6, 6),
    ),
}


@pytest.mark.parametrize("kind", DOUBLED)
def test_what_is_said_twice_is_not_missed(kind):
    layers, shape = DOUBLED[kind]
    with global_seed(1):
        network = Doubled(*layers()).double().eval()
        x, fresh = torch.randn(64, *shape, dtype=torch.float64), torch.randn(8, *shape, dtype=torch.float64)
    if kind == "norm":
        network.layers[1].train()  # its statistics shall be those of the data
        network.layers[1].momentum = None
        network(x)
        network.eval()
    net = supernet(network, *shape)
    arch, wanted = halved(net), network(fresh)
    narrow = net.extract(arch)
    before = (narrow(fresh) - wanted).norm() / wanted.norm()
    net.reconstruct(arch, narrow, x)
    after = (narrow(fresh) - wanted).norm() / wanted.norm()
    assert before > 0.2
    assert after < 3 * RIDGE  # what the ridge leaves


NETWORKS = {"Residual": (3, 8, 8), "Branches": (3, 8, 8), "Tokens": (3, 8, 8), "Waves": (2, 40)}


def pair(kind: type[nn.Module]) -> tuple[CutSupernet, torch.Tensor]:
    shape = NETWORKS[kind.__name__]
    network = random_(kind()).eval()
    with global_seed(2):
        return supernet(network, *shape), torch.randn(256, *shape)


@pytest.mark.parametrize("kind", [Residual, Tokens, Waves])
def test_outputs_come_nearer_on_examples_it_has_not_seen(kind):
    net, x = pair(kind)
    arch = (1,) * len(net.ladders)
    narrow = net.extract(arch)
    with torch.no_grad():
        fresh = torch.flip(x, (-1,)) + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
        wanted, cut = net.network(fresh), narrow(fresh)
        net.reconstruct(arch, narrow, x)
        found = narrow(fresh)

    def miss(values):
        values = values - values.mean(0) + wanted.mean(0)  # a constant is easily put right
        return float((values - wanted).square().mean() / wanted.var(0).mean())

    assert miss(found) < 0.8 * miss(cut)


@pytest.mark.parametrize("kind", [Residual, Tokens])
def test_nothing_changes_where_nothing_is_cut(kind):
    net, x = pair(kind)
    full = tuple(len(step.choice.options) - 1 for step in net.ladders)
    found = reconstruct(net.engine, net.part(full, len(x)), x).weights
    assert set(found) > {name for name, _ in net.network.named_parameters() if name.startswith(("expand", "up"))}
    for name, value in found.items():
        assert torch.allclose(value, net.network.state_dict()[name], atol=1e-4), name


def test_the_original_stays_as_it_was():
    net, x = pair(Residual)
    net.network.train()
    before, given = {k: v.clone() for k, v in net.network.state_dict().items()}, x.clone()
    net.reconstruct(halved(net), net.extract(halved(net)), x)
    assert all(torch.equal(v, before[k]) for k, v in net.network.state_dict().items())
    assert torch.equal(x, given)
    assert net.network.bn.training


def test_a_linear_layer_gets_the_solution_of_its_normal_equations():
    with global_seed(4):
        network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
        x = torch.randn(50, 5, dtype=torch.float64)
    net = supernet(network, 5)
    narrow = net.extract(halved(net))
    kept = narrow[0].out_features
    first = torch.relu(network[0](x)).detach()
    net.reconstruct(halved(net), narrow, x)
    seen, wanted = first[:, :kept].numpy(), network[2](first).detach().numpy()
    seen, wanted = seen - seen.mean(0), wanted - wanted.mean(0)
    old = network[2].weight.detach()[:, :kept].numpy()
    square = seen.T @ seen / len(seen)
    pull = RIDGE * np.trace(square) / kept
    best = np.linalg.solve(square + pull * np.eye(kept), seen.T @ wanted / len(seen) + pull * old.T).T
    assert np.allclose(narrow[2].weight.detach().numpy(), best, atol=1e-6)


class Shared(nn.Module):
    """One layer is used twice, one has its padding by name, one's weight is computed."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.twice = nn.Conv2d(8, 8, 1)
        self.same = nn.Conv2d(8, 8, 3, padding="same")
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 6, 1))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = torch.relu(self.twice(torch.relu(self.twice(self.first(x)))))
        return self.head(self.normed(self.same(x)).mean((2, 3)))


def test_weights_that_are_not_one_layers_own_stay():
    net = supernet(Shared().eval(), 3, 6, 6)
    x = torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    found = reconstruct(net.engine, net.part(halved(net), len(x)), x).weights
    assert set(found) == {"first.weight", "first.bias", "head.weight", "head.bias"}


def test_the_same_examples_give_the_same_weights():
    net, x = pair(Branches)
    one, two = (reconstruct(net.engine, net.part(halved(net), len(x)), x).weights for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kind", [Residual, Branches, Tokens])
def test_what_the_cut_network_gives_is_known_without_running_it(kind):
    net, x = pair(kind)
    arch = halved(net)
    found = reconstruct(net.engine, net.part(arch, len(x)), x)
    narrow = net.extract(arch).eval()
    assert net.reconstruct(arch, narrow, x)
    torch.testing.assert_close(narrow(x), found.given, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.network.eval()(x), found.wanted, rtol=1e-4, atol=1e-5)


def test_weights_that_lead_away_from_the_outputs_are_not_taken(monkeypatch):
    net, x = pair(Residual)
    narrow = net.extract(halved(net))
    before = {k: v.clone() for k, v in narrow.state_dict().items()}
    wanted = net.network(x).detach()
    worse = Fitted({"head.weight": 100 * torch.ones(5, 8)}, wanted, 100 * wanted)
    monkeypatch.setattr("sartor.surgery.cutting.supernet.reconstruct", lambda *_: worse)
    assert not net.reconstruct(halved(net), narrow, x)
    assert all(torch.equal(v, before[k]) for k, v in narrow.state_dict().items())


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1.0, 1e6, 1e15])
def test_the_change_of_a_layer_is_ridge_regressions_at_any_scale(scale):
    """Repeated, nearly equal and silent inputs in float32, against a direct solve in float64."""
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 400, 5, generator=rng)
    inputs = torch.cat([inputs, inputs[:, :, :2], inputs[:, :, 1:2] * (1 + 1e-6), torch.zeros(2, 400, 1)], 2)
    wanted = torch.randn(2, 400, 3, generator=rng)
    found = _ridge(scale * inputs, wanted)
    x, y = (scale * inputs).double(), wanted.double()
    square = x.mT @ x / 400
    pull = RIDGE * square.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(9).double()
    best = torch.linalg.solve((square + pull) / scale**2, x.mT @ y / 400 / scale**2)
    assert torch.allclose(found * scale, best * scale, atol=1e-4)


def test_silent_inputs_change_nothing_and_infinite_ones_are_not_used():
    wanted = torch.ones(1, 10, 2)
    assert not _ridge(torch.zeros(1, 10, 3), wanted).any()
    bad = torch.ones(1, 10, 3)
    bad[0, 0, 0] = torch.inf
    assert _ridge(bad, wanted) is None
