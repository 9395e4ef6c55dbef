from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensor

from nets import Gated, Residual, Stages, random_
from sartor import archs
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.rng import numpy_rng
from sartor.costs.macs import Macs
from sartor.costs.memory import Memory
from sartor.costs.params import Params
from sartor.exporting.onnx_file import export_onnx
from sartor.spaces.compression import Compression
from users import BATCHES, COPIES

SMALL = {"size": 8, "steps": 4}


@pytest.fixture(scope="module")
def network():
    return random_(Stages()).eval()


@pytest.fixture(scope="module")
def space(network):
    return Compression(network=network, **SMALL)


def inputs(seed=0):
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_the_reference_is_the_teacher(space, network):
    built = space.build(space.reference)
    assert not built.training
    assert set(built.state_dict()) == set(network.state_dict())
    torch.testing.assert_close(built(inputs()), network(inputs()), rtol=1e-4, atol=1e-3)
    assert space.canonical(space.reference) == space.reference


def test_the_teacher_stays_as_it_was():
    mine = random_(Stages())
    before = copy.deepcopy(mine.state_dict())
    made = Compression(network=mine, **SMALL)
    nn.init.zeros_(made.build(made.reference).linear.weight)
    assert all(torch.equal(v, before[k]) for k, v in mine.state_dict().items())
    assert mine.training
    torch.testing.assert_close(
        made.build(made.reference)(inputs()), copy.deepcopy(mine)(inputs()), rtol=1e-3, atol=1e-3
    )


def test_the_channels_that_weigh_most_are_inherited():
    network = random_(Residual()).eval()
    space = Compression(network=network, importance="bn", **SMALL)
    narrow = space.scaled(0.25)
    best = network.bn.weight[network.bn.weight.abs().argsort(descending=True)[:2]]
    assert torch.equal(space.build(narrow).bn.weight, best)
    first = Compression(network=network, importance="none", **SMALL)
    assert torch.equal(first.build(narrow).stem.weight, network.stem.weight[:2])


def test_steps_are_the_widths_on_offer(space):
    assert {c.name: c.options for c in space.choices if c.name.startswith("width")} == {
        "width:conv1": (2, 4, 6, 8),
        "width:layer1.0.conv1": (2, 4, 6, 8),
        "width:layer1.1.conv1": (2, 4, 6, 8),
        "width:layer2.0.conv1": (4, 8, 12, 16),
        "width:layer2.0.conv2": (2, 4, 6, 8),
        "width:layer2.1.conv1": (4, 8, 12, 16),
    }


def test_one_width_for_all_channels_of_one_number(network):
    space = Compression(network=network, coupled="channels", **SMALL)
    assert [c.name for c in space.choices if c.name.startswith("width")] == ["width:conv1", "width:layer2.0.conv1"]
    half = space.build(space.scaled(0.5))
    assert half.get_submodule("layer1.1.conv1").out_channels == 4
    assert half.get_submodule("layer2.1.conv1").weight.shape[:2] == (8, 8)


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({"changes": ("blocks", "skips")}, {"block", "width", "skip"}),
        ({"changes": ("layers", "skips")}, {"keep", "width", "skip"}),
        ({"changes": ("layers", "blocks")}, {"keep", "block", "width"}),
        ({"steps": 1}, {"keep", "block", "skip"}),
    ],
)
def test_what_is_on_offer_can_be_left_out(network, settings, kinds):
    space = Compression(network=network, **{**SMALL, **settings})
    assert {c.name.partition(":")[0] for c in space.choices} == kinds
    for _ in range(3):
        assert space.build(space.moves.draw(np.random.default_rng(0)))(inputs()).isfinite().all()


def test_random_networks_are_drawn_as_in_the_source(network):
    """Layers go with a probability of 0.5 on average, skips are rare, and widths of their own are uniform."""
    space, rng = Compression(network=network, size=8, steps=8, changes=("layers", "skips")), numpy_rng(0)
    drawn = [space.moves.draw(rng) for _ in range(1000)]
    assert all(space.canonical(a) == a for a in drawn)
    table = np.array(drawn)
    lo, hi = space.students.at_widths, space.students.at_skips
    assert abs(table[:, :lo].mean() - 0.5) < 0.02
    first = table[:, lo]
    assert np.abs(np.bincount(first, minlength=8) / len(first) - 1 / 8).max() < 0.04
    skips = [c.options for c in space.choices[hi:]]
    expected = [np.mean([1 - (1 - p) ** (len(o) - 1) for p in (0.003, 0.005, 0.01, 0.03, 0.05)]) * 0.5 for o in skips]
    assert (table[:, hi:] > 0).mean() == pytest.approx(np.mean(expected), rel=0.2)


