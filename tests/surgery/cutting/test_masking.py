from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nets import Branches, Residual, Tokens, random_
from sartor.core.errors import CapabilityError
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.masking import MASKED, masked_batch_norm
from sartor.surgery.cutting.slicing import Engine

BATCH = 4


class Statistics(nn.Module):
    """Means, deviations and norms over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 3)
        self.norm = nn.RMSNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.a(x))
        x = self.norm(x) + x.mean(1, keepdim=True) + x.std(1, keepdim=True)
        x = functional.layer_norm(self.b(x), (10,))
        return self.head(x) + x.var(1, keepdim=True)


@pytest.fixture(scope="module")
def engines():
    found = {}
    for kind, shape in ((Residual, (3, 8, 8)), (Branches, (3, 8, 8)), (Tokens, (3, 8, 8)), (Statistics, (6,))):
        network = random_(kind()).double().eval()
        coupling = couple(network, torch.zeros(1, *shape, dtype=torch.float64))
        found[kind.__name__] = Engine(Skeleton(coupling), network), shape
    return found


def drawn(engine, rng):
    """The first units of every family, two (one has no deviation) to all of them."""
    kept = np.ones(len(engine.skeleton.units) + 1, dtype=bool)
    for group in engine.skeleton.coupling.groups:
        share = rng.random()
        for family in group.families:
            kept[family[max(2, round(share * len(family))) :]] = False
    return kept


@pytest.mark.parametrize("name", ["Residual", "Branches", "Tokens", "Statistics"])
def test_a_mask_per_example_is_every_example_alone(engines, name):
    engine, shape = engines[name]
    rng = np.random.default_rng(0)
    cuts = [drawn(engine, rng) for _ in range(BATCH)]
    assert len({c.tobytes() for c in cuts}) == BATCH
    x = torch.randn(BATCH, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    everything = np.ones_like(cuts[0])
    masks = torch.from_numpy(np.stack(cuts)).to(x)
    with torch.no_grad():
        together = engine(x, everything, masks)
        alone = torch.cat([engine(x[i : i + 1], c) for i, c in enumerate(cuts)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(together, engine.network(x))


@pytest.mark.parametrize("name", ["Residual", "Branches", "Tokens", "Statistics"])
def test_one_mask_for_all_is_the_slice(engines, name):
    engine, shape = engines[name]
    kept = drawn(engine, np.random.default_rng(3))
    x = torch.randn(3, *shape, dtype=torch.float64)
    masked = engine(x, np.ones_like(kept), torch.from_numpy(kept).to(x)[None])
    torch.testing.assert_close(masked, engine(x, kept), rtol=1e-9, atol=1e-9)


def test_batch_norm_counts_the_active_examples_only():
    x = torch.randn(5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    active = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0]]).double()[:, :, None]
    weight, bias = torch.tensor([1.0, 2, 3]).double(), torch.tensor([0.5, 0, 1]).double()
    mean, var = torch.zeros(3).double(), torch.ones(3).double()
    out = masked_batch_norm(x, active, (weight, bias, mean, var), 0.1, 1e-5)
    for c, rows in enumerate(([0, 1, 2, 3, 4], [0, 2, 4])):
        own_mean, own_var = torch.zeros(1).double(), torch.ones(1).double()
        alone = functional.batch_norm(
            x[rows, c : c + 1], own_mean, own_var, weight[c : c + 1], bias[c : c + 1], True, 0.1, 1e-5
        )
        torch.testing.assert_close(out[rows, c : c + 1], alone)
        torch.testing.assert_close(mean[c : c + 1], own_mean)
        torch.testing.assert_close(var[c : c + 1], own_var)
    assert (mean[2], var[2]) == (0, 1)  # a channel that nobody has: nothing is known of it
    assert out.isfinite().all()


def test_in_training_a_channel_learns_from_the_examples_that_have_it():
    network = random_(Residual()).double()
    engine = Engine(Skeleton(couple(network, torch.zeros(1, 3, 8, 8, dtype=torch.float64))), network)
    kept = np.ones(len(engine.skeleton.units) + 1, dtype=bool)
    family = next(g for g in engine.skeleton.coupling.groups if g.name == "expand").families[0]
    x = torch.randn(BATCH, 3, 8, 8, dtype=torch.float64)
    masks = torch.ones(BATCH, len(kept), dtype=torch.float64)
    masks[2:, torch.from_numpy(family[6:])] = 0
    before = network.bn_expand.running_mean.clone()
    engine(x, kept, masks)
    with torch.no_grad():
        stem = functional.batch_norm(network.stem(x), None, None, network.bn.weight, network.bn.bias, True)
        inner = network.expand(torch.relu(stem)).transpose(0, 1)
    wanted = torch.cat([inner[:6].flatten(1).mean(1), inner[6:, :2].flatten(1).mean(1)])
    torch.testing.assert_close(network.bn_expand.running_mean, 0.9 * before + 0.1 * wanted)


def test_examples_that_cannot_be_told_apart_are_refused():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 8)
            self.b = nn.Parameter(torch.randn(8, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.a(x)) @ (self.b * 2)  # a product of weights has no examples

    network = Shared()
    engine = Engine(Skeleton(couple(network, torch.zeros(1, 6))), network)
    kept = np.ones(len(engine.skeleton.units) + 1, dtype=bool)
    masks = torch.ones(3, len(kept))
    masks[0, torch.from_numpy(engine.skeleton.coupling.groups[0].families[0][4:])] = 0
    x = torch.randn(3, 6)
    with pytest.raises(CapabilityError, match="use one width per batch"):
        engine(x, kept, masks)
    torch.testing.assert_close(engine(x, kept, masks[1:2]), network(x))


def test_statistics_over_channels_have_rules_of_their_own():
    assert {"layer_norm", "group_norm", "mean", "var", "std", "rms_norm"} <= MASKED.keys()
