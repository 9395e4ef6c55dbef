from __future__ import annotations

import copy
import re
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, fx, nn
from torch.nn import functional

from nets import Branches, Gate, Gated, Numbers, Residual, Tokens, random_
from sartor import archs, config
from sartor.core import trees
from sartor.core.contracts import Task
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.rng import global_seed, numpy_rng
from sartor.networks import macs_params
from sartor.spaces.widths import Widths
from sartor.tasks.loaders import loaders

SMALL = {"size": 8, "divisor": 2, "multipliers": (0.25, 0.5, 0.75)}


def inputs(*shape: int) -> Tensor:
    return torch.randn(3, *(shape or (3, 8, 8)), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    return random_(Residual()).eval()


@pytest.fixture(scope="module")
def space(network):
    return Widths(network=network, **SMALL)


def test_choices_are_the_groups_with_their_numbers_of_channels(space):
    assert {c.name: c.options for c in space.choices} == {
        "stem": (2, 4, 6, 8),
        "expand": (4, 6, 8, 12),
        "pointwise": (4, 8, 12, 16),
    }
    assert space.reference == (3, 3, 3)
    assert space.input_shape == (3, 8, 8)


def test_the_reference_is_the_network_itself(space, network):
    built = space.build(space.reference).eval()
    assert type(built) is Residual
    assert space.trained
    assert list(built.state_dict()) == list(network.state_dict())
    torch.testing.assert_close(built(inputs()), network(inputs()), rtol=1e-5, atol=1e-5)


def test_the_users_network_stays_as_it_was():
    mine = random_(Residual())
    mine.bn.eval()
    before = copy.deepcopy(mine.state_dict())
    made = Widths(network=mine, **SMALL).build((0, 0, 0))
    nn.init.zeros_(made.stem.weight)
    assert all(torch.equal(v, before[k]) for k, v in mine.state_dict().items())
    assert mine.training
    assert not mine.bn.training
    assert not any(m._forward_hooks for m in mine.modules())


def test_the_channels_that_weigh_most_are_kept(network):
    bn = Widths(network=network, importance="bn", **SMALL)
    made = bn.build((0, 0, 0))  # two of the stem's channels
    score = network.bn.weight.abs()
    best = network.bn.weight[score.argsort(descending=True)[:2]]
    assert torch.equal(made.bn.weight, best)
    first = Widths(network=network, importance="none", **SMALL).build((0, 0, 0))
    assert torch.equal(first.stem.weight, network.stem.weight[:2])
    one, same, other = (
        Widths(network=network, importance="random", seed=s, **SMALL).build((0, 0, 0)).stem.weight for s in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.fixture
def sleepy():
    """Four channels, of which the heavier half is always below the ReLU: it has no gradient."""
    made = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        made[0].weight.copy_(torch.tensor([[9.0, 9.0], [0.5, -1.0], [8.0, -8.0], [1.0, 0.7]]))
        made[0].bias.copy_(torch.tensor([-100.0, 0.5, -100.0, 0.2]))
    return made


def points() -> Task:
    """Points of a plane, in two classes."""
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    batches = [(part, (part[:, 0] > 0).long()) for part in x.split(8)]
    return loaders(train=batches, valid=batches, test=batches)


def test_the_data_say_which_channels_matter(sleepy):
    space = Widths(network=sleepy, input_shape=(2,), multipliers=(0.5, 1.0), divisor=1, importance="taylor")
    assert space.build((0,))[0].bias.tolist() == [-100.0, -100.0]
    space.inform(points())
    assert sorted(space.build((0,))[0].bias.tolist()) == pytest.approx([0.2, 0.5])
    x = torch.randn(5, 2)
    torch.testing.assert_close(space.build(space.reference)(x), sleepy(x))
    before = space.build((0,)).state_dict()
    space.inform(points())
    assert all(torch.equal(v, before[k]) for k, v in space.build((0,)).state_dict().items())


def test_the_data_say_nothing_of_an_untrained_network():
    space = Widths(network="torchvision:alexnet", size=64, importance="taylor")
    with pytest.raises(CapabilityError, match=r"taylor.*trained"):
        space.inform(points())


def test_costs_are_those_of_the_networks(space):
    rng = numpy_rng(0)
    drawn = [archs.smallest(space), *(space.moves.draw(rng) for _ in range(4))]
    counted = [macs_params(space.build(a), torch.zeros(1, 3, 8, 8)) for a in drawn]
    macs, params = space.account("macs"), space.account("params")
    assert macs is not None
    assert params is not None
    assert list(zip(macs(drawn).tolist(), params(drawn).tolist(), strict=True)) == counted
    assert space.account("latency_ms") is None
    assert max(step.cost(space.reference) for step in space.steps()) > max(
        step.cost(archs.smallest(space)) for step in space.steps()
    )
    assert next(layer.name for layer in space.layers()) == "stem"


def test_uniform_scaling_takes_the_nearest_widths(space):
    assert space.scaled(1.0) == space.reference
    assert space.scaled(0.5) == (1, 1, 1)
    assert space.scaled(0.7) == (2, 2, 2)  # 5.6 of 8, 8.4 of 12, 11.2 of 16
    assert space.scaled(0.01) == (0, 0, 0)


def test_a_network_by_name_is_untrained_unless_weights_are_given(tmp_path):
    plain = Widths(network="nets:residual", **SMALL)
    assert not plain.trained
    with global_seed(0):
        one, two = plain.build(plain.reference), plain.build(plain.reference)
    assert not torch.equal(one.stem.weight, two.stem.weight)
    trained = random_(Residual(), 5).eval()
    save_file(trained.state_dict(), tmp_path / "net.safetensors")
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    for file in ("net.safetensors", "net.pt"):
        space = Widths(network="nets:residual", weights=str(tmp_path / file), **SMALL)
        assert space.trained
        built = space.build(space.reference).eval()
        torch.testing.assert_close(built(inputs()), trained(inputs()), rtol=1e-5, atol=1e-5)


def test_a_file_of_other_weights_is_refused(tmp_path):
    save_file(Branches().state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="does not hold the weights of Residual"):
        Widths(network="nets:residual", weights=str(tmp_path / "other.safetensors"), **SMALL)
    with pytest.raises(ConfigError, match="cannot read weights"):
        Widths(network="nets:residual", weights=str(tmp_path / "nothing.safetensors"), **SMALL)


def test_it_leaves_the_random_generator_alone(network):
    before = torch.get_rng_state()
    Widths(network=network, **SMALL).build((1, 1, 1))
    Widths(network="nets:residual", **SMALL)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_of_torchvision():
    space = Widths(network="torchvision:resnet18", size=64, classes=7, multipliers=(0.25, 0.5))
    assert space.plain
    assert len(space.choices) == 12  # four of the stages, eight inside the blocks
    assert {c.name: c.options for c in space.choices}["conv1"] == (16, 32, 64)
    arch = tuple(i % 3 for i in range(12))
    small = space.build(arch).eval()
    assert type(small).__name__ == "ResNet"
    assert small(torch.randn(3, 3, 64, 64)).shape == (3, 7)
    macs, params = macs_params(small, torch.zeros(1, 3, 64, 64))
    assert space.account("macs").cost(arch) == macs
    assert space.account("params").cost(arch) == params


def test_a_transformer_keeps_its_class():
    space = Widths(network=random_(Tokens()).eval(), **SMALL)
    assert space.plain
    arch = tuple(0 for _ in space.choices)
    small = space.build(arch)
    assert type(small) is Tokens
    assert (small.heads, small.patches.out_channels) == (1, 6)
    assert small(inputs()).shape == (3, 5)


def test_numbers_in_the_code_make_a_graph():
    network = random_(Numbers()).eval()
    space = Widths(network=network, **SMALL)
    assert not space.plain
    small = space.build(tuple(1 for _ in space.choices))
    assert isinstance(small, fx.GraphModule)
    assert type(small).__name__ == "Numbers"
    assert small.first.out_channels == 4
    torch.testing.assert_close(space.build(space.reference)(inputs()), network(inputs()), rtol=1e-4, atol=1e-4)


class Straight(torch.autograd.Function):
    """Rounds; the gradient passes."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.round(x * 8) / 8

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


class Lively(nn.Module):
    """Works in place, reads shapes, and has a function with a gradient of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.a(x))
        y = self.b(x)
        y += x
        y.mul_(0.5)
        y = self.act(y)
        n, c, h, _ = y.shape
        if h > 4:
            y = functional.avg_pool2d(y, h // 2)
        return self.head(Straight.apply(y).view(n, c * 4))


def test_in_place_work_shapes_and_own_gradients_pass():
    network = random_(Lively()).eval()
    space = Widths(network=network, **SMALL)
    assert [c.name for c in space.choices] == ["a"]
    assert space.plain
    net = space.supernet().eval()
    for k in range(len(space.choices[0].options)):
        small = net.extract((k,))
        torch.testing.assert_close(net(inputs(), archs.gates(space, (k,))), small(inputs()), rtol=1e-4, atol=1e-4)
        small(inputs()).sum().backward()
        assert small.a.weight.grad.abs().sum() > 0
    torch.testing.assert_close(small(inputs()), network(inputs()), rtol=1e-5, atol=1e-5)


def test_what_depends_on_values_names_the_line_and_the_module_to_ignore():
    with pytest.raises(CapabilityError, match=r"nets\.py:\d+.*values, not shapes.*ignore = \[\"gate\"\]"):
        Widths(network=Gated(), **SMALL)


def test_ignored_modules_are_left_alone():
    network = random_(Gated()).eval()
    space = Widths(network=network, ignore=["gate"], **SMALL)
    assert [c.name for c in space.choices] == ["second"]
    small = space.build((0,)).eval()
    assert type(small.gate) is Gate
    assert torch.equal(small.gate.layer.weight, network.gate.layer.weight)
    assert small.second.out_channels == 4


def test_what_is_cut_out_is_fitted_to_the_original(space, network):
    made, arch = space.build((3, 1, 3)).eval(), (3, 1, 3)
    batches = [(inputs(), torch.zeros(3)), (1 - inputs(), torch.zeros(3))] * 40
    before = (made(inputs()) - network(inputs())).norm()
    assert space.reconstruct(arch, made, iter(batches))
    assert (made(inputs()) - network(inputs())).norm() < 0.5 * before


def test_as_many_examples_are_taken_as_are_wanted(network):
    taken = []

    def batches():
        while True:
            taken.append(1)
            yield inputs(), torch.zeros(3)

    some = Widths(network=network, **SMALL, reconstruct=7)
    some.reconstruct((0, 0, 0), some.build((0, 0, 0)), batches())
    assert len(taken) == 3


@pytest.mark.parametrize(
    ("settings", "arch"), [({}, (3, 3, 3)), ({"reconstruct": 0}, (0, 0, 0)), ({"network": "nets:residual"}, (0, 0, 0))]
)
def test_there_is_nothing_to_fit_in_the_whole_network_or_an_untrained_one(network, settings, arch):
    untouched = Widths(**{"network": network, **SMALL, **settings})
    made = untouched.build(arch)
    before = copy.deepcopy(made.state_dict())
    assert not untouched.reconstruct(arch, made, iter(()))
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())


def test_no_examples_are_an_error(space):
    with pytest.raises(DataError, match="no batches"):
        space.reconstruct((0, 0, 0), space.build((0, 0, 0)), iter(()))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, ConfigError, "needs a network"),
        ({"network": nn.Linear(3, 2), "input_shape": (3,)}, CapabilityError, "no channels that can be cut"),
        ({"network": "nets:nothing"}, ConfigError, "has no 'nothing'"),
        ({"network": "nets:residual", "size": 8, "ignore": ["steam"]}, ConfigError, "'steam'"),
        ({"network": "nets:residual", "size": 8, "multipliers": ()}, ConfigError, "fractions"),
        ({"network": "nets:residual", "size": 8, "reconstruct": -1}, ConfigError, "reconstruct must be"),
        ({"network": "nets:residual", "size": 8, "importance": "best"}, ConfigError, "no importance 'best'"),
        (
            {"network": "nets:residual", "size": 8, "in_channels": 4},
            ConfigError,
            "Residual does not run on an input of",
        ),
    ],
)
def test_mistakes_are_named(settings, error, message):
    with pytest.raises(error, match=message) as caught:
        Widths(**settings)
    assert "\n" not in str(caught.value)


