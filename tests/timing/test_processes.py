import re

import pytest

from sartor.core.errors import TargetError
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing import inputs, processes
from sartor.timing.processes import Source, StrangerError, address, ask
from timing.network import EXAMPLE, file_of
from timing.strange import Dies, Renamed, Restless


def job(target, folder):
    inputs.write(EXAMPLE, folder / "x.safetensors")
    artifact = folder / "tiny.onnx"
    if not artifact.exists():
        file_of(folder)
    subject = {"name": "a", **Source(address(target), artifact).as_dict(), "inputs": str(folder / "x.safetensors")}
    return {"task": "time", "subjects": [{**subject, "sessions": 2}], "how": {"rounds": 3, "warmup": 0.01}}


def test_a_target_is_named_by_its_class_and_settings() -> None:
    found = address(OnnxRuntime(threads=2, tolerance=0.5))
    assert found.target == "sartor.targets.onnxruntime:OnnxRuntime"
    assert found.settings == {"threads": 2, "provider": "CPUExecutionProvider", "tolerance": 0.5}
    assert found.says["threads"] == "2"


def test_what_has_no_name_is_not_named() -> None:
    class Local(OnnxRuntime):
        pass

    odd = OnnxRuntime()
    odd.tolerance = object()
    assert [address(t) for t in (Local(), Renamed(), odd)] == [None] * 3


def test_a_process_answers_as_it_goes(tmp_path) -> None:
    answers = list(ask(job(OnnxRuntime(), tmp_path)))
    assert answers[:3] == [{"round": [n, 3]} for n in (1, 2, 3)]
    assert answers[3]["rounds"]["columns"] == ["a", "a"]
    assert len(answers) == 4


def test_a_dead_process_is_a_target_error_with_its_last_line(tmp_path) -> None:
    with pytest.raises(TargetError, match=r"that was to time tiny.onnx ended with status 3: cannot map the device$"):
        list(ask(job(Dies(), tmp_path)))


def test_an_exception_in_the_process_is_its_last_line(tmp_path) -> None:
    told = job(OnnxRuntime(), tmp_path)
    told["subjects"][0]["artifact"] = str(tmp_path / "nothing.onnx")
    with pytest.raises(TargetError, match=r"time nothing.onnx ended with status 1: .*no file .*nothing.onnx"):
        list(ask(told))


@pytest.mark.parametrize("garbage", ["Segmentation fault", "[1, 2]", "33"])
def test_what_is_no_answer_is_a_target_error(garbage, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "START", f"print({garbage!r})")
    with pytest.raises(TargetError, match="answered with what is no JSON object: " + re.escape(repr(garbage))):
        list(ask(job(OnnxRuntime(), tmp_path)))


def test_a_process_that_never_starts_is_a_target_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "START", "raise SystemExit('out of memory')")
    with pytest.raises(TargetError, match="ended with status 1: out of memory"):
        list(ask(job(OnnxRuntime(), tmp_path)))


def test_a_target_that_is_another_one_there_is_a_stranger(tmp_path) -> None:
    with pytest.raises(StrangerError, match=r"made again, it describes itself as .*'process'"):
        list(ask(job(Restless(), tmp_path)))
    unknown = job(OnnxRuntime(), tmp_path)
    unknown["subjects"][0]["target"] = "no.such.module:Target"
    with pytest.raises(StrangerError, match=r"no module 'no.such.module'"):
        list(ask(unknown))


def test_a_process_that_nobody_listens_to_is_ended(tmp_path) -> None:
    told = job(OnnxRuntime(), tmp_path)
    told["how"]["rounds"] = 10**6
    answers = ask(told)
    assert next(answers) == {"round": [1, 10**6]}
    answers.close()  # waits for the end of the process; without one it would take hours
