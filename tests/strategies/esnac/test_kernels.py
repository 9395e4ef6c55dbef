from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sartor.core.abilities import Described
from sartor.core.errors import ConfigError
from sartor.regions.region import Region
from sartor.strategies.esnac import kernels
from sartor.strategies.esnac.candidates import Candidates
from sartor.strategies.esnac.kernels import Chooser, Kernel
from sartor.surrogates.curves import plain
from sartor.surrogates.embedding import Encoding, Recipe

from strategies.searching import Plain, problem  # isort: skip

RECIPE = Recipe(hidden=4, layers=1)
KNOWN = [(0, 0, 0), (5, 5, 5), (2, 3, 4)]


class Counted(Plain, Described):
    """Says how often it has described each network."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.asked = []

    def description(self, arch):
        self.asked.append(arch)
        return np.array([[1.0, i, a] for i, a in enumerate(arch)])


def fitted(space, seed=0, y=(0.0, 1.0, 0.5)):
    encoding = Encoding(space)
    encoder = RECIPE.fresh(encoding.features, seed)
    return Kernel(encoder, encoding, RECIPE, KNOWN, plain(torch.tensor(y).double()))


def chooser(count=30, acquisition="ei", *, space=None, local=False):
    place = replace(problem(2), space=space or Plain(6, 6, 6))
    return Chooser(Candidates(Region(place), local=local), count, acquisition)


def rng():
    return np.random.default_rng(0)


def test_each_network_is_embedded_and_described_once(monkeypatch):
    space, sizes = Counted(6, 6, 6), []
    inner = kernels.embed
    monkeypatch.setattr(kernels, "embed", lambda e, s, r: sizes.append(len(s)) or inner(e, s, r))
    encoding = Encoding(space)
    encoder = RECIPE.fresh(encoding.features, 0)
    both = [Kernel(encoder, encoding, RECIPE, KNOWN, plain(torch.zeros(3).double())) for _ in range(2)]
    found = chooser(space=space)(6, both, rng(), set(KNOWN), [])
    assert len(set(found)) == 6
    assert len(space.asked) == len(set(space.asked)) <= 3 + 30 + 1
    assert sorted(sizes) == [3, 3, 29, 30]  # the second kernel need not look at what the first has named


def test_embeddings_are_those_of_the_encoder():
    kernel = fitted(Plain(6, 6, 6))
    archs = [(1, 2, 3), (0, 0, 0), (1, 2, 3)]
    wanted = kernels.embed(kernel.encoder, kernel.encoding(archs), RECIPE)
    assert torch.allclose(kernel(archs), wanted, atol=1e-6)


def test_the_first_has_the_best_acquisition():
    kernel, choose = fitted(Plain(6, 6, 6)), chooser(300)
    every = [(i, j, k) for i in range(6) for j in range(6) for k in range(6) if (i, j, k) not in KNOWN]
    (found,) = choose(1, [kernel], rng(), set(KNOWN), [])
    gains = kernels.improvement(*kernel.posterior(kernel(every)), 1.0)
    assert float(gains[every.index(found)]) == pytest.approx(float(gains.max()))


@pytest.mark.parametrize("acquisition", ["ei", "log_ei", "thompson"])
@pytest.mark.parametrize("local", [False, True])
def test_names_are_new_and_different(acquisition, local):
    pair = [fitted(Plain(6, 6, 6), seed) for seed in range(2)]
    found = chooser(acquisition=acquisition, local=local)(7, pair, rng(), set(KNOWN), KNOWN)
    assert len(set(found)) == 7
    assert not set(found) & set(KNOWN)


def test_what_was_named_is_believed():
    """A kernel that names twice has learned in between; one that names once has not."""
    one, two = fitted(Plain(6, 6, 6)), fitted(Plain(6, 6, 6))
    chooser()(1, [one], rng(), set(KNOWN), [])
    assert len(one.posterior.parts[0].y) == 3
    chooser()(2, [two], rng(), set(KNOWN), [])
    assert len(two.posterior.parts[0].y) == 4


def test_known_networks_are_candidates():
    """One random network against one that is known to be the best by far."""
    kernel = fitted(Plain(6, 6, 6), y=(-3.0, 9.0, -3.0))
    kernel.top = 0.0
    assert chooser(1)(1, [kernel], rng(), {KNOWN[0]}, [], [KNOWN[1]]) == [KNOWN[1]]


def test_a_short_list_ends():
    space = Plain(2, 2, 1)
    encoding = Encoding(space)
    archs = [(0, 0, 0), (1, 1, 0)]
    kernel = Kernel(RECIPE.fresh(encoding.features, 0), encoding, RECIPE, archs, plain(torch.zeros(2).double()))
    assert set(chooser(space=space)(5, [kernel], rng(), set(archs), [])) == {(0, 1, 0), (1, 0, 0)}


def test_unknown_acquisitions_are_named():
    with pytest.raises(ConfigError, match="acquisition is 'ucb'; it must be ei, log_ei or thompson"):
        chooser(acquisition="ucb")
