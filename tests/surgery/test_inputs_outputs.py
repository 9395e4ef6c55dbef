"""Networks of all kinds of inputs and outputs: whatever is made of them takes and gives the same."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from sartor.core import trees
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.rng import global_seed
from sartor.networks import lively, macs_params
from sartor.spaces.compression import Compression
from sartor.spaces.widths import Widths
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.cutting.extraction import as_graph
from several import CASES, Answer, Case, Modulate

BATCHES = (1, 2, 3, 5)
SETTINGS = {"multipliers": (0.25, 0.5, 0.75, 1.0), "divisor": 1}


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def made(case):
    """Network and space, in double precision."""
    network = case.network(torch.double)
    return network, Widths(network=network, example=case.batch(1, torch.double), ignore=case.ignore, **SETTINGS)


def archs(space, count=3):
    rng = np.random.default_rng(0)
    drawn = [tuple(int(rng.integers(len(c.options))) for c in space.choices) for _ in range(count)]
    return [(0,) * len(space.choices), *drawn]


def hot(space, arch):
    return [torch.eye(len(c.options))[a] for c, a in zip(space.choices, arch, strict=True)]


def kinds(tree):
    """Containers and what is no tensor."""
    inside = None if isinstance(tree, torch.Tensor) else trees.children(tree)
    if inside is None:
        return "tensor" if isinstance(tree, torch.Tensor) else tree
    return type(tree), [(key, kinds(value)) for key, value in inside]


def assert_same(found, wanted):
    """The same containers, the same values."""
    assert kinds(found) == kinds(wanted)
    for a, b in zip(trees.leaves(found), trees.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        scale = float(b.detach().double().abs().max())
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * scale)


def gathered(results):
    """Outputs of single examples as one batch; what does not depend on the example is the same in all."""
    return trees.combined(lambda ts: torch.cat(ts) if ts[0].shape[:1] == (1,) else ts[0], results)


def test_the_list_is_whole():
    assert len(CASES) >= 16
    assert {type(c.batch(1)) for c in CASES.values()} == {torch.Tensor, tuple, dict}
    outputs = {type(c.network()(**c.batch(2)) if isinstance(c.inputs, dict) else None) for c in CASES.values()}
    assert len(outputs) >= 4


def test_uncut_it_is_the_original(case, made):
    network, space = made
    supernet, uncut = space.supernet().eval(), space.build(space.reference).eval()
    engine = supernet.engine
    graph = as_graph(engine, supernet.part(space.reference)).eval()
    for examples in BATCHES:
        inputs = case.batch(examples, torch.double)
        with torch.no_grad():
            wanted = trees.call(network, inputs)
            assert_same(trees.call(uncut, inputs), wanted)
            assert_same(trees.call(graph, inputs), wanted)
            assert_same(supernet(inputs, hot(space, space.reference)), wanted)


def test_cut_it_is_the_original_without_the_other_channels(case, made, zeroed):
    _, space = made
    supernet = space.supernet().eval()
    for arch in archs(space):
        for examples in BATCHES:
            inputs = case.batch(examples, torch.double)
            with torch.no_grad():
                wanted = zeroed(space.coupling, supernet.network, supernet.kept(arch), inputs)
                assert_same(supernet(inputs, hot(space, arch)), wanted)
                assert_same(trees.call(supernet.extract(arch).eval(), inputs), wanted)
                assert_same(trees.call(as_graph(supernet.engine, supernet.part(arch)).eval(), inputs), wanted)
                assert_same(trees.call(space.build(arch).eval(), inputs), wanted)


def test_it_is_really_cut(case, made):
    network, space = made
    assert space.choices
    assert space.plain == case.plain
    small = space.build((0,) * len(space.choices))
    full, left = (sum(p.numel() for p in m.parameters()) for m in (network, small))
    assert left < 0.9 * full
    assert type(small) is type(network) or not case.plain


def test_each_example_may_have_an_arch_of_its_own(case, made):
    _, space = made
    supernet, rows = space.supernet().eval(), archs(space)[:3]
    inputs = case.batch(3, torch.double)
    gates = [torch.stack(gates) for gates in zip(*(hot(space, arch) for arch in rows), strict=True)]
    with torch.no_grad():
        alone = [supernet(trees.rows(inputs, slice(i, i + 1)), hot(space, arch)) for i, arch in enumerate(rows)]
        try:
            together = supernet(inputs, gates)
        except CapabilityError as error:
            assert "cannot be told apart" in str(error)  # noqa: PT017 - two images of one example lie far apart
            assert case is CASES["twins"]
            return
    assert_same(together, gathered(alone))


def test_soft_gates_learn(case, made):
    _, space = made
    supernet, inputs = space.supernet().eval(), case.batch(3, torch.double)
    gates = [torch.full((3, len(c.options)), 1 / len(c.options)).requires_grad_() for c in space.choices]
    try:
        found = supernet(inputs, gates)
    except CapabilityError as error:
        assert "cannot be told apart" in str(error)  # noqa: PT017
        return
    sum(t.square().sum() for t in trees.leaves(found) if t.requires_grad).backward()
    assert all(gate.grad is not None and gate.grad.abs().sum() > 0 for gate in gates)


def test_inputs_by_name_come_in_any_order(made, case):
    _, space = made
    inputs = case.batch(2, torch.double)
    if not isinstance(inputs, dict):
        inputs = dict(zip(space.coupling.traced.inputs, trees.leaves(inputs), strict=True))
    supernet, gates = space.supernet().eval(), hot(space, space.reference)
    backwards = dict(reversed(inputs.items()))
    with torch.no_grad():
        assert_same(supernet(backwards, gates), supernet(inputs, gates))
        graph = as_graph(supernet.engine, supernet.part(space.reference)).eval()
        assert_same(graph(**backwards), graph(**inputs))


def test_costs_are_those_of_the_network_that_is_built(case, made):
    _, space = made
    example = case.batch(1, torch.double)
    for arch in archs(space):
        counted = macs_params(space.build(arch), example)
        for metric, wanted in zip(("macs", "params"), counted, strict=True):
            tables = space.account(metric)
            if tables is not None and not case.ignore:
                assert float(tables([arch])[0]) == wanted, metric


def test_it_is_reconstructed(case):
    network = case.network()
    space = Widths(network=network, example=case.batch(1), ignore=case.ignore, reconstruct=64, **SETTINGS)
    arch = tuple(max(0, len(c.options) - 2) for c in space.choices)
    module, test = space.build(arch).eval(), case.batch(32, seed=3)

    def miss():
        with torch.no_grad():
            found, wanted = trees.call(module, test), trees.call(network, test)
        pairs = zip(trees.leaves(found), trees.leaves(wanted), strict=True)
        return sum(float((a - b).detach().square().sum()) for a, b in pairs if a.is_floating_point())

    before = miss()
    assert before > 0
    assert space.reconstruct(arch, module, [(case.batch(32, seed=2), None), (case.batch(40, seed=4), None)])
    assert miss() < before


def test_gradients_say_what_matters(case):
    network = case.network()
    space = Widths(network=network, example=case.batch(1), ignore=case.ignore, importance="taylor", **SETTINGS)

    class Shown:
        @staticmethod
        def train(_generator):
            return [(case.batch(4, seed=s), case.batch(4, seed=s)) for s in (5, 6)]

        @staticmethod
        def loss(output, target):
            assert trees.size(target) == 4
            return sum(t.float().square().reshape(4, -1).sum(1) for t in trees.leaves(output) if t.shape[:1] == (4,))

    inputs = case.batch(3)
    with torch.no_grad():
        wanted = trees.call(network, inputs)
    before = {name: value.clone() for name, value in space._whole.state_dict().items()}
    space.inform(Shown)
    with torch.no_grad():
        found = trees.call(space.build(space.reference).eval(), inputs)
    assert any(not torch.equal(before[name], value) for name, value in space._whole.state_dict().items())
    assert kinds(found) == kinds(wanted)
    for a, b in zip(trees.leaves(found), trees.leaves(wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.detach().double().abs().max()))


def test_students_take_and_give_the_same(case):
    network, example = case.network(torch.double), case.batch(1, torch.double)
    try:
        space = Compression(network=network, example=example, ignore=case.ignore, steps=4)
    except CapabilityError:  # no layer that could be taken out
        space = Compression(network=network, example=example, ignore=case.ignore, steps=4, changes=("blocks", "skips"))
    rng = np.random.default_rng(0)
    drawn = [space.moves.draw(rng) for _ in range(4)]
    for arch in (space.reference, *drawn):
        module = space.build(arch).eval()
        for examples in (1, 3):
            inputs = case.batch(examples, torch.double)
            with torch.no_grad():
                wanted, found = trees.call(network, inputs), trees.call(module, inputs)
            assert kinds(found) == kinds(wanted)
            assert [t.shape for t in trees.leaves(found)] == [t.shape for t in trees.leaves(wanted)]
        counted = macs_params(module, example)
        if not case.ignore:
            assert [float(space.tally(m, [arch])[0]) for m in ("macs", "params")] == [float(n) for n in counted]
        assert len(space.description(arch)) > 0
    assert float(space.tally("values", [space.reference])[0]) >= sum(x[0].numel() for x in trees.leaves(example))
    with torch.no_grad():
        inputs = case.batch(3, torch.double)
        assert_same(trees.call(space.build(space.reference).eval(), inputs), trees.call(network, inputs))


def test_training_alone_may_give_something_else():
    case = CASES["auxiliary head"]
    space = Widths(network=case.network(), example=case.batch(1), **SETTINGS)
    small = space.build((0,) * len(space.choices)).train()
    found = trees.call(small, case.batch(4))
    assert type(found) is Answer
    assert found.auxiliary.shape == (4, 5)
    assert small.extra.in_features == small.head.in_features < 16


def test_wrong_inputs_are_named():
    case = CASES["mul"]
    space = Widths(network=case.network(), example=case.batch(1), **SETTINGS)
    supernet, gates = space.supernet(), hot(space, space.reference)
    image, vector = case.batch(2)
    with pytest.raises(DataError, match=r"inputs image, vector; it is given image, v"):
        supernet({"image": image, "v": vector}, gates)
    with pytest.raises(DataError, match="inputs image, vector; it is given 1"):
        supernet(image, gates)
    with pytest.raises(DataError, match=r"input 'vector' has the shape \(1, 10\), input 'image' \(2, 3, 8, 8\)"):
        supernet((image, vector[:1]), gates)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ((torch.zeros(1, 3, 8, 8), torch.zeros(1, 9)), r"input_0 \(1, 3, 8, 8\), input_1 \(1, 9\)"),
        ({"image": torch.zeros(1, 3, 8, 8), "v": torch.zeros(1, 9)}, r"image \(1, 3, 8, 8\), v \(1, 9\)"),
        ((torch.zeros(1, 3, 8, 8), torch.zeros(2, 10)), r"input 'vector' has the shape \(2, 10\)"),
        ((torch.zeros(1, 3, 8, 8), torch.zeros(())), r"input 'vector' has the shape \(\)"),
    ],
)
def test_an_example_that_does_not_fit_is_named(example, message):
    with pytest.raises(ConfigError, match=message):
        couple(Modulate().eval(), example)


def test_an_output_that_nobody_knows_is_told():
    class Cache:
        pass

    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            return {"out": self.layer(x), "cache": Cache()}

    with pytest.raises(CapabilityError, match="Caching gives a Cache as cache; outputs are tensors"):
        couple(Caching(), torch.zeros(1, 3))


def test_outputs_of_odd_classes_come_from_torch_export_too():
    class Odd(nn.Module):
        """Where the quick way gives up."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, b, a):
            if type(a).__name__ == "FakeTensor" and not torch.compiler.is_exporting():
                raise RuntimeError("unusual")
            return OrderedDict(out=Answer(self.out(torch.relu(self.layer(a + b))), None), b=b)

    with global_seed(0):
        network = Odd().eval()
    example = {"a": torch.zeros(1, 6), "b": torch.zeros(1, 6)}
    space = Widths(network=network, example=example, **SETTINGS)
    assert list(space.coupling.traced.inputs) == ["b", "a"]
    assert "forward" not in vars(network)
    inputs = {"a": torch.randn(3, 6), "b": torch.randn(3, 6)}
    with torch.no_grad():
        found = space.supernet().eval()(inputs, hot(space, space.reference))
        assert kinds(found) == kinds(network(**inputs))
        torch.testing.assert_close(found["out"].logits, network(**inputs)["out"].logits)
        assert torch.equal(found["b"], inputs["b"])


def test_random_inputs_keep_to_the_example(case):
    example = case.batch(1)
    found = lively(example, 4, torch.Generator().manual_seed(0))
    for a, b in zip(trees.leaves(found), trees.leaves(example), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == (4, *b.shape[1:])
        if not b.is_floating_point() and b.dtype != torch.bool:
            assert set(a.flatten().tolist()) == set(b.flatten().tolist())
