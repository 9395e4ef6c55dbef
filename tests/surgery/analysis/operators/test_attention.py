from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


def _heads(self, x, **options):
    b, n, _ = x.shape
    q, k, v = self.qkv(x).reshape(b, n, 3, 4, 2).permute(2, 0, 3, 1, 4).unbind(0)
    return self.last(scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).reshape(b, n, 8))


def test_whole_heads_go(check, net):
    coupling = check(net(_heads, qkv=nn.Linear(6, 24), last=nn.Linear(8, 2)), (5, 6), groups=[4])
    assert coupling.groups[0].layers == ("qkv",)


def test_few_heads_lose_channels_instead(check, net):
    def forward(self, x):
        q, k, v = (layer(x).unflatten(2, (2, 6)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.last(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    layers = {name: nn.Linear(6, 12) for name in "qkv"}
    check(net(forward, **layers, last=nn.Linear(12, 2)), (5, 6), groups=[6, 6])


@pytest.mark.parametrize("causal", [False, True])
def test_masks_and_scale(check, net, causal):
    mask = None if causal else torch.eye(5).double().reshape(1, 1, 5, 5)

    def forward(self, x):
        return _heads(self, x, attn_mask=mask, is_causal=causal, scale=0.3)

    check(net(forward, qkv=nn.Linear(6, 24), last=nn.Linear(8, 2)), (5, 6), groups=[4])


def test_a_bias_per_head_goes_with_the_head(check, net):
    def forward(self, x):
        return _heads(self, x, attn_mask=self.table.unsqueeze(0))

    layers = {"qkv": nn.Linear(6, 24), "last": nn.Linear(8, 2), "table": nn.Parameter(torch.ones(4, 5, 5))}
    coupling = check(net(forward, **layers), (5, 6), groups=[4])
    dims = dict(coupling.weights())["table"]
    assert coupling.tracker.units.resolve(dims[0]) is not None


def test_multihead_attention(check):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)
            self.attention = nn.MultiheadAttention(8, 4, batch_first=True)

        def forward(self, x):
            x = self.first(x)
            return self.last(self.attention(x, x, x, need_weights=False)[0])

    check(Attention(), (5, 6), groups=[8, 4, 8])
