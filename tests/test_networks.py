import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sartor.core.errors import ConfigError
from sartor.networks import (
    blank,
    input_shape,
    inputs_of,
    listed,
    lively,
    load_network,
    macs_params,
    shapes,
)


def oracle(module: nn.Module, x: Tensor) -> float:
    """Multiply-adds of all convolutions and matrix products, by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(x)
    return counter.get_total_flops() / 2


def test_a_torchvision_network_by_name_is_untrained_and_seeded() -> None:
    first, again, other = (load_network("torchvision:resnet18", seed=s) for s in (0, 0, 1))
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_a_callable_of_a_module_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_mine.py").write_text(
        "from torch import nn\ntiny = lambda: nn.Linear(2, 3)\nwrong = lambda: 3\nneeds = lambda a: a\nnumber = 4\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    assert isinstance(load_network("nets_of_mine:tiny"), nn.Linear)
    for spec, message in {
        "nets_of_mine:tinny": "has no 'tinny'; did you mean 'tiny'?",
        "nets_of_mine:wrong": "gives a int; it must give a torch.nn.Module",
        "nets_of_mine:needs": "callable without arguments",
        "nets_of_mine:number": "is a int",
        "no_such_module_here:f": "there is no module 'no_such_module_here'",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(message)):
            load_network(spec)


def test_a_missing_import_inside_the_users_module_keeps_its_own_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_nets.py").write_text("import not_installed_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_network("broken_nets:f")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:resnet81", "did you mean 'resnet18'?"),
        ("resnet18", "a network is torchvision:NAME"),
        ("net.onnx", "opened by a target"),
        ("torchvision:", "a network is"),
    ],
)
def test_names_that_do_not_exist(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_network(spec)


def test_input_shapes() -> None:
    assert input_shape("1,3,224,224") == (1, 3, 224, 224)
    assert input_shape("2x3 x 8x8") == (2, 3, 8, 8)
    for text in ("", "3", "1,3,a", "1,0,8", "1,-3,8,8", "1.5,2"):
        with pytest.raises(ConfigError, match="like 1,3,224,224"):
            input_shape(text)


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [("resnet18", 1_814_073_344, 11_689_512), ("mobilenet_v2", 300_774_272, 3_504_872)],
)
def test_known_networks(name: str, macs: int, params: int) -> None:
    with torch.device("meta"):
        net, x = torchvision.models.get_model(name), torch.empty(1, 3, 224, 224)
    assert macs_params(net, x) == (macs, params)
    assert oracle(net, x) == macs


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, (3, 1), stride=2, groups=2)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2)
        self.shared = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(torch.relu(self.grouped(x))).mean((2, 3))
        return self.shared(self.shared(y))


def test_grouped_transposed_and_repeated_layers_agree_with_torchs_counter() -> None:
    x = torch.randn(3, 4, 9, 7)
    macs, params = macs_params(Odd(), x)
    assert macs == oracle(Odd(), x)
    assert params == sum(p.numel() for p in Odd().parameters())


def test_projections_of_attention_count_and_the_attention_matrix_does_not() -> None:
    x = torch.randn(2, 5, 8)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    macs, _ = macs_params(layer, x)
    tokens = 2 * 5
    assert macs == tokens * (4 * 8 * 8 + 2 * 8 * 16)
    attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, batch_first=True)

    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = attention

        def forward(self, q: Tensor) -> Tensor:
            return self.inner(query=q, key=q[:, :3, :4], value=q[:, :3, :6], need_weights=False)[0]

    assert macs_params(Cross(), x)[0] == 8 * (80 + 2 * 3 * 4 + 2 * 3 * 6 + 80)


def test_counting_leaves_the_flags_as_they_were() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    net[1].eval()
    macs_params(net, torch.randn(1, 3, 8, 8))
    assert net.training
    assert not net[1].training
    assert not net[0]._forward_hooks
    assert net[1].num_batches_tracked == 0


def test_networks_by_name_take_a_number_of_classes() -> None:
    assert load_network("torchvision:squeezenet1_1", classes=7).classifier[1].out_channels == 7
    assert load_network("torchvision:squeezenet1_1").classifier[1].out_channels == 1000


def test_inputs_as_text() -> None:
    alone = inputs_of(["1,3,8,8"])
    assert isinstance(alone, torch.Tensor)
    assert alone.is_meta
    assert alone.shape == (1, 3, 8, 8)
    several = inputs_of(["1,3,8,8", "1x10"])
    assert isinstance(several, tuple)
    assert [tuple(x.shape) for x in several] == [(1, 3, 8, 8), (1, 10)]
    named = inputs_of(["image=1,3,8,8", "ids=1,6:int64", "mask=1,6:bool"])
    assert isinstance(named, dict)
    assert [(n, tuple(x.shape), x.dtype) for n, x in named.items()] == [
        ("image", (1, 3, 8, 8), torch.float32),
        ("ids", (1, 6), torch.int64),
        ("mask", (1, 6), torch.bool),
    ]
    before = inputs_of(["image=float32:1,3,8,8", "ids=int64:1,6", "mask= bool : 1x6"])
    assert isinstance(before, dict)
    assert [(n, x.shape, x.dtype) for n, x in before.items()] == [(n, x.shape, x.dtype) for n, x in named.items()]
    assert inputs_of(["int64:1,128"]).dtype is torch.int64  # type: ignore[union-attr]
    one = inputs_of(["ids=1,6:int64"])
    assert isinstance(one, dict)
    assert listed(shapes(named)) == {"image": [3, 8, 8], "ids": [6], "mask": [6]}
    assert listed(shapes(several)) == [[3, 8, 8], [10]]
    assert listed(shapes(alone)) == [3, 8, 8]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "at least one input"),
        (["a=1,3", "1,10"], "all by name, each another"),
        (["a=1,3", "a=1,10"], "all by name, each another"),
        (["a=1,3", "b=1,x"], "input b: an input shape is positive whole numbers"),
        (["1,3", "1,0"], "input number 2: an input shape is"),
        (["ids=1,6:int65"], "input ids has the type 'int65'; types are float32, "),
        (["ids=int65:1,6"], "as in ids=int64:1,16"),
        (["1,6:"], "input number 1 has the type ''"),
        (["1,6:nn"], "input number 1 has the type 'nn'"),
        (["1,6:quint8"], "input number 1 has the type 'quint8'"),
        (["int64:"], "an input shape is positive whole numbers"),
        (["1,99999999999999999999"], "an input shape is positive whole numbers"),
        (["a b=1,6"], "is called as in the network's forward"),
        (["=1,6"], "is called as in the network's forward"),
    ],
)
def test_inputs_that_are_none_are_named(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        inputs_of(texts)


def test_an_example_is_blank_but_for_whole_numbers_and_truths() -> None:
    net = nn.Linear(3, 2).double()
    like = {"x": torch.ones(2, 4), "ids": torch.tensor([[5, 6], [7, 8]]), "mask": torch.tensor([[True], [False]])}
    found = blank(net, like)
    assert isinstance(found, dict)
    assert found["x"].dtype == torch.double
    assert found["x"].tolist() == [[0.0] * 4]
    assert found["ids"].tolist() == [[5, 6]]
    assert found["mask"].tolist() == [[True]]
    assert found["ids"].data_ptr() != like["ids"].data_ptr()
    assert blank(net, {"x": (4,), "y": (1, 2)})["y"].shape == (1, 1, 2)  # type: ignore[call-overload]
    assert blank(net, [3, 8, 8]).shape == (1, 3, 8, 8)  # type: ignore[union-attr]
    assert [tuple(x.shape) for x in blank(net, [[3, 8, 8], [10]])] == [(1, 3, 8, 8), (1, 10)]
    ids = blank(net, torch.empty(1, 6, dtype=torch.int64, device="meta"))
    assert isinstance(ids, torch.Tensor)
    assert ids.tolist() == [[0] * 6]


def test_a_lively_batch_keeps_to_what_is_allowed() -> None:
    like = (torch.zeros(1, 3), torch.tensor([[7, 9, 7]]), torch.tensor([[True, False]]), torch.zeros(1, 4).long())
    x, numbers, truths, unknown = lively(like, 5, torch.Generator().manual_seed(0))
    assert x.std() > 0
    assert all(sorted(row) == [7, 7, 9] for row in numbers.tolist())
    assert truths.tolist() == [[True, False]] * 5
    assert set(unknown.flatten().tolist()) == {0, 1}


def test_several_inputs_are_counted() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.a, self.b = nn.Embedding(9, 4), nn.Linear(3, 5), nn.Linear(4, 6)

        def forward(self, x: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"a": self.a(x), "b": self.b(self.words(ids))}

    counted = macs_params(Both(), {"ids": torch.zeros(1, 7, dtype=torch.int64), "x": torch.zeros(1, 3)})
    assert counted == (15 + 7 * 24, 36 + 20 + 30)
