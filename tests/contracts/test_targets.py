"""Every target keeps the promises of its contract."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sartor.core import plugins
from sartor.core.abilities import Templated
from sartor.core.contracts import Target
from sartor.core.errors import MissingExtraError, TargetError
from sartor.core.rng import global_seed, torch_rng
from sartor.timing.processes import address
from sartor.timing.rounds import interleave

NAMES = plugins.names("targets")


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, 1, 1, groups=width)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        return self.linear(self.drop(self.depthwise(x).mean((2, 3))))


EXAMPLE = torch.randn(1, 3, 12, 12, generator=torch_rng(0, "example"))


def network(width: int = 8) -> Net:
    with global_seed(1):
        return Net(width).train()


def target(name: str) -> Target:
    try:
        return plugins.load("targets", name)()
    except MissingExtraError as error:
        pytest.skip(str(error))
    except TargetError as error:
        if name == "torch_cuda" and not torch.cuda.is_available():
            pytest.skip(str(error))
        raise


def test_targets_are_found() -> None:
    assert {"onnxruntime", "torch_cpu", "torch_cuda", "openvino"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_runs_what_pytorch_runs_and_loads_its_own_artifact(name: str, tmp_path: Path) -> None:
    runtime, net = target(name), network()
    net.norm.eval()  # flags of parts come back one by one
    session = runtime.prepare(net, EXAMPLE, tmp_path / "new" / "folder")
    assert net.training
    assert not net.norm.training
    expected = net.eval()(EXAMPLE)
    assert torch.allclose(session(EXAMPLE), expected, atol=1e-4)
    assert session(EXAMPLE).device.type == "cpu"
    assert not session(EXAMPLE).requires_grad
    assert session.artifact is not None
    assert session.artifact.is_file()
    assert session.artifact.stem == "model"
    loaded = runtime.load(session.artifact)
    assert torch.equal(loaded(EXAMPLE), session(EXAMPLE))
    pair = torch.cat([EXAMPLE, -EXAMPLE])
    assert torch.allclose(loaded(pair), net(pair), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_bound_call_can_be_timed_and_leaves_other_calls_alone(name: str, tmp_path: Path) -> None:
    session = target(name).prepare(network(), EXAMPLE, tmp_path)
    before = session(-EXAMPLE)
    calls = {"a": session.bind(EXAMPLE), "b": session.bind(EXAMPLE)}
    assert interleave(calls, rounds=2, warmup=0.01).columns == ("a", "b")
    assert torch.equal(session(-EXAMPLE), before)


@pytest.mark.parametrize("name", NAMES)
def test_says_what_latency_depends_on(name: str) -> None:
    words = target(name).describe()
    assert isinstance(words, Mapping)
    assert {"runtime", "version", "device"} <= words.keys()
    assert all(isinstance(k, str) and isinstance(v, str) and v for k, v in words.items())


@pytest.mark.parametrize("name", NAMES)
def test_another_process_can_make_it_again(name: str) -> None:
    """It keeps its settings under their names, so that fresh processes can take part in a measurement."""
    runtime = target(name)
    found = address(runtime)
    assert found is not None
    again = plugins.load("targets", found.target)(**json.loads(json.dumps(found.settings)))
    assert type(again) is type(runtime)
    assert again.describe() == runtime.describe() == found.says
    assert address(again) == found


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_artifact_is_a_clear_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"no file .*nothing"):
        target(name).load(tmp_path / "nothing")


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_artifact_is_a_target_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"not a network")
    with pytest.raises(TargetError):
        target(name).load(tmp_path / "model.bin")


@pytest.mark.parametrize("name", NAMES)
def test_a_template_prepares_narrow_networks_from_shapes_only(name: str) -> None:
    runtime = target(name)
    if not isinstance(runtime, Templated):
        pytest.skip("has no template")
    make = runtime.template(network(8), EXAMPLE)
    for width in (4, 6, 3):
        with torch.device("meta"):
            narrow = Net(width)
        output = make(narrow)(EXAMPLE)
        assert output.shape == (1, 5)
        assert torch.isfinite(output).all()
        assert (output.abs() > 1e-20).all()  # nothing near the denormal range


def test_targets_without_their_hardware_or_settings_say_so() -> None:
    for name in ("onnxruntime", "torch_cpu"):
        with pytest.raises(TargetError, match="threads must be at least 1"):
            plugins.load("targets", name)(threads=0)
    with pytest.raises(TargetError, match=r"no provider 'Nonsense'; available: .*CPUExecutionProvider"):
        plugins.load("targets", "onnxruntime")(provider="Nonsense")
    with pytest.raises(TargetError, match="there is no GPU 99"):
        plugins.load("targets", "torch_cuda")(device=99)
