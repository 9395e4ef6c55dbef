"""Layers that run with the first channels of their weights only.

A cut that is a plain width is *sliced*: the unused channels are neither read nor computed. A cut with a mask runs the
channels of the widest active option and zeroes channels per example (slimmable networks, Yu et al. 2019; per-example
widths as in AOWS, Berman et al. 2020).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sartor.core.errors import ConfigError
from sartor.supernet.gates import Cut


def _leading(weight: Tensor, rows: int, columns: int) -> Tensor:
    """The first rows and columns of `weight`, `(c_out, c_in, ...)`."""
    # The backward pass of a slice fills a tensor of zeros as large as the source: no slice where all of it is used.
    if rows < weight.shape[0]:
        weight = weight[:rows]
    return weight[:, :columns] if columns < weight.shape[1] else weight


class ElasticConv(nn.Conv2d):
    """A convolution with all its input channels or, if `groups` is the number of channels, a depthwise one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        if groups not in (1, in_channels) or (groups > 1 and in_channels != out_channels):
            raise ConfigError(
                f"an elastic convolution is dense or depthwise; got groups={groups} for "
                f"{in_channels} -> {out_channels} channels"
            )

    @property
    def depthwise(self) -> bool:
        """Whether every output channel sees its own input channel only."""
        return self.groups > 1

    def forward(self, x: Tensor, cut: Cut) -> Tensor:  # type: ignore[override]  # the width is an argument
        """Convolve.

        Args:
            x: `(batch, c_in, height, width)` with the first `c_in` input channels.
            cut: The output channels that run.
        """
        out = cut.width
        weight = _leading(self.weight, out, 1 if self.depthwise else x.shape[1])
        bias = None if self.bias is None else self.bias[:out]
        groups = out if self.depthwise else 1
        return nn.functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)


class ElasticNorm(nn.BatchNorm2d):
    """Batch normalisation of the first channels.

    In training mode a channel's statistics count only the examples in which it is active, and channels that do not run
    keep their running statistics.
    """

    def forward(self, x: Tensor, cut: Cut) -> Tensor:  # type: ignore[override]  # the width is an argument
        """Normalise `x`, `(batch, cut.width, height, width)`; what is masked must be masked again afterwards."""
        c = cut.width
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, var = self.running_mean[:c], self.running_var[:c]
        weight, bias = self.weight[:c], self.bias[:c]
        if not self.training:
            return nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)
        momentum = self._momentum()
        if not cut.per_example:
            return nn.functional.batch_norm(x, mean, var, weight, bias, True, momentum, self.eps)
        assert cut.mask is not None
        return self._masked(x, (cut.mask != 0).to(weight), momentum)

    def _momentum(self) -> float:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    def _masked(self, x: Tensor, active: Tensor, momentum: float) -> Tensor:
        # Per-example moments first, then over the active examples: no cancellation, and no copy of x.
        c = x.shape[1]
        x = x.to(self.weight.dtype)
        var_each, mean_each = torch.var_mean(x, dim=(2, 3), correction=0)
        count = active.sum(0)
        share = active / count.clamp(min=1)
        mean = (share * mean_each).sum(0)
        var = (share * (var_each + (mean_each - mean) ** 2)).sum(0)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            size = count * (x.shape[2] * x.shape[3])
            step = momentum * (count > 0).to(count)
            self.running_mean[:c].lerp_(mean.detach(), step)
            self.running_var[:c].lerp_(var.detach() * size / (size - 1).clamp(min=1), step)
        scale = self.weight[:c] * torch.rsqrt(var + self.eps)
        shift = self.bias[:c] - mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


class ElasticLinear(nn.Linear):
    """A linear layer with the first of its input features, all of its outputs."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, `(batch, c_in)` with the first `c_in` features, to `(batch, out_features)`."""
        return nn.functional.linear(x, _leading(self.weight, len(self.weight), x.shape[1]), self.bias)


class Kit(NamedTuple):
    """The layer classes a network is built of: plain for a stand-alone network, elastic for a supernet."""

    conv: type[nn.Conv2d]
    norm: type[nn.BatchNorm2d]
    linear: type[nn.Linear]


PLAIN = Kit(nn.Conv2d, nn.BatchNorm2d, nn.Linear)
ELASTIC = Kit(ElasticConv, ElasticNorm, ElasticLinear)


def inherit(narrow: nn.Module, wide: nn.Module) -> nn.Module:
    """`narrow` with copies of the leading entries of `wide`'s weights; both name their parameters alike.

    Args:
        narrow: The network to fill; it may be on the meta device, its values are not read.
        wide: Where the weights come from; `narrow` takes its device and its mode (training or evaluation).

    Raises:
        ConfigError: `wide` lacks a weight of `narrow`, or has a smaller one.
    """
    source, state = wide.state_dict(), {}
    for name, target in narrow.state_dict().items():
        if name not in source or any(a < b for a, b in zip(source[name].shape, target.shape, strict=True)):
            raise ConfigError(
                f"cannot inherit {name!r} of shape {tuple(target.shape)} from {type(wide).__name__}; take a part of it"
            )
        state[name] = source[name][tuple(slice(0, n) for n in target.shape)].clone(
            memory_format=torch.contiguous_format
        )
    narrow.load_state_dict(state, strict=True, assign=True)
    return narrow.train(wide.training)
