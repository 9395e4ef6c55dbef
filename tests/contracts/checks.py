"""What every strategy must do, as functions of a strategy class: also run on defective ones, to see that they fail."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from problems import small_problem
from sartor import archs
from sartor.core import state
from sartor.core.abilities import Solvable
from sartor.core.contracts import Evaluator, Lab, Strategy
from sartor.core.errors import BudgetError
from sartor.core.records import Constraint, Trial
from sartor.core.rng import derive
from sartor.evaluators.synthetic import Synthetic
from sartor.run.journal import FileJournal, read_trials
from sartor.run.runner import CHECKPOINT, Limits, run

from strategies.searching import problem as spacious  # isort: skip

MAX_TRIALS = 24
WORDLESS = (1, 4, 9, 14)
"""Trials in which a session ends without a last word."""
FEW, MORE, MANY = 10, 40, 100
"""Trials of searches: the checkpoints of the first and the last should be of one size."""
PER_TRIAL = 3
"""Bytes that a checkpoint may grow by per trial between the two, for numbers with more digits: a list of what was tried
takes more, whatever it keeps of a trial."""


class Dies(Evaluator):
    """Interrupts the whole process at the n-th call."""

    def __init__(self, calls: int) -> None:
        self.inner, self.calls = Synthetic(small_problem(), noise=0.01), calls

    def __call__(self, proposal, seed):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return self.inner(proposal, seed)


class Fails(Evaluator):
    """Every network fails."""

    def __call__(self, proposal, seed):
        raise ValueError("diverged")


class Copies(Evaluator):
    """Keeps what is on disk at the n-th call: what a kill there would leave."""

    def __init__(self, folder: Path, calls: Mapping[int, Path]) -> None:
        self.inner, self.folder, self.calls, self.count = Synthetic(small_problem(), noise=0.01), folder, calls, 0

    def __call__(self, proposal, seed):
        self.count += 1
        if self.count in self.calls:
            shutil.copytree(self.folder, self.calls[self.count])
        return self.inner(proposal, seed)


class Near(Evaluator):
    """The nearer to the fourth options, the better; never twice the same."""

    def __call__(self, proposal, seed):
        return {"accuracy": 1 / (1 + sum((a - 3) ** 2 for a in proposal.arch)) + derive(seed, "noise") / 2**69}


class DiesInside(Lab):
    """Interrupts the whole process at the n-th progress, log or artifact of a lab: in the middle of a step."""

    def __init__(self, lab: Lab, calls: int) -> None:
        self.lab, self.calls = lab, calls

    def _count(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt

    def evaluate(self, proposals, ahead=()):
        return self.lab.evaluate(proposals, ahead)

    def log(self, **scalars):
        self._count()
        self.lab.log(**scalars)

    def artifact(self, name):
        self._count()
        return self.lab.artifact(name)

    def progress(self, done, total, label=""):
        self._count()
        self.lab.progress(done, total, label)


class Through(Strategy):
    """Runs a strategy behind another lab."""

    saved = ("inner",)

    def __init__(self, inner: Strategy, calls: int) -> None:
        self.inner, self.calls = inner, calls

    def step(self, lab):
        dying = DiesInside(lab, self.calls)
        try:
            return self.inner.step(dying)
        finally:
            self.calls = dying.calls

    def recall(self, trials):
        self.inner.recall(trials)


class Remembers(Lab):
    """Keeps all trials of a lab, as a journal does."""

    def __init__(self) -> None:
        self.lab: Lab | None = None
        self.trials: list[Trial] = []

    def evaluate(self, proposals, ahead=()):
        trials = self.lab.evaluate(proposals, ahead)
        self.trials += trials
        return trials

    def log(self, **scalars):
        self.lab.log(**scalars)

    def artifact(self, name):
        return self.lab.artifact(name)

    def progress(self, done, total, label=""):
        self.lab.progress(done, total, label)


class Reborn(Strategy):
    """Rebuilds a strategy from its own state, and the trials of its steps, after every step."""

    saved = ("inner",)

    def __init__(self, make: Callable[[], Strategy]) -> None:
        self.make, self.inner, self.memory = make, make(), Remembers()

    def step(self, lab):
        self.memory.lab = lab
        going = self.inner.step(self.memory)
        again = self.make()
        again.load_state_dict(self.inner.state_dict())
        again.recall(self.memory.trials)
        self.inner = again
        return going

    def recall(self, trials):
        self.memory.trials = list(trials)
        self.inner.recall(trials)


def fresh(cls: type[Strategy], seed: int = 0) -> Strategy:
    return cls(small_problem(), seed, **cls.smoke)


def search(
    strategy: Strategy, folder: Path, evaluator: Evaluator | None = None, max_trials: int | None = MAX_TRIALS
) -> bool:
    problem = small_problem()
    judge = evaluator or Synthetic(problem, noise=0.01)
    return run(strategy, problem, judge, folder=folder, seed=0, limits=Limits(trials=max_trials))


def recorded(folder: Path) -> list[Trial]:
    return read_trials(FileJournal(folder / "journal.jsonl"))


def saved(folder: Path) -> Any:
    """The last checkpoint, without the wrappers of these checks."""
    if not (folder / CHECKPOINT).exists():
        return None
    data = state.load(folder / CHECKPOINT)["strategy"]
    return data["inner"] if data.keys() == {"inner"} else data


def artifacts(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "artifacts").glob("*"))}


def same(a: Any, b: Any) -> bool:
    """Bitwise equality of nested plain data; NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) or bool(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def assert_equal(a: Path, b: Path) -> None:
    """Trials, final state and artifacts are the same, bit for bit."""
    assert recorded(a) == recorded(b)
    assert same(saved(a), saved(b))
    assert artifacts(a) == artifacts(b)


def is_final_with_keyword_settings(cls: type[Strategy]) -> None:
    assert issubclass(cls, Strategy)
    assert not inspect.isabstract(cls)
    problem, seed, *settings = inspect.signature(cls).parameters.values()
    assert (problem.name, seed.name) == ("problem", "seed")
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in settings)


