"""ESNAC: Bayesian optimisation over learned embeddings of networks (Cao, Wang and Kitani, ICLR 2019).

In every step several bidirectional LSTMs are trained from scratch, each on a random half of the networks evaluated, so
that a Gaussian process on its embedding predicts each value from the others; each then names the network with the
largest expected improvement among random ones. The defaults are the paper's. Deviations:

* Networks outside of the budget are no candidates; with a budget the reward is the objective alone (`reward`).
* Rewards are standardised, so that the same noise and prior suit any metric (`standardise`).
* The first batch is random: an embedding trained on the teacher alone cannot tell networks apart.
* What was evaluated, or is already in the batch, is not proposed again; failed networks teach nothing.
* The teacher's reward of 0 is data only where the teacher is known: with the reward `compression`.
* `encoder = "transformer"`, `acquisition` and `maximise = "local"` are not in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core.contracts import Lab, Problem, Strategy
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import derive, numpy_rng
from sartor.sampling.candidates import Candidates
from sartor.sampling.compression import Kind as Reward
from sartor.sampling.compression import Worth
from sartor.sampling.embedding import Encoding, Kind, Recipe, embed, keep, load, one_thread, train
from sartor.sampling.gaussian import Posterior, improvement, log_improvement
from sartor.sampling.region import Region, at_least_one

__all__ = ["Esnac"]

ARTIFACT = "embedding.safetensors"


class Esnac(Strategy):
    """Bayesian optimisation with learned kernels.

    Args:
        problem: Any; the reward `compression` needs a cost model of `params`.
        seed: Of everything random.
        trials: How many networks are evaluated, the teacher's own evaluation included.
        batch: How many are proposed at a time; each by another kernel, as long as there are enough.
        kernels: Embeddings trained per step.
        subset: Probability that a kernel is told of a network.
        candidates: Networks a kernel chooses among.
        encoder: `lstm`, or `transformer` with attention instead.
        hidden: Units of the encoder; an embedding has twice as many numbers.
        layers: Of the encoder.
        alpha: Squared length scale of the kernel.
        beta: Variance of the noise.
        updates: Training steps per kernel at most.
        lr: Learning rate of the training.
        weight_decay: Of the training.
        acquisition: `ei`, expected improvement; `log_ei`, its logarithm, which tells apart what is hopeless, too;
            `thompson`, the best network of a random function from the posterior.
        maximise: Candidates are all `random`, or half of them mutations of the best ones: `local`.
        reward: `feasible` is the objective within the budget, `compression` is C (2 - C) times the accuracy as a share
            of the teacher's, C the share of parameters removed; `auto` is the latter if nothing is limited.
        teacher: The accuracy of the teacher; 0 evaluates the space's reference first.
        standardise: Whether rewards are brought to mean 0 and variance 1.
        fidelity: Of all trials but the last `best` and the teacher's.
        best: With a fidelity below 1, so many of the best networks are trained fully in the end, going on from the
            weights that their trials left, where the evaluator keeps them; these trials come on top of `trials`.
        embedding: A file `embedding.safetensors` of another search, taken as it is; nothing is trained then.
        device: Of the training: `cpu` or `cuda`.
    """

    saved = ("rng", "trials", "finished")
    smoke = {"trials": 9, "batch": 3, "kernels": 2, "candidates": 20, "hidden": 4, "layers": 1, "updates": 7}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 160,
        batch: int = 8,
        kernels: int = 8,
        subset: float = 0.5,
        candidates: int = 1000,
        encoder: Kind = "lstm",
        hidden: int = 64,
        layers: int = 4,
        alpha: float = 0.01,
        beta: float = 0.05,
        updates: int = 100,
        lr: float = 1e-3,
        weight_decay: float = 5e-4,
        acquisition: Literal["ei", "log_ei", "thompson"] = "ei",
        maximise: Literal["random", "local"] = "random",
        reward: Reward = "auto",
        teacher: float = 0.0,
        standardise: bool = True,
        fidelity: float = 1.0,
        best: int = 4,
        embedding: str = "",
        device: str = "cpu",
    ) -> None:
        at_least_one(trials=trials, batch=batch, kernels=kernels, candidates=candidates, updates=updates, best=best)
        if acquisition not in {"ei", "log_ei", "thompson"} or maximise not in {"random", "local"}:
            raise ConfigError(
                f"acquisition is {acquisition!r} and maximise {maximise!r}; they must be ei, log_ei or thompson, and "
                "random or local"
            )
        if not 0 < subset <= 1 or not 0 < fidelity <= 1:
            raise ConfigError(f"subset is {subset} and fidelity is {fidelity}; both must be in (0, 1]")
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.kernels, self.subset, self.count, self.acquisition = kernels, subset, candidates, acquisition
        self.standardise, self.fidelity, self.best = standardise, fidelity, best
        self.recipe = Recipe(encoder, hidden, layers, alpha, beta, updates, lr, weight_decay, device=device)
        self.worth, self.encoding = Worth(problem, reward, teacher), Encoding(problem.space)
        self.candidates = Candidates(Region(problem), local=maximise == "local")
        self.within_limits = not self.worth.first
        self.frozen = load(Path(embedding), self.encoding.features, self.recipe) if embedding else []
        self.rng = numpy_rng(seed, "esnac")
        self.trials: list[Trial] = []
        self.finished = False
        """Whether the best networks were trained fully."""
        self._trained: list[nn.Module] = []
        self._logs: dict[str, float] = {}

    def step(self, lab: Lab) -> bool:
        """Train kernels, evaluate what they name, and keep them for other searches."""
        proposals = self.ask(lab)
        if not proposals:
            return False
        self.tell(lab.evaluate(proposals))
        if self._logs:
            lab.log(**self._logs)
        if self._trained and not self.frozen:
            try:
                path = lab.artifact(ARTIFACT)
            except CapabilityError:  # a simulation has no folder, and needs none
                return True
            keep(self._trained, self.encoding.features, self.recipe, path)
        return True

    def ask(self, lab: Lab | None = None) -> list[Proposal]:
        """The next batch: the teacher, random networks, those that the kernels name, the best ones at full fidelity.

        Raises:
            BudgetError: No network is within the budget.
            DataError: The teacher or a network has no reward.
        """
        self._logs, self._trained = {}, []
        self.worth.meet(self.trials)
        if self.worth.unknown:
            return [Proposal(self.worth.reference)]
        count = min(self.batch, self.total - len(self.trials))
        if self.finished or count < 1:
            return self._last()
        seen = {t.arch for t in self.trials}
        archs, y = self._known()
        if len(archs) < 2:
            drawn = self.candidates.draw(count, self.rng, seen)
        else:
            with one_thread():
                drawn = self._named(count, archs, y, seen, lab)
        return [Proposal(arch, self.fidelity) for arch in drawn] or self._last()

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember results."""
        self.trials += trials
        self.worth.meet(self.trials)

    def parents(self) -> list[int]:
        """The best trials so far, of which some are trained further in the end."""
        return [t.index for t in self.worth.ranked(self.trials)[: self.best]] if self.fidelity < 1 else []

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The network with the largest reward under `limits`, of those trained longest; if none fits, a random one.

        Raises:
            BudgetError: No network meets them.
        """
        return self.worth.answer(self.trials, limits, numpy_rng(self.seed, "solve"))

    def _last(self) -> list[Proposal]:
        """The best networks so far at full fidelity, once."""
        if self.fidelity == 1 or self.finished:
            return []
        self.finished = True
        return [Proposal(t.arch, 1.0, t.index) for t in self.worth.ranked(self.trials)[: self.best]]

    def _known(self) -> tuple[list[Arch], Tensor]:
        """Networks and what a kernel is to predict, `(n,)`, float64; the first one is the teacher if it is known."""
        good = sorted(self.worth.ranked(self.trials), key=lambda t: t.index)
        archs, values = [t.arch for t in good], [self.worth(t) for t in good]
        if self.worth.kind == "compression":
            archs, values = [self.worth.reference, *archs], [0.0, *values]
        y = torch.tensor(values, dtype=torch.float64)
        if self.standardise and len(y):
            y = y.clamp_min(2 * y.median() - y.max())  # failures nearly as bad as can be would hide all else
            y = (y - y.mean()) / (y.std(correction=0) + 1e-12)
        return archs, y

    def _named(self, count: int, archs: list[Arch], y: Tensor, seen: set[Arch], lab: Lab | None) -> list[Arch]:
        """What the kernels name; one that names several takes each for as good as it expects when it names the next."""
        sequences, found, ends = self.encoding(archs), list[Arch](), list[float]()
        tops = [archs[i] for i in y.argsort(descending=True)[: self.batch].tolist() if archs[i] in seen]
        posteriors: list[tuple[nn.Module, Posterior, float]] = []
        for k in range(min(self.kernels, count)):
            index = self._subset(len(archs))
            if self.frozen:
                encoder = self.frozen[k % len(self.frozen)]
            else:
                encoder = self.recipe.fresh(self.encoding.features, derive(self.seed, "kernel", len(self.trials), k))
                ends.append(train(encoder, sequences[index], y[index], self.recipe)[-1])
            points = embed(encoder, sequences[index], self.recipe)
            posterior = Posterior(points, y[index], self.recipe.alpha, self.recipe.beta)
            posteriors.append((encoder, posterior, float(y[index].max())))
            if lab is not None:
                lab.progress(k + 1, min(self.kernels, count), "kernels")
        for i in range(count):
            encoder, posterior, top = posteriors[i % len(posteriors)]
            pick = self._pick(encoder, posterior, top, tops, seen | set(found))
            if pick is None:
                break
            found.append(pick[0])
            posteriors[i % len(posteriors)] = encoder, posterior.believing(pick[1]), top
        self._trained = [encoder for encoder, _, _ in posteriors]
        self._logs = {"likelihood": float(np.mean(ends))} if ends else {}
        return found

    def _subset(self, n: int) -> Tensor:
        """A random part of the networks: the first one, if it is the teacher, and at least two."""
        chosen = self.rng.random(n) < self.subset
        chosen[0] |= self.worth.kind == "compression"
        return torch.from_numpy(np.flatnonzero(chosen) if chosen.sum() > 1 else np.arange(n))

    def _pick(
        self, encoder: nn.Module, posterior: Posterior, top: float, tops: list[Arch], seen: set[Arch]
    ) -> tuple[Arch, Tensor] | None:
        """The candidate with the best acquisition, and its embedding; None if there is no new network."""
        points = dict[Arch, Tensor]()

        def score(archs: Sequence[Arch]) -> Tensor:
            embedded = embed(encoder, self.encoding(archs), self.recipe)
            points.update(zip(archs, embedded, strict=True))
            gain = improvement if self.acquisition == "ei" else log_improvement
            return gain(*posterior(embedded), top)

        pool, scores = self.candidates.pool(self.count, self.rng, seen, tops, score)
        if not pool:
            return None
        if self.acquisition == "thompson":
            normal = torch.from_numpy(self.rng.standard_normal(len(pool)))
            scores = posterior.draw(torch.stack([points[a] for a in pool]), normal)
        arch = pool[int(scores.argmax())]
        return arch, points[arch]
