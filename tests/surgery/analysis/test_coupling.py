from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from nets import Branches, Gated, Residual, Tokens
from sartor.core.errors import CapabilityError
from sartor.surgery.analysis.coupling import couple


def groups(network, *shape):
    return {g.name: g for g in couple(network, torch.zeros(1, *shape)).groups}


def layers(network, *shape):
    """The groups as sets of layers."""
    return [set(g.layers) for g in groups(network, *shape).values()]


def fixed(network, *shape):
    return {f.layer: f.reason for f in couple(network, torch.zeros(1, *shape)).fixed}


@pytest.fixture(scope="module")
def residual():
    return couple(Residual(), torch.zeros(1, 3, 8, 8))


def test_terms_of_a_sum_and_depthwise_convolutions_are_cut_together(residual):
    found = {g.name: (set(g.layers), [len(f) for f in g.families]) for g in residual.groups}
    assert found == {
        "stem": ({"stem", "reduce", "depthwise"}, [8]),
        "expand": ({"expand"}, [12]),
        "pointwise": ({"pointwise"}, [16]),
    }


def test_the_classifier_is_fixed_with_a_reason(residual):
    assert {f.layer: f.reason for f in residual.fixed} == {"head": "it is an output of the network"}


def test_a_classifier_of_convolutions_is_fixed_too():
    assert "output of the network" in fixed(Branches(), 3, 8, 8)["head"]


def test_every_weight_is_labelled_with_units_of_its_groups(residual):
    units = residual.tracker.units
    of = {int(u): g.name for g in residual.groups for f in g.families for u in f}
    found = {}
    for name, dims in residual.weights():
        roots = [units.resolve(d) for d in dims]
        found[name] = [None if r is None else {of[int(u)] for u in r.flat} for r in roots]
    assert found["stem.weight"] == [{"stem"}, None, None, None]
    assert found["expand.weight"] == [{"expand"}, {"stem"}, None, None]
    assert found["bn_expand.running_var"] == [{"expand"}]
    assert found["depthwise.weight"] == [{"stem"}, None, None, None]
    assert found["head.weight"] == [None, {"pointwise"}]
    assert found["head.bias"] == [None]


def test_parts_of_a_concatenation_are_cut_apart_and_their_gate_with_them():
    found = groups(Branches(), 3, 8, 8)
    assert found["left"].layers == ("left", "excite")
    assert found["right"].layers == ("right", "excite")
    assert [len(f) for f in (*found["left"].families, *found["right"].families)] == [8, 12]
    assert found["squeeze"].layers == ("squeeze",)


def test_without_a_gate_the_parts_of_a_concatenation_are_decisions_of_their_own():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
            self.c = nn.Conv2d(10, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.cat([self.a(x), self.b(x)], 1))

    assert layers(Two(), 3, 4, 4) == [{"a"}, {"b"}]


def test_of_grouped_channels_whole_groups_go():
    found = groups(Branches(), 3, 8, 8)
    mix = found["mix"]
    assert "grouped" in mix.layers
    assert [len(f) for f in mix.families] == [4]


def test_whole_heads_go_and_the_width_of_the_tokens_is_one_decision():
    found = groups(Tokens(heads=4), 3, 8, 8)
    assert [len(f) for f in found["qkv"].families] == [4]
    assert set(found["patches"].layers) == {"patches", "out", "down"}
    assert found["patches"].size == 24
    assert found["up"].size == 48


def test_where_heads_are_few_their_channels_go_alike():
    found = groups(Tokens(heads=2), 3, 8, 8)
    assert [len(f) for f in found["qkv"].families] == [12]  # of every head the same


def test_an_operator_without_a_rule_freezes_what_enters_it_and_says_so():
    class Unknown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(torch.fft.fft2(self.a(x)).real))

    network = Unknown()
    why = fixed(network, 3, 4, 4)["a"]
    assert "no rule for fft_fft2" in why
    assert "test_coupling.py:" in why
    assert layers(network, 3, 4, 4) == [{"b"}]


def test_heads_that_only_training_uses_follow():
    class Aux(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head, self.aux = (
                nn.Conv2d(3, 4, 1),
                nn.Conv2d(4, 6, 1),
                nn.Linear(6, 2),
                nn.Linear(4, 2),
            )

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            x = self.a(x)
            y = self.head(self.b(x).mean((2, 3)))
            return (y, self.aux(x.mean((2, 3)))) if self.training else y

    network = Aux()
    coupling = couple(network, torch.zeros(1, 3, 4, 4))
    labels = dict(coupling.weights())
    units = coupling.tracker.units
    a = next(g for g in coupling.groups if g.name == "a")
    assert sorted(units.resolve(labels["aux.weight"][1]).flat) == sorted(a.families[0])
    assert coupling.further is not None
    assert network.training


def test_the_modes_of_all_modules_are_put_back():
    network = Residual()
    network.bn.eval()
    couple(network, torch.zeros(1, 3, 8, 8))
    assert network.training
    assert not network.bn.training


def test_tied_weights_couple_their_places():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 2)
            self.c = nn.Linear(6, 8)
            self.c.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(torch.relu(self.a(x))) + self.b(torch.relu(self.c(x))))

    found = groups(Tied(), 6)
    assert found["a"].size == 8
    labels = dict(couple(Tied(), torch.zeros(1, 6)).weights())
    assert "c.weight" not in labels  # one tensor, one name
    assert "c.bias" in labels


