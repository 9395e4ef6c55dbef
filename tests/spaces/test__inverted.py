from __future__ import annotations

import pytest
from torchvision.models._utils import _make_divisible

from sartor.core.errors import ConfigError
from sartor.spaces._inverted import Block, Menu, Option, Stage, divisible

STAGE = Stage(24, 40, 5, (72, 120), 2, "relu", squeeze=True)


def test_options_hold_the_reference_and_start_with_the_cheapest():
    options = Menu((3,), (0.5,), (0.5, 2.0), (-3, 1)).options(STAGE)
    assert STAGE.option == Option(5, 1.0, 40, 2) in options
    assert {o.kernel for o in options} == {3, 5}
    assert {o.expansion for o in options} == {0.5, 1.0}
    assert {o.filters for o in options} == {24, 40, 80}
    assert {o.repeats for o in options} == {1, 2, 3}
    assert (options[0], options[-1]) == (Option(3, 0.5, 24, 1), Option(5, 1.0, 80, 3))
    assert str(options[0]) == "k3 e0.5 c24 n1"
    alone = Menu((), (), (), ()).options(STAGE)
    assert alone == (STAGE.option,)


def test_blocks_of_a_stage():
    first, second, third = STAGE.blocks(32, Option(3, 0.5, 80, 3))
    assert (first.c_in, first.wide, first.c_out, first.stride) == (32, divisible(72 / 24 * 0.5 * 32), 80, 2)
    assert (second.c_in, second.wide, second.c_out, second.stride) == (80, 120, 80, 1)
    assert third == second  # like the last of the reference
    assert (first.residual, second.residual) == (False, True)
    plain = Stage(16, 16, 3, (16,), 1, "relu")
    assert [b.wide for b in plain.blocks(24, Option(3, 1.0, 16, 2))] == [24, 16]
    assert {o.expansion for o in Menu((3,), (0.5, 2.0), (), ()).options(plain)} == {1.0}


def test_costs_of_a_block_by_hand():
    block = Block(8, 16, 8, 3, 1, 0, "relu")
    assert block.residual
    assert block.macs(4) == 16 * (8 * 16 + 16 * 9 + 16 * 8)
    assert block.params() == 8 * 16 + 32 + 16 * 9 + 32 + 16 * 8 + 16
    assert block.memory(4) == 16 * (16 + 16 + 8)  # depthwise: input, output, and the block's input waits
    halving = block._replace(stride=2, squeezed=4)
    assert not halving.residual
    assert halving.macs(5) == 25 * 8 * 16 + 9 * (16 * 9 + 16 * 8) + 2 * 16 * 4
    assert halving.params() == block.params() + 2 * 16 * 4 + 4 + 16
    assert halving.memory(5) == 25 * (8 + 16)  # the convolution that expands
    plain = Block(16, 16, 4, 3, 1, 0, "relu")
    assert plain.params() == 16 * 9 + 32 + 16 * 4 + 8


def test_options_out_of_range():
    with pytest.raises(ConfigError, match="kernels must be odd"):
        Menu((2,), (), (), ())
    with pytest.raises(ConfigError, match="expansions and filters must be positive"):
        Menu((), (), (0.0,), ())


@pytest.mark.parametrize("channels", [*range(1, 200, 7), 0.4, 12.5, 19.9])
def test_rounding_is_torchvision_s(channels):
    assert divisible(channels) == _make_divisible(channels, 8)
