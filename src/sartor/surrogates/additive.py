"""Sums of one number per option that explain all values exactly, and what follows from them.

The networks known span a space of one-hot vectors, of which an orthonormal basis is kept (Gram-Schmidt, twice).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sartor.core.records import Arch
from sartor.surrogates.values import Floats, Ints, Values


class Additive:
    """Whether a sum of one number per option explains all values exactly, and what it then says about other networks.

    Args:
        sizes: Number of options per choice.
        tolerance: Of a prediction, as a share of the largest difference of values.
    """

    def __init__(self, sizes: Sequence[int], tolerance: float = 1e-7) -> None:
        self.offsets = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self.tolerance, self.holds = tolerance, True
        self._basis, self._values = np.zeros((0, self.offsets[-1])), np.zeros(0)
        self._low, self._high = math.inf, -math.inf

    def add(self, arch: Arch, value: float) -> None:
        """One more network whose value is known; `holds` turns False for good when no sum explains it."""
        if not self.holds:
            return
        self._low, self._high = min(self._low, value), max(self._high, value)
        left, shares = self._outside(np.array([arch]))
        size, predicted = float(np.linalg.norm(left[0])), float(shares[0] @ self._values)
        if size > 1e-6:
            self._basis = np.concatenate([self._basis, left / size])
            self._values = np.append(self._values, (value - predicted) / size)
        else:
            slack = self.tolerance * max(self._high - self._low, 1e-6 * max(abs(self._low), abs(self._high)))
            self.holds = abs(predicted - value) <= slack

    def known(self, index: Ints) -> NDArray[np.bool_]:
        """Of which of `(n, choices)` networks the values follow from those told, `(n,)`."""
        return np.asarray(np.abs(self._outside(index)[0]).max(1) < 1e-6)

    def values(self) -> Values:
        """The least sum that explains all."""
        d = self.offsets[-1]
        return Values(0.0, self._values @ self._basis, np.zeros((d, d)), self.offsets)

    def _outside(self, index: Ints) -> tuple[Floats, Floats]:
        """What of the networks' one-hot vectors lies outside the span of those told, and their shares of the basis."""
        left = np.zeros((len(index), self.offsets[-1]))
        left[np.arange(len(index))[:, None], index + self.offsets[:-1]] = 1.0
        shares = np.zeros((len(index), len(self._basis)))
        for _ in range(2):  # once more against rounding
            more = left @ self._basis.T
            left, shares = left - more @ self._basis, shares + more
        return left, shares
