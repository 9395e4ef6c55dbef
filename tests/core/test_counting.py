"""Multiply-adds against torch's own counter, which counts all products: ours, and those between two activations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import DeformConv2d

from sartor.core import counting
from sartor.core.counting import Count
from sartor.core.products import FORMULAS
from sartor.networks import counted, unfused


class Calls(nn.Module):
    """Layers and parameters by name, and what is done with them."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *x: Tensor) -> Any:
        return self.function(self, *x)


def weight(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, dtype=dtype))


def oracle(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """All products, by torch's own counter; on no device, so that no library hides what is inside a layer."""
    with unfused(), FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(module).eval().to("meta")(*(x.to("meta") for x in inputs))
    return counter.get_total_flops() / 2


IMAGES, WORDS, VECTORS = torch.randn(2, 4, 9, 7), torch.randn(2, 5, 8), torch.randn(3, 8)
LSTM, GRU, RNN = nn.LSTM, nn.GRU, nn.RNN

COUNTED: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "grouped and transposed": (
        nn.Sequential(nn.Conv2d(4, 8, (3, 1), 2, groups=2), nn.ConvTranspose2d(8, 6, 3, 2, groups=2)),
        (IMAGES,),
    ),
    "convolution by its general name": (
        Calls(
            lambda m, x: torch.convolution(x, m.w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1), w=weight(5, 4, 3, 3)
        ),
        (IMAGES,),
    ),
    "transposed by its general name": (
        Calls(
            lambda m, x: torch.convolution(x, m.w, None, [1, 1], [0, 0], [1, 1], True, [0, 0], 1), w=weight(4, 5, 3, 3)
        ),
        (IMAGES,),
    ),
    "one dimension": (nn.Sequential(nn.Conv1d(5, 4, 3), nn.ConvTranspose1d(4, 3, 2)), (WORDS,)),
    "three dimensions": (nn.Sequential(nn.Conv3d(2, 4, 1), nn.ConvTranspose3d(4, 3, 2)), (IMAGES[None],)),
    "convolution by its inner name": (
        Calls(
            lambda m, x: torch._convolution(
                x, m.w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, False, False, False
            ),
            w=weight(5, 4, 3, 3),
        ),
        (IMAGES,),
    ),
    "RNN of another kind": (RNN(8, 6, nonlinearity="relu"), (WORDS,)),
    "cell of another kind": (nn.RNNCell(8, 6, nonlinearity="relu"), (VECTORS,)),
    "matmul of linalg": (Calls(lambda m, x: torch.linalg.matmul(x, m.w), w=weight(8, 3)), (WORDS,)),
    "one image": (nn.Conv2d(4, 8, 3), (IMAGES[0],)),
    "one vector": (nn.Linear(8, 3), (VECTORS[0],)),
    "a layer twice": (Calls(lambda m, x: m.a(m.a(x)), a=nn.Linear(8, 8)), (VECTORS,)),
    **{
        f"{kind.__name__} {settings}": (kind(8, 6, **settings), (WORDS,))
        for kind in (LSTM, GRU, RNN)
        for settings in (
            {},
            {"batch_first": True},
            {"num_layers": 3},
            {"bidirectional": True, "bias": False},
            {"num_layers": 2, "bidirectional": True},
        )
    },
    "LSTM with projections": (LSTM(8, 6, 2, proj_size=3, bidirectional=True), (WORDS,)),
    "LSTM of one sequence": (LSTM(8, 6), (WORDS[0],)),
    **{kind.__name__: (kind(8, 6), (VECTORS,)) for kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell)},
    "matmul": (Calls(lambda m, x: x @ m.w, w=weight(8, 3)), (WORDS,)),
    "matmul from the left": (Calls(lambda m, x: m.w @ x, w=weight(3, 5)), (WORDS,)),
    "matmul with a buffer": (Calls(lambda _, x: x @ torch.ones(8, 3), w=weight(1)), (WORDS,)),
    "mm of a transposed view": (Calls(lambda m, x: torch.mm(x, m.w.t()), w=weight(3, 8)), (VECTORS,)),
    "bmm": (Calls(lambda m, x: torch.bmm(x, m.w.expand(2, 8, 3)), w=weight(8, 3)), (WORDS,)),
    "addmm": (Calls(lambda m, x: torch.addmm(m.b, x, m.w), w=weight(8, 3), b=weight(3)), (VECTORS,)),
    "baddbmm": (Calls(lambda m, x: torch.baddbmm(m.b, x, m.w.expand(2, 8, 3)), w=weight(8, 3), b=weight(3)), (WORDS,)),
    "einsum": (Calls(lambda m, x: torch.einsum("btc,cd->btd", x, m.w), w=weight(8, 3)), (WORDS,)),
    "einsum with an ellipsis": (Calls(lambda m, x: torch.einsum("...c,hcd", x, m.w), w=weight(2, 8, 3)), (WORDS,)),
    "einsum of three": (
        Calls(lambda m, x: torch.einsum("bc,cr,rd->bd", x, m.u, m.v), u=weight(8, 2), v=weight(2, 7)),
        (VECTORS,),
    ),
    "tensordot": (Calls(lambda m, x: torch.tensordot(x, m.w, 1), w=weight(8, 3)), (WORDS,)),
    "inner": (Calls(lambda m, x: torch.inner(x, m.w), w=weight(3, 8)), (WORDS,)),
    "multi_dot": (
        Calls(lambda m, x: torch.linalg.multi_dot([x, m.u, m.v]), u=weight(8, 2), v=weight(2, 7)),
        (VECTORS,),
    ),
    "a weight of two weights": (
        Calls(lambda m, x: nn.functional.linear(x, m.u @ m.v), u=weight(3, 2), v=weight(2, 8)),
        (VECTORS,),
    ),
    "a kernel of the input": (Calls(lambda m, x: nn.functional.linear(x, m.a(x)), a=nn.Linear(8, 8)), (VECTORS,)),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)), (VECTORS,)),
    "lookups": (nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 3)), (torch.zeros(2, 5, dtype=torch.int64),)),
}
BOTH: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "attention": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (WORDS,)),
    "attention, norm first": (nn.TransformerEncoderLayer(8, 2, 16, norm_first=True), (WORDS,)),
    "encoder and decoder": (nn.Transformer(8, 2, 1, 1, 16, batch_first=True), (WORDS, WORDS[:, :3])),
    "attention with weights": (Calls(lambda m, x: m.a(x, x, x)[1], a=nn.MultiheadAttention(8, 2)), (WORDS,)),
    "attention as one operator": (
        Calls(lambda m, x: nn.functional.scaled_dot_product_attention(m.a(x), x, x), a=nn.Linear(8, 8)),
        (WORDS,),
    ),
    "attention by hand": (Calls(lambda m, x: (m.a(x) @ x.mT).softmax(-1) @ x, a=nn.Linear(8, 8)), (WORDS,)),
    "einsum of activations": (Calls(lambda m, x: torch.einsum("btc,bsc->bts", m.a(x), x), a=nn.Linear(8, 8)), (WORDS,)),
    "gram matrix": (Calls(lambda m, x: torch.bmm(m.a(x).mT, x), a=nn.Linear(8, 8)), (WORDS,)),
}


