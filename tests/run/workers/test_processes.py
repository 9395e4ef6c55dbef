from __future__ import annotations

import pytest

from run import driver, faults
from run.toys import Draws, Score, problem
from sartor.core import plugins
from sartor.core.errors import ConfigError, StateError
from sartor.run.journal import FileJournal, MemoryJournal, read_trials
from sartor.run.pool import LOST, Pool
from sartor.run.runner import run
from sartor.run.work import Order, usable
from sartor.run.workers.processes import Processes

TRIALS = 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return faults.serial(tmp_path_factory.mktemp("whole"), TRIALS)


@pytest.mark.parametrize("count", [1, 4])  # with 2: below, with kills
def test_the_journal_is_the_serial_one(tmp_path, whole, count):
    p = problem()
    workers = Processes(Order("run.toys:scores"), count=count)
    with Pool(workers, FileJournal(tmp_path / "workers.jsonl")) as pool:
        assert run(Draws(p, 0, batch=6, trials=TRIALS), p, Score(), folder=tmp_path, seed=0, pool=pool)
    assert faults.journal(tmp_path) == whole
    assert len(driver.records(tmp_path, "ran")) == TRIALS
    assert len({r["by"]["process"] for r in driver.records(tmp_path, "ran")}) <= count


def test_whatever_happens_in_a_trial_is_one_failed_row(tmp_path):
    acts = {"1": "die", "3": "hang", "5": "fail", "7": "nan", "9": "fill"}
    table = {"trial_seconds": 1.0, "memory_gb": 4.0}
    driver.finish(driver.begin(tmp_path, "processes", 2, trials=12, acts=acts, table=table))
    errors = {t.index: t.error for t in read_trials(FileJournal(tmp_path / "journal.jsonl"))}
    assert {i for i, error in errors.items() if error} == {1, 3, 5, 7, 9}
    assert errors[1] == LOST
    assert errors[3] == "TrialTimeoutError: over its time limit of 1 s (trial_seconds)"
    assert errors[5] == "ValueError: bad layer"
    assert errors[7] == "DivergedError: metric 'accuracy' is nan"
    assert "memory" in errors[9]
    deaths = driver.records(tmp_path, "death")
    assert [(d["index"], d["why"]) for d in deaths] == 3 * [(1, "SIGKILL")]


def test_workers_that_are_killed_lose_nothing(tmp_path):
    faults.workers_die(tmp_path, "processes", deaths=2, trials=14, seconds=0.1)


def test_a_killed_driver_goes_on_and_repeats_only_what_was_under_way(tmp_path):
    faults.driver_dies(tmp_path, "processes", deaths=1, trials=14, seconds=0.1)


@pytest.mark.slow
def test_ten_kills_of_workers_and_of_the_driver(tmp_path):
    faults.workers_die(tmp_path / "workers", "processes", deaths=10, trials=200, seconds=0.1)
    faults.driver_dies(tmp_path / "driver", "processes", deaths=10, trials=200, seconds=0.1)


@pytest.mark.slow
def test_two_thousand_trials_with_a_kill_every_few_seconds_lose_nothing(tmp_path):
    faults.soak(tmp_path, "processes", trials=2000, seconds=0.05, every=3.0)


def pool(count, **settings):
    work = settings.pop("work", {})
    return Pool(Processes(Order("run.toys:scores", work), count=count, **settings), MemoryJournal())


def job(index):
    return {"index": index, "arch": [0, 1, 2], "fidelity": 1.0, "parent": None, "seed": index}


def test_threads_and_cores_are_set_in_the_process():
    with pool(2, work={"where": True, "seconds": 0.3}) as it:
        it.expect({i: job(i) for i in range(4)})
        found = [it.take(i).got() for i in range(4)]
    assert {f["threads"] for f in found} == {1}
    cores = usable()
    assert {tuple(f["cores"]) for f in found} <= {(core,) for core in cores}
    assert len({tuple(f["cores"]) for f in found}) == min(2, len(cores))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpus": 4096}, "workers.cpus = 4096, and no machine has more than"),
        ({"gpus": 64}, "workers.gpus = 64, and no machine has more than"),
        ({"memory_gb": 1e6}, r"workers.memory_gb = 1e\+06, and no machine has more than"),
        ({"count": -1}, "workers.count must be at least 0"),
        ({"cpus": 0}, "workers.cpus must be at least 1"),
        ({"trial_seconds": 0.0}, "workers.trial_seconds must be positive"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(settings, message):
    with pytest.raises(ConfigError, match=message):
        plugins.load("workers", "processes")(None, **settings)


def test_workers_that_cannot_make_the_work_end_the_search():
    with Pool(Processes(Order("no_such_module:work"), count=1), MemoryJournal()) as it:
        it.expect({0: job(0)})
        with pytest.raises(StateError, match="a worker failed: ModuleNotFoundError: No module named 'no_such_module'"):
            it.take(0)


def test_a_mistake_in_the_set_up_stops_the_search():
    with pool(1, work={"acts": {"0": "fatal"}}) as it:
        it.expect({0: job(0)})
        found = it.take(0)
    with pytest.raises(ConfigError, match="mend me"):
        assert found.text
