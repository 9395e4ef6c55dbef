from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sartor.surgery.analysis.units import Units, stack


def _kept(units, labels, gone):
    """Whether each index stays when the units in `gone` go."""
    roots = units.resolve(labels)
    if roots is None:
        return None
    mask = np.ones(len(units) + 1, dtype=bool)
    mask[list(gone)] = False
    return mask[roots].all(1).tolist()


def test_equal_dimensions_lose_the_same_indices():
    units = Units()
    a, b = units.fresh(4), units.fresh(4)
    units.equal(a, b, "sum")
    assert _kept(units, a, {int(units.find(b)[2, 0])}) == _kept(units, b, {2}) == [True, True, False, True]


def test_a_static_partner_pins():
    units = Units()
    a = units.fresh(3)
    units.where = "here"
    assert units.equal(a, None, "a sum with constants") is None
    assert units.resolve(a) is None
    assert (units.pins[0].what, units.pins[0].reason) == ("here", "a sum with constants")


def test_the_batch_is_never_pinned():
    units = Units()
    batch = units.batch(2)
    units.pin(batch, "output")
    assert units.is_batch(units.resolve(batch)).all()


def test_split_and_merge_are_inverse():
    units = Units()
    a = units.fresh(12)
    outer, inner = units.split(a, (4, 3), "view")
    whole = units.merge([outer, inner], (4, 3))
    gone = {int(units.find(outer)[1, 0])}
    assert _kept(units, whole, gone) == _kept(units, a, gone) == [i // 3 != 1 for i in range(12)]


def test_split_finds_repeats_again_without_binding_anything():
    units = Units()
    heads = units.fresh(4)
    whole = units.merge([heads, None], (4, 3))
    parts = units.split(whole, (4, 3), "view")
    assert np.array_equal(parts[0], heads)
    assert parts[1] is None


def test_what_does_not_factor_is_pinned():
    units = Units()
    a = units.fresh(6)
    mixed = np.concatenate([a[:3], a[:2], a[5:]])  # no grid of rows and columns
    assert units.split(mixed, (2, 3), "view") == [None, None]
    assert {int(u) for pin in units.pins for u in pin.labels[:, 0]} == {0, 1, 2, 5}


def test_a_bound_unit_stands_for_what_it_is_bound_to():
    units = Units()
    a = units.fresh(6)
    outer, inner = units.split(a, (2, 3), "view")
    assert sorted(units.leaves(a)) == sorted([*units.find(outer[:, 0]).tolist(), *units.find(inner[:, 0]).tolist()])
    units.pin(inner, "looked up")
    roots = units.resolve(a)
    assert roots.shape == (6, 1)
    assert len(set(roots[:, 0].tolist())) == 2


def test_binding_to_few_then_to_many_members():
    units = Units()
    a, b = units.fresh(4), units.fresh(8)
    units.split(a, (2, 2), "two factors")
    units.split(b, (2, 2, 2), "three factors")
    assert units.resolve(a).shape == (4, 2)
    assert units.resolve(b).shape == (8, 3)


def test_a_dimension_that_equals_a_product_becomes_that_product():
    units = Units()
    a, outer, inner = units.fresh(6), units.fresh(2), units.fresh(3)
    units.equal(a, units.merge([outer, inner], (2, 3)), "reshape")
    assert _kept(units, a, {int(outer[0, 0])}) == [False] * 3 + [True] * 3


def test_two_bound_units_that_meet_are_pinned():
    units = Units()
    a, b = units.fresh(4), units.fresh(4)
    units.split(a, (2, 2), "view")
    units.split(b, (4, 1), "view")
    units.equal(a, b, "sum")
    roots = units.resolve(b)
    assert roots is None or np.array_equal(roots, units.resolve(a))


def test_stack_pads():
    units = Units()
    pair = units.merge([units.fresh(2), units.fresh(2)], (2, 2))
    joint = stack([pair, None, units.fresh(3)], [4, 2, 3])
    assert joint.shape == (9, 2)
    assert (joint[4:6] == -1).all()
    assert (joint[6:, 1] == -1).all()


def test_many_units():
    units = Units()
    a, b = units.fresh(3000), units.fresh(3000)
    units.equal(a, b, "sum")
    assert np.array_equal(units.resolve(a), units.resolve(b))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8), st.integers(0, 5))
def test_equality_is_transitive(pairs, first):
    units = Units()
    dims = [units.fresh(3) for _ in range(6)]
    joined = {i: {i} for i in range(6)}
    for i, j in pairs:
        units.equal(dims[i], dims[j], "sum")
        union = joined[i] | joined[j]
        for k in union:
            joined[k] = union
    for other in range(6):
        assert np.array_equal(units.resolve(dims[first]), units.resolve(dims[other])) == (other in joined[first])