def sums(case: tuple[nn.Module, tuple[Tensor, ...]]) -> tuple[Count, float]:
    module, inputs = case
    found = counted(module, inputs)
    return found, oracle(module, inputs)


@pytest.mark.parametrize("case", COUNTED.values(), ids=COUNTED)
def test_products_with_weights_are_all_there_is(case):
    found, wanted = sums(case)
    assert found.macs == wanted > 0
    assert found.between_activations == 0
    assert not found.blind


@pytest.mark.parametrize("case", BOTH.values(), ids=BOTH)
def test_products_of_activations_are_the_rest(case):
    found, wanted = sums(case)
    assert found.macs + found.between_activations == wanted
    assert 0 < found.between_activations < wanted
    assert {u.why for u in found.uncounted} == {"activations"}


def test_an_lstm_multiplies_with_its_weights_at_every_step():
    lstm = nn.LSTM(32, 64, batch_first=True)
    matrices = sum(p.numel() for p in lstm.parameters() if p.dim() == 2)
    assert counted(lstm, torch.zeros(1, 50, 32)).macs == 50 * matrices == 50 * 4 * 64 * (32 + 64)


def test_packed_sequences_count_their_steps():
    def packed(m: Any, x: Tensor) -> Tensor:
        data = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True)
        return m.lstm(data)[0].data

    assert counted(Calls(packed, lstm=nn.LSTM(8, 6)), WORDS).macs == 8 * 4 * 6 * (8 + 6)


