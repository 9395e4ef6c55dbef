"""Cholesky factors of covariances: with a nugget where rounding leaves too little, and grown row by row.

An inverse that is kept and changed loses digits with every change, as many as the covariance is badly conditioned; a
factor loses none (Higham, "Accuracy and stability of numerical algorithms", 2002, chapter 10). Repeated and nearly
equal points leave a variance that is lost in rounding. Then a nugget, a share of the mean variance, is added to the
diagonal, the smallest one that helps (Gramacy and Lee, Statistics and Computing 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from torch import Tensor

from sartor.core.errors import SingularError

Floats: TypeAlias = NDArray[np.float64]
T = TypeVar("T")

NUGGETS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)
"""Tried in turn; shares of the mean of the diagonal."""
LEAST = 1e-12
"""Share of a variance that all others before it must leave unexplained: less is rounding."""


def factored(covariance: Tensor) -> tuple[Tensor, float]:
    """The lower factor of a covariance, and the share of the mean variance that had to be added to every variance.

    Args:
        covariance: `(..., n, n)`, float64; gradients flow through it. The larger nugget serves all matrices.

    Raises:
        SingularError: No nugget helps: a number is not finite, or the matrix is no covariance.
    """
    variances = covariance.detach().diagonal(dim1=-2, dim2=-1)

    def attempt(share: float) -> Tensor | None:
        matrix = covariance
        if share:
            matrix = covariance + torch.diag_embed(share * variances.mean(-1, keepdim=True).expand(variances.shape))
        lower, info = torch.linalg.cholesky_ex(matrix)
        left = lower.detach().diagonal(dim1=-2, dim2=-1).square()
        return lower if not info.any() and bool((left > LEAST * variances).all()) else None

    return _first(attempt)


def _first(attempt: Callable[[float], T | None]) -> tuple[T, float]:
    """What the smallest nugget gives, and that nugget."""
    for share in NUGGETS:
        found = attempt(share)
        if found is not None:
            return found, share
    raise SingularError(
        f"a covariance must have a Cholesky factor, this one has none with a nugget of up to {NUGGETS[-1]:g} of its "
        "mean variance; a value that is not finite, or very large weights of a diverged model, may be in it"
    )


class Factor:
    """The lower factor of a covariance that grows: O(n^2) for one more row, O(n^3) for a new start.

    The factor is kept in an array with room to grow, whose other rows are those of the identity: triangular solves then
    take the whole array, and copy nothing.
    """

    def __init__(self) -> None:
        self.count = 0
        """Rows and columns."""
        self.share = 0.0
        """What was added to every variance, as a share of their mean at the start."""
        self.nugget = 0.0
        """The same as a variance."""
        self._lower: Floats = np.eye(16)

    def start(self, covariance: Floats) -> None:
        """Factor `(n, n)` anew, in O(n^3).

        Raises:
            SingularError: No nugget helps; the factor then has no rows.
        """
        variances, mean = covariance.diagonal(), float(covariance.diagonal().mean())

        def attempt(share: float) -> Floats | None:
            matrix = covariance.copy()
            matrix.flat[:: len(matrix) + 1] += share * mean
            try:
                lower: Floats = np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
            except np.linalg.LinAlgError:
                return None
            return lower if (lower.diagonal() ** 2 > LEAST * variances).all() else None

        self.count, self.share, self.nugget = 0, 0.0, 0.0
        lower, self.share = _first(attempt)
        self.count = n = len(lower)
        self.nugget = self.share * mean
        self._lower = np.eye(max(16, n + n // 2))
        self._lower[:n, :n] = lower

    def append(self, row: Floats) -> bool:
        """One more row, in O(n^2).

        Args:
            row: Covariances with all before, then the variance, `(n + 1,)`.

        Returns:
            Whether it was added; False, with nothing changed, where rounding leaves the new one no variance of its own:
            then start anew.
        """
        n = self.count
        if n == len(self._lower):
            self._lower = np.pad(self._lower, (0, 8 + n // 2))
            rest = np.arange(n, len(self._lower))
            self._lower[rest, rest] = 1.0
        new = self.whitened(row[:n])
        left = float(row[n] + self.nugget - new @ new)
        if not left > LEAST * row[n]:
            return False
        self._lower[n, :n], self._lower[n, n], self.count = new, np.sqrt(left), n + 1
        return True

    @property
    def lower(self) -> Floats:
        """The factor, `(n, n)`."""
        return self._lower[: self.count, : self.count]

    @property
    def logarithm(self) -> float:
        """Of the square root of the determinant."""
        return float(np.log(self.lower.diagonal()).sum())

    def whitened(self, b: Floats) -> Floats:
        """The factor's inverse times `(n,)` or `(n, m)`: what has the identity as its covariance."""
        found = solve_triangular(self._lower, self._padded(b), lower=True, check_finite=False)
        return np.asarray(found[: self.count])

    def solve(self, b: Floats) -> Floats:
        """The covariance's inverse times `(n,)` or `(n, m)`."""
        white = solve_triangular(self._lower, self._padded(b), lower=True, check_finite=False)
        found = solve_triangular(self._lower, white, lower=True, trans="T", check_finite=False)
        return np.asarray(found[: self.count])

    def _padded(self, b: Floats) -> Floats:
        return np.concatenate([b, np.zeros((len(self._lower) - len(b), *b.shape[1:]))])