def documents_every_setting(cls: type[Strategy]) -> None:
    words = inspect.getdoc(cls) or ""
    for name in inspect.signature(cls).parameters:
        assert f"{name}: " in words, f"{cls.__name__} does not document {name}"


def finishes_with_trials(cls: type[Strategy], tmp_path: Path) -> None:
    assert search(fresh(cls), tmp_path, max_trials=None)
    assert recorded(tmp_path)


def proposes_only_archs_of_the_space(cls: type[Strategy], whole: Path) -> None:
    problem = small_problem()
    for t in recorded(whole):
        assert len(t.arch) == len(problem.space.choices)
        assert all(0 <= a < len(c.options) for a, c in zip(t.arch, problem.space.choices, strict=True))
        assert problem.space.canonical(t.arch) == t.arch
        assert 0 < t.fidelity <= 1


def stays_within_limits(cls: type[Strategy], whole: Path) -> None:
    problem = small_problem()
    assert all(problem.feasible(t.arch) for t in recorded(whole))


def says_whether_it_shares_weights(cls: type[Strategy], whole: Path) -> None:
    """Who leaves a supernet behind trains one for all its trials, and must take epochs: a comparison gives it those."""
    assert cls.shares_weights == ("supernet.safetensors" in artifacts(whole))
    assert not cls.shares_weights or "epochs" in inspect.signature(cls).parameters


def same_seed_same_run(cls: type[Strategy], whole: Path, tmp_path: Path) -> None:
    search(fresh(cls), tmp_path)
    assert (tmp_path / "journal.jsonl").read_bytes() == (whole / "journal.jsonl").read_bytes()
    assert_equal(tmp_path, whole)


def killed_in_a_trial_resumes_exactly(cls: type[Strategy], whole: Path, tmp_path: Path, calls: int) -> None:
    try:
        search(fresh(cls), tmp_path, Dies(calls))
    except KeyboardInterrupt:
        search(fresh(cls), tmp_path)
    assert_equal(tmp_path, whole)


def killed_in_a_step_resumes_exactly(cls: type[Strategy], whole: Path, tmp_path: Path, calls: int) -> None:
    try:
        search(Through(fresh(cls), calls), tmp_path)
    except KeyboardInterrupt:
        search(Through(fresh(cls), 10**9), tmp_path)
    assert_equal(tmp_path, whole)


def larger_budget_goes_on_exactly(cls: type[Strategy], whole: Path, tmp_path: Path, first: int) -> None:
    search(fresh(cls), tmp_path, max_trials=first)
    search(fresh(cls), tmp_path)
    assert_equal(tmp_path, whole)


def saved_state_is_complete(cls: type[Strategy], whole: Path, tmp_path: Path) -> None:
    search(Reborn(lambda: fresh(cls)), tmp_path)
    assert_equal(tmp_path, whole)


