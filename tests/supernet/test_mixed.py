from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sartor.core.errors import ConfigError
from sartor.core.rng import global_seed
from sartor.supernet.gates import GLANCE
from sartor.supernet.mixed import Mixed, fix_norms, glanced, inherit_path

C, K = 4, 4


def block(kernel, wide=3 * C):
    """Much wider inside than outside: what it keeps for the backward pass is mostly its own."""
    layers = [nn.Conv2d(C, wide, 1), nn.BatchNorm2d(wide), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(wide, C, kernel, padding=kernel // 2), nn.BatchNorm2d(C))


class Net(nn.Module):
    """Three choices in a row, among `K` options the last of which is nothing."""

    def __init__(self, shortcut=False):
        super().__init__()
        options = [[block(1), block(3), block(5), None] for _ in range(3)]
        self.stem, self.head = nn.Conv2d(2, C, 3, padding=1), nn.Linear(C, 3)
        self.choices = nn.ModuleList(Mixed(o, shortcut=shortcut) for o in options)

    def forward(self, x, gates):
        x = self.stem(x)
        for choice, gate in zip(self.choices, gates, strict=True):
            x = x + choice(x, gate)
        return self.head(x.mean((2, 3)))


def summed(mixed, x, gate):
    """The definition: every option runs, and all outputs are added up."""
    nothing = x if mixed.shortcut else torch.zeros_like(x)
    outputs = [mixed.options[str(j)](x) if str(j) in mixed.options else nothing for j in range(K)]
    return sum(g.reshape(-1, 1, 1, 1) * y for g, y in zip(gate.unbind(-1), outputs, strict=True))


def enumerated(net, x, gates):
    y = net.stem(x)
    for choice, gate in zip(net.choices, gates, strict=True):
        y = y + summed(choice, y, gate)
    return net.head(y.mean((2, 3)))


@pytest.fixture(params=[False, True], ids=["zeros", "identity"])
def net(request):
    with global_seed(0):
        return Net(request.param).double()


@pytest.fixture
def x():
    return torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def one_hot(j):
    return torch.eye(K, dtype=torch.float64)[j]


def statistics(net):
    return {k: v.clone() for k, v in net.named_buffers()}


def loss(y):
    return (y.sin() * torch.arange(1, 1 + y.numel(), dtype=y.dtype).reshape(y.shape)).sum()


def test_a_hard_gate_is_its_option_alone(net, x):
    mixed, x = net.choices[0], torch.randn(2, C, 5, 5, dtype=torch.float64)
    for j in range(3):
        y = mixed(x, one_hot(j))
        plain = mixed.options[str(j)](x)
        assert torch.equal(y, plain)
        assert type(y.grad_fn) is type(plain.grad_fn)
    nothing = mixed(x, one_hot(3))
    assert torch.equal(nothing, x if mixed.shortcut else torch.zeros_like(x))
    same = torch.full((K,), GLANCE, dtype=torch.float64)
    same[1] = 1
    assert torch.equal(mixed.eval()(x, same), mixed(x, one_hot(1)))  # nobody wants the gradient of the others


@pytest.mark.parametrize("training", [False, True])
def test_soft_gates_are_the_sum(net, x, training):
    net.train(training)
    twin = copy.deepcopy(net)
    soft = [torch.tensor([0.5, 0.2, 0.0, 0.3], dtype=torch.float64).requires_grad_() for _ in range(3)]
    loss(net(x, soft)).backward()
    again = [g.detach().requires_grad_() for g in soft]
    loss(enumerated(twin, x, again)).backward()
    for one, two in zip(soft, again, strict=True):
        torch.testing.assert_close(one.grad[[0, 1, 3]], two.grad[[0, 1, 3]])
        assert one.grad[2] == 0  # was not run
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        if ".options.2." not in name:
            torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("active", [(0, 1, 2), (3, 2, 0), (1, 3, 3)])
@pytest.mark.parametrize("seen", [(0, 1, 2, 3), (0, 3), (2,), ()])
def test_gradients_of_gates_against_enumeration(net, x, training, active, seen):
    """All of them, or those of the active option and of the few that are seen; weights get the path's gradients."""
    net.train(training)
    twin, plain = copy.deepcopy(net), copy.deepcopy(net)
    gates = [glanced(a, K, seen).detach().double().requires_grad_() for a in active]
    y = net(x, gates)
    loss(y).backward()
    exact = [one_hot(a).requires_grad_() for a in active]
    loss(enumerated(twin, x, exact)).backward()
    for gate, want, a in zip(gates, exact, active, strict=True):
        known = sorted({a, *seen})
        assert (gate.grad[known] - want.grad[known]).abs().max() <= 1e-6 * want.grad.abs().max()
        assert not any(gate.grad[j] for j in range(K) if j not in known)
    z = plain(x, [one_hot(a) for a in active])
    loss(z).backward()
    torch.testing.assert_close(y, z, rtol=0, atol=0)
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.equal(p.grad, q.grad)
    for name, value in statistics(net).items():  # a glance leaves no trace
        assert torch.equal(value, plain.get_buffer(name)), name


def test_a_glance_draws_nothing_and_may_be_repeated(net, x):
    gates = [glanced(1, K, range(K)).detach().double().requires_grad_() for _ in range(3)]
    value, before = loss(net(x, gates)), torch.get_rng_state()
    first = torch.autograd.grad(value, gates, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(value, gates)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("training", [False, True])
def test_options_with_a_gate_of_zero_may_hold_nans(net, x, training):
    net.train(training)
    for choice in net.choices:
        for value in choice.options["2"].state_dict().values():
            if value.is_floating_point():
                value.fill_(float("nan"))
    soft = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    each = torch.stack([one_hot(0), one_hot(1), one_hot(3), soft, one_hot(0)])
    hard = glanced(1, K, (0, 3)).detach().double()
    for gate in (one_hot(1), soft, hard, each):
        for g in (gate, gate.clone().requires_grad_()):
            net.zero_grad()
            y = net(x, [g] * 3)
            y.sum().backward()
            assert y.isfinite().all()
            assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
            assert g.grad is None or g.grad.isfinite().all()


def test_one_gate_per_example_equals_every_example_alone(net, x):
    net.eval()
    rows = torch.stack([one_hot(2), one_hot(0), one_hot(3), torch.tensor([0.2, 0, 0.5, 0.3]).double(), one_hot(2)])
    gates = [rows.roll(i, 0).requires_grad_() for i in range(3)]
    y = net(x, gates)
    alone = [[g.detach()[i].requires_grad_() for g in gates] for i in range(len(x))]
    z = torch.cat([net(x[i : i + 1], g) for i, g in enumerate(alone)])
    torch.testing.assert_close(y, z)
    loss(y).backward()
    loss(z).backward()
    for c in range(3):
        torch.testing.assert_close(gates[c].grad, torch.stack([g[c].grad for g in alone]))


def test_examples_are_glanced_at_alone(net, x):
    net.eval()
    rows = torch.stack(
        [glanced(a, K, seen).detach() for a, seen in [(0, (1, 2)), (1, ()), (3, (0,)), (2, (2, 3)), (0, (1,))]]
    )
    gates = [rows.double().roll(i, 0).requires_grad_() for i in range(3)]
    loss(net(x, gates)).backward()
    exact = [torch.where(g == 1, 1.0, 0.0).double().detach().requires_grad_() for g in gates]
    loss(enumerated(net, x, exact)).backward()
    for g, e in zip(gates, exact, strict=True):
        torch.testing.assert_close(g.grad, torch.where(g == 0, 0.0, e.grad))


def test_glances_run_under_the_autocast_of_the_forward_pass(net):
    mixed, dtypes = net.choices[0].float(), []
    for option in mixed.options.values():
        option[0].register_forward_hook(lambda m, i, y: dtypes.append(y.dtype))
    gate, x = glanced(0, K, range(K)), torch.randn(3, C, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixed(x, gate)
    y.float().square().sum().backward()
    assert dtypes == [torch.bfloat16] * 3
    exact = torch.eye(K)[0].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = summed(mixed, x, exact)
    y.float().square().sum().backward()
    torch.testing.assert_close(gate.grad, exact.grad, rtol=0.02, atol=0.02 * float(exact.grad.abs().max()))
    rows = torch.eye(K)[[0, 3, 1]]
    with torch.autocast("cpu", torch.bfloat16):
        y = mixed(x, rows)  # options of different types meet
    assert y.isfinite().all()
    assert y.dtype == (torch.float32 if mixed.shortcut else torch.bfloat16)


def kept(run, x):
    """Bytes of the distinct memory that the graph of `run(x)` keeps, without parameters."""
    sizes = {}

    def pack(t):
        sizes[t.untyped_storage().data_ptr()] = (t.untyped_storage(), t.untyped_storage().nbytes())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run(x).sum()
    return sum(size for _, size in sizes.values())


def test_memory_is_that_of_one_path():
    with global_seed(0):
        mixed = nn.ModuleList(Mixed([block(k, 6 * C) for k in (1, 3, 5, 1, 3, 5, 3)]) for _ in range(6))
    x = torch.randn(16, C, 12, 12)
    weights = sum(p.numel() * 4 for p in mixed.parameters())

    def through(gate):
        def run(y):
            for choice in mixed:
                y = choice(y, gate)
            return y

        return run

    plain = kept(through(torch.eye(7)[1]), x)
    assert plain > weights  # activations are what counts
    for seen in (range(7), (3,)):
        assert kept(through(glanced(1, 7, seen)), x) <= 1.05 * plain
    soft = torch.full((7,), 1 / 7).requires_grad_()
    assert kept(through(soft), x) >= 6.5 * plain


def test_the_weights_of_one_path(net):
    plain = nn.Sequential(nn.Conv2d(2, C, 3), block(3), nn.Identity(), block(5), nn.Linear(C, 3)).double()
    mixed = nn.Sequential(net.stem, *net.choices, net.head).eval()
    got = inherit_path(plain, mixed, (1, 3, 2))
    assert got is plain
    assert not got.training
    assert torch.equal(got[1][3].weight, net.choices[0].options["1"][3].weight)
    assert torch.equal(got[3][1].running_var, net.choices[2].options["2"][1].running_var)
    nn.init.zeros_(got[1][3].weight)
    assert net.choices[0].options["1"][3].weight.any()
    with pytest.raises(ConfigError, match=r"cannot inherit '1\.3\.weight'"):
        inherit_path(plain, mixed, (0, 3, 2))


def test_fixed_norms_neither_scale_nor_shift_and_only_those_of_options():
    inner = nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C), nn.BatchNorm2d(C, affine=False))
    nn.init.zeros_(inner[1].weight)  # as some networks start
    outer = nn.Sequential(nn.BatchNorm2d(C), Mixed([None, inner]))
    with torch.no_grad():
        outer[0].weight.fill_(3.0)
    names = list(outer.state_dict())
    fix_norms(outer)
    assert inner[1].weight.tolist() == [1.0] * C
    assert inner[1].bias.tolist() == [0.0] * C
    assert [n for n, p in outer.named_parameters() if not p.requires_grad] == [
        "1.options.1.1.weight",
        "1.options.1.1.bias",
    ]
    assert outer[0].weight.tolist() == [3.0] * C
    assert list(outer.state_dict()) == names


def test_choices_within_options():
    inner = Mixed([nn.Linear(2, 2), nn.Linear(2, 2)])
    outer = Mixed([nn.Linear(2, 2), nn.Sequential(nn.ReLU(), inner)])
    got = inherit_path(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), outer, (1, 1))
    assert torch.equal(got[1].weight, inner.options["1"].weight)


def test_glanced_needs_numbers_of_options():
    assert glanced(1, 3, (0, 1)).tolist() == [pytest.approx(GLANCE), 1, 0]
    with pytest.raises(ConfigError, match="from 0 to 2"):
        glanced(3, 3, ())
    with pytest.raises(ConfigError, match="from 0 to 2"):
        glanced(0, 3, (-1,))


def test_gates_that_fit_no_choice(net):
    x = torch.zeros(2, C, 3, 3, dtype=torch.float64)
    for gate in (torch.zeros(K), torch.stack([torch.ones(K), torch.zeros(K)])):
        with pytest.raises(ConfigError, match="other than zero"):
            net.choices[0](x, gate.double())
    with pytest.raises(ConfigError, match="one value per option"):
        net.choices[0](x, torch.ones(3))
    with pytest.raises(ConfigError, match="at least one option"):
        Mixed([])
