from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from sartor.policies.softmax import Policy

SIZES = (2, 4, 3)
EVERY = np.array(list(product(*map(range, SIZES))))


def policy_of(autoregressive, seed=0):
    policy = Policy(SIZES, np.random.default_rng(seed), lr=0.1, autoregressive=autoregressive, scale=0.7)
    if autoregressive:
        rng = np.random.default_rng(1)
        policy.theta[1] += np.where(policy._earlier, rng.standard_normal(policy.theta[1].shape), 0)
    return policy


def in_torch(policy, index, theta):
    """Log-probabilities of `index` and the mean entropy, from parameters that autograd follows."""
    n, k = policy.n, policy.k
    rows = []
    entropies = []
    for arch in index.tolist():
        total, entropy = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for i, size in enumerate(policy.sizes.tolist()):
            logits = theta[0].reshape(n, k)[i, :size]
            for j in range(i if len(theta) > 1 else 0):
                logits = logits + theta[1][j * k + arch[j], i * k : i * k + size]
            logs = torch.log_softmax(logits, 0)
            total = total + logs[arch[i]]
            entropy = entropy - (logs.exp() * logs).sum()
        rows.append(total)
        entropies.append(entropy)
    return torch.stack(rows), torch.stack(entropies).mean()


@pytest.mark.parametrize("autoregressive", [False, True])
def test_log_probabilities_and_gradients_are_autograds(autoregressive):
    policy = policy_of(autoregressive)
    index, weights = EVERY[[0, 5, 11, 23]], np.array([1.0, -2.0, 0.3, 0.0])
    theta = [torch.tensor(t, requires_grad=True) for t in policy.theta]
    logs, entropy = in_torch(policy, index, theta)
    (logs @ torch.tensor(weights) + 0.37 * entropy).backward()
    probs = policy.probs(index)
    assert np.allclose(policy.log_probs(index, probs), logs.detach().numpy(), atol=1e-12)
    for ours, theirs in zip(policy.gradient(index, weights, probs, 0.37), theta, strict=True):
        assert np.allclose(ours, theirs.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_draws_follow_the_probabilities(autoregressive):
    policy = policy_of(autoregressive)
    exact = np.exp(policy.log_probs(EVERY, policy.probs(EVERY)))
    assert np.isclose(exact.sum(), 1.0)
    drawn = policy.draw(np.random.default_rng(2), 20_000)
    assert (drawn < policy.sizes).all()
    counts = np.array([(drawn == a).all(1).sum() for a in EVERY])
    assert np.abs(counts / 20_000 - exact).max() < 0.012


def test_adam_is_torchs():
    policy, rng = policy_of(True), np.random.default_rng(3)
    theta = [torch.tensor(t, requires_grad=True) for t in policy.theta]
    adam = torch.optim.Adam(theta, lr=0.1)
    for _ in range(5):
        slopes = [rng.standard_normal(t.shape) for t in policy.theta]
        policy.ascend(slopes)
        for t, s in zip(theta, slopes, strict=True):
            t.grad = -torch.tensor(s)
        adam.step()
    assert all(np.allclose(a, b.detach().numpy(), atol=1e-12) for a, b in zip(policy.theta, theta, strict=True))


def test_the_state_brings_everything_back():
    policy, other = policy_of(True), policy_of(True, seed=9)
    policy.ascend([np.ones_like(t) for t in policy.theta])
    other.load_state_dict(policy.state_dict())
    for p in (policy, other):
        p.ascend([np.ones_like(t) for t in p.theta])
    assert all((a == b).all() for a, b in zip(policy.theta, other.theta, strict=True))
    with pytest.raises(ValueError, match="shape"):
        Policy((5, 5), np.random.default_rng(0), lr=0.1).load_state_dict(
            {**policy.state_dict(), "theta": policy.state_dict()["theta"][:1]}
        )
