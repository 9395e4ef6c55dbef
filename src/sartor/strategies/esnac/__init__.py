"""ESNAC: Bayesian optimisation over learned embeddings of networks (Cao, Wang and Kitani, ICLR 2019).

In every step several bidirectional LSTMs are trained from scratch, each on a random half of the networks evaluated, so
that a Gaussian process on its embedding predicts each value from the others; each then names the network with the
largest expected improvement among random ones. The defaults are the paper's. Deviations:

* Networks outside of the budget are no candidates; with a budget the reward is the objective alone (`reward`).
* Rewards are standardised, so that the same noise and prior suit any metric (`standardise`).
* The first batch is random: an embedding trained on the teacher alone cannot tell networks apart.
* What was evaluated, or is already in the batch, is not proposed again; failed networks teach nothing.
* The teacher's reward of 0 is data only where the teacher is known: with the reward `compression`.
* Kernels of a step choose among the same random networks, which are described once; each has its own in the paper.
* Where rounding leaves a covariance no factor it gets a nugget (`nugget` in the log); a kernel whose training diverged
  names nothing (`failed_kernels`), and if all have, the batch is random.
* The paper has no `acquisition`, `maximise`, `narrowed`, `curve` and `earlier`, nor other encoders and `warm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core.contracts import Lab, Problem, Strategy
from sartor.core.errors import CapabilityError, ConfigError, SingularError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import derive, numpy_rng
from sartor.regions.compression import Kind as Reward
from sartor.regions.compression import Worth
from sartor.regions.region import Region, at_least_one
from sartor.strategies.esnac.candidates import Candidates
from sartor.strategies.esnac.earlier import earlier as read_earlier
from sartor.strategies.esnac.kernels import Acquisition, Chooser, Kernel
from sartor.surrogates.curves import Targets, curved, plain, standardised
from sartor.surrogates.embedding import FILE, PAPER, Encoding, Recipe, keep, load, one_thread, train

__all__ = ["Esnac"]


class Esnac(Strategy):
    """Bayesian optimisation with learned kernels.

    Args:
        problem: Any; the reward `compression` needs a cost model of `params`.
        seed: Of everything random.
        trials: How many networks are evaluated, the teacher's own evaluation included.
        batch: How many are proposed at a time; each by another kernel, as long as there are enough.
        kernels: Embeddings trained per step.
        candidates: Networks a kernel chooses among.
        acquisition: `ei`, expected improvement; `log_ei`, its logarithm, which tells apart what is hopeless, too;
            `thompson`, the best network of a random function from the posterior.
        maximise: Candidates are all `random`, or half of them children of the best ones: `local`.
        narrowed: So many networks of the first batch are the reference narrowed evenly, not random ones.
        reward: `feasible` is the objective within the budget, `compression` is C (2 - C) times the accuracy as a share
            of the teacher's, C the share of parameters removed; `auto` is the latter if nothing is limited.
        teacher: The accuracy of the teacher; 0 evaluates the space's reference first.
        standardise: Whether rewards are brought to mean 0 and variance 1.
        curve: Whether to learn from the epochs before the last, too, which the evaluator must report (`curve = true`).
        earlier: Run folders of searches on the same space that have ended, whose trials are known from the start; a
            list, or a string with commas.
        fidelity: Of all trials but the last `best` and the teacher's.
        best: With a fidelity below 1, so many of the best networks are trained fully in the end, going on from the
            weights that their trials left, where the evaluator keeps them; these trials come on top of `trials`.
        embedding: How an embedding is made and trained, a table: `encoder` (`lstm`; `transformer`, with attention
            instead; `graph`, with messages between connected layers), `hidden`, `layers`, `alpha`, `beta`, `updates`,
            `lr`, `weight_decay`, `tolerance`, `subset`, `warm`, `file`, `device`; see sartor.surrogates.embedding.
    """

    saved = ("rng", "finished", "weights")
    smoke = {
        "trials": 9,
        "batch": 3,
        "kernels": 2,
        "candidates": 20,
        "embedding": Recipe(hidden=4, layers=1, updates=7),
    }

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 160,
        batch: int = 8,
        kernels: int = 8,
        candidates: int = 1000,
        acquisition: Acquisition = "ei",
        maximise: Literal["random", "local"] = "random",
        narrowed: int = 0,
        reward: Reward = "auto",
        teacher: float = 0.0,
        standardise: bool = True,
        curve: bool = False,
        earlier: str | Sequence[str] = "",
        fidelity: float = 1.0,
        best: int = 4,
        embedding: Recipe = PAPER,
    ) -> None:
        at_least_one(trials=trials, batch=batch, kernels=kernels, candidates=candidates, best=best)
        if maximise not in {"random", "local"} or (curve and not standardise):
            raise ConfigError(
                f"maximise is {maximise!r}, curve is {curve} and standardise is {standardise}; maximise must be random "
                "or local, and curves are always standardised"
            )
        if not 0 < fidelity <= 1:
            raise ConfigError(f"fidelity is {fidelity}; it must be in (0, 1]")
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.kernels, self.recipe = kernels, embedding
        self.standardise, self.curve, self.fidelity, self.best = standardise, curve, fidelity, best
        self.worth = Worth(problem, reward, teacher)
        self.encoding = Encoding(problem.space, links=embedding.encoder == "graph")
        self.region = Region(problem)
        choices = Candidates(self.region, local=maximise == "local", narrowed=narrowed)
        self.choose = Chooser(choices, candidates, acquisition)
        self.within_limits = not self.worth.first
        self.earlier = read_earlier(earlier, problem, fidelity)
        self.frozen = load(Path(embedding.file), self.encoding.features, embedding) if embedding.file else []
        self.rng = numpy_rng(seed, "esnac")
        self.trials: list[Trial] = []
        self.finished = False
        """Whether the best networks were trained fully."""
        self.weights: list[dict[str, Tensor]] = []
        """Of each kernel, if the next step starts from them."""
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
                path = lab.artifact(FILE)
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
        archs, targets = self._known()
        if len(archs) < 2:
            drawn = self.choose.candidates.first(count, self.rng, seen)
        else:
            with one_thread():
                drawn = self._named(count, archs, targets, seen, lab)
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

    def _known(self) -> tuple[list[Arch], Targets]:
        """Networks and what a kernel is to predict; the first one is the teacher if it is known."""
        own = sorted(self.worth.ranked(self.trials), key=lambda t: t.index)
        seen = {t.arch for t in self.trials}
        good = [*(t for t in self.earlier if t.arch not in seen and t.arch != self._teacher), *own]
        epochs = self.worth.epochs(good) if self.curve and good else []
        archs, values = [t.arch for t in good], [self.worth.curve(t, epochs) for t in good]
        if self._teacher is not None:
            archs, values = [self._teacher, *archs], [[0.0] * (len(epochs) + 1), *values]
        y = torch.tensor(values, dtype=torch.float64).reshape(len(values), len(epochs) + 1)
        if epochs and len(y) > 1:
            return archs, curved(y, self.recipe.beta)
        return archs, plain(standardised(y[:, -1]) if self.standardise else y[:, -1])

    @property
    def _teacher(self) -> Arch | None:
        """Its reward is 0, whatever it reaches, if rewards are for compression."""
        return self.worth.reference if self.worth.kind == "compression" else None

    def _named(self, count: int, archs: list[Arch], targets: Targets, seen: set[Arch], lab: Lab | None) -> list[Arch]:
        """What the kernels name; one that names several takes each for as good as it expects when it names the next."""
        kernels, ends, wanted = list[Kernel](), list[float](), min(self.kernels, count)
        sequences = self.encoding(archs)
        for k in range(wanted):
            index, encoder = self._subset(len(archs)), self._encoder(k)
            told = [archs[i] for i in index.tolist()]
            with suppress(SingularError):  # its training has diverged
                if not self.frozen:
                    ends.append(train(encoder, sequences[index], targets[index], self.recipe)[-1])
                kernels.append(Kernel(encoder, self.encoding, self.recipe, told, targets[index]))
            if lab is not None:
                lab.progress(k + 1, wanted, "kernels")
        best = [archs[i] for i in targets.final.argsort(descending=True, stable=True).tolist()]
        tops = [arch for arch in best[: self.batch] if arch != self._teacher and arch in self.region]
        known = [t.arch for t in self.earlier if t.arch in self.region]
        found, failed = list[Arch](), wanted - len(kernels)
        try:
            found = self.choose(count, kernels, self.rng, seen, tops, known) if kernels else []
        except SingularError:
            kernels, failed = [], wanted
        self._trained = [kernel.encoder for kernel in kernels]
        if self.recipe.warm and not self.frozen:
            self.weights[: len(kernels)] = [{n: t.clone() for n, t in e.state_dict().items()} for e in self._trained]
        self._logs = {"likelihood": float(np.mean(ends))} if ends else {}
        nugget = max((kernel.posterior.nugget for kernel in kernels), default=0.0)
        self._logs |= {name: v for name, v in (("nugget", nugget), ("failed_kernels", float(failed))) if v}
        return found if kernels else self.choose.candidates.draw(count, self.rng, seen)

    def _encoder(self, k: int) -> nn.Module:
        """That of the k-th kernel before it is trained."""
        if self.frozen:
            return self.frozen[k % len(self.frozen)]
        encoder = self.recipe.fresh(self.encoding.features, derive(self.seed, "kernel", len(self.trials), k))
        if k < len(self.weights):
            encoder.load_state_dict(self.weights[k])
        return encoder

    def _subset(self, n: int) -> Tensor:
        """A random part of the networks: the first one, if it is the teacher, and at least two."""
        chosen = self.rng.random(n) < self.recipe.subset
        chosen[0] |= self._teacher is not None
        return torch.from_numpy(np.flatnonzero(chosen) if chosen.sum() > 1 else np.arange(n))
