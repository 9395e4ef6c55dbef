from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from run.toys import Draws, Score, Sum, Toy, problem
from sartor.core.contracts import Evaluator, Problem
from sartor.core.errors import (
    BudgetSpentError,
    CapabilityError,
    ConfigError,
    DataError,
    LeakError,
    MissingExtraError,
    SartorError,
    StateError,
    TargetError,
)
from sartor.core.records import Objective, Proposal, Trial
from sartor.core.rng import derive
from sartor.run.journal import FileJournal, MemoryJournal, read_trials
from sartor.run.lab import MAX_STARTS, JournaledLab

A, B, C, D = (0, 1, 2), (1, 1, 1), (2, 0, 3), (3, 3, 3)


class Does(Evaluator):
    """Whatever it is told to."""

    def __init__(self, action: Callable[[], Mapping[str, float]]) -> None:
        self.action = action

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        return self.action()


def raising(error: BaseException) -> Does:
    def action() -> Mapping[str, float]:
        raise error

    return Does(action)


def lab(journal: MemoryJournal, evaluator: Evaluator | None = None, **settings: object) -> JournaledLab:
    return JournaledLab(problem(), evaluator or Score(), journal, 7, **settings)  # type: ignore[arg-type]


def one(evaluator: Evaluator, **settings: object) -> Trial:
    (trial,) = lab(MemoryJournal(), evaluator, **settings).evaluate([Proposal(A)])
    return trial


def test_trials_come_in_order_with_costs_metrics_and_seeds_of_their_own() -> None:
    journal = MemoryJournal()
    trials = lab(journal).evaluate([Proposal(A), Proposal(B, fidelity=0.25), Proposal(A)])
    assert [(t.index, t.arch, t.fidelity, t.error) for t in trials] == [
        (0, A, 1.0, None),
        (1, B, 0.25, None),
        (2, A, 1.0, None),
    ]
    for trial in trials:
        seed = derive(7, "trial", trial.index)
        assert trial.metrics == {"macs": sum(trial.arch), "accuracy": derive(seed, *trial.arch) / 2**63}
    assert read_trials(journal) == trials


def test_numpy_and_torch_numbers_become_plain_ones() -> None:
    journal = MemoryJournal()
    evaluator = Does(lambda: {"a": np.float32(0.5), "b": torch.tensor(2.0), "c": 3})  # type: ignore[dict-item]
    arch = tuple(np.array(A))
    (trial,) = lab(journal, evaluator).evaluate([Proposal(arch, fidelity=1)])
    assert (trial.arch, trial.fidelity) == (A, 1.0)
    assert {type(v) for v in (*trial.arch, trial.fidelity, *trial.metrics.values())} == {int, float}
    assert read_trials(journal) == [trial]
    assert lab(journal).evaluate([Proposal(arch, fidelity=1)]) == [trial]
    assert len(read_trials(journal)) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("bad layer"), "ValueError: bad layer"),
        (MemoryError("no room"), "MemoryError: no room"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), "RuntimeError: [enforce fail] Def"),
        (TargetError("no such operator"), "TargetError: no such operator"),
        (TimeoutError("its own"), "TimeoutError: its own"),
    ],
)
def test_one_bad_network_is_a_failed_trial_and_the_search_goes_on(error: Exception, message: str) -> None:
    journal = MemoryJournal()
    trials = lab(journal, raising(error)).evaluate([Proposal(A), Proposal(B)])
    assert [t.ok for t in trials] == [False, False]
    assert trials[0].error is not None
    assert trials[0].error.startswith(message)
    assert trials[0].metrics == {"macs": 3.0}
    assert Objective("accuracy", "max").loss(trials[0]) == float("inf")
    assert read_trials(journal) == trials


