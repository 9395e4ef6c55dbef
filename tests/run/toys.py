"""A space, strategies and evaluators that cost nothing, for the tests of the run."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sartor.core import state
from sartor.core.contracts import AskTell, CostModel, Evaluator, Lab, Problem, Space, Strategy
from sartor.core.errors import ConfigError, DivergedError
from sartor.core.records import Arch, Choice, Constraint, Objective, Proposal, Trial
from sartor.core.rng import derive, numpy_rng
from sartor.run.journal import FileJournal, read_logs, read_trials
from sartor.run.lab import judged_job


class Toy(Space):
    choices = tuple(Choice(name, (1, 2, 3, 4), ordered=True) for name in "abc")

    def build(self, arch: Arch) -> nn.Module:
        return nn.Linear(1, 1 + sum(arch))


class Sum(CostModel):
    metric = "macs"

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return torch.tensor([float(sum(a)) for a in archs], dtype=torch.float64)


class Score(Evaluator):
    """A number that depends on the arch and the trial's seed; `before` may do anything first."""

    def __init__(self, before: Callable[[int], object] | None = None) -> None:
        self.before = before
        self.calls: list[Arch] = []

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        self.calls.append(proposal.arch)
        if self.before is not None:
            self.before(len(self.calls))
        return {"accuracy": derive(seed, *proposal.arch) / 2**63}


def problem() -> Problem:
    return Problem(Toy(), (Objective("accuracy", "max"),), (Constraint("macs", 9.0),), {"macs": Sum()})


def scores(arguments: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any]:
    """Work for workers: `Score` after a while, and whatever else `arguments` says of a trial.

    `seconds` is how long each takes; `marks`, a folder, gets a file per trial that has begun, with the processes that
    were at it; `acts` is what happens in a trial, by its index: see `act`.
    """

    def work(job: Mapping[str, Any]) -> Any:
        index = job["index"]
        if "marks" in arguments:
            with (Path(arguments["marks"]) / str(index)).open("a", encoding="utf-8") as file:
                file.write(f"{os.getpid()}\n")
        act(arguments.get("acts", {}).get(str(index), ""))
        time.sleep(arguments.get("seconds", 0.0))
        if arguments.get("where"):
            return {"cores": sorted(os.sched_getaffinity(0)), "threads": torch.get_num_threads()}
        return judged_job(Score(), job, Path(arguments.get("artifacts", ".")))

    return work


def act(what: str) -> None:
    """Misfortunes of a trial."""
    match what:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
        case "fail":
            raise ValueError("bad layer")
        case "nan":
            raise DivergedError("metric 'accuracy' is nan")
        case "fatal":
            raise ConfigError("mend me")
        case "fill":
            torch.zeros(2_000_000_000).sum()


def draw(rng: Any) -> Arch:
    return tuple(int(v) for v in rng.integers(4, size=3))


class Draws(AskTell):
    """Random batches; knows what it was told."""

    saved = ("rng", "told")

    def __init__(self, problem: Problem, seed: int, *, batch: int = 3, trials: int = 9) -> None:
        self.rng = numpy_rng(seed, "draws")
        self.told: list[Trial] = []
        self.batch, self.total = batch, trials

    def ask(self) -> list[Proposal]:
        left = self.total - len(self.told) - sum(map(len, self.waiting))
        return [Proposal(draw(self.rng)) for _ in range(min(self.batch, left))]

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told += trials


class Walk(Strategy):
    """Goes from the best arch so far to a neighbour; keeps tensors, a module and a generator; logs twice a step."""

    saved = ("rng", "torch_rng", "best", "weights", "average", "done")

    def __init__(self, problem: Problem, seed: int, *, steps: int = 5, batch: int = 2) -> None:
        self.rng = numpy_rng(seed, "walk")
        self.torch_rng = torch.Generator().manual_seed(derive(seed, "torch"))
        self.best: Trial | None = None
        self.weights = nn.Linear(2, 2)
        self.average = torch.zeros(2)
        self.steps, self.batch, self.done = steps, batch, 0
        with torch.no_grad():
            for parameter in self.weights.parameters():
                parameter.zero_()

    def step(self, lab: Lab) -> bool:
        if self.done == self.steps:
            return False
        trials = lab.evaluate([Proposal(self._neighbour(), fidelity=0.5) for _ in range(self.batch)])
        for trial in trials:
            if self.best is None or trial.metrics["accuracy"] > self.best.metrics["accuracy"]:
                self.best = trial
        with torch.no_grad():
            self.weights.weight += torch.randn(2, 2, generator=self.torch_rng)
            self.average = 0.5 * self.average + self.weights.weight[0]
        self.done += 1
        lab.log(best=self.best.metrics["accuracy"], done=self.done)
        lab.log(average=float(self.average.sum()))
        return self.done < self.steps

    def _neighbour(self) -> Arch:
        if self.best is None:
            return draw(self.rng)
        i = int(self.rng.integers(3))
        return tuple(int(self.rng.integers(4)) if k == i else a for k, a in enumerate(self.best.arch))


def outcome(folder: Path) -> tuple[list[Trial], list[dict[str, Any]], Any]:
    """Trials, logs and the final checkpoint of a run: what a kill must not change."""
    journal = FileJournal(folder / "journal.jsonl")
    return read_trials(journal), read_logs(journal), state.load(folder / "state.safetensors")


def same(a: Any, b: Any) -> bool:
    """Equality of nested plain data, bit for bit in tensors."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes inside the block: a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
