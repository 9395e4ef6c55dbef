"""Every target keeps the promises of its contract."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from sartor.core import plugins, trees
from sartor.core.abilities import Templated
from sartor.core.contracts import Target
from sartor.core.errors import MissingExtraError, TargetError
from sartor.core.rng import global_seed, torch_rng
from sartor.core.trees import Inputs, Tree
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


@dataclass
class Output:
    logits: Tensor
    features: Tensor


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class Many(nn.Module):
    """An image and whole numbers in, a tree out."""

    def __init__(self, shape: Callable[[Tensor, Tensor], Tree], width: int = 4) -> None:
        super().__init__()
        self.shape = shape
        self.conv, self.norm = nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width)
        self.embedding, self.linear = nn.Embedding(6, width), nn.Linear(width, 5)

    def forward(self, image: Tensor, label: Tensor) -> Tree:
        maps = torch.relu(self.norm(self.conv(image)))
        return self.shape(self.linear(maps.mean((2, 3)) + self.embedding(label).mean(1)), maps)


class Two(nn.Module):
    """Two sources that are kept apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(6, 4)

    def forward(self, image: Tensor, spectrum: Tensor) -> Tensor:
        return self.conv(image).mean((2, 3)) + self.linear(spectrum)


LABEL, SPECTRUM = torch.tensor([[5, 2]]), torch.linspace(-1, 1, 6)[None]
CASES: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "two tensors, a tensor": (Two, (EXAMPLE, SPECTRUM)),
    "a dict, a tensor": (Two, {"spectrum": SPECTRUM, "image": EXAMPLE}),
    "image and integers, a dict": (lambda: Many(lambda y, m: {"main": y, "aux": m}), (EXAMPLE, LABEL)),
    "a dict, a dataclass": (lambda: Many(Output), {"label": LABEL, "image": EXAMPLE}),
    "image and integers, a named tuple": (lambda: Many(Pair), (EXAMPLE, LABEL)),
    "image and integers, nested": (
        lambda: Many(lambda y, m: ((y, None), {"aux": [m, {"labels": y.argmax(1)}], "same": y})),
        (EXAMPLE, LABEL),
    ),
}


def agree(found: Tree, expected: Tree) -> None:
    """One structure, one device, the same values and types of values."""
    assert list(trees.named(found)) == list(trees.named(expected))
    assert type(found).__name__ == type(expected).__name__

    def check(pair: list[Tensor]) -> None:
        torch.testing.assert_close(pair[0], pair[1], rtol=1e-3, atol=1e-4)

    trees.combined(check, [found, expected])


def mistaken(example: Inputs) -> Iterator[tuple[Any, str]]:
    """Inputs that do not fit, and what the message must say."""
    if isinstance(example, dict):
        yield {**example, "image": example["image"][..., 1:]}, r"'image', float\d+ of shape \(batch, 3, 12, 12\).*11\)"
        yield {**example, "image": example["image"].long()}, r"'image', float\d+ .*got int64"
        yield {"image": example["image"]}, rf"got no '{(example.keys() - {'image'}).pop()}'"
        yield {**example, "imgae": example["image"]}, "got 'imgae'"
    else:
        yield (example[0][..., 1:], example[1]), r"'image', float\d+ of shape \(batch, 3, 12, 12\).*11\)"
        yield (example[0], torch.cat([example[1]] * 2)), r"\(where batch is 1\); got .*\(2, \d\)"
        yield example[0], r"needs inputs 'image', .*got 1 of 2 in order"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_any_inputs_go_in_and_any_tree_comes_out(name: str, case: str, tmp_path: Path) -> None:
    runtime, (make, example) = target(name), CASES[case]
    with global_seed(1):
        net = make().eval()
    session = runtime.prepare(net, example, tmp_path)
    assert session.artifact is not None
    loaded = target(name).load(session.artifact)  # which knows the file only
    pair = trees.joined([example, trees.mapped(lambda t: t.flip(-1), example)])
    for ready in (session, loaded):
        for inputs in (example, pair):
            agree(ready(inputs), trees.call(net, inputs))
            ready.bind(inputs)()
    assert type(session(example)) is type(trees.call(net, example))
    for wrong, message in mistaken(example):
        with pytest.raises(TargetError, match=message):
            loaded(wrong)
        with pytest.raises(TargetError, match=message):
            loaded.bind(wrong)


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


@pytest.mark.parametrize("name", NAMES)
def test_a_template_takes_several_inputs_and_gives_features_of_narrow_networks(name: str) -> None:
    runtime = target(name)
    if not isinstance(runtime, Templated):
        pytest.skip("has no template")
    with global_seed(1):
        make = runtime.template(Many(Output, 8), (EXAMPLE, LABEL))
    for width in (4, 6, 3):
        with torch.device("meta"):
            narrow = Many(Output, width)
        session = make(narrow)
        output = session((EXAMPLE, LABEL))
        assert trees.shapes(trees.named(output)) == {"logits": (1, 5), "features": (1, width, 10, 10)}
        session.bind((EXAMPLE, LABEL))()


def test_targets_without_their_hardware_or_settings_say_so() -> None:
    for name in ("onnxruntime", "torch_cpu"):
        with pytest.raises(TargetError, match="threads must be at least 1"):
            plugins.load("targets", name)(threads=0)
    with pytest.raises(TargetError, match=r"no provider 'Nonsense'; available: .*CPUExecutionProvider"):
        plugins.load("targets", "onnxruntime")(provider="Nonsense")
    with pytest.raises(TargetError, match="there is no GPU 99"):
        plugins.load("targets", "torch_cuda")(device=99)