class TestWhatTorchDoesNotCount:
    """Each rule by which our number is larger than torch's counter's."""

    def test_deformable_convolutions(self):
        module = Calls(lambda m, x: m.d(x, m.offset(x)), d=DeformConv2d(4, 6, 3), offset=nn.Conv2d(4, 18, 3))
        assert counted(module, IMAGES).macs == 2 * 7 * 5 * (4 * 18 * 9 + 4 * 6 * 9)
        assert not counted(module, IMAGES).uncounted

    def test_bilinear_layers(self):
        module = Calls(lambda m, x: m.b(x, x), b=nn.Bilinear(8, 8, 5))
        assert counted(module, VECTORS).macs == 3 * 8 * 8 * 5

    def test_filters_in_the_frequency_domain(self):
        """A weight per channel and frequency; a scale per channel is part of normalisation, and free."""

        def filtered(m: Any, x: Tensor) -> Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(x) * m.w) * m.scale

        module = Calls(filtered, w=weight(4, 9, 4, dtype=torch.complex64), scale=weight(4, 1, 1))
        found = counted(module, torch.randn(2, 4, 9, 7))
        assert found.macs == 2 * 4 * 9 * 4
        assert {(u.operator, u.why) for u in found.uncounted} == {("fft_rfft2", "work"), ("fft_irfft2", "work")}

    def test_mixtures_of_kernels(self):
        """As many products, in one einsum or element by element."""
        summed = Calls(lambda m, x: torch.einsum("bk,koi->boi", x[:, :3], m.w), w=weight(3, 5, 6))
        each = Calls(lambda m, x: (x[:, :3, None, None] * m.w).sum(1), w=weight(3, 5, 6))
        assert counted(summed, VECTORS).macs == counted(each, VECTORS).macs == 3 * 3 * 5 * 6


VECTOR_WISE = {
    "mv": (lambda w, x: torch.mv(x, w), 3 * 8),
    "dot": (lambda w, x: torch.dot(x[0], w), 8),
    "vdot": (lambda w, x: torch.vdot(x[0], w), 8),
    "matmul with a vector": (lambda w, x: x @ w, 3 * 8),
    "addmv": (lambda w, x: torch.addmv(w[:1], x, w), 3 * 8),
    "addbmm": (lambda w, x: torch.addbmm(w[:1], x[None], w.expand(1, 4, 8).mT), 3 * 4 * 8),
    "conv_tbc": (lambda w, x: torch.conv_tbc(x[:, None], w.expand(2, 5, 8).mT, w[:5]), 2 * 2 * 5 * 8),
}


@pytest.mark.parametrize(("function", "macs"), VECTOR_WISE.values(), ids=VECTOR_WISE)
def test_further_products_by_hand(function, macs):
    """Torch's counter does not know them."""
    assert counted(Calls(lambda m, x: function(m.w, x), w=weight(8)), VECTORS).macs == macs


def test_lookups_are_named():
    found = counted(nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 3)), torch.zeros(1, 5, dtype=torch.int64))
    assert [tuple(u) for u in found.uncounted] == [("0", "embedding", "lookup", 0, 400)]
    bags = counted(nn.EmbeddingBag(50, 8), torch.zeros(1, 5, dtype=torch.int64))
    assert [(u.why, u.params) for u in bags.uncounted] == [("lookup", 400)]


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda x: torch.fft.fft2(x).real, "fft_fft2"),
        (lambda x: torch.stft(x.flatten(1), 8, return_complex=True).abs(), "stft"),
        (lambda x: torch.cdist(x, x), "cdist"),
        (lambda x: nn.functional.grid_sample(x, x.new_zeros(2, 3, 3, 2), align_corners=False), "grid_sampler"),
        (lambda x: torch.linalg.qr(x)[0], "linalg_qr"),
    ],
)
def test_work_that_is_not_counted_is_named(function, operator):
    found = counted(Calls(lambda m, x: function(m.a(x)), a=nn.Conv2d(4, 4, 1)), IMAGES)
    assert [(u.operator, u.why) for u in found.uncounted] == [(operator, "work")]
    assert not found.blind


@pytest.fixture(scope="module")
def _foreign() -> None:
    @torch.library.custom_op("sartor_tests::mystery", mutates_args=())
    def mystery(x: Tensor, w: Tensor) -> Tensor:
        return x @ w

    @mystery.register_fake
    def _(x: Tensor, w: Tensor) -> Tensor:
        return x @ w


@pytest.mark.usefixtures("_foreign")
def test_operators_that_nobody_knows_are_named_with_their_parameters():
    def forward(m: Any, x: Tensor) -> Tensor:
        return torch.ops.sartor_tests.mystery(m.a(x), m.w)

    found = counted(Calls(forward, a=nn.Linear(8, 8), w=weight(8, 4)), VECTORS)
    assert [tuple(u) for u in found.blind] == [("", "mystery", "unknown", 0, 32)]
    assert found.macs == 3 * 64


def test_parameters_that_leave_torch_are_named():
    def forward(m: Any, x: Tensor) -> Tensor:
        return x + torch.from_numpy(m.w.detach().numpy() @ m.w.detach().numpy())

    found = counted(Calls(forward, w=weight(8, 8)), VECTORS[:1].expand(8, 8))
    assert [(u.layer, u.params) for u in found.blind] == [("", 64)]


