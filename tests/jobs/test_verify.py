from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from sartor.core.errors import StateError
from sartor.core.metrics import Metric, Score
from sartor.jobs.verify import _quality, verify
from sartor.run.progress import Display
from sartor.run.result import write


def copy(finished, folder):
    shutil.copytree(finished.folder, folder)
    (folder / ".lock").unlink(missing_ok=True)
    return folder


def test_everything_is_measured_again(finished, tmp_path):
    found = verify(copy(finished, tmp_path / "run"))
    roles = finished.result.networks
    assert {c.network for c in found.checks} == roles.keys() == {"reference", "searched_0", "uniform_0"}
    exact = [c for c in found.checks if c.what != "latency"]
    assert len(exact) == 9
    assert all(c.holds for c in exact)
    assert found.verdicts[0] in ("PASS", "UNSURE", "FAIL")


def test_other_processes_take_part_and_two_verifications_agree(finished, tmp_path):
    folder, bars = copy(finished, tmp_path / "run"), []
    text = (folder / "config.toml").read_text()
    assert "processes = 1" in text
    (folder / "config.toml").write_text(
        text.replace("processes = 1", "processes = 2").replace("rounds = 10", "rounds = 12")
    )

    class Bars(Display):
        def stage(self, title):
            pass

        def say(self, message):
            raise AssertionError(f"nothing to say: {message}")

        def bar(self, done, total, label=""):
            bars.append((done, total, label))

    found = [verify(folder, display=Bars()) for _ in range(2)]
    assert (7, 12, "interleaved rounds") in bars, "the second process goes on where the first one ended"
    one, other = (f.networks["searched_0"].latency for f in found)
    assert one != other
    assert max(one.low / other.high, other.low / one.high) < 1.2, "they were taken on a machine that others use"


def test_the_winner_is_judged_also_where_it_is_the_uniform_network(finished, tmp_path):
    folder = copy(finished, tmp_path / "run")
    point = finished.result.points[0]
    slow = replace(point, delivered="uniform", budget={"macs": point.uniform.macs - 1})
    write(folder, replace(finished.result, points=(slow,)))
    assert verify(folder).verdicts == ("FAIL",)
    write(folder, replace(finished.result, points=(replace(slow, budget={"macs": point.uniform.macs}),)))
    assert verify(folder).verdicts == ("PASS",)


def test_a_result_that_lies_is_caught(finished, tmp_path):
    folder = copy(finished, tmp_path / "run")
    point = finished.result.points[0]
    own = point.searched
    score = own.scores["accuracy"]
    false = 0.999 if score.value < 0.9 else 0.5
    lie = replace(
        own,
        scores={"accuracy": Score(false, false - 0.001, false + 0.001, score.examples)},
        macs=own.macs + 1,
        latency_ms=own.latency_ms.scaled(1 / 3),
    )
    write(folder, replace(finished.result, points=(replace(point, searched=lie),)))
    found = verify(folder)
    wrong = {(c.network, c.what) for c in found.checks if not c.holds}
    assert {("searched_0", "accuracy"), ("searched_0", "MACs"), ("searched_0", "latency")} <= wrong
    assert not found.holds


def test_a_value_without_an_interval_must_be_nearly_the_same():
    psnr = Metric("psnr", "max", "dB")
    assert _quality("winner", psnr, Score(31.20), Score(31.21)).holds
    assert not _quality("winner", psnr, Score(31.20), Score(31.40)).holds
    assert _quality("winner", psnr, Score(31.20, 30.0, 32.0), Score(31.40)).holds
    error = Metric("relative_error", "min", "", "per_example")
    assert _quality("reference", error, Score(0.0, 0.0, 0.0), Score(1.5e-7), scale=0.4).holds  # a perfect copy
    assert not _quality("reference", error, Score(0.0, 0.0, 0.0), Score(1e-3), scale=0.4).holds


def test_an_unfinished_run_or_a_missing_file_says_so(finished, tmp_path):
    with pytest.raises(StateError, match="finish the run first"):
        verify(tmp_path)
    folder = copy(finished, tmp_path / "run")
    shutil.rmtree(folder / "artifacts" / "uniform_0")
    with pytest.raises(StateError, match="is missing"):
        verify(folder)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "model.safetensors", "artifacts/reference/model.onnx"])
def test_a_changed_file_is_refused_before_it_is_loaded(finished, tmp_path, name):
    folder = copy(finished, tmp_path / "run")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(StateError, match=f"{name} has SHA-256 .*, it was delivered with .*; restore it"):
        verify(folder)
