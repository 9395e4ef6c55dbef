from __future__ import annotations

import pytest
import torch
from torch import nn

from samples import shaped, spaces_with
from sartor import archs
from sartor.core.abilities import Shareable
from sartor.core.rng import global_seed, numpy_rng
from sartor.supernet.gates import rows

BATCH = 4
SPACES = shaped(spaces_with(Shareable))
pytestmark = pytest.mark.parametrize("space", SPACES)


@pytest.fixture
def net(space):
    """A supernet whose running statistics are not trivial."""
    with global_seed(0):
        net = space.supernet()
        for name, value in net.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.3)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.dim() == 1 and value.is_floating_point():
                value.add_(torch.randn_like(value) * 0.2)  # norms: scales and shifts that differ between channels
    return net.double()


@pytest.fixture
def x(space):
    return torch.randn(BATCH, *space.input_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def drawn(space, n, seed=0):
    rng = numpy_rng(seed)
    return [space.moves.draw(rng) for _ in range(n)]


def gates(space, arch):
    return [g.double() for g in archs.gates(space, arch)]


def gradients(module):
    return {k: p.grad.clone() for k, p in module.named_parameters() if p.grad is not None}


def statistics(module):
    return {k: v.clone() for k, v in module.state_dict().items() if "running" in k or "tracked" in k}


def locate(net, value):
    """The weight of the supernet that begins with `value`, by name: what an extracted network has, wherever it is."""
    return next(
        name
        for name, weight in net.state_dict().items()
        if weight.dim() == value.dim()
        and all(a >= b for a, b in zip(weight.shape, value.shape, strict=True))
        and torch.equal(weight[tuple(slice(0, n) for n in value.shape)], value)
    )


def matters(net, x, hard, i):
    """Whether half of gate `i` makes another output; not if its option is nothing, or nobody reads the result."""
    halved = [g * (0.5 if j == i else 1) for j, g in enumerate(hard)]
    return not torch.equal(net(x, halved), net(x, hard))


def assert_same(one, two):
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("training", [False, True])
def test_supernet_runs_the_same_network_that_it_extracts(space, net, x, training):
    net.train(training)
    for arch in [archs.smallest(space), archs.largest(space), *drawn(space, 4)]:
        child = net.extract(arch)
        assert child.training == training
        torch.testing.assert_close(net(x, gates(space, arch)), child(x))
        trained = net.extract(arch)  # in training mode, both have moved their running statistics
        assert_same(statistics(child), statistics(trained))


def test_extract_has_the_structure_of_build(space, net):
    for arch in [archs.smallest(space), archs.largest(space), *drawn(space, 2)]:
        child, plain = net.extract(arch), space.build(arch)
        assert {k: v.shape for k, v in child.state_dict().items()} == {
            k: v.shape for k, v in plain.state_dict().items()
        }
        assert list(child.state_dict()) == list(plain.state_dict())
        assert [(n, type(m).__name__) for n, m in child.named_modules()] == [
            (n, type(m).__name__) for n, m in plain.named_modules()
        ]
        assert all(p.requires_grad and p.is_contiguous() and not p.is_meta for p in child.parameters())


def test_extract_copies_and_leaves_the_random_generator_alone(space, net):
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in net.state_dict().items()}
    child = net.extract(space.reference)
    assert torch.equal(torch.get_rng_state(), before)
    for p in child.parameters():
        nn.init.zeros_(p)
    assert_same(dict(net.state_dict()), state)


def test_one_gate_per_image_equals_every_image_alone(space, net, x):
    net.eval()
    for seed in range(3):
        mixed = drawn(space, BATCH, seed)
        y = net(x, [g.double() for g in rows(space, mixed)])
        alone = [net.extract(a)(x[i : i + 1]) for i, a in enumerate(mixed)]
        torch.testing.assert_close(y, torch.cat(alone))


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_masks_and_slices_have_the_same_gradients(space, net, x, training, per_example):
    """A gate that needs a gradient is masked, not sliced; with hard values nothing else may change."""
    arch = drawn(space, 1, 5)[0]
    twin = space.supernet().double()
    twin.load_state_dict(net.state_dict())
    net.train(training)
    twin.train(training)
    sliced = net(x, gates(space, arch))
    hard = [(g.expand(BATCH, -1).clone() if per_example else g).requires_grad_() for g in gates(space, arch)]
    masked = twin(x, hard)
    torch.testing.assert_close(masked, sliced)
    direction = torch.randn_like(sliced)
    (sliced * direction).sum().backward()
    (masked * direction).sum().backward()
    assert_same(gradients(net), gradients(twin))
    assert_same(statistics(net), statistics(twin))
    loose = [matters(twin, x, [g.detach() for g in hard], i) for i in range(len(hard))]
    assert any(loose)
    for gate, felt in zip(hard, loose, strict=True):
        assert gate.grad is not None or not felt
        assert gate.grad is None or (gate.grad.isfinite().all() and bool(gate.grad.abs().sum() > 0) == felt)


def test_gradients_of_per_image_gates_are_those_of_the_images_alone(space, net, x):
    net.eval()
    mixed = drawn(space, BATCH, 7)
    net(x, [g.double() for g in rows(space, mixed)]).square().sum().backward()
    together = gradients(net)
    net.zero_grad()
    for i, arch in enumerate(mixed):
        net(x[i : i + 1], gates(space, arch)).square().sum().backward()
    assert_same(together, gradients(net))


@pytest.mark.parametrize("training", [False, True])
def test_channels_that_do_not_run_are_not_touched(space, net, x, training):
    """Poison every weight and statistic outside the arch: nothing may spread, nothing may change."""
    net.train(training)
    arch = drawn(space, 1, 3)[0]
    want, before = net.extract(arch)(x), net.state_dict()
    kept = {locate(net, v): v.shape for v in net.extract(arch).state_dict().values() if v.is_floating_point()}
    assert len(kept) == sum(v.is_floating_point() for v in net.extract(arch).state_dict().values())
    poisoned = 0
    for name, value in before.items():
        if value.is_floating_point():
            inside = torch.zeros_like(value, dtype=torch.bool)
            if name in kept:
                inside[tuple(slice(0, n) for n in kept[name])] = True
            value[~inside] = float("nan")
            poisoned += int((~inside).sum())
    assert poisoned
    y = net(x, gates(space, arch))
    torch.testing.assert_close(y, want)
    y.sum().backward()
    for name, grad in gradients(net).items():
        assert grad.isfinite().all(), name
        outside = net.state_dict()[name].isnan()
        assert not grad[outside].any(), name


def test_soft_gates_mix_and_carry_gradients(space, net, x):
    soft = [torch.full((len(c.options),), 1 / len(c.options), dtype=torch.float64) for c in space.choices]
    soft = [g.requires_grad_() for g in soft]
    y = net(x, soft)
    assert y.isfinite().all()
    y.square().sum().backward()
    assert all(g.grad is not None and g.grad.abs().sum() > 0 for g in soft)
