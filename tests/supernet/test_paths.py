from __future__ import annotations

import pytest
import torch

from sartor.core.records import Choice
from sartor.core.rng import torch_rng
from sartor.supernet.paths import Decks, dropped_gates, kept

CHOICES = [Choice("a", (0, 1, 2)), Choice("b", (0, 1)), Choice("w", (8, 16, 24), ordered=True)]


@pytest.mark.parametrize("k", range(1, 7))
def test_all_paths_are_dropped_with_the_same_probability_however_many(k):
    rate, rng, tries = 0.3, torch_rng(k), 8000
    assert (rate ** (1 / k)) ** k == pytest.approx(rate)
    none = sum(not bool(kept(k, rate, rng).any()) for _ in range(tries)) / tries
    assert none == pytest.approx(rate, abs=4 * (rate * (1 - rate) / tries) ** 0.5)


def test_a_path_is_dropped_more_often_as_training_goes_on():
    rng, shares = torch_rng(0), []
    for progress in (0.0, 0.5, 1.0):
        gates = torch.stack([dropped_gates(CHOICES, 0.2, progress, rng)[0] for _ in range(3000)])
        assert bool((gates.sum(1) > 0).all())
        shares.append(float((gates == 0).double().mean()))
    # by r ** (1 / k) of a path, less the third of r in which the last one is put back
    drops = [0.2 ** (1 / 3) * t for t in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([d - d**3 / 3 for d in drops], abs=0.02)
    assert shares[0] == 0


def test_widths_take_one_option_and_scaling_keeps_the_mean():
    rng = torch_rng(0)
    for _ in range(50):
        assert dropped_gates(CHOICES, 0.2, 1.0, rng, scaled=True)[2].sum() == 1
    mean = torch.stack([dropped_gates(CHOICES, 1e-3, 1.0, rng, scaled=True)[0] for _ in range(4000)]).mean(0)
    assert torch.allclose(mean, torch.ones(3, dtype=torch.float64), atol=0.02)


def test_every_option_comes_up_once_in_a_round():
    decks, rng = Decks([Choice(f"c{i}", (0, 1, 2, 3)) for i in range(3)]), torch_rng(0)
    rounds = [[decks.path(rng) for _ in range(decks.round)] for _ in range(5)]
    for drawn in rounds:
        for options in zip(*drawn, strict=True):
            assert sorted(options) == [0, 1, 2, 3]
    assert len({tuple(r) for r in rounds}) == 5


def test_shorter_choices_are_dealt_as_fairly_and_the_decks_are_all_of_the_state():
    decks, rng = Decks(CHOICES), torch_rng(0)
    first = [decks.path(rng) for _ in range(4)]
    again = Decks(CHOICES)
    again.load_state_dict(decks.state_dict())
    twin = torch_rng(0)
    twin.set_state(rng.get_state())
    rest = [decks.path(rng) for _ in range(2)]
    assert rest == [again.path(twin) for _ in range(2)]
    for options, size in zip(zip(*(first + rest), strict=True), (3, 2, 3), strict=True):
        assert torch.bincount(torch.tensor(options)).tolist() == [6 // size] * size
