from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn
from torch.nn.functional import pad

from sartor.core import trees
from sartor.core.errors import TargetError
from sartor.core.rng import global_seed
from sartor.exporting import OnnxTemplate, with_sane_weights
from sartor.targets.onnxruntime import OnnxRuntime

X = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)


class Session:
    """ONNX Runtime without a target around it; keeps the model."""

    artifact = None

    def __init__(self, data: bytes) -> None:
        self.model = onnx.load_model_from_string(data)
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        try:
            self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise TargetError(str(error)) from error

    def __call__(self, x: Tensor) -> Tensor:
        try:
            return torch.from_numpy(self.session.run(None, {"input": x.numpy()})[0])
        except Exception as error:
            raise TargetError(str(error)) from error

    def weights(self) -> dict[str, Tensor]:
        return {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in self.model.graph.initializer}


def block(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in, bias=False),
        nn.BatchNorm2d(c_in),
        nn.ReLU6(),
        nn.Conv2d(c_in, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
    )


class Mobile(nn.Module):
    """Depthwise-separable blocks; widths follow from choices."""

    def __init__(self, a: int, b: int, c: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, a, 3, 2, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU())
        self.blocks = nn.Sequential(block(a, b), block(b, c, 2))
        self.head = nn.Linear(c, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.blocks(self.stem(x)).mean((2, 3)), 1))


class Residual(nn.Module):
    """A stage change with a projection, or with a padding shortcut that two equal widths leave out."""

    def __init__(self, a: int, b: int, c: int, *, padded: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, a, 3, padding=1)
        self.conv2 = nn.Conv2d(a, b, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(b)
        self.conv3 = nn.Conv2d(b, c, 3, padding=1)
        self.project = None if padded else nn.Conv2d(a, c, 1, 2)
        self.linear = nn.Linear(c * 8 * 8, 7)
        self.more = c - a

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        y = self.conv3(torch.relu(self.norm(self.conv2(x))))
        if self.project is not None:
            skip = self.project(x)
        else:
            skip = x[:, :, ::2, ::2]
            skip = pad(skip, (0, 0, 0, 0, 0, self.more)) if self.more else skip
        return self.linear(torch.relu(y + skip).flatten(1))


def check(template: OnnxTemplate, make: Callable[..., nn.Module], widths: Sequence[int], **settings: bool) -> Session:
    """The product's outputs are what PyTorch computes with the product's own weights."""
    with torch.device("meta"):
        shapes = make(*widths, **settings)
    session = template(shapes)
    assert isinstance(session, Session)
    found = session.weights()
    narrow = with_sane_weights(shapes, X)
    own = {name: found.get(name, old) for name, old in narrow.state_dict().items()}
    assert {n: tuple(t.shape) for n, t in own.items()} == {n: tuple(t.shape) for n, t in shapes.state_dict().items()}
    assert all(name in found for name in dict(narrow.named_parameters()))
    narrow.load_state_dict(own)
    with torch.no_grad():
        expected = narrow.eval()(X)
    assert torch.allclose(session(X), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    for name, weight in found.items():
        if weight.is_floating_point() and weight.numel():
            assert torch.isfinite(weight).all(), name
            assert ((weight == 0) | (weight.abs() > 1e-30)).all(), name
    return session


def network(make: Callable[..., nn.Module], *widths: int, **settings: bool) -> nn.Module:
    with global_seed(0):
        return make(*widths, **settings)


def test_depthwise_networks_are_sliced_after_two_traces() -> None:
    template = OnnxTemplate(network(Mobile, 16, 24, 32), X, Session)
    for widths in ((8, 12, 32), (8, 24, 16), (16, 4, 8), (16, 24, 32), (1, 1, 1)):
        check(template, Mobile, widths)
    assert (template.traced, template.sliced) == (1, 4)


def test_projection_shortcuts_and_flattened_maps_are_sliced() -> None:
    template = OnnxTemplate(network(Residual, 8, 12, 16, padded=False), X, Session)
    for widths in ((4, 6, 8), (8, 3, 12), (2, 12, 16)):
        check(template, Residual, widths, padded=False)
    assert template.sliced >= 1
    assert template.traced + template.sliced == 3


def test_padding_shortcuts_learn_the_number_of_zeros_and_another_graph_where_there_are_none() -> None:
    template = OnnxTemplate(network(Residual, 8, 12, 16, padded=True), X, Session)
    for widths in ((3, 7, 9), (6, 6, 6), (5, 11, 13), (2, 4, 16), (4, 5, 4)):
        check(template, Residual, widths, padded=True)
    assert template.sliced >= 2
    assert template.traced + template.sliced == 5


class Sided(nn.Module):
    """Zeros on both sides of the channels: how many on which does not follow from the widths."""

    def __init__(self, a: int, left: int, right: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, a, 3)
        self.linear = nn.Linear(a + left + right, 5)
        self.margins = (left, right)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(pad(self.conv(x), (0, 0, 0, 0, *self.margins)).mean((2, 3)))


def recorded(*settings: int) -> fx.GraphModule:
    """The same, where only the graph knows the numbers."""
    return fx.symbolic_trace(Sided(*settings))


@pytest.mark.parametrize("make", [Sided, recorded])
def test_numbers_that_modules_or_graphs_hold_are_found_there(make: Any) -> None:
    template = OnnxTemplate(network(make, 8, 4, 4), X, Session)
    for settings in ((4, 1, 3), (4, 3, 1), (6, 2, 4), (6, 4, 1), (5, 0, 4)):
        check(template, make, settings)
    assert (template.traced, template.sliced) == (1, 4)


class Shuffled(nn.Module):
    """A graph that depends on its widths in a way that no rule knows: a constant per channel."""

    def __init__(self, a: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, a, 3)
        self.scale = [float(i * i) for i in range(a)]

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) * torch.tensor(self.scale)[:, None, None]).mean((2, 3))


