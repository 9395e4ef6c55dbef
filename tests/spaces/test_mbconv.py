from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path

import pytest
import torch

from contracts.test_costs import flops
from samples import SETTINGS
from sartor import archs
from sartor.core.abilities import Operated
from sartor.core.contracts import Problem
from sartor.core.errors import ConfigError, DataError
from sartor.core.records import Constraint, Objective, Operator
from sartor.core.rng import global_seed, numpy_rng
from sartor.costs.lookup import Lookup
from sartor.costs.macs import Macs
from sartor.costs.params import Params
from sartor.networks import macs_params
from sartor.spaces.mbconv import Mbconv
from sartor.strategies.uniform_width import UniformWidth
from sartor.supernet.mixed import glanced
from spaces.counting import assert_costs_equal_a_count
from spaces.test__proxyless import NETWORK

PUBLISHED = os.environ.get("SARTOR_PROXYLESS", "")
needs_files = pytest.mark.skipif(
    not PUBLISHED, reason="SARTOR_PROXYLESS names no folder of ProxylessNAS's published files"
)
SMALL = [Mbconv(**settings) for settings in SETTINGS["mbconv"].values()]
both = pytest.mark.parametrize("space", SMALL, ids=SETTINGS["mbconv"])


def some(space, n=4):
    rng = numpy_rng(0)
    drawn = [tuple(int(rng.integers(len(c.options))) for c in space.choices) for _ in range(n)]
    return [archs.smallest(space), archs.largest(space), space.reference, *drawn]


def words(space, arch):
    return [c.options[a] for c, a in zip(space.choices, arch, strict=True)]


def arch_of(space, names):
    return tuple(c.options.index(n) for c, n in zip(space.choices, names, strict=True))


def counted(space, arch):
    with torch.device("meta"):
        return macs_params(space.build(arch), torch.zeros(1, *space.input_shape))


def test_the_space_of_the_paper():
    space = Mbconv()
    assert [c.name for c in space.choices] == [f"stage{s}.{d}" for s in range(1, 7) for d in range(4 if s < 6 else 1)]
    assert [len(c.options) for c in space.choices] == [6, 7, 7, 7] * 5 + [6]
    assert set(words(space, space.reference)) == {"k3e6"}
    assert space.choices[1].options == ("skip", "k3e3", "k5e3", "k7e3", "k3e6", "k5e6", "k7e6")
    assert counted(space, space.reference) == (Macs(space)([space.reference]), Params(space)([space.reference]))


@pytest.mark.parametrize("space", [*SMALL, Mbconv(preset="small", size=8, stem=(48, 1), head=8)])
def test_costs_equal_a_count_on_the_real_network(space):
    assert_costs_equal_a_count(space, some(space))
    assert not any(t.pairwise for t in (space.account("macs"), *space.steps()))  # costs of single choices


