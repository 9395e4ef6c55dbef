from __future__ import annotations

import pytest
import torch
from torch import nn


def test_linear_layers(check):
    check(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5, bias=False), nn.Linear(5, 2)), (6,), groups=[8, 5])


@pytest.mark.parametrize(
    "product",
    [
        lambda q, k: q @ k.transpose(1, 2),
        lambda q, k: torch.bmm(q, k.transpose(1, 2)),
        lambda q, k: torch.einsum("bnc,bmc->bnm", q, k),
        lambda q, k: torch.einsum("...nc,...mc->...nm", q, k),
        lambda q, k: torch.einsum("bnc,bmc", q, k),
        lambda q, k: torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2)),
    ],
)
def test_a_product_of_activations_couples_what_is_summed_up(check, net, product):
    def forward(self, x):
        return product(self.q(x), self.k(x))

    coupling = check(net(forward, q=nn.Linear(4, 8), k=nn.Linear(4, 8)), (5, 4), groups=[8])
    assert set(coupling.groups[0].layers) == {"q", "k"}


def test_outer_dimensions_of_a_product_are_not_coupled(check, net):
    def forward(self, x):
        return self.last((self.a(x).transpose(1, 2) @ self.b(x)).flatten(1))

    check(
        net(forward, a=nn.Linear(4, 6), b=nn.Linear(4, 5), last=nn.Linear(30, 2)), (3, 4), groups=[6]
    )  # one factor of a product


def test_a_matrix_and_a_vector(check, net):
    def forward(self, x):
        return self.first(x) @ self.second.reshape(-1)

    check(net(forward, first=nn.Linear(4, 8), second=nn.Parameter(torch.ones(8, 1))), (5, 4), groups=[8])


def test_addmm(check, net):
    def forward(self, x):
        return torch.addmm(self.shift, self.first(x), self.weight)

    layers = {"first": nn.Linear(4, 8), "weight": nn.Parameter(torch.ones(8, 3)), "shift": nn.Parameter(torch.ones(3))}
    check(net(forward, **layers), (4,), groups=[8])