def test_graphs_that_cannot_be_sliced_are_traced_and_right() -> None:
    template = OnnxTemplate(network(Shuffled, 8), X, Session)
    for width in (4, 6):
        with torch.device("meta"):
            narrow = Shuffled(width)
        session = template(narrow)
        assert session(X).shape == (1, width)
    assert (template.traced, template.sliced) == (2, 0)


def test_networks_that_are_not_narrower_are_traced() -> None:
    template = OnnxTemplate(network(Mobile, 8, 8, 8), X, Session)
    assert template(network(Mobile, 8, 16, 8))(X).shape == (1, 7)
    assert template(network(Residual, 4, 4, 4, padded=False))(X).shape == (1, 7)
    assert template.sliced == 0


def test_bad_weights_of_the_widest_network_do_no_harm_and_the_network_stays_as_it_was() -> None:
    wide = network(Mobile, 16, 24, 32)
    with torch.no_grad():
        wide.stem[0].weight[0] = float("nan")
        wide.head.weight.fill_(1e-42)  # denormal
        wide.stem[1].running_var.zero_()
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    template = OnnxTemplate(wide, X, Session)
    check(template, Mobile, (8, 12, 16))
    check(template, Mobile, (8, 12, 8))
    assert all(np.array_equal(before[n].numpy(), v.numpy(), equal_nan=True) for n, v in wide.state_dict().items())
    assert wide.training


def test_activations_of_deep_untrained_networks_stay_in_the_normal_range() -> None:
    layers: list[nn.Module] = []
    for _ in range(150):
        layers += [nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU6()]
    with global_seed(0):
        deep = nn.Sequential(*layers[:-1])
        for part in deep.modules():
            if isinstance(part, nn.Conv2d):
                part.reset_parameters()
    x = X[..., :4, :4]
    with torch.no_grad():
        assert float(deep.eval()(x).abs().max()) < 1e-38  # what the test is about
        assert float(with_sane_weights(deep, x)(x).abs().max()) > 1e-3


def test_modules_on_the_meta_device_get_weights() -> None:
    with torch.device("meta"):
        net = Mobile(4, 4, 4)
    made = with_sane_weights(net, X)
    assert torch.isfinite(made(X)).all()
    assert not made.training
    with pytest.raises(NotImplementedError):
        net.head.weight.cpu()


class Stack(nn.Module):
    """Layers in a row, of which some may be missing, and an end that the code decides on."""

    def __init__(self, *layers: int, last: str = "relu") -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(i): nn.Conv2d(3, 3, 3, padding=1) for i in layers})
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return x.relu() if self.last == "relu" else x.sigmoid()


def test_another_network_is_traced_once_and_never_taken_for_a_third() -> None:
    template = OnnxTemplate(network(Stack, 0, 1, 2), X, Session)
    first, again = (template(network(Stack, 0, 2)) for _ in range(2))
    assert template.traced == 1
    assert torch.equal(first(X), again(X))
    assert float(template(network(Stack, 0, 2, last="sigmoid"))(X).min()) > 0
    assert len(template(network(Stack, 1)).model.graph.initializer) == 2
    assert template.traced == 3


class Features(nn.Module):
    """Two inputs; an output whose channels follow a width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.embedding = nn.Conv2d(3, width, 3), nn.Embedding(4, width)

    def forward(self, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.conv(image))
        return {"maps": y, "mean": y.mean((2, 3)) + self.embedding(label)}


def test_networks_with_several_inputs_and_features_as_outputs_are_sliced() -> None:
    example = (X, torch.tensor([2]))

    def opened(data: bytes) -> Any:
        model = onnx.load_model_from_string(data)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)  # nothing of the widest is left
        return OnnxRuntime()._open(data, None)

    template = OnnxTemplate(network(Features, 8), example, opened)
    for width in (4, 6, 3, 5):
        found = template(network(Features, width))(example)
        assert trees.shapes(found) == {"maps": (1, width, 14, 14), "mean": (1, width)}
    assert (template.traced, template.sliced) == (1, 3)
