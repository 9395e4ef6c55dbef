"""Every overload of every operator that has a rule is right on a small example, or is refused.

The overloads come from torch's registry: one that nobody has thought of shows here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sartor.core.errors import CapabilityError
from sartor.core.rng import global_seed
from sartor.surgery.analysis import operators
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.operators import RULES, elementwise
from sartor.surgery.analysis.operators.rule import Rule

aten = torch.ops.aten
OURS = ("getitem", "permuted", "opaque")
"""What stands in a graph and is no operator of torch; see the tests of their modules."""


def overloads() -> dict[str, Any]:
    """Name -> overload, of all operators with a rule and of all that torch calls pointwise, in-place ones included;
    those that write into a tensor that is given, or have no tensor or names of dimensions, are left out.
    """
    names = {key.partition(".")[0] for key in RULES} - set(OURS)
    found = {}
    for name in sorted({*dir(aten), *names, *(f"{n}_" for n in names)}):
        packet = getattr(aten, name, None)
        for overload in packet.overloads() if hasattr(packet, "overloads") else ():
            op = getattr(packet, overload)
            ruled = name.rstrip("_") in names or name in names
            if (ruled or torch.Tag.pointwise in op.tags) and _is_plain(op):
                found[f"{name}.{overload}"] = op
    return found


def _is_plain(op: Any) -> bool:
    text = str(op._schema)
    tensors = any("Tensor" in str(a.type) for a in op._schema.arguments)
    into = torch.Tag.out in op.tags or any(a.is_out for a in op._schema.arguments)
    callable_ = torch._C._dispatch_has_kernel(op.name())
    made = any(name in text for name in ("-> Tensor", "-> (Tensor"))
    return tensors and made and callable_ and not into and "Dimname" not in text


OVERLOADS = overloads()


def rule(op: Any) -> Any:
    return operators.rule_of(torch.fx.Graph().call_function(op, ()))


SERVED = {name: op for name, op in OVERLOADS.items() if rule(op) is not None}


def filled(op: Any, maps: Iterator[Tensor], number: float) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of a pointwise operator: tensors of one shape, and small numbers; what has a default keeps it.

    Raises:
        LookupError: It takes something else.
    """
    values = {"number": number, "float": 0.5, "int": 1, "bool": False, "SymInt": 1, "str": "floor"}
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for a in op._schema.arguments:
        kind = str(a.type).removeprefix("Optional[").removesuffix("]")
        if a.has_default_value() and kind not in ("Tensor", "number"):
            continue
        value = next(maps) if kind == "Tensor" else values[kind]
        if a.kwarg_only:
            kwargs[a.name] = value
        else:
            args.append(value)
    return args, kwargs


KINDS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x.sigmoid() * 0.5 + 0.25,
    lambda x: (x.sigmoid() * 8).long() + 1,
    lambda x: x > 0,
    lambda x: torch.complex(x, x.cos()),
)
"""Numbers of the types that operators ask for."""


def fits(op: Any) -> tuple[Callable[[Tensor], Tensor], float] | None:
    """The first type of tensors and of numbers that an operator takes."""
    x = torch.randn(2, 3, dtype=torch.float64)
    for kind, number in product(KINDS, (0.5, 1)):
        try:
            args, kwargs = filled(op, iter([kind(x + i).clone() for i in range(9)]), number)
            if isinstance(op(*args, **kwargs), Tensor):
                return kind, number
        except (RuntimeError, TypeError, LookupError, NotImplementedError):
            continue
    return None