@both
def test_where_skips_are_does_not_matter(space):
    """Exactly the archs whose blocks are the same in the same order are one network."""
    some = list(product(*(range(0, len(c.options), len(c.options) // 2) for c in space.choices)))
    same = {}
    for arch in some:
        blocks = tuple(o for options, a in zip(space.operators().options, arch, strict=True) for o in options[a])
        assert same.setdefault(blocks, space.canonical(arch)) == space.canonical(arch)
    assert len(set(same.values())) == len(same) < len(some)


def test_skips_come_last_in_a_stage():
    space = Mbconv(preset="small", size=8)
    names = ["k3e6", "skip", "k7e3", "skip", "k5e6", "k3e3", "skip", "k5e3"]
    last = ["k3e6", "skip", "k7e3", "k5e6", "skip", "k3e3", "k5e3", "skip"]
    one, two = arch_of(space, names), arch_of(space, last)
    assert space.canonical(one) == two
    with global_seed(3):
        before = space.build(one).eval()
    with global_seed(3):
        after = space.build(two).eval()
    x = torch.randn(2, *space.input_shape)
    assert torch.equal(before(x), after(x))


@both
def test_every_operator_is_the_part_of_the_network(space):
    assert isinstance(space, Operated)
    found, arch = space.operators(), some(space)[3]
    parts = [*found.fixed, *(o for options, a in zip(found.options, arch, strict=True) for o in options[a])]
    macs = 0
    for part in parts:
        module = space.operator(part).eval()
        assert all(type(m).__module__.split(".")[0] != "sartor" for m in module.modules())
        macs += flops(module, torch.randn(1, *part.input_shape))
    assert macs == Macs(space)([arch])
    with pytest.raises(ConfigError, match="no network of this space runs 'Conv-other'"):
        space.operator(Operator("Conv-other", (1, 2, 2)))


def test_keys_are_those_of_the_published_table():
    space = Mbconv()
    found = space.operators()
    assert [o.key for o in found.fixed] == [
        "Conv-input:224x224x3-output:112x112x32",
        "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0",
        "Conv_1-input:7x7x320-output:7x7x1280",
        "Logits-input:7x7x1280-output:1000",
    ]
    first, second = found.options[0][0][0], found.options[1][-1][0]
    assert first.key == "expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:3-stride:2-idskip:0"
    assert second.key == "expanded_conv-input:56x56x24-output:56x56x24-expand:6-kernel:7-stride:1-idskip:1"
    assert second.input_shape == (24, 56, 56)
    assert found.options[1][0] == ()
    further = Mbconv(se=True, activations=("relu6", "hswish")).operators().options[0]
    tails = {o.key.split("idskip:0")[1] for (o,) in further}
    assert tails == {"", "-se:1", "-hs:1", "-se:1-hs:1"}


@needs_files
def test_the_published_table_holds_every_operator():
    table = Path(PUBLISHED, "mobile_trim.yaml")
    space = Mbconv()
    latency = Lookup(space, table=table)
    assert float(latency([archs.smallest(space)])[0]) < float(latency([space.reference])[0])
    wider = Mbconv(config=Path(PUBLISHED, "proxyless_mobile.json"))
    with pytest.raises(DataError, match="output:56x56x32"):
        Lookup(wider, table=table)


@needs_files
def test_the_published_network_has_the_published_costs():
    space = Mbconv(config=Path(PUBLISHED, "proxyless_mobile.json"))
    assert (float(Macs(space)([space.reference])), float(Params(space)([space.reference]))) == (320427584, 4080512)
    assert counted(space, space.reference) == (320427584, 4080512)
    assert space.plan.widths[0] == 32
    assert words(space, space.reference)[:5] == ["k5e3", "k3e3", "skip", "skip", "k7e3"]


def test_a_network_in_a_file_is_the_reference(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(NETWORK))
    space = Mbconv(config=path, size=12, kernels=(3,), expansions=(2,))
    assert words(space, space.reference) == ["k7e3", "k5e4", "skip", "k3e6"]  # the skip was in between
    assert space.choices[1].options[1:] == tuple(f"k{k}e{e}" for e in (2, 3, 4, 6) for k in (3, 5, 7))
    assert space.input_shape == (2, 12, 12)
    assert space.build(space.reference)(torch.zeros(2, 2, 12, 12)).shape == (2, 5)
    assert Mbconv(config=path, size=12, classes=3).plan.classes == 3  # for data of one's own
    assert words(space, space.scaled(0.5)) == ["k7e2", "skip", "skip", "k3e3"]
    with pytest.raises(ConfigError, match="config says what head, widths are"):
        Mbconv(config=path, widths=(3, 4), head=3)


def test_uniform_scaling_has_many_steps():
    space = Mbconv()
    steps = dict.fromkeys(space.scaled(f / 200) for f in range(201))
    assert len(steps) > 25
    macs = Macs(space)(list(steps)).diff()
    assert (macs > 0).all()
    assert float(macs.max()) < 0.1 * float(Macs(space)([space.reference])[0])
    assert all(space.canonical(a) == a for a in steps)
    half = words(space, space.scaled(0.5))
    assert half.count("skip") == 15 - 8
    assert {n for n in half if n != "skip"} == {"k3e3"}
    costs = {"macs": Macs(space)}
    limit = 0.4 * float(costs["macs"]([space.reference])[0])
    problem = Problem(space, (Objective("accuracy", "max"),), (Constraint("macs", limit),), costs)
    (proposal,) = UniformWidth(problem, 0).proposals
    assert 0.9 * limit < float(costs["macs"]([proposal.arch])[0]) <= limit


@both
@pytest.mark.parametrize("seen", [(), (0, 1)])
def test_all_gates_of_one_path_have_their_gradient(space, seen):
    """Against finite differences along each gate, of a loss of the whole network."""
    with global_seed(1):
        net = space.supernet().double().eval()
    x, arch = torch.randn(2, *space.input_shape, dtype=torch.float64), space.reference
    counts = [len(c.options) for c in space.choices]
    gates = [glanced(a, k, seen).detach().double().requires_grad_() for a, k in zip(arch, counts, strict=True)]
    net(x, gates).sin().sum().backward()
    base = [torch.eye(k, dtype=torch.float64)[a] for a, k in zip(arch, counts, strict=True)]
    for i, j in [(0, arch[0]), (1, 0), (2, 1), (len(counts) - 1, 1)]:
        step = torch.zeros(counts[i], dtype=torch.float64)
        step[j] = 1e-6
        moved = [[*base[:i], base[i] + sign * step, *base[i + 1 :]] for sign in (1, -1)]
        with torch.no_grad():
            up, down = (float(net(x, g).sin().sum()) for g in moved)
        want = (up - down) / 2e-6 if j == arch[i] or j in seen else 0
        assert float(gates[i].grad[j]) == pytest.approx(want, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "large"}, "preset is one of imagenet, cifar, small"),
        ({"widths": (8, 16)}, "widths, blocks and strides need one number per stage"),
        ({"widths": (), "blocks": (), "strides": ()}, "need one number per stage"),
        ({"stem": (0, 1)}, "stem must be at least 1"),
        ({"stem": (8,)}, "stem is .channels, stride."),
        ({"blocks": (4, 4, 0, 4, 4, 1)}, "blocks must be at least 1"),
        ({"kernels": (2,)}, "kernels must be odd"),
        ({"expansions": (0.5,)}, "expansions must be at least 1"),
        ({"activations": ()}, "activations are relu6 and hswish"),
    ],
)
def test_wrong_settings_are_explained(settings, message):
    with pytest.raises(ConfigError, match=message):
        Mbconv(**settings)
