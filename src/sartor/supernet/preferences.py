"""What a search prefers: one softmax per choice over its options, in float64, and gradients of methods to learn it.

All choices are rows of one table, as wide as the longest; what a shorter one lacks has probability zero. What is drawn
follows the logits plus a tilt, which is not learned (see `sartor.supernet.penalties`); what is preferred, the logits.
Sources: Cai, Zhu and Han, "ProxylessNAS" (ICLR 2019), section 3: gates and pairs; Williams (1992): policy gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sartor.core.records import Arch, Choice
from sartor.core.tables import Tables
from sartor.supernet.paths import pick


class Pairs(NamedTuple):
    """Two options of every choice: one that runs, and one that is only looked at.

    Attributes:
        options: `(n, 2)`, the one that runs first; twice the same where a choice has a single option.
        live: `(n, 1)`, whether the two differ.
    """

    options: Tensor
    live: Tensor


class Preferences(nn.Module):
    """Independent categorical distributions over the options of `n` choices with at most `k` options.

    Args:
        choices: Of the space.
        generator: Of the initial logits; None starts them at zero.
        scale: Standard deviation of the initial logits.
    """

    def __init__(
        self, choices: Sequence[Choice], generator: torch.Generator | None = None, *, scale: float = 1e-3
    ) -> None:
        super().__init__()
        self.sizes = [len(c.options) for c in choices]
        shape = (len(self.sizes), max(self.sizes))
        start = torch.zeros(shape, dtype=torch.float64)
        if generator is not None:
            start = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        self.there = torch.arange(shape[1]) < torch.tensor(self.sizes)[:, None]
        """`(n, k)`: which entries are options."""
        self.logits = nn.Parameter(start * self.there)
        self.register_buffer("tilt", torch.zeros(shape, dtype=torch.float64))
        self.tilt: Tensor

    def log_probs(self) -> Tensor:
        """`(n, k)`, with a graph; minus infinity where there is no option."""
        return (self.logits + self.tilt).masked_fill(~self.there, -torch.inf).log_softmax(1)

    def probs(self) -> Tensor:
        """`(n, k)`, with a graph; zero where there is no option."""
        return (self.logits + self.tilt).masked_fill(~self.there, -torch.inf).softmax(1)

    def rows(self, table: Tensor) -> list[Tensor]:
        """A table `(n, k)` as one tensor per choice, `(k_i,)`: what supernets take as gates."""
        return [row[:k] for row, k in zip(table.unbind(0), self.sizes, strict=True)]

    def draw(self, generator: torch.Generator) -> Arch:
        """An arch at random; only the generator moves."""
        return self.draws(1, generator)[0]

    def draws(self, count: int, generator: torch.Generator) -> list[Arch]:
        """`count` archs at random, independently."""
        picked = _pick(self.probs().detach().repeat(count, 1), generator)
        return [tuple(row) for row in picked.reshape(count, -1).tolist()]

    def draw_uniform(self, generator: torch.Generator) -> Arch:
        """An arch with every option equally likely, whatever is preferred."""
        return tuple(_pick(self.there.double(), generator).tolist())

    def draw_pairs(self, generator: torch.Generator) -> Pairs:
        """Two options per choice, drawn without replacement; the one to run by the softmax of the two."""
        p = self.probs().detach()
        one = _pick(p, generator)[:, None]
        rest = p.scatter(1, one, 0.0)
        live = torch.tensor(self.sizes)[:, None] > 1
        two = torch.where(live, _pick(torch.where(live, rest, p), generator)[:, None], one)
        index = torch.cat([one, two], 1)
        first = _pick(p.gather(1, index), generator)[:, None]
        return Pairs(torch.where(first == 0, index, index.flip(1)), live)

    def log_prob(self, arch: Sequence[int]) -> Tensor:
        """The logarithm of the probability of an arch, a scalar with a graph."""
        return self.log_probs().gather(1, torch.tensor(arch)[:, None]).sum()

    def entropy(self) -> Tensor:
        """In nats, summed over the choices: a scalar with a graph."""
        entropies: Tensor = torch.special.entr(self.probs())
        return entropies.sum()

    def preferred(self) -> list[Tensor]:
        """`log p` of the options of every choice without the tilt, `(k_i,)` each."""
        return [row.log_softmax(0) for row in self.rows(self.logits.detach())]

    def best(self) -> Arch:
        """The preferred option of every choice."""
        return tuple(int(row.argmax()) for row in self.preferred())

    def unlikeliness(self) -> Tables:
        """Minus `preferred`, of an option or, by its sum, of an arch: what a solver minimises."""
        return Tables(tuple(-row for row in self.preferred()))

    def one_hot(self, arch: Sequence[int]) -> Tensor:
        """`(n, k)`."""
        return torch.zeros_like(self.logits).scatter_(1, torch.tensor(arch)[:, None], 1.0)


def policy_slopes(preferences: Preferences, archs: Sequence[Arch], advantages: Tensor) -> Tensor:
    """The gradient by the logits, `(n, k)`, of minus the mean of `advantage * log p(arch)`.

    Unbiased for the gradient of minus the expected reward, if an advantage is a reward less what the arch does not
    decide (REINFORCE; d log p_a / d alpha = onehot(a) - p).

    Args:
        preferences: What the archs were drawn from.
        archs: `m` of them.
        advantages: `(m,)`, one per arch.
    """
    p = preferences.probs().detach()
    weights = advantages.to(p)[:, None, None] / len(archs)
    drawn = nn.functional.one_hot(torch.tensor(archs), p.shape[1]).to(p)
    return ((p - drawn) * weights).sum(0)


def surprises(preferences: Preferences, archs: Sequence[Arch], rewards: Sequence[float], temperature: float) -> Tensor:
    """Rewards, `(m,)`, less what the preferences say of their archs.

    In expectation, `policy_slopes` of these are those of the rewards plus `calm`: what is left out of every reward, its
    own choices' worth, has the slopes that hold the logits back, exactly. But once the preferences are right, only
    noise of the rewards is left of the slopes' noise.

    Args:
        preferences: What the archs were drawn from.
        archs: `m` of them.
        rewards: One per arch.
        temperature: Reward per unit of a logit; 0 leaves the rewards alone.
    """
    logits = preferences.logits.detach()
    worth = temperature * (logits - (preferences.probs().detach() * logits).sum(1, keepdim=True))
    said = worth.gather(1, torch.tensor(archs).T).sum(0)
    return logits.new_tensor(list(rewards)) - said


def straight_through(probs: Tensor, slopes: Tensor) -> Tensor:
    """Gradients for logits from those for their binary gates, row by row (ProxylessNAS, eq. 4).

    `dL/dalpha_i = sum_j dL/dg_j p_j (delta_ij - p_i)`.

    Args:
        probs: `(n, k)`, the softmax of the logits.
        slopes: `(n, k)`, of the loss by the gates.
    """
    return probs * (slopes - (probs * slopes).sum(1, keepdim=True))


def calm(preferences: Preferences, temperature: float) -> Tensor:
    """The gradient by the logits, `(n, k)`, of `temperature` times the divergence from the tilt alone (KL).

    Where it balances that of a loss which is a sum over choices, a logit is minus the loss of its option over the
    temperature: preferences are then to scale, not only in order.
    """
    return straight_through(preferences.probs().detach(), temperature * preferences.logits.detach())


def pair_slopes(preferences: Preferences, pairs: Pairs, slopes: Tensor) -> Tensor:
    """`straight_through` within pairs, whose two probabilities are made to sum to one; zero for all other options.

    Args:
        preferences: `(n, k)`.
        pairs: Of every choice.
        slopes: `(n, k)`, of the loss by the gates.
    """
    logits = (preferences.logits + preferences.tilt).detach()
    two = straight_through(logits.gather(1, pairs.options).softmax(1), slopes.gather(1, pairs.options))
    return torch.zeros_like(logits).scatter(1, pairs.options, two * pairs.live)


@torch.no_grad()
def keep_mass(preferences: Preferences, pairs: Pairs, before: Tensor) -> None:
    """Shift the logits of every pair so that the two together are as probable as they were.

    Args:
        preferences: After a step that moved the logits of the pairs only.
        pairs: Of every choice.
        before: `(n, k)`, the logits before the step.
    """
    tilt, after = preferences.tilt.gather(1, pairs.options), preferences.logits.gather(1, pairs.options)
    old = before.gather(1, pairs.options)
    shift = (old + tilt).logsumexp(1, keepdim=True) - (after + tilt).logsumexp(1, keepdim=True)
    preferences.logits.scatter_(1, pairs.options, after + torch.where(pairs.live, shift, 0.0))


def _pick(weights: Tensor, generator: torch.Generator) -> Tensor:
    """One column per row of `(n, k)`, `(n,)`."""
    return pick(weights, torch.rand(len(weights), 1, generator=generator, dtype=torch.float64))
