"""The checks can fail: each is run on a strategy with the defect that it is there for, and on a sound one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts import checks
from problems import small_problem
from sartor import archs
from sartor.core.contracts import AskTell, Strategy
from sartor.core.records import Proposal
from sartor.core.rng import numpy_rng, torch_rng
from sartor.run.journal import FileJournal
from sartor.solvers.budgets import within


class Sound(AskTell):
    """A random walk around the best arch so far, with a weight that it trains.

    Args:
        problem: Any problem.
        seed: Of the walk.
        length: Number of batches.
    """

    saved = ("rng", "weights", "best", "done")

    def __init__(self, problem, seed, *, length=6):
        self.problem, self.seed, self.length, self.done = problem, seed, length, 0
        self.rng, self.weights = numpy_rng(seed, "walk"), torch.zeros(2)
        self.best = archs.sample_feasible(problem, self.rng)

    def ask(self):
        if self.done == self.length:
            return []
        return [Proposal(self._near()) for _ in range(2)]

    def tell(self, trials):
        self.done += 1
        self.weights = self.weights + self.done
        ok = [t for t in trials if t.ok]
        if ok:
            self.best = max(ok, key=lambda t: t.metrics["accuracy"]).arch

    def solve(self, limits):
        arch = archs.largest(self.problem.space)
        while not within(self.problem, arch, limits):
            if not any(arch):
                raise checks.BudgetError("too tight")
            arch = tuple(max(0, a - 1) for a in arch)
        return arch

    def _near(self):
        arch = self.problem.space.moves.vary(self.best, self.rng)
        return arch if self.problem.feasible(arch) else self.best


class Forgets(Sound):
    saved = ("rng", "weights", "best")


class ForgetsItsGenerator(Sound):
    saved = ("weights", "best", "done")


class ForgetsItsWeights(Sound):
    """No trial ever shows it: only the final state does."""

    saved = ("rng", "best", "done")

    def tell(self, trials):
        super().tell(trials)
        self.best = archs.smallest(self.problem.space) if self.weights[0] > 11 else self.best


class Hoards(Sound):
    """Saves a number per trial.

    Args:
        problem: Any problem.
        seed: Of the walk.
        trials: How many networks are evaluated.
    """

    saved = (*Sound.saved, "indices")

    def __init__(self, problem, seed, *, trials=12):
        super().__init__(problem, seed, length=trials // 2)
        self.indices = []

    def tell(self, trials):
        super().tell(trials)
        self.indices = [*self.indices, *(t.index for t in trials)]


class ForgetsWhatIsLong(Hoards):
    """Its walk depends, from the fifteenth batch on, on what it does not save."""

    saved = Sound.saved

    def _near(self):
        return super()._near() if len(self.indices) < 30 else archs.smallest(self.problem.space)


class Positional(Sound):
    def __init__(self, problem, seed, length=6):
        super().__init__(problem, seed, length=length)


class Abstract(Strategy):
    def __init__(self, problem, seed):
        pass


class OutOfSpace(Sound):
    def ask(self):
        return [Proposal((9,) * len(p.arch)) for p in super().ask()]


class OverBudget(Sound):
    def _near(self):
        return archs.largest(self.problem.space)


class ReadsGlobalRandomness(Sound):
    def _near(self):
        self.best = self.problem.space.moves.vary(self.best, self.rng)
        return self.best if torch.rand(()) < 0.5 else archs.smallest(self.problem.space)


class SeedsGlobally(Sound):
    def tell(self, trials):
        super().tell(trials)
        torch.manual_seed(0)  # noqa: TID251


class SeedsNumpyGlobally(Sound):
    def tell(self, trials):
        super().tell(trials)
        np.random.seed(0)  # noqa: NPY002, TID251


class DiesOfFailures(Sound):
    def tell(self, trials):
        super().tell(trials)
        self.best = max(trials, key=lambda t: t.metrics["accuracy"]).arch


class NeverProposes(Sound):
    def ask(self):
        return []


class NeverEnds(Sound):
    def ask(self):
        if self.done > 40:
            raise RuntimeError("still going")
        return [Proposal(self._near())]


class SolvesOverBudget(Sound):
    def solve(self, limits):
        return archs.largest(self.problem.space)


class Undocumented(Sound):
    """A random walk."""


class AcceptsAnyBudget(Sound):
    def __init__(self, problem, seed, *, length=6):
        super().__init__(small_problem(), seed, length=length)


class Stepper(Strategy):
    """Trains in steps.

    Args:
        problem: Any problem.
        seed: Of the training.
    """

    saved = ("rng", "lines", "weight")

    def __init__(self, problem, seed):
        self.rng, self.lines, self.weight = torch_rng(seed), [], torch.zeros(1)

    def step(self, lab):
        for i in range(3):
            self.weight = self.weight + torch.rand(1, generator=self.rng)
            lab.progress(i, 3)
        self.lines = [*self.lines, float(self.weight)]
        self.write(lab)
        if len(self.lines) < 3:
            return True
        lab.evaluate([Proposal((int(self.weight * 1000) % 4, 0, 0))])
        return False

    def write(self, lab):
        lab.artifact("lines.txt").write_text("".join(f"{x}\n" for x in self.lines))


class Appends(Stepper):
    """Leaves a second line when a step is done twice."""

    def write(self, lab):
        with lab.artifact("lines.txt").open("a") as file:
            file.write(f"{self.lines[-1]}\n")
        lab.progress(3, 3)


class SharesInSilence(Stepper):
    """Trains a supernet and does not say so."""

    def write(self, lab):
        lab.artifact("supernet.safetensors").write_bytes(b"")


class SharesWithoutEpochs(SharesInSilence):
    shares_weights = True


class StepperForgets(Stepper):
    saved = ("rng", "lines")


class KeepsOutsideTheCheckpoint(Stepper):
    """Goes on from a file that is ahead of the checkpoint."""

    def write(self, lab):
        path = lab.artifact("weight.txt")
        if path.exists():
            self.weight = self.weight + 1e-3 * len(path.read_text())
        with path.open("a") as file:
            file.write("x")
        lab.progress(3, 3)


def every_check(cls, tmp_path):
    whole = tmp_path / "whole"
    checks.is_final_with_keyword_settings(cls)
    checks.documents_every_setting(cls)
    checks.search(checks.fresh(cls), whole)
    checks.finishes_with_trials(cls, tmp_path / "finishes")
    checks.proposes_only_archs_of_the_space(cls, whole)
    checks.stays_within_limits(cls, whole)
    checks.says_whether_it_shares_weights(cls, whole)
    checks.same_seed_same_run(cls, whole, tmp_path / "again")
    for calls in (0, 3, 7):
        checks.killed_in_a_trial_resumes_exactly(cls, whole, tmp_path / f"trial{calls}", calls)
        checks.killed_in_a_step_resumes_exactly(cls, whole, tmp_path / f"step{calls}", calls)
        checks.larger_budget_goes_on_exactly(cls, whole, tmp_path / f"more{calls}", calls)
    checks.killed_without_a_word_resumes_exactly(cls, whole, tmp_path / "silent")
    checks.saved_state_is_complete(cls, whole, tmp_path / "reborn")
    checks.survives_failed_trials(cls, tmp_path / "fails")
    checks.leaves_global_generators_alone(cls, tmp_path / "global")


def test_a_sound_strategy_passes_every_check(tmp_path):
    every_check(Sound, tmp_path)
    checks.solves_within_limits(Sound, tmp_path / "solve")
    checks.refuses_limits_below_the_floor(Sound, tmp_path / "floor")
    checks.refuses_a_problem_below_the_floor(Sound, tmp_path / "problem")


def test_a_sound_stepper_passes_every_check(tmp_path):
    every_check(Stepper, tmp_path)


@pytest.mark.parametrize("cls", [Positional, Abstract])
def test_signatures(cls):
    with pytest.raises(AssertionError):
        checks.is_final_with_keyword_settings(cls)


@pytest.mark.parametrize("cls", [SharesInSilence, SharesWithoutEpochs])
def test_shared_weights(cls, tmp_path):
    checks.search(checks.fresh(cls), tmp_path)
    with pytest.raises(AssertionError):
        checks.says_whether_it_shares_weights(cls, tmp_path)


def test_documentation():
    with pytest.raises(AssertionError, match="does not document"):
        checks.documents_every_setting(Undocumented)


def test_endings(tmp_path):
    with pytest.raises(AssertionError):
        checks.finishes_with_trials(NeverProposes, tmp_path / "a")
    with pytest.raises(RuntimeError, match="still going"):
        checks.finishes_with_trials(NeverEnds, tmp_path / "b")


def test_proposals(tmp_path):
    checks.search(checks.fresh(OverBudget), tmp_path)
    with pytest.raises(AssertionError):
        checks.stays_within_limits(OverBudget, tmp_path)
    with pytest.raises(IndexError):  # the cost models notice before the check does
        checks.search(checks.fresh(OutOfSpace), tmp_path / "b")
    with pytest.raises(AssertionError):
        checks.proposes_only_archs_of_the_space(OutOfSpace, foreign(tmp_path / "c"))


def foreign(folder):
    """A journal with an arch of another space."""
    folder.mkdir()
    trial = {"kind": "trial", "index": 0, "arch": [0, 0, 4], "fidelity": 1.0, "metrics": {}, "error": None}
    FileJournal(folder / "journal.jsonl").append(trial)
    return folder


@pytest.mark.parametrize(
    ("check", "cls"),
    [
        (checks.same_seed_same_run, ReadsGlobalRandomness),
        (checks.saved_state_is_complete, Forgets),
        (checks.saved_state_is_complete, ForgetsItsGenerator),
        (checks.saved_state_is_complete, ForgetsItsWeights),
        (checks.saved_state_is_complete, StepperForgets),
        (lambda *a: checks.killed_in_a_trial_resumes_exactly(*a, 5), ForgetsItsGenerator),
        (lambda *a: checks.killed_in_a_trial_resumes_exactly(*a, 11), ForgetsItsWeights),
        (lambda *a: checks.killed_in_a_step_resumes_exactly(*a, 6), StepperForgets),
        (lambda *a: checks.killed_in_a_step_resumes_exactly(*a, 9), Appends),
        (lambda *a: checks.killed_in_a_step_resumes_exactly(*a, 9), KeepsOutsideTheCheckpoint),
        (lambda *a: checks.larger_budget_goes_on_exactly(*a, 5), Forgets),
    ],
)
def test_runs_that_differ(check, cls, tmp_path):
    checks.search(checks.fresh(cls), tmp_path / "whole")
    with pytest.raises(AssertionError):
        check(cls, tmp_path / "whole", tmp_path / "other")


def test_a_checkpoint_with_a_number_per_trial(tmp_path):
    checks.long_search_goes_on_exactly(Hoards, tmp_path / "long")
    with pytest.raises(AssertionError, match="Hoards saves"):
        checks.checkpoint_does_not_grow(Hoards, tmp_path / "hoards")
    checks.checkpoint_does_not_grow(ForgetsWhatIsLong, tmp_path / "forgets")
    with pytest.raises(AssertionError):
        checks.long_search_goes_on_exactly(ForgetsWhatIsLong, tmp_path / "far")


@pytest.mark.parametrize("cls", [SeedsGlobally, SeedsNumpyGlobally, ReadsGlobalRandomness])
def test_global_generators(cls, tmp_path):
    with pytest.raises(AssertionError):
        checks.leaves_global_generators_alone(cls, tmp_path)


def test_failures(tmp_path):
    with pytest.raises(KeyError):
        checks.survives_failed_trials(DiesOfFailures, tmp_path)


def test_solutions(tmp_path):
    with pytest.raises(AssertionError):
        checks.solves_within_limits(SolvesOverBudget, tmp_path / "a")
    with pytest.raises(pytest.fail.Exception):
        checks.refuses_limits_below_the_floor(SolvesOverBudget, tmp_path / "b")
    with pytest.raises(pytest.fail.Exception):
        checks.refuses_a_problem_below_the_floor(AcceptsAnyBudget, tmp_path / "c")