def test_a_layer_that_runs_twice_in_a_row_keeps_what_enters_it_like_what_leaves_it():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.b(torch.relu(self.b(torch.relu(self.a(x)))))))

    assert layers(Twice(), 6) == [{"a", "b"}]


def test_weights_seen_in_two_places_agree_in_both():
    """A weight that is a layer's and is added up as a tensor, too."""

    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.a(x)) * self.a.weight.norm(dim=1))

    assert layers(Seen(), 6) == [{"a"}]


def test_a_table_that_does_not_depend_on_the_input_is_no_decision():
    """The MLP of position biases in Swin V2 makes a table that is indexed: its widths are not offered."""

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
            self.mlp = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 4))
            self.register_buffer("places", torch.rand(5, 2))
            self.register_buffer("index", torch.tensor([0, 2, 4, 1, 1, 3]))

        def forward(self, x: Tensor) -> Tensor:
            bias = self.mlp(self.places)[self.index].mean(1)
            return self.head(torch.relu(self.a(x + bias)))

    assert layers(Biased(), 6) == [{"a"}]


def test_what_cannot_be_traced_names_the_line_and_the_module():
    with pytest.raises(CapabilityError, match=r"nets\.py:\d+.*ignore = \[\"gate\"\]"):
        couple(Gated(), torch.zeros(1, 3, 8, 8))


def test_constants_can_be_replaced(residual):
    other = residual.with_constants({"c": torch.ones(2)})
    assert other.traced.constants.keys() == {"c"}
    assert other.groups == residual.groups


class Shared(nn.Module):
    """One layer whose outputs are the sum of a wide and a narrow branch: `few` units of it are alone."""

    def __init__(self, few: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 12, 1), nn.Conv2d(3, few, 1)
        self.both, self.head = nn.Conv2d(3, 12 + few, 1), nn.Linear(12 + few, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.both(x) + torch.cat([self.wide(x), self.narrow(x)], 1)).mean((2, 3)))


def test_a_family_of_few_units_shares_the_decision_of_a_larger_one():
    assert [[len(f) for f in g.families] for g in groups(Shared(4), 3, 8, 8).values()] == [[12, 4]]
    assert [[len(f) for f in g.families] for g in groups(Shared(8), 3, 8, 8).values()] == [[12], [8]]


def test_groups_of_one_layer_have_names_of_their_own():
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.left, self.right = nn.Conv2d(3, 16, 1), nn.Linear(8, 2), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.body(x).mean((2, 3)).chunk(2, 1)
            return self.left(first) + self.right(second)

    assert set(groups(Alone(), 3, 8, 8)) == {"body", "body[2]"}


class Doubting(nn.Module):
    """A part whose path depends on values."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Line(nn.Module):
    """Layers one after another."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def conv(a: int, b: int) -> nn.Module:
    return nn.Conv2d(a, b, 1)


@pytest.mark.parametrize(
    ("network", "advice"),
    [
        (Line(conv(3, 16), conv(16, 16), Doubting(), conv(16, 16), conv(16, 4)), ["layers.2"]),
        (
            Line(conv(3, 16), Doubting(), conv(16, 16), conv(16, 16), Line(Doubting()), conv(16, 16), conv(16, 4)),
            ["layers.1", "layers.4.layers.0"],
        ),
    ],
)
def test_advice_is_given_after_it_was_tried(network, advice):
    x = torch.zeros(1, 3, 4, 4)
    with pytest.raises(CapabilityError, match="cannot be traced") as caught:
        couple(network, x)
    assert str(caught.value).endswith(f"; leave that part alone: ignore = {json.dumps(advice)}")
    assert "\n" not in str(caught.value)
    assert couple(network, x, advice).groups


class Twice(nn.Module):
    """Its part cannot be left alone, because it is called twice; what is around it is the network."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.part, self.last = conv(3, 16), Doubting(), conv(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.part(self.part(self.first(x))))


class Own(nn.Module):
    """The network's own forward depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(3, 16), conv(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y if y.sum() > 0 else -y)


@pytest.mark.parametrize(
    "network",
    [Twice(), Own(), Line(conv(3, 16), Doubting(), conv(16, 4))],
    ids=["twice", "own", "nothing would be left to cut"],
)
def test_no_advice_is_given_where_none_helps(network):
    with pytest.raises(CapabilityError, match=r"cannot be traced: .*test_coupling\.py:\d+") as caught:
        couple(network, torch.zeros(1, 3, 4, 4))
    assert "ignore" not in str(caught.value)


def test_channels_are_free_where_examples_are_sorted(check, net):
    network = net(lambda n, x: n.b(n.a(x).sort(0).values), a=nn.Linear(6, 8), b=nn.Linear(8, 12))
    assert [g.name for g in check(network, (6,), least=0).groups] == ["a"]


class Boxes(nn.Module):
    """A detector that sorts its boxes out itself: how many there are depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU())
        self.scores = nn.Conv2d(24, 1, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        scores = self.scores(self.backbone(x)).flatten(1)
        return [line[line > 0] for line in scores]


def test_where_leaving_alone_does_not_help_the_part_is_named_that_can_be_cut():
    with pytest.raises(
        CapabilityError, match=r"by itself, .* is backbone on inputs of the shapes \(1, 3, 8, 8\)$"
    ) as e:
        couple(Boxes(), torch.zeros(1, 3, 8, 8))
    assert "scores" not in str(e.value)
    assert couple(Boxes().backbone, torch.zeros(1, 3, 8, 8)).groups