class Pointwise(nn.Module):
    """An operator of as many feature maps as it takes, each of a layer of its own."""

    def __init__(self, op: Any, kind: Callable[[Tensor], Tensor], number: float) -> None:
        super().__init__()
        self.op, self.kind, self.number = op, kind, number
        self.layers = nn.ModuleList(nn.Conv2d(3, 8, 1) for _ in range(4))
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.kind(layer(x)) for layer in self.layers]
        args, kwargs = filled(self.op, iter([maps[0].clone(), *maps[1:]]), self.number)
        found = torch.view_as_real(y)[..., 0] if (y := self.op(*args, **kwargs)).is_complex() else y
        return self.last(torch.nan_to_num(found.to(x.dtype), 0.0, 1.0, -1.0) + 0.1 * self.layers[0](x))


POINTWISE = {n: op for n, op in SERVED.items() if rule(op) in (elementwise.POINTWISE, elementwise.SAME)}
RANDOM = ("rand", "bernoulli", "dropout", "rrelu", "empty")
"""What gives other numbers every time has examples of its own."""
TRIED = {n: k for n, op in POINTWISE.items() if not any(w in n for w in RANDOM) and (k := fits(op)) is not None}


def test_there_are_overloads():
    assert len(OVERLOADS) > 600
    assert len(TRIED) > 350


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "_." in n else n for n in TRIED])
@pytest.mark.filterwarnings("ignore")
def test_pointwise(check, name):
    """Uncut it is the original; a cut is the original with zeros, sliced, masked and as a network of its own."""
    found = check(Pointwise(OVERLOADS[name], *TRIED[name]), (3, 2, 2))
    assert 8 in {group.size for group in found.groups}


