from __future__ import annotations

import pytest
import torch
from torch import nn

from sartor import archs
from sartor.core.errors import DataError
from sartor.core.rng import global_seed
from sartor.spaces.tiny import Tiny
from sartor.supernet.calibrate import recalibrate


def data(sizes):
    return [(torch.randn(n, 1, 8, 8) + 2, torch.zeros(n)) for n in sizes]


def test_mean_over_batches_weighted_by_their_size():
    norm, batches = nn.BatchNorm2d(1), data([4, 4, 2])
    with torch.no_grad():
        norm.running_mean.fill_(float("nan"))  # what was there must not matter
    recalibrate(norm, batches)
    torch.testing.assert_close(norm.running_mean, torch.cat([x for x, _ in batches]).mean((0, 2, 3)))
    means = torch.stack([x.var((0, 2, 3)) for x, _ in batches])
    torch.testing.assert_close(norm.running_var, (torch.tensor([[4.0], [4.0], [2.0]]) * means).sum(0) / 10)


def test_one_batch_makes_evaluation_equal_training():
    space = Tiny()
    net, ((x, _),) = space.supernet(), data([64])
    child = net.extract((1, 2, 0))
    recalibrate(child, [(x, torch.zeros(64))])
    want = child.train()(x)
    torch.testing.assert_close(child.eval()(x), want, rtol=1e-2, atol=1e-2)  # running variances are unbiased


def test_a_supernet_is_calibrated_for_one_arch():
    space, arch = Tiny(), (1, 2, 0)
    with global_seed(0):
        net, batches = space.supernet(), data([8, 4])
    child, before = net.extract(arch), net.network.conv0.norm.running_var.clone()
    recalibrate(child, batches)
    recalibrate(net, batches, lambda x: net(x, archs.gates(space, arch)))
    for name, value in net.extract(arch).state_dict().items():
        torch.testing.assert_close(value, child.state_dict()[name])
    assert torch.equal(net.network.conv0.norm.running_var[8:], before[8:])


def test_modes_momenta_and_everything_else_are_put_back():
    class Seen(nn.Dropout):
        def forward(self, x):
            assert not self.training
            return x

    module = nn.Sequential(nn.BatchNorm2d(1, momentum=0.3), Seen(), nn.BatchNorm2d(1, momentum=None))
    module[0].eval()
    weights = [p.clone() for p in module.parameters()]
    recalibrate(module, data([4]))
    assert [m.training for m in module] == [False, True, True]
    assert [module[0].momentum, module[2].momentum] == [0.3, None]
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))


def test_no_batch_is_an_error_and_changes_no_mode():
    module = nn.Sequential(nn.BatchNorm2d(1))
    with pytest.raises(DataError, match="empty"):
        recalibrate(module, [])
    assert module[0].training
    assert module[0].momentum == 0.1
