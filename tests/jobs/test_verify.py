from __future__ import annotations

import json
import shutil

import pytest

from sartor.core.errors import StateError
from sartor.core.records import Estimate
from sartor.jobs.verify import networks_of, verify
from sartor.run.progress import Display


def copy(finished, folder):
    shutil.copytree(finished.folder, folder)
    (folder / ".lock").unlink(missing_ok=True)
    return folder


def test_everything_is_measured_again(finished, tmp_path):
    found = verify(copy(finished, tmp_path / "run"))
    roles = networks_of(finished.result)
    assert {c.network for c in found.checks} == roles.keys() == {"reference", "winner_0", "uniform_0"}
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
    one, other = (Estimate(**f.entries["winner_0"]["latency_ms"]) for f in found)
    assert one != other
    assert max(one.low / other.high, other.low / one.high) < 1.2, "they were taken on a machine that others use"


def test_a_winner_that_is_the_uniform_network_is_measured_once_and_the_searchs_own_too(finished, tmp_path):
    folder = copy(finished, tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    point = result["curve"][0]
    point["searched"], point["winner"] = point["winner"], point["uniform"]
    point["searched"]["macs"] += 1
    (folder / "result.json").write_text(json.dumps(result))
    found = verify(folder)
    assert found.entries.keys() == networks_of(result).keys() == {"reference", "winner_0", "uniform_0", "searched_0"}
    assert found.entries["winner_0"] == found.entries["uniform_0"], "timed twice"
    assert found.entries["searched_0"]["latency_ms"] != found.entries["winner_0"]["latency_ms"]
    assert len(found.checks) == 16
    assert [(c.network, c.what) for c in found.checks if not c.holds and c.what != "latency"] == [
        ("searched_0", "MACs")
    ]


def test_results_from_before_there_was_a_searched_network_are_verified(finished):
    result = json.loads(json.dumps(finished.result))
    for point in result["curve"]:
        del point["searched"], point["reason"]
    assert networks_of(result).keys() == {"reference", "winner_0", "uniform_0"}


def test_a_result_that_lies_is_caught(finished, tmp_path):
    folder = copy(finished, tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    result["curve"][0]["winner"]["accuracy"] = 0.999 if result["winner"]["accuracy"] < 0.9 else 0.5
    result["curve"][0]["winner"]["macs"] += 1
    times = result["curve"][0]["winner"]["latency_ms"]
    result["curve"][0]["winner"]["latency_ms"] = {k: v / 3 for k, v in times.items()}
    (folder / "result.json").write_text(json.dumps(result))
    found = verify(folder)
    wrong = {(c.network, c.what) for c in found.checks if not c.holds}
    assert {("winner_0", "accuracy"), ("winner_0", "MACs"), ("winner_0", "latency")} <= wrong
    assert not found.holds


def test_an_unfinished_run_or_a_missing_file_says_so(finished, tmp_path):
    with pytest.raises(StateError, match="finish the run first"):
        verify(tmp_path)
    folder = copy(finished, tmp_path / "run")
    shutil.rmtree(folder / "artifacts" / "uniform_0")
    with pytest.raises(StateError, match="is missing"):
        verify(folder)
