from __future__ import annotations

import pytest
import torch
from torch import nn

from sartor.core.errors import ConfigError
from sartor.supernet.elastic import ElasticConv, ElasticLinear, ElasticNorm, inherit
from sartor.supernet.gates import Cut

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.float64)


def norm(**settings):
    layer = ElasticNorm(6, **settings).double()
    for p in layer.parameters():
        nn.init.uniform_(p, 0.5, 1.5)
    nn.init.normal_(layer.running_mean)
    return layer


def alone(layer, x, active):
    """Every channel normalised by plain torch, over the examples in which it is active."""
    y, means, variances = torch.zeros_like(x), [], []
    for c in range(x.shape[1]):
        own = nn.BatchNorm2d(1, layer.eps, layer.momentum).double()
        own.load_state_dict({k: v[c : c + 1] if v.dim() else v for k, v in layer.state_dict().items()})
        keep = active[:, c] > 0
        y[keep, c : c + 1] = own(x[keep, c : c + 1])
        means.append(own.running_mean)
        variances.append(own.running_var)
    return y, torch.cat(means), torch.cat(variances)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_statistics_count_only_the_active_examples(offset):
    """Also far from zero, where a difference of squares would lose the variance."""
    layer, x = norm(), (torch.randn(4, 4, 3, 5, dtype=torch.float64) + offset).requires_grad_()
    want, mean, var = alone(layer, x, MASK)
    before = layer.state_dict()["running_mean"].clone()
    y = layer(x, Cut(4, MASK)) * MASK[:, :, None, None]
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(layer.running_mean[:4], mean)
    torch.testing.assert_close(layer.running_var[:4], var)
    assert torch.equal(layer.running_mean[4:], before[4:])
    direction = torch.randn_like(y)
    (one,) = torch.autograd.grad((y * direction).sum(), x)
    (two,) = torch.autograd.grad((want * direction).sum(), x)
    torch.testing.assert_close(one, two)
    assert not one[MASK == 0].any()


def test_what_a_masked_example_holds_does_not_matter():
    x = torch.randn(4, 4, 3, 5, dtype=torch.float64)
    one, two = norm(), norm()
    two.load_state_dict(one.state_dict())
    other = torch.where(MASK[:, :, None, None] > 0, x, torch.full_like(x, 77.0))
    active = MASK[:, :, None, None]
    torch.testing.assert_close(one(x, Cut(4, MASK)) * active, two(other, Cut(4, MASK)) * active)
    torch.testing.assert_close(one.running_var, two.running_var)


def test_a_channel_that_is_active_nowhere_keeps_its_statistics():
    layer, x = norm(), torch.randn(2, 4, 3, 3, dtype=torch.float64)
    before = layer.running_mean.clone()
    assert layer(x, Cut(4, torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]]))).isfinite().all()
    assert torch.equal(layer.running_mean[2:], before[2:])
    assert not torch.equal(layer.running_mean[:2], before[:2])


def test_one_active_value_gives_finite_statistics():
    layer = norm()
    layer(torch.randn(2, 2, 1, 1, dtype=torch.float64), Cut(2, torch.tensor([[1.0, 1], [1, 0]])))
    assert layer.running_var.isfinite().all()


def test_cumulative_average():
    plain, elastic = nn.BatchNorm2d(4, momentum=None), ElasticNorm(6, momentum=None)
    for _ in range(3):
        x = torch.randn(5, 4, 2, 2)
        torch.testing.assert_close(elastic(x, Cut(4)), plain(x))
    torch.testing.assert_close(elastic.running_mean[:4], plain.running_mean)
    assert elastic.num_batches_tracked == 3


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("c_in", "c_out"), [(5, 7), (3, 7), (5, 2), (2, 3)])
def test_convolution_uses_the_first_channels(bias, c_in, c_out):
    layer, x = ElasticConv(5, 7, 3, 2, 1, bias=bias), torch.randn(2, c_in, 6, 6)
    want = nn.functional.conv2d(x, layer.weight[:c_out, :c_in], layer.bias[:c_out] if bias else None, 2, 1)
    torch.testing.assert_close(layer(x, Cut(c_out)), want)


def test_depthwise_convolution():
    layer, x = ElasticConv(5, 5, 3, 1, 1, groups=5), torch.randn(2, 3, 6, 6)
    assert layer.depthwise
    want = nn.functional.conv2d(x, layer.weight[:3], layer.bias[:3], 1, 1, groups=3)
    torch.testing.assert_close(layer(x, Cut(3)), want)


def test_linear():
    layer, x = ElasticLinear(5, 3), torch.randn(2, 4)
    torch.testing.assert_close(layer(x), x @ layer.weight[:, :4].T + layer.bias)


def test_grouped_convolutions_are_refused():
    with pytest.raises(ConfigError, match="groups=2"):
        ElasticConv(4, 4, 3, groups=2)


def test_inherit_needs_a_weight_at_least_as_large():
    wide = nn.Linear(4, 4)
    assert torch.equal(inherit(nn.Linear(2, 3, device="meta"), wide).weight, wide.weight[:3, :2])
    for narrow in (nn.Linear(5, 1), nn.Sequential(nn.Linear(1, 1))):
        with pytest.raises(ConfigError, match="weight"):
            inherit(narrow, wide)