def test_what_takes_no_part_and_what_multiplies_nothing_is_not_named():
    parts = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.PReLU(6), nn.GroupNorm(2, 6), nn.Flatten())
    assert counted(Calls(lambda m, x: m.parts(x), parts=parts, unused=nn.Linear(9, 9)), IMAGES).uncounted == ()


def test_compiled_parts_count_as_they_were_written():
    found = counted(nn.Sequential(torch.compile(nn.Linear(8, 3)), nn.Linear(3, 2)), VECTORS)
    assert found.macs == 3 * (24 + 6)


def test_a_shared_parameter_counts_once_and_works_twice():
    a, b = nn.Linear(8, 8), nn.Linear(8, 8)
    b.weight = a.weight
    found = counted(nn.Sequential(a, b), VECTORS)
    assert (found.macs, found.params) == (3 * 2 * 64, 64 + 16)


def test_memory_that_is_used_again_keeps_no_memory_of_activations():
    """A product of weights that lands where an activation was is still one of weights."""

    def forward(m: Any, x: Tensor) -> Tensor:
        for _ in range(20):
            x = x @ (m.u @ m.v)
            x = torch.tanh(x)
        return x

    found = counted(Calls(forward, u=weight(8, 8), v=weight(8, 8)), VECTORS)
    assert (found.macs, found.between_activations) == (20 * (3 * 64 + 512), 0)


SMALL = [
    *("alexnet", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5", "resnet18"),
    *("googlenet", "efficientnet_b0", "densenet121", "convnext_tiny", "lraspp_mobilenet_v3_large", "r3d_18"),
    *("swin_t", "vit_b_32"),
]


def networks() -> list[str]:
    """All of torchvision's that run on a picture or a film."""
    modules = (
        torchvision.models,
        torchvision.models.segmentation,
        torchvision.models.detection,
        torchvision.models.video,
    )
    names = [n for m in modules for n in torchvision.models.list_models(module=m)]
    return [n for n in names if not n.startswith("regnet") or n.endswith(("mf", "1_6gf", "3_2gf"))]  # the others: 2 GB


def vision(name: str) -> tuple[nn.Module, Tensor]:
    """A network of torchvision, of a detector its backbone, and a small input; without values where it can."""
    extra = {"weights_backbone": None} if "backbone" in name or name in _WITH_BACKBONE else {}
    extra |= {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # a regnet looks at its first weights
        made = torchvision.models.get_model(name, weights=None, **extra)
    made = made.backbone if name in torchvision.models.list_models(module=torchvision.models.detection) else made
    side = 224 if name.startswith(("vit", "swin", "maxvit", "mvit", "s3d")) else 300 if name == "ssd300_vgg16" else 96
    films = name in torchvision.models.list_models(module=torchvision.models.video)
    shape = (1, 3, 16, side, side) if films else (1, 3, side, side)
    return made.to("meta"), torch.zeros(shape, device="meta")


_WITH_BACKBONE = {
    n
    for module in (torchvision.models.segmentation, torchvision.models.detection)
    for n in torchvision.models.list_models(module=module)
}


def agree(name: str) -> None:
    module, x = vision(name)
    found = counted(module, x)
    assert found.macs + found.between_activations == oracle(module, (x,)) > 1e6
    assert not found.blind
    assert not found.between_activations or name.startswith(("vit", "swin", "maxvit", "mvit"))


@pytest.mark.parametrize("name", SMALL)
def test_networks_of_torchvision(name):
    agree(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in networks() if n not in SMALL])
def test_the_other_networks_of_torchvision(name):
    agree(name)


def test_there_are_a_hundred_networks():
    assert len(networks()) >= 100
    assert set(SMALL) <= set(networks())


def test_every_formula_is_tried(monkeypatch):
    used = set()

    class Watched(dict):
        def __getitem__(self, name: str) -> Any:
            used.add(name)
            return super().__getitem__(name)

    monkeypatch.setattr(counting, "FORMULAS", Watched(FORMULAS))
    for module, inputs in (*COUNTED.values(), *BOTH.values()):
        counted(module, inputs)
    for function, _ in VECTOR_WISE.values():
        counted(Calls(lambda m, x, f=function: f(m.w, x), w=weight(8)), VECTORS)
    elsewhere = {"deform_conv2d", "bilinear", "mul", "multiply", "__mul__"}  # torch's own counter has none of these
    assert used | elsewhere == FORMULAS.keys()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("compile_", [torch.jit.script, lambda m: torch.jit.trace(m, VECTORS)])
def test_script_is_counted(compile_):
    assert counted(compile_(nn.Sequential(nn.Linear(8, 3), nn.ReLU())), VECTORS).macs == 3 * 24
