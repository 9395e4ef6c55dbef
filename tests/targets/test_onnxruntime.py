from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from sartor.core.errors import TargetError
from sartor.targets.onnxruntime import OnnxRuntime

SHAPE = [1, 4]


def write(path: Path, operator: str, domain: str = "", outputs: int = 1) -> Path:
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, SHAPE)]
    names = [f"output{i}" for i in range(outputs)]
    nodes = [helper.make_node(operator, ["input"], [name], domain=domain) for name in names]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in names]
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, infos), opset_imports=opsets, ir_version=9)
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
    with pytest.raises(TargetError, match=r"shape \(2, 5\).*invalid dimensions"):
        session(torch.zeros(2, 5))


def test_several_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="one input and one output"):
        OnnxRuntime().load(write(tmp_path / "two.onnx", "Relu", outputs=2))


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