class Example(nn.Module):
    """An operator between two layers.

    Attributes:
        call: `(operator, feature maps (batch, 8, 4, 4), parts) -> (batch, channels, ...)`.
        parts: Further layers and parameters.
    """

    def __init__(self, op: Any, call: Callable[..., Tensor], parts: dict[str, Any]) -> None:
        super().__init__()
        self.op, self.call = op, call
        self.first, self.parts = nn.Conv2d(3, 8, 1), nn.Module()
        for name, part in parts.items():
            setattr(self.parts, name, part)
        with torch.no_grad():
            shape = call(op, torch.rand(2, 8, 4, 4, dtype=torch.float64), self.parts.double()).shape
        self.last = nn.Conv1d(shape[1] if len(shape) > 1 else 1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        found = self.call(self.op, y, self.parts).to(x.dtype)
        found = found.reshape(len(x), found.shape[1] if found.dim() > 1 else 1, -1)
        return self.last(found).sum(2)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def flat(y: Tensor) -> Tensor:
    """`(batch, 8, 16)`."""
    return y.flatten(2)


def rows(y: Tensor) -> Tensor:
    """`(batch, 16, 8)`: the channels last."""
    return y.flatten(2).transpose(1, 2)


def only(y: Tensor) -> Tensor:
    """`(batch, 8)`."""
    return y[:, :, 0, 0]


def up(y: Tensor) -> Tensor:
    """`(batch, 8, 2, 4, 2)`: three dimensions of positions."""
    return y.unflatten(3, (2, 2)).transpose(2, 3)


_POOLS = {
    **{f"{kind}_pool1d.default": lambda op, y, _: op(flat(y), [2]) for kind in ("max", "avg")},
    **{f"{kind}_pool2d.default": lambda op, y, _: op(y, [2, 2]) for kind in ("max", "avg")},
    **{f"{kind}_pool3d.default": lambda op, y, _: op(up(y), [2, 2, 2]) for kind in ("max", "avg")},
    "max_pool2d_with_indices.default": lambda op, y, _: op(y, [2, 2])[0],
    "max_pool3d_with_indices.default": lambda op, y, _: op(up(y), [2, 2, 2])[0],
    "adaptive_avg_pool1d.default": lambda op, y, _: op(flat(y), [3]),
    **{f"{a}adaptive_avg_pool2d.default": lambda op, y, _: op(y, [2, 3]) for a in ("", "_")},
    **{f"{a}adaptive_avg_pool3d.default": lambda op, y, _: op(up(y), [1, 2, 1]) for a in ("", "_")},
    "adaptive_max_pool1d.default": lambda op, y, _: op(flat(y), [3])[0],
    "adaptive_max_pool2d.default": lambda op, y, _: op(y, [2, 3])[0],
    "adaptive_max_pool3d.default": lambda op, y, _: op(up(y), [1, 2, 1])[0],
    **{f"{kind}_pad1d.default": lambda op, y, _: op(flat(y), [1, 2]) for kind in ("reflection", "replication")},
    **{f"{kind}_pad2d.default": lambda op, y, _: op(y, [1, 2, 0, 1]) for kind in ("reflection", "replication")},
}
_SIZES = {
    "upsample_nearest1d.default": lambda op, y, _: op(flat(y), [32]),
    "upsample_nearest1d.vec": lambda op, y, _: op(flat(y), None, [2.0]),
    "upsample_linear1d.default": lambda op, y, _: op(flat(y), [32], False),
    "upsample_linear1d.vec": lambda op, y, _: op(flat(y), None, False, [2.0]),
    **{f"{n}2d.default": lambda op, y, _: op(y, [8, 6]) for n in ("upsample_nearest", "_upsample_nearest_exact")},
    **{f"{n}2d.vec": lambda op, y, _: op(y, None, [2.0, 2.0]) for n in ("upsample_nearest", "_upsample_nearest_exact")},
    "upsample_nearest3d.default": lambda op, y, _: op(up(y), [4, 4, 4]),
    "upsample_nearest3d.vec": lambda op, y, _: op(up(y), None, [2.0, 1.0, 2.0]),
    "upsample_trilinear3d.default": lambda op, y, _: op(up(y), [4, 4, 4], True),
    "upsample_trilinear3d.vec": lambda op, y, _: op(up(y), None, False, [2.0, 1.0, 2.0]),
    **{
        f"{n}.default": lambda op, y, _: op(y, [8, 6], False)
        for n in ("upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
    },
    **{
        f"{n}.vec": lambda op, y, _: op(y, None, False, [2.0, 1.5])
        for n in ("upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
    },
}
_CONVOLUTIONS = {
    "conv1d.default": lambda op, y, m: op(flat(y), m.a[..., 0]),
    "conv1d.padding": lambda op, y, m: op(flat(y), m.a[..., 0], m.b, [1], "same"),
    "conv2d.default": lambda op, y, m: op(y, m.a, m.b, [2, 1], [1, 1]),
    "conv2d.padding": lambda op, y, m: op(y, m.grouped, m.b, [1, 1], "same", [1, 1], 2),
    "conv3d.default": lambda op, y, m: op(up(y), m.a[..., :2, :2, None]),
    "conv3d.padding": lambda op, y, m: op(up(y), m.a[..., :2, :2, None], None, [1, 1, 1], "valid"),
    "conv_transpose1d.default": lambda op, y, m: op(flat(y), m.t[..., 0]),
    "conv_transpose2d.input": lambda op, y, m: op(y, m.t, None, [2, 2], [1, 1], [1, 1], 4),
    "conv_transpose3d.input": lambda op, y, m: op(up(y), m.t[..., None]),
}
_PRODUCTS = {
    "linear.default": lambda op, y, m: op(rows(y), m.w, m.d),
    "matmul.default": lambda op, y, m: op(m.w, flat(y)),
    "mm.default": lambda op, y, m: op(only(y), m.w.t()),
    "bmm.default": lambda op, y, _: op(flat(y), rows(y)).sum(2, keepdim=True),
    "mv.default": lambda op, y, m: op(only(y), m.v)[:, None],
    "dot.default": lambda op, y, m: only(y) * op(m.v, m.v),
    "einsum.default": lambda op, y, m: op("bchw,dc->bdhw", [y, m.w]),
    "addmm.default": lambda op, y, m: op(m.d, only(y), m.w.t()),
    "addmm_.default": lambda op, y, m: op(torch.zeros(len(y), 5, dtype=y.dtype) + m.d, only(y), m.w.t()),
    "baddbmm.default": lambda op, y, m: op(m.d, rows(y), m.w.t().expand(len(y), 8, 5)).transpose(1, 2),
    "baddbmm_.default": lambda op, y, m: op(m.up(y).flatten(2), m.w.expand(len(y), 5, 8), flat(y)),
}
_RECURRENT = {
    f"{kind}.input": lambda op, y, m, kind=kind: op(
        rows(y),
        [y.new_zeros(1, len(y), 6)] * 2 if kind == "lstm" else y.new_zeros(1, len(y), 6),
        [getattr(m, kind).weight_ih_l0, getattr(m, kind).weight_hh_l0],
        False,
        1,
        0.0,
        False,
        False,
        True,
    )[0].transpose(1, 2)
    for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")
} | {
    f"{kind}_cell.default": lambda op, y, m, kind=kind: torch.cat(
        [
            op(
                only(y),
                [y.new_zeros(len(y), 6)] * 2 if kind == "lstm" else y.new_zeros(len(y), 6),
                getattr(m, kind).weight_ih_l0,
                getattr(m, kind).weight_hh_l0,
            )
        ][0]
        if kind == "lstm"
        else [op(only(y), y.new_zeros(len(y), 6), getattr(m, kind).weight_ih_l0, getattr(m, kind).weight_hh_l0)],
        1,
    )
    for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")
}
_SHAPES = {
    "_unsafe_view.default": lambda op, y, _: op(y, [len(y), 8, 16]),
    "view.default": lambda op, y, _: op(y, [len(y), -1, 2, 2, 4]).flatten(2),
    "reshape.default": lambda op, y, _: op(y, [len(y), 2, 4, 16]).sum(1),
    "flatten.using_ints": lambda op, y, _: op(y, 1, 2),
    "ravel.default": lambda op, y, _: op(y).view(len(y), 8, 16),
    "unflatten.int": lambda op, y, _: op(y, 1, [2, 4]).sum(1),
    "unsqueeze.default": lambda op, y, _: op(y, 1).squeeze(1),
    "unsqueeze_.default": lambda op, y, _: op(y.clone(), 1).squeeze(1),
    **{f"squeeze{a}.default": lambda op, y, _: op(y.mean((2, 3), keepdim=True)) for a in ("", "_")},
    **{f"squeeze{a}.dim": lambda op, y, _: op(y.mean(2, keepdim=True), 2) for a in ("", "_")},
    **{f"squeeze{a}.dims": lambda op, y, _: op(y.mean((2, 3), keepdim=True), [2, 3]) for a in ("", "_")},
    "reshape_as.default": lambda op, y, _: op(y.flatten(2), y),
    "view_as.default": lambda op, y, _: op(y.flatten(2), y),
    "permute.default": lambda op, y, _: op(y, [0, 1, 3, 2]),
    "transpose.int": lambda op, y, _: op(op(y, 1, 2), 2, 1),
    "transpose_.default": lambda op, y, _: op(y.clone(), 1, 2).transpose(1, 2),
    "t.default": lambda op, y, _: op(op(only(y))),
    "t_.default": lambda op, y, _: op(only(y).clone()).t(),
    "mT.default": lambda op, y, _: op(flat(y)).transpose(1, 2),
    "adjoint.default": lambda op, y, _: op(flat(y)).transpose(1, 2),
    "numpy_T.default": lambda op, y, _: op(op(y)),
    **{f"{n}.default": lambda op, y, _: op(op(y, 1, 3), 1, 3) for n in ("swapaxes", "swapdims")},
    **{f"{n}.int": lambda op, y, _: op(op(y, 1, 3), 3, 1) for n in ("movedim", "moveaxis")},
    **{f"{n}.intlist": lambda op, y, _: op(op(y, [1, 2], [3, 1]), [3], [1]) for n in ("movedim", "moveaxis")},
    "expand.default": lambda op, y, _: y + op(y.sum(1, keepdim=True), [-1, 8, -1, -1]),
    "expand_as.default": lambda op, y, _: y + op(y[:, :, :1], y),
    "repeat.default": lambda op, y, _: op(y, [1, 2, 1, 1]),
    "tile.default": lambda op, y, _: op(y, [2, 1, 1]),
    "repeat_interleave.self_int": lambda op, y, _: op(y, 2, 1),
    **{f"{n}.default": lambda op, y, m: op([y, m.up(y)], 1) for n in ("cat", "concat", "concatenate")},
    "stack.default": lambda op, y, _: op([y, y.cos()], 1).sum(1),
    "pad.default": lambda op, y, _: op(y, [1, 0, 0, 0, 2, 3]),
    "constant_pad_nd.default": lambda op, y, _: op(y, [0, 0, 0, 0, 2, 3], 0.0),
    "pixel_shuffle.default": lambda op, y, _: op(y, 2),
    "pixel_unshuffle.default": lambda op, y, _: op(y, 2),
    "im2col.default": lambda op, y, _: op(y, [2, 2], [1, 1], [0, 0], [1, 1]),
    "col2im.default": lambda op, y, _: op(flat(y)[..., :4], [3, 3], [2, 2], [1, 1], [0, 0], [1, 1]),
}
_PARTS = {
    "select.int": lambda op, y, _: torch.cat([y, op(y, 1, 3)[:, None]], 1),
    "slice.Tensor": lambda op, y, _: op(y, 1, 2, 7),
    "narrow.default": lambda op, y, _: op(y, 1, 2, 5),
    "split.Tensor": lambda op, y, _: torch.cat(op(y, 3, 1)[::-1], 1),
    "split.sizes": lambda op, y, _: torch.cat(op(y, [3, 5], 1)[::-1], 1),
    "split_with_sizes.default": lambda op, y, _: torch.cat(op(y, [3, 5], 1)[::-1], 1),
    "chunk.default": lambda op, y, _: op(y, 2, 1)[0] * op(y, 2, 1)[1],
    "tensor_split.sections": lambda op, y, _: torch.cat(op(y, 3, 1)[::-1], 1),
    "tensor_split.indices": lambda op, y, _: torch.cat(op(y, [3, 5], 1)[::-1], 1),
    "unbind.int": lambda op, y, _: op(y, 2)[1],
    "index.Tensor": lambda op, y, _: op(y, [None, None, torch.tensor([2, 0])]),
    "index_select.default": lambda op, y, _: op(y, 2, torch.tensor([2, 0])),
    "embedding.default": lambda op, y, m: (
        y[:, :5] + op(m.table, (only(y)[:, 0] > 0).long())[:, :, None, None] + m.up(y)
    ),
    "roll.default": lambda op, y, _: op(y, [1], [2]),
    "flip.default": lambda op, y, _: op(y, [2]),
    "unfold.default": lambda op, y, _: op(y, 2, 2, 1),
    "one_hot.default": lambda op, y, _: op((y > 0).long(), 2)[..., 1].to(y.dtype),
    **{
        name: lambda op, y, _: (
            y + op([y[0, 0, 0], y[0, 0, 1]], **({"indexing": "xy"} if op._overloadname == "indexing" else {}))[0].sum()
        )
        for name in ("meshgrid.default", "meshgrid.indexing")
    },
}
_STATISTICS = {
    **{f"{n}.default": lambda op, y, _: y * op(y * 0.1).to(y.dtype) for n in ("amax", "amin", "max", "min", "median")},
    **{f"{n}.default": lambda op, y, _: y + op(y.sigmoid()).to(y.dtype) for n in ("prod", "argmax", "argmin")},
    **{f"{n}.default": lambda op, y, _: y + op(y > 0).to(y.dtype) for n in ("any", "all")},
    **{f"{n}.dim": lambda op, y, _: y + op(y > 0, 2, True).to(y.dtype) for n in ("any", "all")},
    **{f"{n}.dims": lambda op, y, _: y + op(y > 0, [2, 3], True).to(y.dtype) for n in ("any", "all")},
    **{f"{n}.dim": lambda op, y, _: op(y, 2)[0] for n in ("max", "min", "median")},
    "prod.dim_int": lambda op, y, _: op(y, 3),
    "logsumexp.default": lambda op, y, _: op(y, [2], True),
    "mode.default": lambda op, y, _: op(y)[0],
    "kthvalue.default": lambda op, y, _: op(y, 2)[0],
    **{f"{n}.default": lambda op, y, _: y + op(y).sum() for n in ("sum", "linalg_vector_norm")},
    "sum.dim_IntList": lambda op, y, _: op(y, [1], True),
    "mean.default": lambda op, y, _: y + op(y),
    "mean.dim": lambda op, y, _: op(y, [1], True),
    **{f"{n}.default": lambda op, y, _: y + op(y, False) for n in ("var", "std")},
    **{f"{n}.dim": lambda op, y, _: op(y, [1], False, True) for n in ("var", "std")},
    **{f"{n}.correction": lambda op, y, _: op(y, [1], correction=0, keepdim=True) for n in ("var", "std")},
    **{f"{n}_mean.default": lambda op, y, _: y + sum(op(y, False)) for n in ("var", "std")},
    **{f"{n}_mean.dim": lambda op, y, _: sum(op(y, [1], False, True)) for n in ("var", "std")},
    **{f"{n}_mean.correction": lambda op, y, _: sum(op(y, [1], correction=0, keepdim=True)) for n in ("var", "std")},
    "norm.Scalar": lambda op, y, _: y + op(y, 2),
    "norm.ScalarOpt_dim": lambda op, y, _: op(y, 3, [1], True),
    "norm.ScalarOpt_dtype": lambda op, y, _: y + op(y, 2, dtype=torch.float64),
    "norm.ScalarOpt_dim_dtype": lambda op, y, _: op(y, 2, [1], True, dtype=torch.float64),
    **{f"{n}.int": lambda op, y, _: y * op(y, -1) for n in ("softmax", "log_softmax")},
    **{f"{n}.default": lambda op, y, _: y * op(y, 2, False) for n in ("_softmax", "_log_softmax")},
    **{f"{n}{a}.default": lambda op, y, _: op(y.clone(), 2) for n in ("cumsum", "cumprod") for a in ("", "_")},
    "sort.default": lambda op, y, _: op(y)[0],
    "sort.stable": lambda op, y, _: op(y, stable=True)[0],
    "argsort.default": lambda op, y, _: y + op(y).to(y.dtype),
    "argsort.stable": lambda op, y, _: y + op(y, stable=True).to(y.dtype),
    "batch_norm.default": lambda op, y, m: op(y, m.v, m.v, m.mean, m.spread, False, 0.1, 1e-5, False),
    "instance_norm.default": lambda op, y, m: y * op(y, m.v, m.v, None, None, True, 0.1, 1e-5, False),
    "layer_norm.default": lambda op, y, m: op(rows(y), [8], m.v).transpose(1, 2),
    "rms_norm.default": lambda op, y, m: op(rows(y), [8], m.v).transpose(1, 2),
    "group_norm.default": lambda op, y, m: op(y, 2, m.v),
    "prelu.default": lambda op, y, m: op(y, m.v),
}
_REST = {
    "scaled_dot_product_attention.default": lambda op, y, _: op(rows(y), rows(y), rows(y)).transpose(1, 2),
    "affine_grid_generator.default": lambda op, y, m: op(m.theta(only(y)).view(len(y), 2, 3), [len(y), 1, 2, 2], False),
    "grid_sampler.default": lambda op, y, _: op(y, torch.zeros(len(y), 2, 2, 2, dtype=y.dtype), 0, 0, False),
    "grid_sampler_2d.default": lambda op, y, _: op(y, torch.zeros(len(y), 2, 2, 2, dtype=y.dtype), 0, 0, False),
    "grid_sampler_3d.default": lambda op, y, _: op(up(y), torch.zeros(len(y), 1, 2, 2, 3, dtype=y.dtype), 0, 0, False),
    **{f"new_{n}.default": lambda op, y, _: y + op(y, [len(y), 8, 4, 4]) for n in ("zeros", "ones")},
    "new_full.default": lambda op, y, _: y + op(y, [len(y), 8, 4, 4], 0.5),
    "new_empty.default": lambda op, y, _: y + op(y, [len(y), 8, 4, 4]).zero_(),
    "linspace.Tensor_Tensor": lambda op, y, _: y + op(y[0, 0, 0, 0], y[0, 0, 0, 1], 4),
    "linspace.Tensor_Scalar": lambda op, y, _: y + op(y[0, 0, 0, 0], 1.0, 4),
    "linspace.Scalar_Tensor": lambda op, y, _: y + op(1.0, y[0, 0, 0, 0], 4),
    "rand_like.default": lambda op, y, _: y + 0 * op(y),
    "randn_like.default": lambda op, y, _: y + 0 * op(y),
    "empty_like.default": lambda op, y, _: y + op(y).zero_(),
    **{f"{n}.default": lambda op, y, _: op(y, 0.5, False) for n in ("dropout", "feature_dropout")},
    **{f"{n}_.default": lambda op, y, _: op(y.clone(), 0.5, False) for n in ("dropout", "feature_dropout")},
    **{f"{n}alpha_dropout.default": lambda op, y, _: op(y, 0.5, False) for n in ("", "feature_")},
    **{f"{n}alpha_dropout_.default": lambda op, y, _: op(y.clone(), 0.5, False) for n in ("", "feature_")},
    "native_dropout.default": lambda op, y, _: op(y, 0.5, False)[0],
    "rrelu.default": lambda op, y, _: op(y),
    "rrelu_.default": lambda op, y, _: op(y.clone()),
    "bernoulli.default": lambda op, y, _: y * op(torch.ones_like(y)),
    "bernoulli.p": lambda op, y, _: y * op(y, 1.0),
    "bernoulli.Tensor": lambda op, y, _: y * op(y, torch.ones_like(y)),
    "bernoulli_.Tensor": lambda op, y, _: y * op(y.clone(), torch.ones_like(y)),
    "bernoulli_.float": lambda op, y, _: y * op(y.clone(), 1.0),
    "to.device": lambda op, y, _: op(y, torch.device("cpu"), torch.float64),
    "fill.Tensor": lambda op, y, _: y + op(y, torch.tensor(2.0)),
    "fill_.Tensor": lambda op, y, _: y + op(y.clone(), torch.tensor(2.0)),
    "masked_fill.Tensor": lambda op, y, _: op(y, y > 0, torch.tensor(2.0, dtype=y.dtype)),
    "masked_fill_.Tensor": lambda op, y, _: op(y.clone(), y > 0, torch.tensor(2.0, dtype=y.dtype)),
}
EXAMPLES = _POOLS | _SIZES | _CONVOLUTIONS | _PRODUCTS | _RECURRENT | _SHAPES | _PARTS | _STATISTICS | _REST
KEPT = {
    *("amax.default", "amin.default", "max.default", "min.default", "median.default", "prod.default"),
    *("argmax.default", "argmin.default", "any.default", "all.default"),
}
"""Where all channels of the example stay: each is compared with the others, or one of them is picked."""
COUNTED = ("mean", "var", "std", "layer_norm", "rms_norm", "group_norm")
"""Operators whose statistics are those of the channels that are left."""
PARTS = {
    **{"a": (6, 8, 3, 3), "grouped": (6, 4, 3, 3), "t": (8, 4, 3, 3), "b": (6,), "w": (5, 8), "d": (5,), "v": (8,)},
    "table": (4, 5),
}


def parts() -> dict[str, Any]:
    kinds = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}
    state = {"mean": nn.Parameter(torch.zeros(8)), "spread": nn.Parameter(torch.ones(8))}
    layers = {"up": nn.Conv2d(8, 5, 1), "theta": nn.Linear(8, 6)}
    return {n: weight(*s) for n, s in PARTS.items()} | state | layers | {n: k(8, 6) for n, k in kinds.items()}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.filterwarnings("ignore")
def test_examples(check, name):
    with global_seed(0):
        network = Example(SERVED[name], EXAMPLES[name], parts())
    found = check(network, (3, 4, 4), statistics=name.startswith(COUNTED), least=0)
    assert ("first" in {layer for group in found.groups for layer in group.layers}) == (name not in KEPT)


def test_every_overload_that_is_served_has_an_example():
    known = {name.replace("_.", ".") for name in (*TRIED, *EXAMPLES)}
    assert not [name for name in SERVED if name.replace("_.", ".") not in known | {*REFUSED}]


REFUSED = ("frexp.Tensor", "native_dropout_backward.default")
"""What torch calls pointwise and gives two tensors, which has no rule (below), or belongs to training alone."""


@pytest.mark.parametrize("name", sorted(OVERLOADS.keys() - SERVED.keys()))
def test_the_others_have_no_rule(name):
    node = torch.fx.Graph().call_function(OVERLOADS[name], ())
    assert operators.rule_of(node) is None
    assert operators.why_not(node).startswith("there is no rule for ")


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda y: torch.frexp(y)[0], "no rule for frexp"),
        (
            lambda y: y.repeat_interleave(torch.full((8,), 2), 1, output_size=16),
            "no rule for repeat_interleave.self_Tensor",
        ),
        (lambda y: y.view(torch.int64).view(torch.float64), "no rule for view.dtype"),
    ],
)
def test_what_is_refused_stays_and_says_why(call, why):
    network = Example(None, lambda _op, y, _parts: call(y), {}).double()
    found = couple(network, torch.randn(1, 3, 4, 4, dtype=torch.float64))
    assert not found.groups
    assert why in {f.layer: f.reason for f in found.fixed}["first"]


