"""A policy over a sequence of choices that reads them with an LSTM; trained by policy gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core.rng import global_seed
from sartor.policies.softmax import Floats, Ints
from sartor.surrogates.embedding import one_thread


class Recurrent:
    """One softmax per choice.

    Either all choices are read in both directions, and are independent given that, or each is read after the options
    that were drawn for those before it.

    Args:
        rows: What is read, `(n, features)`; can be replaced by others of the same shape.
        sizes: Options per choice.
        seed: Of the initial weights.
        hidden: Units per direction.
        layers: Of the LSTM.
        lr: Step of Adam.
        autoregressive: Whether a choice sees the options before it.
    """

    def __init__(
        self,
        rows: Tensor,
        sizes: Sequence[int],
        seed: int,
        *,
        hidden: int,
        layers: int,
        lr: float,
        autoregressive: bool,
    ) -> None:
        self.rows, self.sizes, self.autoregressive = rows, np.array(sizes), autoregressive
        self.k = k = max(sizes)
        self._wall = torch.where(torch.arange(k) < torch.tensor(sizes)[:, None], 0.0, -torch.inf)
        enter, leave = (rows.shape[1] + k, hidden) if autoregressive else (rows.shape[1], 2 * hidden)
        with global_seed(seed):
            lstm = nn.LSTM(enter, hidden, layers, bidirectional=not autoregressive, batch_first=True)
            self.net = nn.ModuleDict({"lstm": lstm, "head": nn.Linear(leave, k)})
        self.adam = torch.optim.Adam(self.net.parameters(), lr=lr)

    @torch.no_grad()
    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        """Option indices of `count` networks, `(count, n)`."""
        uniform = rng.random((count, len(self.rows)))
        with one_thread():
            if not self.autoregressive:
                return self._invert(self._logs(np.zeros((1, len(self.rows)), dtype=np.int64)), uniform)
            index, state = np.zeros((count, 0), dtype=np.int64), None
            before = torch.zeros(count, self.k)
            for i, row in enumerate(self.rows):
                read = torch.cat([row.expand(count, -1), before], 1)[:, None]
                states, state = self.net["lstm"](read, state)
                logs = (self.net["head"](states) + self._wall[i]).log_softmax(-1)
                new = self._invert(logs, uniform[:, i : i + 1], self.sizes[i : i + 1])
                index, before = np.concatenate([index, new], 1), torch.eye(self.k)[new[:, 0]]
            return index

    def log_probs(self, index: Ints) -> Tensor:
        """Logarithms of the probabilities of networks `(m, n)`, `(m,)`."""
        logs = self._logs(index).expand(len(index), -1, -1)
        return logs.gather(2, torch.from_numpy(index)[:, :, None])[:, :, 0].sum(1)

    def ascend(self, index: Ints, weights: Floats, entropy: float = 0.0) -> None:
        """One step of Adam along the gradient of `sum_m weights_m log p(index_m)`, and of the mean entropy."""
        with one_thread():
            self.adam.zero_grad()
            loss = -(torch.from_numpy(weights).float() * self.log_probs(index)).sum()
            if entropy:
                logs = self._logs(index)
                loss = loss + entropy * (logs.exp() * logs.clamp_min(-1e9)).sum(2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Weights and moments."""
        return {"net": self.net.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        self.net.load_state_dict(state["net"])
        self.adam.load_state_dict(state["adam"])

    def _logs(self, index: Ints) -> Tensor:
        """Log-probabilities of every option, `(m, n, k)`; `(1, n, k)` if none depends on another."""
        rows = self.rows[None]
        if self.autoregressive:
            taken = torch.eye(self.k)[torch.from_numpy(index)]
            before = torch.cat([torch.zeros_like(taken[:, :1]), taken[:, :-1]], 1)
            rows = torch.cat([rows.expand(len(index), -1, -1), before], 2)
        states, _ = self.net["lstm"](rows)
        logs: Tensor = (self.net["head"](states) + self._wall).log_softmax(-1)
        return logs

    def _invert(self, logs: Tensor, uniform: Floats, sizes: Ints | None = None) -> Ints:
        below = (logs.exp().double().cumsum(2).numpy() < uniform[:, :, None]).sum(2)
        return np.asarray(np.minimum(below, (self.sizes if sizes is None else sizes) - 1))
