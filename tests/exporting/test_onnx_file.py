import logging
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.errors import TargetError
from sartor.core.trees import Inputs, Tree
from sartor.exporting import ENTRY, export_onnx, onnx_signature, trace_onnx

X = torch.zeros(1, 3, 8, 8)


def test_one_file_with_an_open_batch_and_nothing_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    net[1].eval()
    with caplog.at_level(logging.INFO):
        export_onnx(net, X, tmp_path / "deep" / "er" / "model.onnx")
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == ["model.onnx"]
    graph = onnx.load(str(tmp_path / "deep" / "er" / "model.onnx")).graph
    assert [i.name for i in graph.input] == ["input"]
    assert [o.name for o in graph.output] == ["output"]
    sizes = graph.input[0].type.tensor_type.shape.dim
    assert sizes[0].dim_param
    assert [d.dim_value for d in sizes[1:]] == [3, 8, 8]
    assert (net.training, net[0].training, net[1].training) == (True, True, False)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


class BatchOfOne(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, 192)


def test_a_network_that_fixes_its_batch_is_exported_with_it(tmp_path: Path) -> None:
    export_onnx(BatchOfOne(), X, tmp_path / "model.onnx")
    size = onnx.load(str(tmp_path / "model.onnx")).graph.input[0].type.tensor_type.shape.dim[0]
    assert size.dim_value == 1


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def test_an_operator_without_an_onnx_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"cannot export Unknown to ONNX: .*bessel_j0"):
        export_onnx(Unknown(), X, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


class Named(nn.Module):
    """Everything a name can collide with: an operator, a parameter, an input, another output."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((3, 1, 1), 2.0))
        self.linear = nn.Linear(3, 2)

    def forward(self, image: Tensor, label: Tensor, unused: Tensor) -> Tree:
        hidden = torch.relu(image * self.scale).mean((2, 3)) + label
        found = self.linear(hidden)
        more = [hidden, {"same": found, "mask": found > 0}]
        return {"relu": found, "image": image, "scale": hidden, "constant": torch.arange(3), "more": more}


LABEL = torch.tensor([[2]])
OUTPUTS = ["relu", "image_", "scale_", "constant", "more.0", "more.1.same", "more.1.mask"]


def run(data: bytes, values: dict[str, Tensor]) -> list[Tensor]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(v) for v in session.run(None, {name: v.numpy() for name, v in values.items()})]


@pytest.mark.parametrize("optimize", [True, False])
def test_names_of_several_inputs_and_outputs_do_not_collide(optimize: bool) -> None:
    net, x = Named().eval(), torch.linspace(-1, 1, 192).reshape(X.shape)
    program = trace_onnx(net, (x, LABEL, x[:, :1]), optimize=optimize)
    graph = program.model_proto.graph
    assert [i.name for i in graph.input] == ["image", "label", "unused"]
    assert [o.name for o in graph.output] == OUTPUTS
    data = program.model_proto.SerializeToString()
    found = run(data, {"image": x, "label": LABEL, "unused": x[:, :1]})
    for a, b in zip(found, trees.leaves(net(x, LABEL, x)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_file_knows_its_inputs_types_and_one_open_batch(tmp_path: Path) -> None:
    example: Inputs = {"label": LABEL, "unused": X, "image": X}
    export_onnx(Named(), example, tmp_path / "model.onnx")
    signature = onnx_signature((tmp_path / "model.onnx").read_bytes())
    assert signature.kind == "dict"
    assert [(p.name, p.shape, p.dtype) for p in signature.inputs] == [
        ("label", ("batch", 1), torch.int64),
        ("unused", ("batch", 3, 8, 8), torch.float32),
        ("image", ("batch", 3, 8, 8), torch.float32),
    ]
    assert list(trees.named(signature.tree)) == [*OUTPUTS[:1], "image", "scale", *OUTPUTS[3:]]


def test_a_file_of_somebody_else_has_a_dict_of_outputs_by_name(tmp_path: Path) -> None:
    model = trace_onnx(Named(), (X, LABEL, X)).model_proto
    del model.metadata_props[:]
    signature = onnx_signature(model.SerializeToString())
    assert list(signature.tree) == OUTPUTS
    assert [p.name for p in signature.inputs] == ["image", "label", "unused"]
    model.metadata_props.add(key=ENTRY, value="{}")
    with pytest.raises(TargetError, match="metadata entry 'sartor' of the file does not describe it"):
        onnx_signature(model.SerializeToString())
    with pytest.raises(TargetError, match="no ONNX model"):
        onnx_signature(b"nothing")


def test_an_lstm_that_projects_its_states_is_refused_by_name(tmp_path: Path) -> None:
    """The exporter writes one with states of the wrong size, which no runtime opens."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.LSTM(4, 8, proj_size=3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.read(x)[0]

    with pytest.raises(TargetError, match="read has proj_size = 3; use the target torch_cpu, or proj_size = 0"):
        export_onnx(Net(), torch.zeros(1, 5, 4), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
