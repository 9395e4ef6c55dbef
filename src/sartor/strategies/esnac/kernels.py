"""Learned kernels at work: networks are embedded once each, and every kernel names those that promise most."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.strategies.esnac.candidates import Candidates
from sartor.surrogates.curves import Targets
from sartor.surrogates.embedding import Encoding, Recipe, embed
from sartor.surrogates.gaussian import draw, improvement, log_improvement

Acquisition: TypeAlias = Literal["ei", "log_ei", "thompson"]


class Kernel:
    """An encoder that knows some networks and their values.

    Args:
        encoder: Trained.
        encoding: Of networks for the encoder.
        recipe: What the encoder was trained with.
        archs: The networks.
        targets: Their values.
    """

    def __init__(
        self, encoder: nn.Module, encoding: Encoding, recipe: Recipe, archs: Sequence[Arch], targets: Targets
    ) -> None:
        self.encoder, self.encoding, self.recipe = encoder, encoding, recipe
        self._points = dict[Arch, Tensor]()
        self.posterior = targets.posterior(self(archs), recipe.alpha, recipe.beta)
        self.top = float(targets.final.max())

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        """Embeddings, `(n, d)`."""
        new = [arch for arch in archs if arch not in self._points]
        if new:
            self._points.update(zip(new, embed(self.encoder, self.encoding(new), self.recipe), strict=True))
        return torch.stack([self._points[arch] for arch in archs])

    def believe(self, arch: Arch) -> None:
        """Take a network for as good as expected, when the next one is named."""
        self.posterior = self.posterior.believing(self([arch])[0])


class Chooser:
    """Names the networks with the best acquisition.

    Args:
        candidates: Where they come from.
        count: Networks that a kernel chooses among.
        acquisition: What is maximised.

    Raises:
        ConfigError: There is no such acquisition.
    """

    def __init__(self, candidates: Candidates, count: int, acquisition: Acquisition) -> None:
        if acquisition not in {"ei", "log_ei", "thompson"}:
            raise ConfigError(f"acquisition is {acquisition!r}; it must be ei, log_ei or thompson")
        self.candidates, self.count, self.acquisition = candidates, count, acquisition

    def __call__(
        self,
        count: int,
        kernels: Sequence[Kernel],
        rng: np.random.Generator,
        seen: Collection[Arch],
        tops: Sequence[Arch],
        known: Sequence[Arch] = (),
    ) -> list[Arch]:
        """Up to `count` different networks, the kernels in turn; fewer where the space has no more.

        Args:
            count: How many.
            kernels: The random candidates of all are the same, so that each is described once.
            rng: Of the candidates.
            seen: Not to be named.
            tops: Parents of the first mutations.
            known: Candidates beside the random ones.
        """
        first = self.candidates.draw(self.candidates.start(self.count), rng, seen)
        first = list(dict.fromkeys([*first, *(arch for arch in known if arch not in seen)]))
        found = list[Arch]()
        for i in range(count):
            kernel = kernels[i % len(kernels)]
            pool, scores = self._scored(kernel, first, rng, {*seen, *found}, tops)
            if not pool:
                break
            found.append(pool[int(scores.argmax())])
            if i + len(kernels) < count:
                kernel.believe(found[-1])
        return found

    def _scored(
        self,
        kernel: Kernel,
        first: Sequence[Arch],
        rng: np.random.Generator,
        seen: Collection[Arch],
        tops: Sequence[Arch],
    ) -> tuple[list[Arch], Tensor]:
        gain = improvement if self.acquisition == "ei" else log_improvement

        def score(archs: Sequence[Arch]) -> Tensor:
            return gain(*kernel.posterior(kernel(archs)), kernel.top)

        pool, scores = self.candidates.pool(self.count, rng, seen, tops, score, first)
        if pool and self.acquisition == "thompson":
            normal = torch.from_numpy(rng.standard_normal(len(pool)))
            scores = draw(*kernel.posterior.joint(kernel(pool)), normal)
        return pool, scores