def test_a_small_change_is_of_every_kind_alike(space):
    """Of many changes of the teacher a quarter each are of layers, blocks, widths (by a quarter) and skips."""
    rng, counts = np.random.default_rng(0), dict.fromkeys(("keep", "block", "width", "skip"), 0)
    names = [c.name.split(":")[0] for c in space.choices]
    students = space.students
    for _ in range(400):
        arch = space.moves.vary(space.reference, rng)
        assert arch == space.canonical(arch)
        changed = [i for i, (a, b) in enumerate(zip(arch, space.reference, strict=True)) if a != b]
        kinds = [names[i] for i in changed]
        for kind in set(kinds):
            counts[kind] += len(set(kinds)) == 1
        for i in range(students.at_widths, students.at_skips):
            assert abs(arch[i] - space.reference[i]) <= max(1, len(space.choices[i].options) // 4) or len(changed) > 1
    there = [kind for kind in counts if kind in names]
    assert all(counts[kind] > 0.5 * 400 / len(there) for kind in there)


def test_costs_need_no_network(space):
    rng = numpy_rng(1)
    drawn = [space.moves.draw(rng) for _ in range(4)]
    macs, params, memory = Macs(space), Params(space), Memory(space, bytes_per_value=2)
    assert macs(drawn).tolist() == space.tally("macs", drawn).tolist()
    assert params(drawn).tolist() == [sum(p.numel() for p in space.build(a).parameters()) for a in drawn]
    assert memory(drawn).tolist() == (2 * space.tally("values", drawn)).tolist()
    assert not macs.terms()


def test_students_are_trained_and_copied(space):
    rng, y, x = numpy_rng(3), torch.arange(4) % 5, inputs()
    student = space.build(space.moves.draw(rng))
    assert isinstance(student, fx.GraphModule)
    twin = copy.deepcopy(student).train()
    optimizer, losses = torch.optim.Adam(twin.parameters(), 0.01), []
    for _ in range(8):
        losses.append(nn.functional.cross_entropy(twin(x), y))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in twin.parameters())


def test_students_are_exported(tmp_path):
    space = Compression(network=random_(Residual()).eval(), **SMALL)
    names = [c.name for c in space.choices]
    arch = list(space.scaled(0.5))
    arch[names.index("keep:bn_expand")] = 0
    arch[names.index("skip:expand")] = 2
    student, x = space.build(tuple(arch)), inputs()
    wanted = student(x).detach()
    torch.testing.assert_close(torch.export.export(student, (x,)).module()(x), wanted)
    export_onnx(student, x, tmp_path / "student.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-4)


def test_a_network_by_name_is_untrained_unless_weights_are_given(tmp_path):
    plain = Compression(network="nets:residual", **SMALL)
    assert not plain.trained
    trained = random_(Residual(), 5).eval()
    save_file(trained.state_dict(), tmp_path / "net.safetensors")
    space = Compression(network="nets:residual", weights=str(tmp_path / "net.safetensors"), **SMALL)
    assert space.trained
    torch.testing.assert_close(space.build(space.reference).eval()(inputs()), trained(inputs()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, ConfigError, "needs a network"),
        ({"network": nn.Linear(3, 2), "input_shape": (3,)}, CapabilityError, "Linear has no removable layer"),
        ({"network": nn.Linear(3, 2), "input_shape": (3,), "changes": ()}, CapabilityError, "nothing to choose"),
        ({"network": nn.Linear(3, 2), "input_shape": (3,), "changes": "layers"}, ConfigError, "list of some of"),
        (
            {"network": nn.Linear(3, 2), "input_shape": (3,), "changes": ("layer",)},
            ConfigError,
            "list of some of layers",
        ),
        ({"network": "nets:residual", "steps": 0}, ConfigError, "steps must be"),
        ({"network": "nets:residual", "coupled": "all"}, ConfigError, "coupled must be"),
        ({"network": "nets:residual", "encoding": "lstm"}, ConfigError, "encoding must be one of log, paper"),
        ({"network": "nets:residual", "importance": "taylor"}, ConfigError, "needs data"),
        ({"network": "nets:residual", "size": 8, "importance": "best"}, ConfigError, "no importance 'best'"),
        ({"network": "nets:residual", "size": 8, "in_channels": 4}, ConfigError, "does not run on an input of"),
        ({"network": Gated(), "size": 8}, CapabilityError, r"cannot be traced"),
    ],
)
def test_mistakes_are_named(settings, error, message):
    with pytest.raises(error, match=message) as caught:
        Compression(**settings)
    assert "\n" not in str(caught.value)


def test_ignored_modules_stay():
    space = Compression(network=random_(Gated()).eval(), ignore=["gate"], **SMALL)
    for arch in (archs.smallest(space), space.reference):
        assert "gate.layer.weight" in space.build(arch).state_dict()


def test_what_depends_on_the_number_of_examples_is_left_alone_and_told():
    network = BATCHES["part with a branch"]()
    space = Compression(network=network, **SMALL, changes=("skips",))
    assert [note for note in space.notes if note.startswith("part is left as it is: ")]
    assert not [c for c in space.choices if "part" in c.name]
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(space.build(space.reference)(x), network(x), rtol=1e-4, atol=1e-5)


def test_weights_that_are_folded_are_told():
    space = Compression(network=COPIES["weight norm"](), **SMALL, changes=("skips",))
    assert "first.weight (weight norm) is folded into a plain weight" in space.notes


def test_hooks_act_once():
    """Their work is in the graph: the layers in it do without."""
    network = COPIES["hooks"]()
    space = Compression(network=network, **SMALL, changes=("skips",))
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(space.build(space.reference).eval()(x), network.eval()(x), rtol=1e-4, atol=1e-5)


def test_a_network_that_does_something_else_when_it_is_watched_is_refused():
    class Watched(Residual):
        def forward(self, x):
            return super().forward(x) + (0 if isinstance(x, FakeTensor) else 1)

    with pytest.raises(CapabilityError, match=r"^Watched cannot be followed: .* although nothing is cut"):
        Compression(network=Watched(), **SMALL)