def test_a_network_that_cannot_be_allocated_is_a_failed_trial() -> None:
    trial = one(Does(lambda: {"accuracy": float(torch.zeros(1 << 60).sum())}))
    assert trial.error is not None
    assert trial.error.startswith("RuntimeError")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_a_metric_that_is_not_finite_is_a_failed_trial(value: float) -> None:
    trial = one(Does(lambda: {"accuracy": value}))
    assert trial.error is not None
    assert trial.error.startswith("DivergedError: metric 'accuracy' is ")
    assert "accuracy" not in trial.metrics


@pytest.mark.parametrize("kind", [CapabilityError, ConfigError, DataError, LeakError, MissingExtraError, StateError])
def test_a_mistake_in_the_setup_stops_the_search_and_can_be_mended(kind: type[SartorError]) -> None:
    journal = MemoryJournal()
    for _ in range(MAX_STARTS + 1):  # more tries than a trial that takes the process down gets
        with pytest.raises(kind, match="mend me"):
            lab(journal, raising(kind("mend me"))).evaluate([Proposal(A)])
    assert read_trials(journal) == []
    assert lab(journal).evaluate([Proposal(A)])[0].ok


def test_ctrl_c_is_not_counted_as_a_trial_that_takes_the_process_down() -> None:
    journal = MemoryJournal()
    for _ in range(MAX_STARTS + 1):
        with pytest.raises(KeyboardInterrupt):
            lab(journal, raising(KeyboardInterrupt())).evaluate([Proposal(A)])
    assert lab(journal).evaluate([Proposal(A)])[0].ok


def test_a_trial_that_killed_the_process_three_times_is_recorded_as_failed() -> None:
    journal = MemoryJournal()
    lab(journal).evaluate([Proposal(A)])
    for _ in range(MAX_STARTS):
        journal.append({"kind": "start", "index": 1})
    evaluator = Score()
    trials = lab(journal, evaluator).evaluate([Proposal(A), Proposal(B), Proposal(C)])
    assert [t.ok for t in trials] == [True, False, True]
    assert trials[1].error == "the process died 3 times in this trial (out of memory?)"
    assert trials[1].metrics == {"macs": 3.0}
    assert evaluator.calls == [C]


def test_a_trial_that_killed_the_process_twice_gets_another_try() -> None:
    journal = MemoryJournal()
    for _ in range(MAX_STARTS - 1):
        journal.append({"kind": "start", "index": 0})
    assert lab(journal).evaluate([Proposal(A)])[0].ok


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_real_deaths_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for _ in range(MAX_STARTS):
        pid = os.fork()
        if pid == 0:
            evaluator = Score(lambda _: os.kill(os.getpid(), signal.SIGKILL))
            JournaledLab(problem(), evaluator, FileJournal(path), 0).evaluate([Proposal(A)])
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    (trial,) = JournaledLab(problem(), Score(), FileJournal(path), 0).evaluate([Proposal(A)])
    assert not trial.ok


def test_deaths_do_not_count_against_another_proposal_of_the_same_index() -> None:
    journal = MemoryJournal()
    lab(journal).evaluate([Proposal(A), Proposal(B)])
    for _ in range(MAX_STARTS):
        journal.append({"kind": "start", "index": 2})
    trials = lab(journal).evaluate([Proposal(A), Proposal(C), Proposal(D)])
    assert [t.ok for t in trials] == [True, True, True]


def test_journaled_trials_are_handed_back() -> None:
    journal = MemoryJournal()
    wanted = lab(journal).evaluate([Proposal(A), Proposal(B), Proposal(C)])
    evaluator = Score()
    assert lab(journal, evaluator).evaluate([Proposal(A), Proposal(B), Proposal(C), Proposal(D)])[:3] == wanted
    assert evaluator.calls == [D]


def test_a_checkpoint_skips_the_trials_that_it_knows() -> None:
    journal = MemoryJournal()
    wanted = lab(journal).evaluate([Proposal(A), Proposal(B), Proposal(C)])
    evaluator = Score()
    assert lab(journal, evaluator, resume_at=1).evaluate([Proposal(B), Proposal(C)]) == wanted[1:]
    assert evaluator.calls == []


