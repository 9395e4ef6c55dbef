from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets import Branches, Residual, Tokens, random_
from sartor.core.errors import ConfigError
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.importance import reorder, scores
from sartor.surgery.cutting.slicing import Engine


class Small(nn.Module):
    """Three hidden units that weigh differently before and behind."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[3.0, -4.0], [1.0, 0.0], [0.0, 2.0]]))
            self.a.bias.copy_(torch.tensor([0.5, -0.5, 0.25]))
            self.norm.weight.copy_(torch.tensor([0.1, -3.0, 2.0]))
            self.b.weight.copy_(torch.tensor([[1.0, 5.0, -3.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x)))


@pytest.fixture(scope="module")
def small():
    network = Small().eval()
    coupling = couple(network, torch.zeros(1, 2))
    return network, coupling, coupling.groups[0].families[0]


def test_magnitudes_by_hand(small):
    network, coupling, units = small
    into, out = np.array([7.0, 1.0, 2.0]), np.array([1.0, 5.0, 3.0])
    np.testing.assert_allclose(
        scores(coupling, network, "l1")[units], into / into.mean() + out / out.mean(), rtol=1e-12
    )
    into = np.array([5.0, 1.0, 2.0])
    np.testing.assert_allclose(
        scores(coupling, network, "l2")[units], into / into.mean() + out / out.mean(), rtol=1e-12
    )


def test_scales_of_norms_by_hand(small):
    network, coupling, units = small
    np.testing.assert_allclose(scores(coupling, network, "bn")[units], np.array([0.1, 3, 2]) / 1.7, rtol=1e-6)


def test_without_norms_magnitudes_decide():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    coupling = couple(network, torch.zeros(1, 2))
    np.testing.assert_array_equal(scores(coupling, network, "bn"), scores(coupling, network, "l2"))


def test_taylor_by_hand(small):
    network, coupling, units = small
    x, y = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.3]]), torch.zeros(3, 1)

    def loss(found, wanted):
        return ((found - wanted) ** 2).flatten()

    found = scores(coupling, network, "taylor", batches=[(x[:2], y[:2]), (x[2:], y[2:])], loss=loss)
    loss(network(x), y).sum().backward()
    a, n, b = network.a, network.norm, network.b
    terms = [
        (a.weight * a.weight.grad).sum(1),
        a.bias * a.bias.grad,
        n.weight * n.weight.grad,
        n.bias * n.bias.grad,
        (b.weight * b.weight.grad).sum(0),
    ]
    network.zero_grad()
    wanted = sum(t.detach().double() ** 2 for t in terms)
    np.testing.assert_allclose(found[units], wanted.numpy(), rtol=1e-4)
    assert not network.training
    assert all(p.grad is None for p in network.parameters())


def test_random_depends_on_the_seed_only(small):
    network, coupling, _ = small
    one, same, other = (scores(coupling, network, "random", seed=s) for s in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_none_keeps_the_order(small):
    network, coupling, _ = small
    before = {k: v.clone() for k, v in network.state_dict().items()}
    reorder(coupling, network, scores(coupling, network, "none"))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_the_most_important_come_first_everywhere(small):
    network, coupling, _ = small
    twin = Small().eval()
    reorder(coupling, twin, scores(coupling, network, "bn"))  # 3.0, 2.0, 0.1
    order = [1, 2, 0]
    assert torch.equal(twin.norm.weight, network.norm.weight[order])
    assert torch.equal(twin.a.weight, network.a.weight[order])
    assert torch.equal(twin.a.bias, network.a.bias[order])
    assert torch.equal(twin.b.weight, network.b.weight[:, order])


@pytest.mark.parametrize("kind", [Residual, Branches, Tokens])
def test_an_order_changes_no_output(kind):
    network = random_(kind()).double().eval()
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    coupling = couple(network, x[:1])
    wanted = network(x)
    for how in ("l1", "l2", "bn", "random"):
        before = {k: v.clone() for k, v in network.state_dict().items()}
        reorder(coupling, network, scores(coupling, network, how))
        assert not all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
        torch.testing.assert_close(network(x), wanted, rtol=1e-11, atol=1e-11)


def test_constants_of_the_network_follow():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))

    network = Scaled().eval()
    coupling = couple(network, torch.zeros(1, 4))
    assert [g.size for g in coupling.groups] == [6]
    x = torch.randn(3, 4)
    wanted = network(x)
    constants = reorder(coupling, network, scores(coupling, network, "random"))
    engine = Engine(Skeleton(coupling.with_constants(constants)), network)
    torch.testing.assert_close(engine(x, np.ones(len(coupling.tracker.units) + 1, dtype=bool)), wanted)


def test_mistakes_are_named(small):
    network, coupling, _ = small
    with pytest.raises(ConfigError, match="there is no importance 'l3'; use one of auto, obs, taylor, l1, l2"):
        scores(coupling, network, "l3")
    with pytest.raises(ConfigError, match="needs a task's loss"):
        scores(coupling, network, "taylor")
    with pytest.raises(ConfigError, match="at least one batch"):
        scores(coupling, network, "taylor", loss=lambda a, b: (a - b).sum(1))
