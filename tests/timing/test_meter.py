from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sartor.core.errors import ConfigError, TargetError
from sartor.core.records import Estimate
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing.meter import Effort, Subject, Timings, time_together
from sartor.timing.rounds import Rounds
from timing.network import EXAMPLE, file_of
from timing.strange import Dies, Echo, Restless, words

QUICK = Effort(rounds=6, sessions=2, warmup=0.02)


class Running:
    """A session that leaves no file."""

    artifact = None

    def __init__(self, work, opened):
        self.work, self.opened = work, opened

    def __call__(self, x):
        return self.work(x)

    def bind(self, x):
        self.opened.append(x)
        return lambda: self.work(x)


def matmul(n, opened=None):
    x = torch.randn(n, n)
    return Subject(lambda: Running(lambda y: y @ y, [] if opened is None else opened), x)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    big = torch.zeros(1, 3, 48, 48)
    return {"slow": file_of(folder, "slow", width=64, example=big), "fast": file_of(folder, "fast", example=big)}


def subjects(files, target):
    return {name: Subject.of_file(target, path, torch.zeros(1, 3, 48, 48)) for name, path in files.items()}


def test_slower_calls_have_larger_ratios() -> None:
    timed = time_together({"fast": matmul(64), "slow": matmul(256)}, Effort(12, 2), reference="fast")
    assert timed.ratio("slow").low > 2
    assert timed.note == ""
    found = timed.latencies()
    assert found.keys() == {"fast", "slow"}
    assert found["fast"] == timed.milliseconds("fast")
    assert found["slow"].value == pytest.approx(timed.ratio("slow").value * found["fast"].value)


def test_an_anchor_is_what_the_reference_takes() -> None:
    timed = time_together({"a": matmul(64), "b": matmul(64)}, QUICK, reference="a")
    found = timed.latencies(Estimate(10.0, 9.0, 11.0))
    assert found["a"] == Estimate(10.0, 9.0, 11.0)
    assert found["b"].value == pytest.approx(10 * timed.ratio("b").value)


def test_every_network_is_opened_anew_each_time_and_the_reference_at_least_twice() -> None:
    opened: dict[str, list] = {"a": [], "b": []}
    named = {name: matmul(8, opened[name]) for name in opened}
    timed = time_together(named, Effort.brief(2), reference="a")
    assert timed.runs[0].columns == ("a", "a", "b")
    time_together(named, Effort.brief(2))
    assert [len(v) for v in opened.values()] == [3, 2]


def test_three_processes_take_part_and_the_files_agree_with_this_one(files) -> None:
    seen: list[tuple[int, int]] = []
    named = subjects(files, OnnxRuntime())
    effort = Effort(rounds=7, sessions=2, processes=3, warmup=0.02)
    timed = time_together(named, effort, reference="fast", on_round=lambda *a: seen.append(a))
    assert len(timed.runs) == 3
    assert timed.note == ""
    assert [np.shape(run.seconds) for run in timed.runs] == [(3, 4)] * 3
    assert seen == [(n, 9) for n in range(1, 10)]
    assert len({run.seconds for run in timed.runs}) == 3
    here = time_together(named, QUICK, reference="fast")
    assert timed.ratio("slow").value == pytest.approx(here.ratio("slow").value, rel=0.5)
    assert timed.ratio("slow").low > 1.5


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_inputs_of_every_form_reach_the_other_process(form, tmp_path) -> None:
    a, b = torch.ones(1, 4), torch.arange(9)
    inputs = {"tensor": a, "tuple": (a, b), "dict": {"b": b, "a": a}}[form]
    subject = Subject.of_file(Echo(expects=words(inputs)), tmp_path / "any", inputs)
    timed = time_together({"a": subject}, Effort(2, 1, 2, warmup=0.0))
    assert (len(timed.runs), timed.note) == (2, "")
    with pytest.raises(TargetError, match=r"ended with status 1: .*TargetError: got .*, not something else"):
        time_together({"a": Subject.of_file(Echo(expects="something else"), tmp_path, inputs)}, Effort(2, 1, 2))


def test_what_only_this_process_can_open_is_timed_here_and_says_so(files) -> None:
    named = {**subjects(files, OnnxRuntime()), "here": matmul(8)}
    timed = time_together(named, Effort(2, 1, 3, warmup=0.0), reference="fast")
    assert len(timed.runs) == 1
    assert timed.note == "timed in this process alone: here cannot be opened from a file by the name of a target"


def test_a_target_that_cannot_be_made_again_is_timed_here_and_says_so(files) -> None:
    timed = time_together(subjects(files, Restless()), Effort(2, 1, 3, warmup=0.0), reference="fast")
    assert len(timed.runs) == 1
    assert timed.note.startswith(
        "timed in this process alone: another process cannot make the target again (made again"
    )


def test_a_process_that_dies_is_an_error_and_nothing_is_made_up(files) -> None:
    with pytest.raises(TargetError, match=r"slow.onnx, fast.onnx ended with status 3: cannot map the device"):
        time_together(subjects(files, Dies()), Effort(2, 1, 3), reference="fast")


def test_networks_are_prepared_once_where_the_target_leaves_a_file(tmp_path) -> None:
    net, target = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), OnnxRuntime()
    subject = Subject.prepared(target, net, EXAMPLE, tmp_path / "a" / "b")
    assert subject.source is not None
    assert subject.source.artifact == tmp_path / "a" / "b" / "model.onnx"
    subject.source.artifact.rename(tmp_path / "moved.onnx")
    with pytest.raises(TargetError, match="no file"):
        subject.open()


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot time \['a'\] against 'b'; name subjects"):
        time_together({"a": matmul(8)}, QUICK, reference="b")
    with pytest.raises(ConfigError, match=r"cannot time \[\] against None"):
        time_together({}, QUICK)
    for name in ("rounds", "sessions", "processes"):
        with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
            Effort(**{name: 0})
    alone = Timings((Rounds(("a",), ((1.0,),), (3,)),))
    with pytest.raises(ConfigError, match="without a reference"):
        alone.ratio("a")
    with pytest.raises(ConfigError, match="need a reference"):
        alone.latencies()


def test_a_longer_look_has_more_of_what_is_scarce() -> None:
    assert Effort(40, 5, 3).doubled() == Effort(80, 5, 6)
    assert Effort(40, 5, 1).doubled() == Effort(80, 10, 1)
