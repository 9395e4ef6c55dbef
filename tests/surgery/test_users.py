"""Networks as people have them: what is made of them gives the same in the same structure, or they are refused.

The lists are in `users`; a new member is tried here by itself.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import fx, nn

from sartor.core import trees
from sartor.core.copies import unwrapped
from sartor.core.errors import CapabilityError
from sartor.core.rng import global_seed
from sartor.networks import macs_params
from sartor.spaces.compression import Compression
from sartor.spaces.widths import Widths
from sartor.surgery.cutting.agreement import same_kind
from users import BATCHES, COPIES, OUTPUTS, WithLoss, belongings, untouched

KINDS = {"out": OUTPUTS, "batch": BATCHES, "copy": COPIES}
EVERY = {f"{kind}: {name}": make for kind, made in KINDS.items() for name, make in made.items()}
SIZES = (1, 2, 3, 5)
SETTINGS = {"input_shape": (3, 8, 8), "multipliers": (0.25, 0.5, 0.75, 1.0), "divisor": 1}
LINE = r" at .*users\.py:\d+, in "
REFUSED = {
    "batch: loop over examples": f"stack{LINE}",
    "batch: chunks of the batch": f"split{LINE}",
    "batch: power of the batch": f"mul{LINE}",
    "batch: branch on the batch": f"mul{LINE}",
    "batch: tensor of the batch": f"lift_fresh_copy{LINE}",
    "batch: list by the batch": f"lift_fresh_copy{LINE}",
    "out: number of examples": "what it returns, in its own forward",
}
"""What depends on the number of examples in the network's own forward, and the operator that is named."""


def asked(network: nn.Module, examples: int):
    """Random inputs and what the network makes of them; None if it does not take as many."""
    x = torch.randn(examples, 3, 8, 8, generator=torch.Generator().manual_seed(examples))
    try:
        with torch.no_grad():
            return x, network(x)
    except (RuntimeError, IndexError):
        return None


def drawn(space):
    rng = np.random.default_rng(1)
    return tuple(int(rng.integers(len(c.options))) for c in space.choices)


@pytest.fixture(params=EVERY)
def name(request):
    return request.param


def test_it_is_the_same_or_it_is_refused(name):
    with global_seed(0):
        network = EVERY[name]()
    before = belongings(network)
    if name in REFUSED:
        with pytest.raises(CapabilityError, match=rf"otherwise than one of two: {REFUSED[name]}") as caught:
            Widths(network=network, **SETTINGS)
        assert "\n" not in str(caught.value)
        assert untouched(before, belongings(network))
        return
    space = Widths(network=network, **SETTINGS)
    archs = {"uncut": space.reference, "smallest": (0,) * len(space.choices), "random": drawn(space)}
    made = {label: space.build(arch).eval() for label, arch in archs.items()}
    supernet, gates = space.supernet().eval(), [torch.eye(len(c.options))[-1] for c in space.choices]
    made["supernet"] = lambda x: supernet(x, gates)
    assert untouched(before, belongings(network)), "the user's own object has changed"
    network.eval()
    tried = 0
    for found in (asked(network, examples) for examples in SIZES):
        if found is None:
            continue
        tried += 1
        x, wanted = found
        for label, run in made.items():
            with torch.no_grad():
                got = run(x)
            assert same_kind(got, wanted), label
            for a, b in zip(trees.leaves(got), trees.leaves(wanted), strict=True):
                if label in ("uncut", "supernet"):
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.double().abs().max()))
    assert tried >= 3
    sizes = {label: sum(p.numel() for p in m.parameters()) for label, m in made.items() if isinstance(m, nn.Module)}
    assert sizes["smallest"] < sizes["uncut"]


def test_students_are_the_same_or_it_is_refused(name):
    """The space of whole students, which are graphs: the same networks are right, and the same ones refused."""
    settings = {"input_shape": (3, 8, 8), "steps": 4, "changes": ("blocks", "skips")}
    with global_seed(0):
        network = EVERY[name]()
    before = belongings(network)
    if name in REFUSED:
        with pytest.raises(CapabilityError, match=rf"otherwise than one of two: {REFUSED[name]}"):
            Compression(network=network, **settings)
        assert untouched(before, belongings(network))
        return
    space = Compression(network=network, **settings)
    archs = {
        "uncut": space.reference,
        "narrow": space.scaled(0.25),
        "random": space.moves.draw(np.random.default_rng(1)),
    }
    made = {label: space.build(arch).eval() for label, arch in archs.items()}
    assert untouched(before, belongings(network)), "the user's own object has changed"
    network.eval()
    found = [pair for pair in (asked(network, examples) for examples in SIZES) if pair is not None]
    assert len(found) >= 3
    for x, wanted in found:
        for label, run in made.items():
            with torch.no_grad():
                got = run(x)
            assert same_kind(got, wanted), label
            for a, b in zip(trees.leaves(got), trees.leaves(wanted), strict=True):
                if label == "uncut":
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.double().abs().max()))
    assert sum(p.numel() for p in made["narrow"].parameters()) < sum(p.numel() for p in made["uncut"].parameters())


