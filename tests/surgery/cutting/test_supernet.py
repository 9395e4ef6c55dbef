from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nets import Branches, Numbers, Residual, Tokens, random_
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.ladders import ladders
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.supernet import CutSupernet

BATCH = 4


def supernet(kind: type[nn.Module]) -> CutSupernet:
    network = random_(kind()).double().eval()
    skeleton = Skeleton(couple(network, torch.zeros(1, 3, 8, 8, dtype=torch.float64)))
    steps = ladders(skeleton.coupling.groups, (0.25, 0.5, 0.75, 1.0), 2)
    return CutSupernet(skeleton, network, steps, plain=kind is not Numbers).eval()


@pytest.fixture(scope="module")
def nets():
    return {kind.__name__: supernet(kind) for kind in (Residual, Branches, Tokens, Numbers)}


every = pytest.mark.parametrize("name", ["Residual", "Branches", "Tokens"])


def drawn(net, n, seed=0):
    rng = np.random.default_rng(seed)
    return [tuple(int(rng.integers(len(s.choice.options))) for s in net.ladders) for _ in range(n)]


def one_hot(net, arch):
    return [torch.eye(len(s.choice.options)).double()[a] for s, a in zip(net.ladders, arch, strict=True)]


def inputs(n=BATCH):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", ["Residual", "Branches", "Tokens", "Numbers"])
def test_it_runs_the_networks_that_it_extracts(nets, name):
    net, x = nets[name], inputs()
    outputs = []
    for arch in drawn(net, 5):
        child = net.extract(arch)
        outputs.append(net(x, one_hot(net, arch)))
        torch.testing.assert_close(outputs[-1], child(x), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(outputs[0], outputs[1])


@every
def test_a_gate_per_example_is_every_example_alone(nets, name):
    net, x = nets[name], inputs()
    mixed = drawn(net, BATCH, 1)
    gates = [torch.stack(rows) for rows in zip(*(one_hot(net, a) for a in mixed), strict=True)]
    alone = [net(x[i : i + 1], one_hot(net, a)) for i, a in enumerate(mixed)]
    torch.testing.assert_close(net(x, gates), torch.cat(alone), rtol=1e-9, atol=1e-9)


@every
def test_a_gate_with_a_gradient_masks_and_changes_no_value(nets, name):
    net, x = nets[name], inputs()
    (arch,) = drawn(net, 1, 2)
    gates = [g.requires_grad_() for g in one_hot(net, arch)]
    y = net(x, gates)
    torch.testing.assert_close(y, net(x, one_hot(net, arch)), rtol=1e-9, atol=1e-9)
    y.square().sum().backward()
    assert all(g.grad is not None and g.grad.isfinite().all() and g.grad.abs().sum() > 0 for g in gates)
    net.zero_grad()


def test_soft_gates_mix(nets):
    net, x = nets["Residual"], inputs()
    soft = [torch.full((len(s.choice.options),), 1 / len(s.choice.options)).double() for s in net.ladders]
    y = net(x, [g.requires_grad_() for g in soft])
    y.square().sum().backward()
    assert all(g.grad is not None and g.grad.abs().sum() > 0 for g in soft)
    net.zero_grad()


def test_a_channel_counts_as_much_as_the_options_that_have_it(nets):
    net, x = nets["Residual"], inputs()
    assert net.ladders[0].choice.options == (2, 4, 6, 8)
    gates = one_hot(net, tuple(len(s.choice.options) - 1 for s in net.ladders))
    gates[0] = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    mask = torch.tensor([1, 1, 0.9, 0.9, 0.7, 0.7, 0.4, 0.4]).double()[:, None, None]
    n = net.network
    stem = torch.relu(n.bn(n.stem(x)))
    total = stem + n.reduce(torch.relu(n.bn_expand(n.expand(stem * mask))))
    wanted = n.head(torch.relu(n.pointwise(n.depthwise(total) * mask)).mean((2, 3)))
    torch.testing.assert_close(net(x, gates), wanted)


@every
def test_what_does_not_run_may_hold_anything(nets, name):
    net, x = nets[name], inputs()
    (arch,) = drawn(net, 1, 4)
    kept, units = net.kept(arch), net.engine.skeleton.units
    wanted = net(x, one_hot(net, arch))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = dict(net.network.state_dict(keep_vars=True))
    poisoned = 0
    for label, dims in net.engine.skeleton.coupling.weights():
        for d, dim in enumerate(dims):
            roots = units.resolve(dim)
            if roots is not None:
                gone = np.flatnonzero(~kept[roots].all(1))
                state[label].data.index_fill_(d, torch.from_numpy(gone), float("nan"))
                poisoned += len(gone)
    assert poisoned
    y = net(x, one_hot(net, arch))
    assert torch.equal(y, wanted)
    y.sum().backward()
    for weight in net.parameters():
        assert weight.grad is None or not weight.grad[weight.isnan()].any()
        assert weight.grad is None or weight.grad.isfinite().all()
    net.zero_grad()
    net.load_state_dict(before)


def test_extracting_copies(nets):
    net = nets["Residual"]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    child = net.extract(tuple(0 for _ in net.ladders))
    assert isinstance(child, Residual)
    for p in child.parameters():
        nn.init.zeros_(p)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_first_units_of_every_family_are_kept(nets):
    net = nets["Branches"]
    for arch in drawn(net, 5, 9):
        kept = net.kept(arch)
        assert kept[-1]
        for ladder, option in zip(net.ladders, arch, strict=True):
            for family, count in zip(ladder.families, ladder.kept[option], strict=True):
                assert kept[family].tolist() == [True] * count + [False] * (len(family) - count)