def test_shapes_come_from_a_config_or_an_example():
    table = {"name": "widths", "network": "several:concat", "divisor": 1}
    for shapes in ([[3, 8, 8], [10]], {"vector": [10], "image": [3, 8, 8]}):
        space = config.build("spaces", {**table, "input_shape": shapes})
        assert {len(x) for x in trees.leaves(space.example)} == {1}
        assert {"stem", "first"} <= {layer for g in space.coupling.groups for layer in g.layers}
    assert space.input_shape == {"vector": (10,), "image": (3, 8, 8)}
    example = {"ids": torch.full((1, 6), 7), "image": torch.ones(1, 3, 8, 8)}
    space = config.build("spaces", {**table, "network": "several:words", "example": example})
    assert space.input_shape == {"ids": (6,), "image": (3, 8, 8)}
    assert space.example["ids"].tolist() == [[7] * 6]
    assert config.build("spaces", {**table, "network": "nets:residual", "input_shape": [3, 8, 8]}).input_shape == (
        3,
        8,
        8,
    )
    for wrong in ("3,8,8", [3, "8"], 3):
        with pytest.raises(ConfigError, match="input_shape must be"):
            config.build("spaces", {**table, "input_shape": wrong})


@pytest.mark.parametrize("kind", ["dict", "plain"])
def test_a_network_that_answers_otherwise_when_it_is_narrow_is_a_graph(kind):
    class Vain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 16), nn.Linear(16, 2)

        def forward(self, x):
            y = torch.relu(self.a(x))
            out = self.b(y)
            return {"out": out} if y.shape[1] == 16 or kind == "plain" else OrderedDict(out=out)

    space = Widths(network=random_(Vain()), input_shape=(4,), divisor=1)
    assert space.plain == (kind == "plain")
    assert type(space.build((0,))(torch.zeros(2, 4))) is dict