@pytest.mark.parametrize("other", [Proposal(D), Proposal(B, fidelity=0.5), Proposal(B, parent=0)])
def test_a_different_proposal_rewinds(other: Proposal) -> None:
    journal = MemoryJournal()
    lab(journal).evaluate([Proposal(A), Proposal(B), Proposal(C)])
    evaluator = Score()
    trials = lab(journal, evaluator).evaluate([Proposal(A), other, Proposal(C)])
    assert evaluator.calls == [other.arch, C]
    assert trials[1].parent == other.parent
    assert [t.index for t in trials] == [0, 1, 2]
    assert read_trials(journal) == trials
    assert [r for r in journal.read() if r["kind"] == "rewind"] == [{"kind": "rewind", "to": 1}]
    again = Score()
    assert lab(journal, again).evaluate([Proposal(A), other, Proposal(C)]) == trials
    assert again.calls == []


def test_the_limit_counts_replayed_trials_and_earlier_ones() -> None:
    journal = MemoryJournal()
    lab(journal).evaluate([Proposal(A), Proposal(B)])
    with pytest.raises(BudgetSpentError, match=r"all 3 trials are used; raise limits\.trials"):
        lab(journal, max_trials=3).evaluate([Proposal(A), Proposal(B), Proposal(C), Proposal(D)])
    assert len(read_trials(journal)) == 3
    evaluator = Score()
    with pytest.raises(BudgetSpentError):
        lab(journal, evaluator, max_trials=3, resume_at=3).evaluate([Proposal(D)])
    assert evaluator.calls == []


def test_a_trial_over_its_time_is_a_failed_trial_and_the_next_one_has_all_its_time() -> None:
    def slow() -> Mapping[str, float]:
        time.sleep(30)
        return {"accuracy": 1.0}

    before = signal.getsignal(signal.SIGALRM)
    start = time.monotonic()
    trial = one(Does(slow), trial_seconds=0.05)
    assert time.monotonic() - start < 20
    assert trial.error == "TrialTimeoutError: over its time limit of 0.05 s (trial_seconds)"
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert one(Score(), trial_seconds=30.0).ok


def test_no_alarm_is_left_after_a_trial_in_time() -> None:
    assert one(Score(lambda _: time.sleep(0.001)), trial_seconds=10.0).ok
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_logs_wait_as_plain_numbers() -> None:
    it = lab(MemoryJournal())
    it.log(loss=np.float64(0.5), count=2)
    it.log(loss=torch.tensor(0.25))  # type: ignore[arg-type]
    assert it.pending == [{"loss": 0.5, "count": 2.0}, {"loss": 0.25}]
    assert type(it.pending[0]["loss"]) is float
    assert list(it.journal.read()) == []


@pytest.mark.parametrize("name", ["step", "kind"])
def test_scalars_that_would_break_the_journal_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"a scalar may not be called '{name}'"):
        lab(MemoryJournal()).log(**{name: 1.0})


def test_artifacts_need_a_folder(tmp_path: Path) -> None:
    path = lab(MemoryJournal(), artifacts=tmp_path / "a").artifact("supernet.safetensors")
    assert path == tmp_path / "a" / "supernet.safetensors"
    assert path.parent.is_dir()
    with pytest.raises(CapabilityError, match=r"no run folder to keep 'supernet\.safetensors' in"):
        lab(MemoryJournal()).artifact("supernet.safetensors")


class Keeps(Score):
    """Weights are a text: the archs of the line of parents."""

    def inherit(self, proposal: Proposal, seed: int, *, parent: Path | None, keep: Path | None) -> Mapping[str, float]:
        assert (parent is None) == (proposal.parent is None)
        assert keep is not None
        keep.parent.mkdir(exist_ok=True)
        keep.write_text((parent.read_text() if parent is not None else "") + str(proposal.arch))
        return self(proposal, seed)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "weights").glob("*"))


