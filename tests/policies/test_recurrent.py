from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from sartor.core import state
from sartor.core.records import Choice
from sartor.policies.recurrent import Recurrent
from sartor.surrogates.embedding import options

SIZES = (3, 2, 4)
EVERY = np.array(list(product(*map(range, SIZES))))


def policy(autoregressive, seed=0, lr=0.05):
    rows = options([Choice(f"c{i}", tuple(range(n))) for i, n in enumerate(SIZES)])[:, 0]
    return Recurrent(rows, SIZES, seed, hidden=6, layers=2, lr=lr, autoregressive=autoregressive)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_probabilities_sum_to_one_and_draws_follow_them(autoregressive):
    made = policy(autoregressive)
    made.ascend(EVERY[:3], np.array([1.0, 2.0, -1.0]))
    probs = made.log_probs(EVERY).exp().detach().numpy()
    assert probs.sum() == pytest.approx(1, abs=1e-5)
    drawn = made.draw(np.random.default_rng(0), 20_000)
    counts = [(drawn == row).all(1).mean() for row in EVERY]
    assert np.allclose(counts, probs, atol=0.01)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_what_is_rewarded_becomes_likelier(autoregressive):
    made = policy(autoregressive)
    before = made.log_probs(EVERY)[[0, 5]].detach()
    made.ascend(EVERY[[0, 5]], np.array([1.0, -1.0]))
    after = made.log_probs(EVERY)[[0, 5]].detach()
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_only_one_of_them_sees_earlier_options():
    """Two networks that differ in two choices: if these are independent, mixtures of them are as likely."""
    found = []
    for autoregressive in (False, True):
        made = policy(autoregressive)
        for _ in range(40):
            made.ascend(np.array([[0, 0, 0], [1, 1, 0]]), np.array([1.0, 1.0]))
        found.append(made.log_probs(EVERY).exp()[EVERY[:, 0] == EVERY[:, 1]].sum().item())
    assert found[0] == pytest.approx(0.5, abs=0.1)
    assert found[1] > 0.9


@pytest.mark.parametrize("autoregressive", [False, True])
def test_state_is_complete(autoregressive):
    a, b = policy(autoregressive), policy(autoregressive, seed=1)
    a.ascend(EVERY[:2], np.ones(2))
    b.load_state_dict(state._unpack(state._pack(a.state_dict())))
    for each in (a, b):
        each.ascend(EVERY[3:5], np.ones(2))
    assert torch.equal(a.log_probs(EVERY), b.log_probs(EVERY))


@pytest.mark.parametrize("autoregressive", [False, True])
def test_entropy_keeps_a_policy_apart(autoregressive):
    """With a weight on it, the same rewards leave more to the other networks."""
    left = []
    for weight in (0.0, 1.0):
        made = policy(autoregressive)
        for _ in range(20):
            made.ascend(EVERY[[0]], np.array([1.0]), weight)
        left.append(1 - made.log_probs(EVERY).exp()[0].item())
    assert left[1] > 1.5 * left[0]
