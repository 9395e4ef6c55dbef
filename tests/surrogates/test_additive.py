from __future__ import annotations

from itertools import product

import numpy as np

from sartor.core.records import Choice
from sartor.surrogates.additive import Additive

ORDERED = [Choice(n, tuple(range(k)), ordered=True) for n, k in (("a", 5), ("b", 4), ("c", 6))]


def every(choices):
    return np.array(list(product(*(range(len(c.options)) for c in choices))))


def test_a_sum_is_recognised_and_then_predicts():
    rng = np.random.default_rng(0)
    gains = [rng.normal(size=len(c.options)) for c in ORDERED]
    index = rng.permutation(every(ORDERED))

    def value(arch):
        return float(sum(g[o] for g, o in zip(gains, arch, strict=True)))

    model, known = Additive([len(c.options) for c in ORDERED]), []
    for arch in index[:60]:
        model.add(tuple(arch.tolist()), value(arch))
        known.append(int(model.known(index).sum()))
    assert model.holds
    assert known == sorted(known)
    assert known[0] == 1
    assert known[-1] == len(index)
    np.testing.assert_allclose(model.values().at(index), [value(a) for a in index], atol=1e-9)


def test_what_is_no_sum_is_found_out():
    model = Additive([2, 2])
    for arch, value in (((0, 0), 0.0), ((0, 1), 1.0), ((1, 0), 1.0)):
        model.add(arch, value)
    assert model.holds
    assert model.known(np.array([(1, 1)]))[0]
    model.add((1, 1), 2.001)
    assert not model.holds