def test_an_evaluator_that_keeps_weights_gets_those_of_the_parent(tmp_path: Path) -> None:
    it = lab(MemoryJournal(), Keeps(), artifacts=tmp_path)
    trials = it.evaluate([Proposal(A), Proposal(B, parent=np.int64(0)), Proposal(C, parent=1)])  # type: ignore[arg-type]
    assert [t.parent for t in trials] == [None, 0, 1]
    assert {type(t.parent) for t in trials[1:]} == {int}
    assert read_trials(it.journal) == trials
    assert names(tmp_path) == ["000.safetensors", "001.safetensors", "002.safetensors"]
    assert (tmp_path / "weights" / "002.safetensors").read_text() == f"{A}{B}{C}"


def test_weights_of_no_parent_are_removed_but_not_those_of_trials_to_come_back(tmp_path: Path) -> None:
    journal = MemoryJournal()
    it = lab(journal, Keeps(), artifacts=tmp_path)
    it.evaluate([Proposal(a) for a in (A, B, C, D)])
    again = lab(journal, Keeps(), artifacts=tmp_path, resume_at=2)
    again.forget([1])
    assert names(tmp_path) == ["001.safetensors", "002.safetensors", "003.safetensors"]
    again.evaluate([Proposal(C), Proposal(D)])
    again.forget([])
    assert names(tmp_path) == []
    with pytest.raises(StateError, match="the weights of trial 3, the parent of trial 4, are not at"):
        again.evaluate([Proposal(A, parent=3)])


def test_without_a_folder_only_trials_without_a_parent_run() -> None:
    it = lab(MemoryJournal(), Keeps())
    it.forget([])
    assert it.evaluate([Proposal(A)])[0].ok
    with pytest.raises(CapabilityError, match="no run folder to keep"):
        it.evaluate([Proposal(B, parent=0)])


def test_an_evaluator_that_keeps_no_weights_is_told_of_parents_all_the_same(tmp_path: Path) -> None:
    trials = lab(MemoryJournal(), artifacts=tmp_path).evaluate([Proposal(A), Proposal(B, parent=0)])
    assert [t.parent for t in trials] == [None, 0]
    assert names(tmp_path) == []


def test_journals_from_before_parents_are_read() -> None:
    journal = MemoryJournal()
    journal.append({"kind": "trial", "index": 0, "arch": [0, 1, 2], "fidelity": 1.0, "metrics": {}, "error": None})
    assert lab(journal).evaluate([Proposal(A)]) == [Trial(0, A, 1.0, {})]


def test_progress_is_handed_on() -> None:
    heard: list[tuple[float, float, str]] = []
    lab(MemoryJournal(), progress=lambda *a: heard.append(a)).progress(1, 2, "epoch")
    lab(MemoryJournal()).progress(1, 2)
    assert heard == [(1, 2, "epoch")]


def test_on_trial_hears_of_each_trial_once_over_all_sessions() -> None:
    journal, heard = MemoryJournal(), []
    lab(journal, on_trial=heard.append).evaluate([Proposal(A)])
    trials = lab(journal, on_trial=heard.append).evaluate([Proposal(A), Proposal(B)])
    assert heard == trials


def test_a_problem_without_costs_has_only_the_evaluator_s_metrics() -> None:
    bare = Problem(Toy(), (Objective("accuracy", "max"),))
    (trial,) = JournaledLab(bare, Score(), MemoryJournal(), 0).evaluate([Proposal(A)])
    assert list(trial.metrics) == ["accuracy"]
    assert Sum.metric not in trial.metrics


def test_an_ask_tell_strategy_hears_of_failures_in_the_order_of_its_proposals() -> None:
    def fail_second(call: int) -> None:
        if call == 2:
            raise ValueError("no")

    p = problem()
    strategy = Draws(p, 0, trials=5)
    it = JournaledLab(p, Score(fail_second), MemoryJournal(), 0)
    steps = 0
    while strategy.step(it):
        steps += 1
    assert steps == 2
    assert [t.ok for t in strategy.told] == [True, False, True, True, True]
    assert [t.index for t in strategy.told] == [0, 1, 2, 3, 4]