def test_shapes_that_depend_on_values_are_refused():
    network = Example(None, lambda _op, y, _parts: y * torch.nonzero(y.flatten() > 0).sum(), {}).double()
    with pytest.raises(CapabilityError, match="depends on values"):
        couple(network, torch.randn(1, 3, 4, 4, dtype=torch.float64))


def test_a_rule_that_falls_over_is_none(monkeypatch):
    """Whatever it raises, and whatever it gives that is no labels: named as what stands in the way, no traceback."""

    def raises(_tracker: Any, _node: Any) -> Any:
        raise ZeroDivisionError("a size\nof zero")

    network = Example(None, lambda _op, y, _parts: aten.relu6(y), {}).double()
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    for broken, why in (
        (Rule(raises), "the rule for relu6.default does not hold here: a size of zero"),
        (Rule(lambda _t, _n: [None]), "it gives labels of another shape than (2, 8, 4, 4)"),
        (Rule(lambda _t, _n: [[None], [None]]), "it gives labels of another shape than (2, 8, 4, 4)"),
        (Rule(elementwise.same, mixes=lambda _n: raises(None, None)), "a size of zero"),
        (Rule(elementwise.same, resize=raises), "a size of zero"),
    ):
        monkeypatch.setattr(operators, "RULES", {**RULES, "relu6.default": broken})
        found = couple(network, x)
        assert not found.groups
        assert why in {f.layer: f.reason for f in found.fixed}["first"]
