"""Which paths of a supernet a step trains: dropped at random, one at random, or every option equally often.

Sources: Bender et al., "Understanding and simplifying one-shot architecture search" (ICML 2018): path dropout; Guo et
al., "Single path one-shot" (ECCV 2020): one uniform path; Chu et al., "FairNAS" (ICCV 2021): strict fairness.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sartor.core.records import Arch, Choice


def pick(weights: Tensor, luck: Tensor) -> Tensor:
    """One column per row, `(n,)`, as likely as its weight.

    Args:
        weights: `(n, k)`, not negative; their sums need not be one.
        luck: `(n, 1)`, uniform in [0, 1).
    """
    edges = weights.cumsum(1)
    # the last edge may be a rounding below one: scale the luck by it, so that zero-probability tails stay unseen
    picked: Tensor = (luck * edges[:, -1:] >= edges).sum(1)
    return torch.clamp(picked, max=weights.shape[1] - 1)


def kept(count: int, rate: float, generator: torch.Generator) -> Tensor:
    """Which of `count` paths stay, `(count,)`, bool: each is dropped with `rate ** (1 / count)`.

    So all are dropped with probability `rate`, however many there are.
    """
    luck = torch.rand(count, generator=generator, dtype=torch.float64)
    return luck.ge(rate ** (1 / count))


def dropped_gates(
    choices: Sequence[Choice], rate: float, progress: float, generator: torch.Generator, *, scaled: bool = False
) -> list[Tensor]:
    """Gates of zeros and ones, `(k_i,)`, float64.

    The chance of a path to be dropped rises linearly with the progress, from 0 to `rate ** (1 / k)`. Where all are
    dropped, one at random stays: in a chain of blocks nothing would pass. Ordered choices (widths) have no paths beside
    each other and take one option at random.

    Args:
        choices: Of the space.
        rate: Probability that all paths of a choice are dropped, at the end.
        progress: Fraction of the training.
        generator: Of the draws.
        scaled: Whether gates are divided by the probability to stay.
    """
    gates = []
    for choice in choices:
        k = len(choice.options)
        drop = rate ** (1 / k) * progress
        stay = kept(k, drop**k, generator)
        alone = torch.zeros(k, dtype=torch.bool)
        alone[torch.randint(k, (), generator=generator)] = True
        single = choice.ordered or not bool(stay.any())
        gate = torch.where(alone if single else stay, 1.0, 0.0).double()
        gates.append(gate / (1 - drop) if scaled and not single else gate)
    return gates


class Decks:
    """Paths in which, as from shuffled decks of cards, every option of a choice comes up once before any comes twice.

    With as many options everywhere, a round of that many paths has each option of each choice exactly once.

    Args:
        choices: Of the space.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.sizes = [len(c.options) for c in choices]
        self.round = max(self.sizes)
        """Paths per round."""
        self.cards: list[list[int]] = [[] for _ in self.sizes]

    def path(self, generator: torch.Generator) -> Arch:
        """The next path."""
        for cards, size in zip(self.cards, self.sizes, strict=True):
            if not cards:
                cards.extend(torch.randperm(size, generator=generator).tolist())
        return tuple(cards.pop() for cards in self.cards)

    def state_dict(self) -> dict[str, list[list[int]]]:
        """What is left of the decks."""
        return {"cards": [list(c) for c in self.cards]}

    def load_state_dict(self, state: dict[str, list[list[int]]]) -> None:
        """Put back what `state_dict` took."""
        self.cards = [list(c) for c in state["cards"]]
