"""Averages of rewards, which policy gradients subtract."""

from __future__ import annotations


class Baseline:
    """An exponential average of rewards without the bias of its start, as Adam's.

    Args:
        momentum: Weight of the past.
    """

    def __init__(self, momentum: float) -> None:
        self.momentum, self.sum, self.weight = momentum, 0.0, 0.0

    def update(self, reward: float) -> float:
        """The average with `reward` in it."""
        self.sum += (1 - self.momentum) * (reward - self.sum)
        self.weight += (1 - self.momentum) * (1 - self.weight)
        return self.sum / self.weight

    def state_dict(self) -> dict[str, float]:
        """Both sums."""
        return {"sum": self.sum, "weight": self.weight}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Put back what `state_dict` took."""
        self.sum, self.weight = state["sum"], state["weight"]


class Baselines:
    """A `Baseline` per budget level: networks for different budgets differ more than options do.

    Args:
        momentum: Weight of the past.
        count: Levels.
    """

    def __init__(self, momentum: float, count: int) -> None:
        self._levels = [Baseline(momentum) for _ in range(count)]

    def update(self, level: int, reward: float) -> float:
        """The average of a level with `reward` in it."""
        return self._levels[level].update(reward)

    def state_dict(self) -> dict[str, list[dict[str, float]]]:
        """Of every level."""
        return {"levels": [baseline.state_dict() for baseline in self._levels]}

    def load_state_dict(self, state: dict[str, list[dict[str, float]]]) -> None:
        """Put back what `state_dict` took."""
        for baseline, own in zip(self._levels, state["levels"], strict=True):
            baseline.load_state_dict(own)
