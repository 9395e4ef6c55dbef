from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from run import driver, faults
from run.toys import Draws, Score, problem
from sartor.core.errors import ConfigError, MissingExtraError
from sartor.run.journal import FileJournal, read_trials
from sartor.run.pool import LOST
from sartor.run.runner import run
from sartor.run.workers import ray
from sartor.run.workers.ray import Ray

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@needs_ray
def test_the_journal_is_the_serial_one_and_a_death_or_a_hang_is_one_failed_row(tmp_path):
    acts = {"16": "die", "17": "hang"}
    driver.finish(driver.begin(tmp_path / "ray", "ray", 2, trials=18, acts=acts, table={"trial_seconds": 1.0}))
    p = problem()
    assert run(Draws(p, 0, batch=6, trials=18), p, Score(), folder=tmp_path / "serial", seed=0)
    lines, wanted = (faults.journal(tmp_path / name).splitlines() for name in ("ray", "serial"))
    assert lines[: 2 * 16] == wanted[: 2 * 16]
    trials = read_trials(FileJournal(tmp_path / "ray" / "journal.jsonl"))
    assert [t.error for t in trials[16:]] == [LOST, "TrialTimeoutError: over its time limit of 1 s (trial_seconds)"]
    assert len(driver.records(tmp_path / "ray", "death")) == 3
    assert {r["by"]["threads"] for r in driver.records(tmp_path / "ray", "ran") if r["value"]} == {1}


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 4])
def test_two_hundred_trials(tmp_path, count):
    driver.finish(driver.begin(tmp_path / "ray", "ray", count, trials=200))
    assert faults.journal(tmp_path / "ray") == faults.serial(tmp_path / "serial", 200)


@needs_ray
@pytest.mark.slow
def test_ten_kills_of_workers_of_the_driver_and_of_the_raylet(tmp_path):
    faults.workers_die(tmp_path / "workers", "ray", deaths=10, trials=200, seconds=0.2)
    faults.driver_dies(tmp_path / "driver", "ray", deaths=10, trials=200, seconds=0.2)
    faults.driver_dies(tmp_path / "raylet", "ray", deaths=10, trials=200, seconds=0.2, what="raylet")


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """Two nodes of one core each, as `ray start` makes them; their address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tests = Path(driver.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    token = tmp_path / "token"
    token.write_text("0" * 64)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    command = [sys.executable, "-W", "ignore", "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--block"]
    nodes, address = [], ""
    with tempfile.TemporaryDirectory(prefix="r") as folder:  # the name of a socket must be short
        head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
        try:
            for arguments in (head, ["--address={address}"]):
                told = [argument.format(address=address) for argument in arguments]
                nodes.append(subprocess.Popen([*command, *told], stdout=-1, stderr=-2, start_new_session=True))
                said = b"".join(until_started(nodes[-1]))
                address = re.search(rb"Local node IP: (\S+)", said).group(1).decode() + f":{port}"
            yield address
        finally:
            for node in reversed(nodes):
                os.killpg(node.pid, signal.SIGKILL)
                node.communicate(timeout=60)


def until_started(node):
    """The lines that `ray start` says until its node is up."""
    for line in node.stdout:
        yield line
        if b"Ray runtime started" in line:
            return
    raise AssertionError("the node has not started")


@needs_ray
@pytest.mark.slow
def test_two_nodes_on_one_machine(tmp_path, cluster):
    table = {"address": cluster}
    driver.finish(driver.begin(tmp_path / "ray", "ray", 2, trials=60, seconds=0.05, table=table))
    assert faults.journal(tmp_path / "ray") == faults.serial(tmp_path / "serial", 60)
    assert len({r["by"]["process"] for r in driver.records(tmp_path / "ray", "ran")}) >= 2
    with pytest.raises(AssertionError, match=r"workers.cpus = 2, and no machine has more than 1; ask for less"):
        driver.finish(driver.begin(tmp_path / "big", "ray", 2, table={**table, "cpus": 2}))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(ray, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"workers ray need Ray: pip install 'sartor\[ray\]'"):
        Ray(None, count=2)


@needs_ray
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "127.0.0.1"}, "workers.address must be HOST:PORT"),
        ({"address": "127.0.0.1:x"}, "workers.address must be HOST:PORT"),
        ({"address": "127.0.0.1:99999"}, "nobody answers at workers.address"),
        ({"cpus": 4096}, "workers.cpus = 4096, and no machine has more than"),
        ({"gpus": 64}, "workers.gpus = 64, and no machine has more than"),
        ({"memory_gb": 1e6}, "no machine has more than"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(settings, message):
    with pytest.raises(ConfigError, match=message):
        Ray(None, **settings)


@needs_ray
def test_an_address_where_nobody_answers_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=rf"nobody answers at workers.address = '{address}'"):
        Ray(None, address=address)


@needs_ray
def test_an_address_where_something_else_answers_is_refused_in_time(monkeypatch):
    monkeypatch.setattr(ray, "PATIENCE", 3.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=r"no Ray at workers\.address"):
            Ray(None, address=f"127.0.0.1:{port}")
