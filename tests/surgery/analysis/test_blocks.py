from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nets import Residual, Tokens, random_
from sartor import archs
from sartor.core.rng import numpy_rng
from sartor.networks import macs_params
from sartor.spaces.widths import Widths
from sartor.surgery.analysis.blocks import skippable
from sartor.surgery.analysis.coupling import couple

SMALL = {"size": 8, "divisor": 2, "multipliers": (0.5,), "blocks": True}


def found(network: nn.Module, *shape: int):
    return skippable(couple(network.eval(), torch.zeros(1, *(shape or (3, 8, 8)))))


def inputs(n: int = 4) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_what_lives_in_a_block_becomes_one_choice_with_its_switch():
    blocks = found(Residual())
    assert [(g.name, [len(f) for f in g.families]) for g in blocks.groups] == [
        ("stem", [8]),
        ("expand", [12, 1]),
        ("pointwise", [16]),
    ]
    (block,) = blocks.blocks
    assert blocks.switches == {"expand": block.switch}
    assert blocks.groups[1].families[1].tolist() == [block.switch]


def test_both_parts_of_a_transformer_layer_are_blocks():
    blocks = found(Tokens())
    assert set(blocks.switches) == {"qkv", "up"}
    assert not blocks.blocks[0].members & blocks.blocks[1].members


class Sums(nn.Module):
    """Sums that do not end a block."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)
        self.d, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if self.kind == "two paths":
            return self.head(y + self.d(x))
        if self.kind == "reads the input":
            return self.head(y + self.c(self.b(y)) * self.d(x))
        inner = self.c(torch.relu(self.b(y)))
        if self.kind == "used elsewhere":
            return self.head(y + inner) + inner.mean()
        if self.kind == "same twice":
            return self.head(inner + inner)
        return self.head(y + inner)


@pytest.mark.parametrize("kind", ["two paths", "reads the input", "used elsewhere", "same twice"])
def test_what_is_no_block_cannot_be_skipped(kind):
    blocks = found(Sums(kind))
    assert blocks.blocks == ()
    assert blocks.switches == {}
    assert found(Sums("plain")).switches.keys() == {"b"}


@pytest.fixture(scope="module")
def space():
    return Widths(network=random_(Residual()).eval(), **SMALL)


def test_option_zero_skips_the_block(space):
    assert {c.name: c.options for c in space.choices} == {"stem": (4, 8), "expand": (0, 6, 12), "pointwise": (8, 16)}
    arch = (1, 0, 1)
    small = space.build(arch).eval()
    whole = space.build(space.reference).eval()
    x = inputs()
    stem = torch.relu(whole.bn(whole.stem(x)))
    wanted = whole.head(torch.relu(whole.pointwise(whole.depthwise(stem))).mean((2, 3)))
    torch.testing.assert_close(small(x), wanted, rtol=1e-4, atol=1e-5)
    assert not any(name.startswith(("expand", "reduce", "bn_expand")) for name, _ in small.named_parameters())


def test_costs_know_of_skipped_blocks(space):
    macs, params = space.account("macs"), space.account("params")
    for arch in archs.enumerate_all(space):
        counted = macs_params(space.build(arch), torch.zeros(1, 3, 8, 8))
        assert (macs.cost(arch), params.cost(arch)) == counted


def test_examples_that_skip_and_examples_that_do_not_share_a_batch(space):
    net, x, rng = space.supernet().double().eval(), inputs().double(), numpy_rng(0)
    mixed = [(1, 0, 1), (0, 2, 0), *(space.moves.draw(rng) for _ in range(2))]
    gates = [torch.stack(rows).double() for rows in zip(*(archs.gates(space, a) for a in mixed), strict=True)]
    alone = [net.extract(a)(x[i : i + 1]) for i, a in enumerate(mixed)]
    torch.testing.assert_close(net(x, gates), torch.cat(alone), rtol=1e-9, atol=1e-9)


class Conditioned(nn.Module):
    """A block that reads another input than its shortcut, and one that does not."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.first, self.order = nn.Linear(4, 8), order
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.wide, self.back, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x, other = (a, b) if self.order == "first" else (b, a)
        y = self.first(x)
        y = y + self.down(torch.relu(self.up(y))) * other[:, :1]
        return self.head(y + self.back(torch.relu(self.wide(y))))


@pytest.mark.parametrize("order", ["first", "last"])
def test_a_block_that_reads_any_input_is_none(order):
    both = (torch.zeros(1, 4), torch.zeros(1, 4))
    assert set(skippable(couple(Conditioned(order).eval(), both)).switches) == {"wide"}
