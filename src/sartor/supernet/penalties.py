"""Costs in a search that learns preferences: in its loss, or in how paths are drawn.

`mul_log` and `add_linear` put the expected cost into the loss, as ProxylessNAS does (Cai, Zhu and Han, ICLR 2019, and
its code); `mul_log` depends on the unit of the cost, which here is that in which the limit is 80, as their 80 ms.

`tilt` is this package's. Paths are drawn from `softmax(alpha - gamma * cost / limit)` with a multiplier `gamma` that
keeps the expected cost at the limit (or is zero where it is below), and the loss knows nothing of costs. Budget levels
take turns, each with multipliers of its own. So alpha is what was learned of losses alone, near all budgets; a weight
in the loss ends over the limit, or far below it, and reaches the convex hull of costs and losses only.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from sartor.core.contracts import Problem
from sartor.core.errors import ConfigError
from sartor.core.state import pack, unpack
from sartor.solvers.budgets import Budget, levels, terms_of
from sartor.supernet.preferences import Preferences

Kind: TypeAlias = Literal["tilt", "mul_log", "add_linear", "none"]

WEIGHTS = {"tilt": 0.0, "mul_log": 0.3, "add_linear": 0.1, "none": 0.0}
"""Beta and lambda of the source's code."""

STEP = 5.0
"""How far a multiplier moves at once, at most."""

SCALE, UNIT = 0.2, 80.0
"""Of `mul_log`: the factor of the loss, and the limit in its own unit."""


class Penalty:
    """Puts expected costs into a loss, with the loosest limits, or tilts preferences to the budget levels in turn.

    Limits on costs that are maxima (peak memory) have no expectation that is a sum: only the decoding heeds them.

    Args:
        problem: With limits.
        kind: How costs enter.
        weight: 0 takes that of the source.
        by: Who needs it, for messages.

    Raises:
        CapabilityError: A limited cost has no tables.
        ConfigError: There is no such kind.
    """

    saved = ("multipliers", "level")

    def __init__(self, problem: Problem, kind: Kind, weight: float = 0.0, *, by: object) -> None:
        if kind not in WEIGHTS:
            raise ConfigError(f"no penalty called {kind!r}; use one of {', '.join(get_args(Kind))}")
        limits, every = problem.limits(), levels(problem)
        self.kind, self.weight, self.custom = kind, weight or WEIGHTS[kind], bool(weight)
        self.bounds = Budget.of(problem, limits, by).additive
        self.metrics = [m for m in limits if len(terms_of(problem.cost(m), by)) == 1]
        self.shares = [[level[m] / limits[m] for m in self.metrics] for level in every]
        """Per level, its limits as fractions of the loosest."""
        self._padded = [nn.utils.rnn.pad_sequence(list(t.unary), batch_first=True) for t, _ in self.bounds]
        self.multipliers = [[0.0] * len(self.bounds) for _ in every]
        """Of `tilt`, per level and limit."""
        self.level = 0
        """Whose turn it is."""

    def ratios(self, probs: Tensor) -> Tensor:
        """Expected costs over their limits, `(m,)`, under independent choices.

        Args:
            probs: `(n, k)` on the CPU, zero where a choice has no such option; the graph reaches to it.
        """
        found = []
        for (tables, upper), unary in zip(self.bounds, self._padded, strict=True):
            total = (unary * probs).sum() + tables.constant
            for (i, j), table in tables.pairwise.items():
                total = total + probs[i, : table.shape[0]] @ table @ probs[j, : table.shape[1]]
            found.append(total / upper)
        return torch.stack(found) if found else probs.new_zeros(0)

    def expected(self, probs: Tensor) -> dict[str, float]:
        """The expected cost of every metric that is a sum, in its unit."""
        ratios = self.ratios(probs.detach()).tolist()
        bounds = zip(self.metrics, self.bounds, ratios, strict=True)
        return {metric: ratio * upper for metric, (_, upper), ratio in bounds}

    def facts(self, preferences: Preferences) -> dict[str, float]:
        """What a search logs: `entropy` in nats, and `expected_METRIC` of every metric that is a sum."""
        costs = {f"expected_{metric}": cost for metric, cost in self.expected(preferences.probs()).items()}
        return {"entropy": float(preferences.entropy().detach()), **costs}

    def __call__(self, loss: Tensor, ratios: Tensor) -> Tensor:
        """What to minimise, a scalar.

        Args:
            loss: A scalar.
            ratios: From `ratios`.
        """
        loss = loss.to(ratios)
        if self.kind in ("none", "tilt") or not len(ratios):
            return loss
        if self.kind == "mul_log":
            logs = (UNIT * ratios).clamp(min=1 + 1e-6).log() / math.log(UNIT)
            return SCALE * loss * logs.pow(self.weight).prod()
        return loss + self.weight * (ratios - 1).sum()

    def tilt(self, preferences: Preferences) -> None:
        """One Newton step of the level's multipliers, each for its own metric; then the tilt of the next level."""
        if self.kind != "tilt" or not self.bounds:
            return
        probs = preferences.probs().detach().requires_grad_()
        mine, slopes = list(self.multipliers[self.level]), list[Tensor]()
        for m, (ratio, share) in enumerate(zip(self.ratios(probs).unbind(), self.shares[self.level], strict=True)):
            (slope,) = torch.autograd.grad(ratio, probs, retain_graph=True)
            spread = float((probs * (slope - (probs * slope).sum(1, keepdim=True)).square()).sum().detach())
            step = (float(ratio.detach()) - share) / max(spread, 1e-9)
            mine[m] = max(0.0, mine[m] + max(-STEP, min(STEP, step / 2)))
            slopes.append(slope)
        self.multipliers = [*self.multipliers[: self.level], mine, *self.multipliers[self.level + 1 :]]
        self.level = (self.level + 1) % len(self.shares)
        weights = probs.new_tensor(self.multipliers[self.level])[:, None, None]
        preferences.tilt.copy_(-(weights * torch.stack(slopes)).sum(0))

    def state_dict(self) -> dict[str, Any]:
        """The multipliers."""
        return pack(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        unpack(self, self.saved, state)
