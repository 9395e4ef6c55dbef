"""Tabular Q-learning over choices in their order: a state is the last few options, an action the next one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sartor.core.errors import ConfigError
from sartor.core.records import Arch

LARGEST = 2**24
"""Entries of a table."""


class QTable:
    """What every option is worth after the options before it.

    Args:
        sizes: Options per choice.
        lr: Share of the new in an update, in (0, 1].
        discount: Of what comes after the next option.
        memory: Options before that make a state.

    Raises:
        ConfigError: So many options make too many states.
    """

    def __init__(self, sizes: Sequence[int], *, lr: float, discount: float, memory: int) -> None:
        self.sizes, self.lr, self.discount, self.memory = tuple(sizes), lr, discount, memory
        counts = [math.prod(self.sizes[max(0, i - memory) : i + 1]) for i in range(len(sizes))]
        if sum(counts) > LARGEST:
            raise ConfigError(
                f"memory is {memory}, for which the table needs {sum(counts)} entries; take a smaller one"
            )
        self._rows = [[[0.0] * k for _ in range(n // k)] for k, n in zip(self.sizes, counts, strict=True)]

    def values(self, prefix: Arch) -> list[float]:
        """Of the options of the next choice."""
        depth, row = len(prefix), 0
        for i in range(max(0, depth - self.memory), depth):
            row = row * self.sizes[i] + prefix[i]
        return self._rows[depth][row]

    def update(self, arch: Arch, rewards: Sequence[float]) -> None:
        """Once over an episode, the last option first.

        Args:
            arch: The options chosen.
            rewards: After each of the first ones; the episode ends with the last reward.
        """
        after = 0.0
        for depth in reversed(range(len(rewards))):
            values = self.values(arch[:depth])
            option = arch[depth]
            values[option] += self.lr * (rewards[depth] + self.discount * after - values[option])
            after = max(values)

    def state_dict(self) -> dict[str, Any]:
        """All entries."""
        return {"rows": [torch.tensor(rows, dtype=torch.float64) for rows in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        self._rows = [rows.tolist() for rows in state["rows"]]


def shaped(reward: float, length: int, over: int) -> list[float]:
    """The reward of a network in equal parts for all its `length` options: `reward / over` each."""
    return [reward / over] * length
