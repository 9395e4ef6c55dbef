from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from sartor.core.errors import TargetError
from sartor.targets.onnxruntime import OnnxRuntime

SHAPE = [1, 4]


def write(
    path: Path, operator: str, domain: str = "", inputs: int = 1, outputs: int = 1, shape: Any = tuple(SHAPE)
) -> Path:
    given = [f"input{i or ''}" for i in range(inputs)]
    names = [f"output{i}" for i in range(outputs)]
    nodes = [helper.make_node(operator, given, [name], domain=domain) for name in names]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    enters = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in given]
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(helper.make_graph(nodes, "g", enters, infos), opset_imports=opsets, ir_version=9)
    onnx.save(model, str(path))
    return path


def test_a_file_of_somebody_else_runs_whatever_its_inputs_are_called(tmp_path: Path) -> None:
    session = OnnxRuntime(threads=2).load(write(tmp_path / "relu.onnx", "Relu"))
    x = torch.tensor([[-1.0, 0.0, 1.0, 2.0]])
    assert torch.equal(session(x), torch.relu(x))
    assert session.artifact == tmp_path / "relu.onnx"


def test_an_operator_that_the_runtime_lacks_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TargetError, match=r"cannot run .*model.onnx: operator .*Frobnicate"):
        OnnxRuntime().load(write(tmp_path / "model.onnx", "Frobnicate", "my.domain"))
    assert capfd.readouterr() == ("", "")


def test_inputs_that_do_not_fit_are_target_errors(tmp_path: Path) -> None:
    session = OnnxRuntime().load(write(tmp_path / "relu.onnx", "Relu"))
    with pytest.raises(TargetError, match=r"input 'input', float32 of shape \(1, 4\); got float32 of shape \(2, 5\)"):
        session(torch.zeros(2, 5))


def test_what_the_runtime_stumbles_over_is_a_target_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(TargetError, match=r"cannot run inputs of shapes input \(1, 4\), input1 \(1, 3\): .*"):
        OnnxRuntime().load(write(path, "Add", inputs=2, shape=[None, None]))((torch.zeros(1, 4), torch.zeros(1, 3)))
    with pytest.raises(TargetError, match=r"'input1', .*\(a, b\) \(where a is 1, b is 4\); got .*\(1, 3\)"):
        OnnxRuntime().load(write(path, "Add", inputs=2, shape=["a", "b"]))((torch.zeros(1, 4), torch.zeros(1, 3)))


def test_a_file_of_somebody_else_takes_several_inputs_by_name_or_in_order_and_gives_a_dict(tmp_path: Path) -> None:
    session = OnnxRuntime().load(write(tmp_path / "two.onnx", "Sub", inputs=2, outputs=2))
    x, y = torch.ones(1, 4), torch.zeros(1, 4)
    for inputs in ((x, y), {"input1": y, "input": x}):
        found = session(inputs)
        assert list(found) == ["output0", "output1"]
        assert torch.equal(found["output1"], x)
        session.bind(inputs)()


def test_an_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, SHAPE)]
    outputs = [helper.make_tensor_sequence_value_info("output", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("SequenceConstruct", ["input"], ["output"])]
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), opset_imports=opsets, ir_version=9)
    onnx.save(model, str(tmp_path / "list.onnx"))
    with pytest.raises(TargetError, match=r"output 'output' is a seq\(tensor\(float\)\); it must be a tensor"):
        OnnxRuntime().load(tmp_path / "list.onnx")


def test_the_description_names_threads_and_provider() -> None:
    words = OnnxRuntime(threads=3).describe()
    assert (words["threads"], words["device"]) == ("3", "CPUExecutionProvider")


def test_a_bound_call_computes_on_its_own_input(tmp_path: Path) -> None:
    session = OnnxRuntime().load(write(tmp_path / "relu.onnx", "Relu"))
    x = torch.tensor([[-1.0, 0.0, 1.0, 2.0]])
    call = session.bind(x)
    call()
    assert torch.equal(session(-x), torch.relu(-x))
    assert x[0, 0] == -1
