from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sartor.core.contracts import Space
from sartor.core.errors import BudgetError, ConfigError
from sartor.core.records import Axis, Choice, Layer, LayerKey
from sartor.costs.macs import _VALUES, Macs


class Widths(Space):
    """An MLP on images: what no table knows."""

    choices = (Choice("hidden", (3, 5), ordered=True),)

    def build(self, arch):
        hidden = self.choices[0].options[arch[0]]
        layers = (nn.Conv2d(2, 4, 3, 2, groups=2), nn.ConvTranspose2d(4, 6, 2, stride=2), nn.Flatten())
        return nn.Sequential(*layers, nn.Linear(6 * 36, hidden), nn.ReLU(), nn.Linear(hidden, 2))


def test_counted_by_hand():
    macs = Macs(Widths(), input_shape=(2, 8, 8))
    conv = 3 * 3 * 4 * 9  # one input channel per group
    transposed = 3 * 3 * 4 * 6 * 4  # every input value meets every weight of its channel once
    for option, hidden in enumerate((3, 5)):
        assert float(macs([(option,)])[0]) == conv + transposed + 216 * hidden + hidden * 2


def test_a_space_must_say_its_input_or_the_setting_must():
    with pytest.raises(ConfigError, match="Macs needs the shape of an input, which Widths"):
        Macs(Widths())([(0,)])


def test_layers_of_an_unknown_kind_are_counted_instead():
    class Odd(Widths):
        def layers(self):
            one, two = Axis((2,)), Axis((3, 5), 0)
            return [Layer("odd", "attention", (8, 8), 1, 1, False, one, two)]

    assert not Macs(Odd(), input_shape=(2, 8, 8)).terms()


@pytest.mark.parametrize("stride", [1, 2])
def test_one_layer_by_plain_torch(stride):
    def conv(c_in, c_out, kernel, step, groups=1):
        return nn.Conv2d(c_in, c_out, kernel, step, kernel // 2, groups=groups, bias=False)

    want = {
        "conv": nn.Sequential(conv(3, 5, 3, stride)),
        "depthwise": nn.Sequential(conv(5, 5, 3, stride, 5)),
        "separable": nn.Sequential(conv(3, 3, 3, stride, 3), conv(3, 5, 1, 1)),
    }
    for kind, module in want.items():
        with FlopCounterMode(display=False) as counter:
            module(torch.zeros(1, next(module.parameters()).shape[0] if kind != "conv" else 3, 9, 7))
        assert _VALUES[kind](LayerKey(kind, (9, 7), 3, stride, False, 3, 5)) == counter.get_total_flops() / 2


def test_a_network_that_keeps_its_mode():
    networks = []

    class Kept(Widths):
        def build(self, arch):
            networks.append(super().build(arch))
            return networks[-1]

    macs = Macs(Kept(), input_shape=(2, 8, 8))
    assert torch.equal(macs([(1,)]), macs([(1,)]))
    assert len(networks) == 1  # remembered
    assert networks[0].training
    assert not networks[0][0]._forward_hooks


@torch.library.custom_op("sartor_tests::secret", mutates_args=())
def secret(x: Tensor, w: Tensor) -> Tensor:
    """What nobody can look into."""
    return x @ w


@secret.register_fake
def _(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


class Secretive(Space):
    """A linear layer, a table of words, and an operator that nobody knows."""

    choices = (Choice("hidden", (64, 128), ordered=True),)

    def __init__(self, secrets: int) -> None:
        self.secrets = secrets

    def build(self, arch):
        class Network(nn.Module):
            def __init__(self, hidden: int, secrets: int) -> None:
                super().__init__()
                self.words, self.head = nn.Embedding(1000, hidden), nn.Linear(hidden, hidden)
                self.hidden = nn.Module()
                self.hidden.weight = nn.Parameter(torch.randn(hidden, secrets))

            def forward(self, x: Tensor) -> Tensor:
                return torch.ops.sartor_tests.secret(self.head(self.words(x.long())), self.hidden.weight)

        return Network(self.choices[0].options[arch[0]], self.secrets)


def test_a_budget_is_refused_where_nobody_knows_the_work():
    Macs(Secretive(10), input_shape=(4,)).check()  # 1280 of 145 thousand parameters
    with pytest.raises(BudgetError, match=r"nobody knows those of hidden \(secret\), which have 12,800 of") as caught:
        Macs(Secretive(100), input_shape=(4,)).check()
    said = str(caught.value)
    assert "\n" not in said
    assert "set a budget on latency_ms or params instead" in said


def test_tables_of_words_are_no_secret():
    class Wordy(Secretive):
        def build(self, arch):
            return nn.Sequential(nn.Embedding(10_000, 8), nn.Linear(8, self.choices[0].options[arch[0]]))

        example = torch.zeros(1, 4, dtype=torch.int64)

    Macs(Wordy(0)).check()


def test_a_space_that_says_no_input_cannot_be_judged():
    Macs(Widths()).check()