def killed_without_a_word_resumes_exactly(cls: type[Strategy], whole: Path, tmp_path: Path) -> None:
    """Goes on from whatever a session has left on disk in the middle: its last checkpoint may be many steps old."""
    left = {call: tmp_path / str(call) for call in WORDLESS}
    search(fresh(cls), tmp_path / "whole", Copies(tmp_path / "whole", left))
    assert_equal(tmp_path / "whole", whole)
    for folder in left.values():
        if folder.exists():
            search(fresh(cls), folder)
            assert_equal(folder, whole)


def long_search(cls: type[Strategy], folder: Path, trials: int, wrap: Any = None) -> None:
    """So many trials of a strategy that can be told so; of others what they do on the small problem."""
    settings = inspect.signature(cls).parameters
    counted = next((name for name in ("trials", "samples") if name in settings), None)
    if counted == "trials":  # of more networks than the small problem has
        problem, judge, limits = spacious(*[6] * 6, upper=20, ordered=True), Near(), Limits()
    else:
        problem = small_problem()
        judge, limits = Synthetic(problem, noise=0.01), Limits(trials=None if counted or trials > FEW else trials)
    told = {counted: trials} if counted else {}

    def make() -> Strategy:
        return cls(problem, 0, **cls.smoke | told)

    strategy = make() if wrap is None else wrap(make)
    run(strategy, problem, judge, folder=folder, seed=0, limits=limits)


def checkpoint_does_not_grow(cls: type[Strategy], tmp_path: Path) -> None:
    for trials in (FEW, MANY):
        long_search(cls, tmp_path / str(trials), trials)
    short, long = (tmp_path / str(n) for n in (FEW, MANY))
    if not (short / CHECKPOINT).exists():
        return  # a limit has ended its first step
    more = len(recorded(long)) - len(recorded(short))
    sizes = [(folder / CHECKPOINT).stat().st_size for folder in (short, long)]
    assert sizes[1] - sizes[0] <= PER_TRIAL * more + 0.01 * sizes[0], (
        f"{cls.__name__} saves {sizes[0]} bytes after {FEW} trials and {sizes[1]} after {MANY}; use self.trials"
    )


def long_search_goes_on_exactly(cls: type[Strategy], tmp_path: Path) -> None:
    """Rebuilt from the state and the trials after every step, it proposes what it would have."""
    long_search(cls, tmp_path / "whole", MORE)
    long_search(cls, tmp_path / "reborn", MORE, Reborn)
    assert_equal(tmp_path / "whole", tmp_path / "reborn")


def survives_failed_trials(cls: type[Strategy], tmp_path: Path) -> None:
    search(fresh(cls), tmp_path, Fails())
    assert recorded(tmp_path)
    assert all(t.error == "ValueError: diverged" for t in recorded(tmp_path))


def leaves_global_generators_alone(cls: type[Strategy], tmp_path: Path) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    search(fresh(cls), tmp_path)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


def solves_within_limits(cls: type[Strategy], tmp_path: Path) -> None:
    strategy, problem = fresh(cls), small_problem()
    if not isinstance(strategy, Solvable):
        pytest.skip(f"{cls.__name__} does not offer Solvable")
    search(strategy, tmp_path)
    rng, costs = np.random.default_rng(0), problem.costs or {}
    every = list(archs.enumerate_all(problem.space))
    for metrics in [("macs",), ("memory_bytes",), ("macs", "memory_bytes")]:
        for _ in range(8):
            witness = every[int(rng.integers(len(every)))]
            limits = {m: float(costs[m]([witness])[0]) for m in metrics}
            arch = strategy.solve(limits)
            assert problem.space.canonical(arch) == arch
            assert all(float(costs[m]([arch])[0]) <= upper for m, upper in limits.items())


def refuses_limits_below_the_floor(cls: type[Strategy], tmp_path: Path) -> None:
    strategy, problem = fresh(cls), small_problem()
    if not isinstance(strategy, Solvable):
        pytest.skip(f"{cls.__name__} does not offer Solvable")
    search(strategy, tmp_path)
    for metric, cost in (problem.costs or {}).items():
        floor = float(cost(list(archs.enumerate_all(problem.space))).min())
        with pytest.raises(BudgetError):
            strategy.solve({metric: 0.99 * floor})


def refuses_a_problem_below_the_floor(cls: type[Strategy], tmp_path: Path) -> None:
    problem = replace(small_problem(), constraints=(Constraint("macs", 1.0),))
    with pytest.raises(BudgetError):
        run(cls(problem, 0, **cls.smoke), problem, Synthetic(problem), folder=tmp_path, seed=0)