class Ordered(nn.Module):
    """Several reasons, none of which leaves anything to cut."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.c(self.b(self.a(x).softmax(-1)).softmax(-1))


def test_what_cannot_be_cut_at_all_says_why():
    with pytest.raises(CapabilityError) as caught:
        Widths(network=Ordered(), input_shape=(4,), divisor=1)
    said = str(caught.value)
    assert re.match(r"Ordered has no channels that can be cut \(", said)
    assert "softmax" in said
    assert "c: it is an output of the network" in said
    assert "sartor space" not in said
    assert "\n" not in said
    with pytest.raises(CapabilityError, match="no convolution and no linear layer"):
        Widths(network=nn.Sequential(nn.ReLU(), nn.Flatten()), input_shape=(4,))


def test_a_network_that_does_not_run_is_told():
    class Narrow(nn.Module):
        """Its table is too short, which shapes alone do not show."""

        def __init__(self):
            super().__init__()
            self.places, self.a, self.b = nn.Embedding(2, 4), nn.Linear(4, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.b(self.a(x + self.places(torch.arange(3))).relu())

    with pytest.raises(
        ConfigError, match=r"Narrow does not run on inputs of the shapes .*index out of range"
    ) as caught:
        Widths(network=Narrow(), input_shape=(3, 4), divisor=1)
    assert "\n" not in str(caught.value)
