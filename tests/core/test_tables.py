from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sartor.core.records import Axis, Choice, Layer, LayerKey
from sartor.core.tables import Tables

numbers = st.floats(-10, 10, allow_nan=False, width=32)


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))


def vector(draw: st.DrawFn, *shape: int) -> Tensor:
    count = int(torch.tensor(shape).prod())
    values = draw(st.lists(numbers, min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


@st.composite
def tables(draw: st.DrawFn, ks: tuple[int, ...] | None = None) -> Tables:
    ks = draw(sizes()) if ks is None else ks
    pairs = [(i, j) for i in range(len(ks)) for j in range(i + 1, len(ks))]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return Tables(
        tuple(vector(draw, k) for k in ks), {(i, j): vector(draw, ks[i], ks[j]) for i, j in chosen}, draw(numbers)
    )


def archs(t: Tables) -> list[tuple[int, ...]]:
    return list(product(*(range(len(u)) for u in t.unary)))


def by_hand(t: Tables, arch: tuple[int, ...]) -> float:
    pairs = sum(float(p[arch[i], arch[j]]) for (i, j), p in t.pairwise.items())
    return t.constant + sum(float(u[a]) for u, a in zip(t.unary, arch, strict=True)) + pairs


@given(tables())
def test_values_are_sums_of_entries(t: Tables) -> None:
    values = t(archs(t))
    assert values.shape == (len(archs(t)),)
    assert values.dtype == torch.float64
    assert values.tolist() == pytest.approx([by_hand(t, a) for a in archs(t)], abs=1e-9)
    assert [t.cost(a) for a in archs(t)] == values.tolist()


def test_no_archs_have_no_values() -> None:
    assert Tables.zeros((Choice("a", (1, 2)),))([]).shape == (0,)


def test_zeros_fit_the_choices() -> None:
    t = Tables.zeros((Choice("a", (1, 2)), Choice("b", (1, 2, 3))))
    assert [u.shape for u in t.unary] == [(2,), (3,)]
    assert t.cost((1, 2)) == 0


@given(st.data())
def test_the_expectation_is_the_mean_over_all_archs(data: st.DataObject) -> None:
    t = data.draw(tables())
    weights = [vector(data.draw, len(u)) for u in t.unary]
    probs = [torch.softmax(w / 5, 0) for w in weights]
    wanted = 0.0
    for arch in archs(t):
        chance = 1.0
        for p, a in zip(probs, arch, strict=True):
            chance *= float(p[a])
        wanted += chance * by_hand(t, arch)
    assert float(t.expected(probs)) == pytest.approx(wanted, abs=1e-8)


@given(tables())
def test_the_expectation_of_a_certain_arch_is_its_value(t: Tables) -> None:
    for arch in archs(t)[:10]:
        gates = [torch.eye(len(u), dtype=torch.float64)[a] for u, a in zip(t.unary, arch, strict=True)]
        assert float(t.expected(gates)) == pytest.approx(t.cost(arch), abs=1e-9)


@given(tables())
@settings(max_examples=20)
def test_the_gradient_of_the_expectation_is_exact(t: Tables) -> None:
    probs = [torch.full((len(u),), 1 / len(u), dtype=torch.float64, requires_grad=True) for u in t.unary]
    gradients = torch.autograd.grad(t.expected(probs), probs)
    for i, gradient in enumerate(gradients):
        for option in range(len(gradient)):
            # The expectation is linear in each choice's probabilities: set this choice and take the others' mean.
            gates = [p.detach() for p in probs]
            gates[i] = torch.eye(len(gradient), dtype=torch.float64)[option]
            none = [*gates[:i], torch.zeros_like(gates[i]), *gates[i + 1 :]]
            assert float(gradient[option]) == pytest.approx(float(t.expected(gates) - t.expected(none)), abs=1e-8)


def test_the_expectation_takes_the_type_of_the_probabilities() -> None:
    t = Tables((torch.ones(2, dtype=torch.float64),), constant=1.0)
    assert t.expected([torch.tensor([0.5, 0.5])]).dtype == torch.float32


@given(st.data())
def test_tables_add_and_scale_like_their_values(data: st.DataObject) -> None:
    ks = data.draw(sizes())
    a, b, factor = data.draw(tables(ks)), data.draw(tables(ks)), data.draw(numbers)
    everything = archs(a)
    before = a(everything), b(everything)
    assert torch.allclose((a + b)(everything), before[0] + before[1], atol=1e-9)
    assert torch.allclose((a * factor)(everything), before[0] * factor, atol=1e-9)
    assert torch.allclose((factor * a)(everything), before[0] * factor, atol=1e-9)
    assert torch.equal(a(everything), before[0])  # the operands are as they were
    assert torch.equal(b(everything), before[1])


def value(key: LayerKey) -> float:
    """Different for every key, and for swapped channels."""
    return key.c_in * 1.25 + key.c_out**2 * 0.5 + key.c_in * key.c_out + key.kernel * 100 + key.in_size[0] / 7


@st.composite
def layered(draw: st.DrawFn) -> tuple[list[Choice], list[Layer]]:
    ks = draw(sizes())
    choices = [Choice(f"c{i}", tuple(range(k))) for i, k in enumerate(ks)]

    def axis() -> Axis:
        choice = draw(st.one_of(st.none(), st.integers(0, len(ks) - 1)))
        count = 1 if choice is None else ks[choice]
        return Axis(tuple(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))), choice)

    layers = [
        Layer(f"l{i}", "conv", (draw(st.integers(1, 9)), 3), draw(st.integers(1, 3)), 1, False, axis(), axis())
        for i in range(draw(st.integers(0, 5)))
    ]
    return choices, layers


@given(layered())
def test_tables_of_layers_sum_their_values(case: tuple[list[Choice], list[Layer]]) -> None:
    """Layers with both axes fixed, one, two (in either order), or both set by the same choice."""
    choices, layers = case
    t = Tables.of_layers(choices, layers, value)
    assert all(i < j for i, j in t.pairwise)
    everything = list(product(*(range(len(c.options)) for c in choices)))
    wanted = [sum(value(layer.key(arch)) for layer in layers) for arch in everything]
    assert t(everything).tolist() == pytest.approx(wanted, abs=1e-6)
