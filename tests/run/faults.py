"""What must hold for every kind of workers that dies: used by the tests of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from run import driver


def journal(folder: Path) -> bytes:
    return (folder / "journal.jsonl").read_bytes()


def serial(folder: Path, trials: int) -> bytes:
    """The journal of the same search without workers."""
    driver.finish(driver.begin(folder, "serial", 0, trials=trials))
    return journal(folder)


def workers_die(folder: Path, kind: str, *, deaths: int, trials: int, seconds: float) -> None:
    """Workers are killed inside a trial, at random moments: nothing is lost, and the driver does not notice."""
    marks, rng = folder / "marks", np.random.default_rng(0)
    marks.mkdir(parents=True)
    found = driver.begin(folder / "out", kind, 2, trials=trials, seconds=seconds, marks=str(marks))
    for n in range(deaths):
        driver.time.sleep(float(rng.uniform(0, seconds)))
        alive = driver.until(lambda: driver.under_way(folder / "out", marks), found)
        assert alive, "the search was over before all workers were killed"
        driver.kill(int(rng.choice(list(alive.values()))))
        driver.until(lambda n=n: len(driver.records(folder / "out", "death")) > n, found)
    driver.finish(found)
    assert len(driver.records(folder / "out", "death")) == deaths, "a kill did not land inside a trial"
    assert driver.times(marks) == trials + deaths
    assert journal(folder / "out") == serial(folder / "serial", trials)


def driver_dies(folder: Path, kind: str, *, deaths: int, trials: int, seconds: float, what: str = "") -> None:
    """The driver is killed while trials are under way, or a process `what` of its own: only these are done again.

    The search may outlive a process of its driver; the next kill is then in a new one.
    """
    rng, lost, lives, since = np.random.default_rng(1), 0, [folder / "0"], 0
    wanted = serial(folder / "serial", trials)
    (lives[0] / "marks").mkdir(parents=True)
    for n in range(deaths):
        out, marks = lives[-1] / "out", lives[-1] / "marks"
        found = driver.begin(out, kind, 2, trials=trials, seconds=seconds, marks=str(marks))
        goal = (n - since + 1) * trials // (deaths + 2)
        driver.until(lambda out=out, goal=goal: len(driver.records(out, "ran")) >= goal, found)
        driver.time.sleep(float(rng.uniform(0, seconds)))
        lost += len(driver.until(lambda out=out, marks=marks: driver.under_way(out, marks), found) or ())
        for victim in driver.descendants(found.pid, what) if what else [found.pid]:
            driver.kill(victim)
        found.communicate(timeout=driver.PATIENCE)
        if found.returncode == 0:
            assert what, "it was not killed"
            assert journal(out) == wanted
            lives, since = [*lives, folder / str(n + 1)], n + 1
            (lives[-1] / "marks").mkdir(parents=True)
    assert lost >= deaths, "a kill did not land inside a trial"
    out, marks = lives[-1] / "out", lives[-1] / "marks"
    driver.finish(driver.begin(out, kind, 2, trials=trials, seconds=seconds, marks=str(marks)))
    assert driver.times(marks) <= trials + 2 * deaths
    assert journal(out) == wanted


def soak(folder: Path, kind: str, *, trials: int, seconds: float, every: float) -> None:
    """Many quick trials; every few seconds a worker or the driver is killed, in turn."""
    marks, out, kills = folder / "marks", folder / "out", 0
    marks.mkdir(parents=True)
    found = driver.begin(out, kind, 2, trials=trials, batch=16, seconds=seconds, marks=str(marks))
    while found.poll() is None:
        driver.time.sleep(every)
        alive = driver.under_way(out, marks)
        if found.poll() is not None or not alive:
            continue
        kills += 1
        driver.kill(found.pid if kills % 2 else alive[min(alive)])
        if kills % 2:
            found.wait(driver.PATIENCE)
            assert found.stderr is not None
            found.stderr.close()
            found = driver.begin(out, kind, 2, trials=trials, batch=16, seconds=seconds, marks=str(marks))
    driver.finish(found)
    assert kills >= 10
    driver.finish(driver.begin(folder / "serial", "serial", 0, trials=trials, batch=16))
    assert journal(out) == journal(folder / "serial")
    assert driver.times(marks) <= trials + 2 * kills
