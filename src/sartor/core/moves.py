"""How the networks of a space vary: random ones, small changes, all there are, and what preferences mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from sartor.core.records import Arch, Choice


class Moves:
    """For any list of choices; a space that knows better gives an object of a class of its own as its `moves`.

    Args:
        choices: Of the space.
        canonical: Of the space: what stands for all archs of one network.
    """

    def __init__(self, choices: Sequence[Choice], canonical: Callable[[Arch], Arch]) -> None:
        self.choices, self.canonical = choices, canonical

    @property
    def uniform(self) -> bool:
        """Whether `draw` takes all options of a choice with the same probability, so that others may draw in blocks."""
        return type(self).draw is Moves.draw

    @property
    def members(self) -> Sequence[Arch]:
        """All canonical archs of a space that is a list of networks; empty if it is none."""
        return ()

    def draw(self, rng: np.random.Generator) -> Arch:
        """A random canonical arch; here uniform over option indices."""
        return self.canonical(tuple(int(rng.integers(len(c.options))) for c in self.choices))

    def vary(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """A random canonical arch next to `arch`; here one choice with another option (the next, if it is ordered)."""
        movable = [i for i, c in enumerate(self.choices) if len(c.options) > 1]
        i = int(rng.choice(movable))
        choice, old = self.choices[i], arch[i]
        others = [k for k in range(len(choice.options)) if k != old and (not choice.ordered or abs(k - old) == 1)]
        return self.canonical((*arch[:i], int(rng.choice(others)), *arch[i + 1 :]))

    def neighbours(self, arch: Arch) -> list[Arch]:
        """All archs one step away: one choice with another option (an adjacent one, if the choice is ordered)."""
        found: dict[Arch, None] = {}
        for i, choice in enumerate(self.choices):
            for k in range(len(choice.options)):
                if k != arch[i] and (not choice.ordered or abs(k - arch[i]) == 1):
                    found[self.canonical((*arch[:i], k, *arch[i + 1 :]))] = None
        found.pop(self.canonical(arch), None)
        return list(found)

    def derive(self, preferences: Sequence[Tensor]) -> Arch:
        """The canonical arch that preferences stand for; here the most preferred option of every choice.

        Args:
            preferences: Per choice of its options, `(k_i,)`: larger is better (the logarithms of probabilities, say).
        """
        return self.canonical(tuple(int(row.argmax()) for row in preferences))
