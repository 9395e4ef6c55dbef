import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sartor.timing import inputs
from sartor.timing.processes import Source, address, ask
from timing.network import EXAMPLE, file_of
from timing.strange import Chatty


def told(folder, task, **more):
    inputs.write(EXAMPLE, folder / "x.safetensors")
    source = Source(address(Chatty()), file_of(folder))
    return {
        "task": task,
        "subjects": [{"name": "a", **source.as_dict(), "inputs": str(folder / "x.safetensors"), "sessions": 1}],
        **more,
    }


def test_what_a_runtime_prints_is_no_answer(tmp_path) -> None:
    answers = list(ask(told(tmp_path, "time", how={"rounds": 2, "warmup": 0.01, "repeats": 3})))
    assert [next(iter(a)) for a in answers] == ["round", "round", "rounds"]
    assert answers[-1]["rounds"]["repeats"] == [3]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
def test_memory_is_watched(tmp_path) -> None:
    (answer,) = ask(told(tmp_path, "watch"))
    assert answer["bytes"] > 0


def test_it_runs_as_a_module(tmp_path) -> None:
    job = json.dumps(told(tmp_path, "time", how={"rounds": 1, "warmup": 0.0, "repeats": 1}))
    command = [sys.executable, "-m", "sartor.timing.worker"]
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        command, input=job, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert "rounds" in json.loads(done.stdout.splitlines()[-1])


def test_it_imports_neither_the_search_nor_the_statistics() -> None:
    """Its start-up is paid for by every process of every verdict."""
    code = "import sys, sartor.timing.worker; print(*sys.modules)"
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    modules = done.stdout.split()
    assert "sartor.timing.rounds" in modules
    for name in ("scipy.stats", "sklearn", "torchvision", "sartor.jobs", "sartor.run", "sartor.strategies"):
        assert name not in modules