@pytest.mark.parametrize("name", [n for n in EVERY if n.startswith(("out", "copy")) and n not in REFUSED])
def test_it_keeps_its_class_and_what_it_has(name):
    with global_seed(0):
        network = EVERY[name]()
    space = Widths(network=network, **SETTINGS)
    own = unwrapped(network)
    built = space.build(space.reference)
    assert type(built) is type(own)
    smallest = space.build((0,) * len(space.choices))
    assert (type(smallest) is type(own)) == (name != "out: heads")
    config = getattr(own, "config", None)
    assert vars(getattr(built, "config", None) or object.__new__(type("", (), {}))) == (vars(config) if config else {})


def test_the_class_is_decided_for_each_arch():
    space = Widths(network=OUTPUTS["halves"](), **SETTINGS)
    assert not space.plain
    assert "of 3 networks that were tried are graphs" in " ".join(space.notes)
    equal, unequal = (0,) * len(space.choices), (0, 2, *(0 for _ in space.choices[2:]))
    kept, graph = space.build(equal).eval(), [space.build(a) for a in (unequal, drawn(space))]
    assert type(kept).__name__ == "Halves"
    assert not isinstance(kept, fx.GraphModule)
    assert any(isinstance(g, fx.GraphModule) for g in graph)
    supernet, x = space.supernet().eval(), torch.randn(3, 3, 8, 8)
    for arch in (equal, unequal, drawn(space), space.reference):
        gates = [torch.eye(len(c.options))[a] for c, a in zip(space.choices, arch, strict=True)]
        torch.testing.assert_close(space.build(arch).eval()(x), supernet(x, gates), rtol=1e-4, atol=1e-5)


def test_what_training_gives_stays():
    network = OUTPUTS["other in training"]()
    space = Widths(network=network, **SETTINGS)
    small = space.build((0,) * len(space.choices)).train()
    logits, auxiliary = small(torch.randn(4, 3, 8, 8))
    assert logits.shape == auxiliary.shape == (4, 5)
    assert small.config.classes == 5
    assert isinstance(small.eval()(torch.randn(4, 3, 8, 8)), torch.Tensor)


def test_a_loss_inside_the_network_stays():
    space = Widths(network=WithLoss(), **SETTINGS)
    small = space.build((0,) * len(space.choices)).train()
    found = small(torch.randn(4, 3, 8, 8), labels=torch.tensor([0, 1, 2, 3]))
    assert list(found) == ["loss", "logits"]
    found.loss.backward()
    assert small.first.weight.grad.abs().sum() > 0


def test_what_a_graph_loses_is_told():
    class Numbered(nn.Module):
        """A number in its code, and something in training alone."""

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 2, 1)
            self.head, self.aux = nn.Linear(24, 5), nn.Linear(24, 5)

        def forward(self, x):
            y = self.second(self.first(x).relu().view(-1, 16, 4, 4)).relu().mean((2, 3))
            return (self.head(y), self.aux(y)) if self.training else self.head(y)

    notes = " ".join(Widths(network=Numbered(), **SETTINGS).notes)
    assert "narrower networks are graphs" in notes or "that were tried are graphs" in notes
    assert "auxiliary heads" in notes
    assert "lost" in notes


def test_what_was_folded_is_told(caplog):
    space = Widths(network=COPIES["weight norm"](), **SETTINGS)
    assert [n for n in space.notes if re.search(r"first\.weight \(weight norm\) is folded", n)]
    assert "second.weight (weight norm)" in caplog.text


def test_a_network_that_is_not_a_function_of_its_inputs_is_refused():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.second(self.first(x).relu()) * self.calls

    network = Moody()
    network.calls = 3
    space = Widths(network=network, **SETTINGS)  # each copy starts where the user's is
    assert network.calls == 3
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(space.build(space.reference)(x), network(x))


@pytest.mark.parametrize("name", [n for n in EVERY if n.startswith("batch") and n not in REFUSED])
def test_cut_it_is_the_original_without_the_other_channels(name, zeroed):
    with global_seed(0):
        network = EVERY[name]().double().eval()
    network = network.double()
    space = Widths(network=network, **SETTINGS)
    supernet = space.supernet().eval()
    for arch in ((0,) * len(space.choices), drawn(space)):
        built, gates = (
            space.build(arch).eval(),
            [torch.eye(len(c.options)).double()[a] for c, a in zip(space.choices, arch, strict=True)],
        )
        for x in (torch.randn(n, 3, 8, 8, dtype=torch.float64) for n in (2, 3, 5)):
            with torch.no_grad():
                wanted = zeroed(space.coupling, supernet.network, supernet.kept(arch), x)
                for found in (built(x), supernet(x, gates)):
                    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8 * float(wanted.abs().max()))


MIXED = {"batch: triangle of the batch", "batch: eye of the batch"}
"""Products with a matrix of examples by examples: two of them cost more than twice as much as one."""


@pytest.mark.parametrize("name", [n for n in EVERY if n.startswith("batch") and n not in {*REFUSED, *MIXED}])
def test_costs_count_one_example(name):
    network = EVERY[name]()
    space = Widths(network=network, **SETTINGS)
    macs, params = space.account("macs"), space.account("params")
    for arch in (space.reference, (0,) * len(space.choices)):
        counted = macs_params(space.build(arch), torch.zeros(2, 3, 8, 8))
        assert macs is None or macs.cost(arch) * 2 == counted[0]
        assert params is None or params.cost(arch) == counted[1] or not space.plain  # a graph drops what is never used
