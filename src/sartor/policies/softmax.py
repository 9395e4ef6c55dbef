"""Softmax policies over the options of a space, in numpy: draws, log-probabilities, gradients, Adam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


class Policy:
    """One softmax per choice; its logits may depend, linearly, on the options chosen before it.

    With `n` choices of at most `k` options, `theta[0]` holds the biases `(n * k,)` and, where earlier choices matter,
    `theta[1]` holds what each earlier option adds to each logit, `(n * k, n * k)`.

    Args:
        sizes: Options per choice.
        rng: Of the initial biases.
        lr: Step of Adam (Kingma and Ba, 2015, with its usual constants).
        autoregressive: Whether logits depend on earlier choices; else all choices are independent.
        scale: Standard deviation of the initial biases.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        rng: np.random.Generator,
        *,
        lr: float,
        autoregressive: bool = False,
        scale: float = 1e-3,
    ) -> None:
        self.sizes, self.lr, self.step = np.array(sizes), lr, 0
        self.n, self.k = n, k = len(sizes), max(sizes)
        self._place, self._codes = np.arange(n), np.arange(k)
        self._wall = np.where(self._codes < self.sizes[:, None], 0.0, -np.inf)
        self.theta: list[Floats] = [scale * rng.standard_normal(n * k)]
        if autoregressive:
            self.theta.append(np.zeros((n * k, n * k)))
            place = np.repeat(self._place, k)
            self._earlier = place[:, None] < place
        self._moments = [(np.zeros_like(t), np.zeros_like(t)) for t in self.theta]

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        """Option indices of `count` networks, `(count, n)`."""
        uniform = rng.random((count, self.n))
        if len(self.theta) == 1:
            return self._invert(self.probs(np.zeros((1, self.n), dtype=np.int64)), uniform)
        index = np.zeros((count, self.n), dtype=np.int64)
        for i in range(self.n):  # later choices are still zero, and do not count
            index[:, i] = self._invert(self.probs(index), uniform)[:, i]
        return index

    def probs(self, index: Ints) -> Floats:
        """Probabilities of every option given the earlier ones in `index`, `(m, n, k)`; `(1, n, k)` if independent."""
        logits = self.theta[0]
        if len(self.theta) > 1:
            logits = logits + self._one_hot(index).reshape(len(index), -1) @ self.theta[1]
        logits = logits.reshape(-1, self.n, self.k) + self._wall
        powers = np.exp(logits - logits.max(2, keepdims=True))
        return np.asarray(powers / powers.sum(2, keepdims=True))

    def log_probs(self, index: Ints, probs: Floats) -> Floats:
        """`(m,)` logarithms of the probabilities of networks `(m, n)`, given the probabilities of their options."""
        if len(probs) == 1:
            return np.asarray(np.log(probs[0, self._place, index]).sum(1))
        return np.asarray(np.log(probs[np.arange(len(index))[:, None], self._place, index]).sum(1))

    def gradient(self, index: Ints, weights: Floats, probs: Floats, entropy: float = 0.0) -> list[Floats]:
        """Of `sum_m weights_m log p(index_m)` plus `entropy` times the mean entropy, one array per `theta`.

        The entropy of a choice is that given the earlier options in `index`, on which its gradient does not wait.

        Args:
            index: `(m, n)` option indices.
            weights: `(m,)`.
            probs: Of the options in `index`.
            entropy: Weight of the entropy.
        """
        chosen = self._one_hot(index)
        slope = weights[:, None, None] * (chosen - probs)
        if entropy:
            logs = np.log(np.where(probs > 0, probs, 1.0))
            mean = (probs * logs).sum(2, keepdims=True)
            slope = slope - entropy / len(index) * probs * (logs - mean)
        slope = slope.reshape(len(index), -1)
        if len(self.theta) == 1:
            return [slope.sum(0)]
        return [slope.sum(0), np.where(self._earlier, chosen.reshape(len(index), -1).T @ slope, 0.0)]

    def ascend(self, gradient: Sequence[Floats]) -> None:
        """One step of Adam uphill."""
        self.step += 1
        first, second = 1 - 0.9**self.step, 1 - 0.999**self.step
        for theta, slope, (mean, square) in zip(self.theta, gradient, self._moments, strict=True):
            np.add(mean, 0.1 * (slope - mean), out=mean)
            np.add(square, 0.001 * (slope * slope - square), out=square)
            np.add(theta, self.lr * (mean / first) / (np.sqrt(square / second) + 1e-8), out=theta)

    def state_dict(self) -> dict[str, Any]:
        """Parameters and moments as nested lists."""
        moments = [[m.tolist(), v.tolist()] for m, v in self._moments]
        return {"theta": [t.tolist() for t in self.theta], "moments": moments, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        self.step = state["step"]
        for live, saved in zip(self.theta, state["theta"], strict=True):
            live[:] = saved
        for pair, saved in zip(self._moments, state["moments"], strict=True):
            for live, values in zip(pair, saved, strict=True):
                live[:] = values

    def _one_hot(self, index: Ints) -> Floats:
        return np.asarray(index[:, :, None] == self._codes, dtype=np.float64)

    def _invert(self, probs: Floats, uniform: Floats) -> Ints:
        below = (probs.cumsum(2) < uniform[:, :, None]).sum(2)
        return np.asarray(np.minimum(below, self.sizes - 1))  # the last sum may be just under 1
