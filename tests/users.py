"""Small networks as people have them: what they give back, what they do to a batch, what else they carry along.

Each list is of one kind; a test takes all of a list, so that a new member is one more line here.
"""

from __future__ import annotations

import functools
import math
import threading
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from several import Found, Output

SIDE = 8


class Body(nn.Module):
    """An image of three channels becomes `width` numbers."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.bn = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, width, 3, 2, 1)

    def maps(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.bn(self.first(x)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).mean((2, 3))


class Net(Body):
    """The same with a head."""

    def __init__(self, width: int = 24) -> None:
        super().__init__(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.maps(x).mean((2, 3)))


# --- what they give back -------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    logits: Tensor
    features: Tensor


@dataclass
class Boxes:
    scores: Tensor
    note: str
    parts: dict[str, Tensor]


class Attributes(OrderedDict[str, Any]):
    """Like the outputs of HuggingFace: an ordered dict whose keys are attributes, and that is indexed like a tuple."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class Gives(Net):
    """Gives what `make` makes of logits and features."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        features = self.maps(x).mean((2, 3))
        return self.make(self.head(features), features)


class WithLoss(Net):
    """With labels it gives its loss, too."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Attributes:
        logits = super().forward(x)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return Attributes(loss=loss, logits=logits) if loss is not None else Attributes(logits=logits)


class OtherInTraining(Net):
    """A tuple in training, with an auxiliary head; a tensor in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.config = types.SimpleNamespace(classes=5, width=24)
        self.auxiliary = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        early = torch.relu(self.bn(self.first(x)))
        logits = self.head(torch.relu(self.second(early)).mean((2, 3)))
        return (logits, self.auxiliary(early.mean((2, 3)))) if self.training else logits


class Halves(nn.Module):
    """Its code takes the channels apart in equal parts: not every width suits it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.third, self.head = nn.Conv2d(32, 24, 3, 2, 1), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).relu().chunk(2, 1)
        return self.head(self.third(torch.cat([a, self.second(b).relu()], 1)).relu().mean((2, 3)))


class Heads(nn.Module):
    """Its code holds the number of heads and their width."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.qkv = nn.Linear(3 * SIDE, 64), nn.Linear(64, 192)
        self.out, self.head = nn.Linear(64, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.permute(0, 2, 1, 3).flatten(2)).relu()
        b, n, _ = x.shape
        q, k, v = (part.view(b, n, 4, 16).transpose(1, 2) for part in self.qkv(x).split(64, -1))
        seen = functional.scaled_dot_product_attention(q, k, v)
        return self.head(self.out(seen.transpose(1, 2).reshape(b, n, 64)).relu().mean(1))


OUTPUTS: dict[str, Callable[[], nn.Module]] = {
    "tensor": lambda: Gives(lambda y, _: y),
    "tuple": lambda: Gives(lambda y, f: (y, f)),
    "tuple of one": lambda: Gives(lambda y, _: (y,)),
    "list": lambda: Gives(lambda y, f: [y, f]),
    "named tuple": lambda: Gives(Pair),
    "dict": lambda: Gives(lambda y, f: {"out": y, "aux": f}),
    "ordered dict": lambda: Gives(lambda y, f: OrderedDict(out=y, aux=f)),
    "nested": lambda: Gives(lambda y, f: {"a": [y, {"b": (f, None)}], "n": 3, "s": "x"}),
    "dataclass": lambda: Gives(lambda y, f: Boxes(y, "note", {"f": f})),
    "dataclass with empty fields": lambda: Gives(lambda y, f: Output(y, (f, f * 2))),
    "mapping and dataclass": lambda: Gives(lambda y, f: Found(logits=y, hidden=f)),
    "mapping with attributes": lambda: Gives(lambda y, f: Attributes(logits=y, hidden=f)),
    "whole numbers": lambda: Gives(lambda y, _: {"class": y.argmax(1), "logits": y}),
    "the same tensor twice": lambda: Gives(lambda y, _: (y, y)),
    "integer keys": lambda: Gives(lambda y, f: {0: y, 1: f}),
    "number of examples": lambda: Gives(lambda y, f: {"logits": y, "examples": len(f)}),
    "loss with labels": WithLoss,
    "other in training": OtherInTraining,
    "halves": Halves,
    "heads": Heads,
}


# --- what they do to a batch ---------------------------------------------------------------------------------------


class Does(nn.Module):
    """Does something to the maps `(batch, 24, 4, 4)` on the way to the head, which gives `(batch, 5)`."""

    def __init__(self, work: Callable[[Does, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 1, 1)
        self.query = nn.Parameter(torch.randn(6, 24))
        self.places = nn.Embedding(8, 24)
        self.third, self.head = nn.Conv2d(24, 16, 3, 1, 1), nn.Linear(16, 5)
        self.work = work

    def forward(self, x: Tensor) -> Tensor:
        x = self.work(self, torch.relu(self.second(torch.relu(self.first(x)))))
        return self.head(torch.relu(self.third(x)).mean((2, 3)))


class Part(nn.Module):
    """A part of a network that does something to the batch."""

    def __init__(self, work: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.work = work

    def forward(self, x: Tensor) -> Tensor:
        return self.work(x)


class Parted(nn.Module):
    """The work is done in a part of its own, so that it can be left as it is."""

    def __init__(self, work: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 1, 1)
        self.part = Part(work)
        self.third, self.head = nn.Conv2d(24, 16, 3, 1, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.part(torch.relu(self.second(torch.relu(self.first(x)))))
        return self.head(torch.relu(self.third(x)).mean((2, 3)))


def windows(x: Tensor, size: int = 2) -> Tensor:
    """Windows become examples, and examples again."""
    b, c, h, w = x.shape
    y = x.view(b, c, h // size, size, w // size, size).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, size, size)
    y = y - y.mean((2, 3), keepdim=True)
    y = y.view(b, h // size, w // size, c, size, size).permute(0, 3, 1, 4, 2, 5)
    return y.reshape(b, c, h, w)


def padded(x: Tensor) -> Tensor:
    """Queries next to the pixels, for every example."""
    return torch.cat([x, x.new_zeros(x.shape[0], 24, 1, x.shape[3])], 2)


def grid(x: Tensor) -> Tensor:
    theta = torch.tensor([[1.0, 0.2, 0.0], [0.0, 1.0, 0.1]], dtype=x.dtype).expand(len(x), 2, 3)
    return functional.grid_sample(x, functional.affine_grid(theta, list(x.shape), False), align_corners=False)


def looped(x: Tensor) -> Tensor:
    return torch.stack([x[i] * (i + 1) for i in range(len(x))])


def batch_norm_by_hand(x: Tensor) -> Tensor:
    return x / (1 + x.std(0, correction=0, keepdim=True))


def gathered(x: Tensor) -> Tensor:
    index = x.flatten(2).sum(1).argmax(1)
    return x * x.flatten(2)[torch.arange(len(x)), :, index][:, :, None, None].sigmoid()


def ordered(x: Tensor) -> Tensor:
    """Each example with its place in the batch."""
    return x * torch.linspace(0.5, 1.5, len(x)).view(-1, 1, 1, 1)


BATCHES: dict[str, Callable[[], nn.Module]] = {
    "repeat": lambda: Does(lambda n, x: x + n.query.sum(0)[None].repeat(x.shape[0], 1)[:, :, None, None]),
    "repeat twice": lambda: Does(lambda _, x: x.repeat(2, 1, 1, 1).view(2, len(x), *x.shape[1:]).mean(0)),
    "arange of the batch": lambda: Does(lambda _, x: x + torch.arange(x.shape[0]).view(-1, 1, 1, 1)),
    "place embedding by batch": lambda: Does(
        lambda n, x: x + n.places(torch.arange(x.shape[0]))[:, :, None, None] * 0.1
    ),
    "view of two": lambda: Does(lambda _, x: x.view(x.shape[0], 2, -1).flatten(1).view_as(x)),
    "minus one": lambda: Does(lambda _, x: x.view(-1, 24 * 16).view(-1, 24, 4, 4)),
    "windows": lambda: Does(lambda _, x: windows(x)),
    "affine grid": lambda: Does(lambda _, x: grid(x)),
    "tile": lambda: Does(lambda n, x: x + torch.tile(n.query[0], (x.shape[0], 1))[:, :, None, None]),
    "expand": lambda: Does(lambda n, x: x + n.query[0].expand(x.shape[0], -1)[:, :, None, None]),
    "class token": lambda: Does(
        lambda n, x: torch.cat([n.query[None, :4].expand(len(x), -1, -1).transpose(1, 2)[:, :, None], x], 2)
    ),
    "unfold": lambda: Does(lambda _, x: functional.fold(functional.unfold(x, 3, padding=1), (4, 4), 3, padding=1) / 9),
    "flipped": lambda: Does(lambda _, x: x + x.flip(0)),
    "rolled": lambda: Does(lambda _, x: x + x.roll(1, 0)),
    "batch statistics": lambda: Does(lambda _, x: batch_norm_by_hand(x)),
    "less the mean": lambda: Does(lambda _, x: x - x.mean(0, keepdim=True)),
    "stacked copies": lambda: Does(lambda _, x: torch.stack([x] * 3, 1).flatten(0, 1).view(-1, 3, 24, 4, 4).mean(1)),
    "new dimension expanded": lambda: Does(lambda _, x: x[:, None].expand(-1, 3, -1, -1, -1).sum(1)),
    "zeros of the batch": lambda: Does(lambda _, x: padded(x)),
    "loop over examples": lambda: Does(lambda _, x: looped(x)),
    "chunks of the batch": lambda: Does(lambda _, x: torch.cat(list(x.split(1)))),
    "gather by example": lambda: Does(lambda _, x: gathered(x)),
    "place in the batch": lambda: Does(lambda _, x: ordered(x)),
    "divided by the batch": lambda: Does(lambda _, x: x / x.shape[0]),
    "power of the batch": lambda: Does(lambda _, x: x * math.sqrt(len(x))),
    "branch on the batch": lambda: Does(lambda _, x: x * 2 if len(x) > 2 else x),
    "tensor of the batch": lambda: Does(lambda _, x: x * torch.tensor(float(len(x)))),
    "ones by the batch": lambda: Does(lambda _, x: x * torch.ones(len(x), 1, 1, 1)),
    "list by the batch": lambda: Does(
        lambda _, x: x * torch.tensor([0.5 + i for i in range(len(x))]).view(-1, 1, 1, 1)
    ),
    "squeeze": lambda: Does(lambda _, x: x.squeeze()),
    "batch and channels": lambda: Does(lambda _, x: x.view(1, -1, 4, 4).view(-1, 24, 4, 4)),
    "groups by example": lambda: Does(
        lambda n, x: (
            functional.conv2d(x.reshape(1, -1, 4, 4), n.third.weight.repeat(len(x), 1, 1, 1), padding=1, groups=len(x))
            .view(len(x), -1, 4, 4)
            .repeat(1, 2, 1, 1)[:, :24]
        )
    ),
    "similarity of examples": lambda: Does(
        lambda _, x: (x.flatten(1) @ x.flatten(1).t()).softmax(1).matmul(x.flatten(1)).view_as(x)
    ),
    "triangle of the batch": lambda: Does(
        lambda _, x: (torch.ones(len(x), len(x), dtype=x.dtype).tril() @ x.flatten(1)).view_as(x)
    ),
    "eye of the batch": lambda: Does(lambda _, x: (torch.eye(len(x), dtype=x.dtype) @ x.flatten(1)).view_as(x)),
    "batch last": lambda: Does(lambda _, x: x.movedim(0, -1).reshape(24, -1).view(24, 4, 4, -1).movedim(-1, 0)),
    "sequence first": lambda: Does(lambda _, x: x.flatten(2).permute(2, 0, 1).permute(1, 2, 0).reshape(-1, 24, 4, 4)),
    "cumulated": lambda: Does(lambda _, x: x.cumsum(0)),
    "sorted": lambda: Does(lambda _, x: x.sort(0).values),
    "largest of the batch": lambda: Does(lambda _, x: x / (1 + x.amax())),
    "first example": lambda: Does(lambda _, x: x + x[:1]),
    "last example": lambda: Does(lambda _, x: x + x[-1]),
    "softmax over the batch": lambda: Does(lambda _, x: x.softmax(0)),
    "part with the batch": lambda: Parted(lambda x: x / x.shape[0]),
    "part with a branch": lambda: Parted(lambda x: x * 2 if len(x) > 2 else x),
    "part with a list": lambda: Parted(lambda x: x * torch.tensor([0.5 + i for i in range(len(x))]).view(-1, 1, 1, 1)),
    "part with a loop": lambda: Parted(looped),
}
"""`(batch, 3, 8, 8)` -> `(batch, 5)`."""


# --- what they carry along -----------------------------------------------------------------------------------------


class Counting(Net):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen = 0, []
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(x.shape)
        self.count += 1
        return super().forward(x)


class Remembering(Net):
    """Keeps its last features, as a tensor with a history."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.maps(x).mean((2, 3))
        return self.head(self.last)


class Lazy(Net):
    """Makes a table at its first forward."""

    def __init__(self, *, buffer: bool) -> None:
        super().__init__()
        self.buffer, self.table = buffer, None
        if buffer:
            del self.table
            self.register_buffer("table", None)

    def forward(self, x: Tensor) -> Tensor:
        y = self.maps(x)
        if self.table is None:
            self.table = torch.linspace(0, 1, y.shape[1] * y.shape[2]).view(1, y.shape[1], y.shape[2], 1)
        return self.head((y + self.table).mean((2, 3)))


class Table(Net):
    """A table for the size at hand, made when the size changes; its scale is a plain tensor that is asked for."""

    size, table = None, torch.empty(0)

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.tensor([4.0])

    def forward(self, x: Tensor) -> Tensor:
        y = self.maps(x)
        if self.size != y.shape[2:]:
            self.size = y.shape[2:]
            self.table = torch.arange(y.shape[2] * y.shape[3], dtype=y.dtype) + 0.5
        return self.head((y.flatten(2) + self.table).mean(2)) * self.scale[0].item()


class NonPersistent(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.randn(24), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x).mean((2, 3)) + self.shift)


class Adapter(nn.Module):
    """A low-rank update next to a frozen layer."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.5 * self.up(self.down(x))


class Merged(nn.Module):
    """A low-rank update of the weight."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features))
        self.b = nn.Parameter(torch.randn(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.base.weight + self.b @ self.a, self.base.bias)


class Shared(nn.Module):
    """One layer in two places, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 1, 1)
        self.again = nn.Conv2d(16, 16, 3, 1, 1)
        self.blocks = nn.ModuleList([self.again, self.again])
        self.a, self.b, self.head = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 5)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = torch.relu(block(x))
        x = x.mean((2, 3))
        return self.head(torch.relu(self.a(x)) + self.b(x))


class Symmetric(nn.Module):
    """A parametrisation of one's own."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * x.flip(-1)


def normed(kind: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = Net()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net.first, net.second, net.head = kind(net.first), kind(net.second), kind(net.head)
        return net

    return make


def pruned() -> nn.Module:
    net = Net()
    prune.l1_unstructured(net.second, "weight", 0.5)
    prune.ln_structured(net.first, "weight", 0.5, 2, 0)
    prune.random_unstructured(net.head, "bias", 0.5)
    return net


def hooked() -> nn.Module:
    """Hooks that change what passes, and one that only looks."""
    net = Net()
    net.first.register_forward_hook(lambda _module, _args, out: out * 1.5)
    net.second.register_forward_pre_hook(lambda _module, args: (args[0] + 0.1,))

    def look(module: nn.Module, _args: Any, _out: Any) -> None:
        module.looks = getattr(module, "looks", 0) + 1

    net.head.register_forward_hook(look)
    return net


def closing() -> nn.Module:
    """A hook that knows the network by its closure."""
    net = Net()
    net.scale = nn.Parameter(torch.full((24,), 0.5))
    net.second.register_forward_hook(lambda _module, _args, out: out * net.scale[:, None, None])
    return net


def wrapped() -> nn.Module:
    """Another `forward`, around the first one."""
    net = Net()
    before = net.forward
    net.forward = lambda x: before(x * 0.5) + 1  # type: ignore[method-assign]
    return net


def bound() -> nn.Module:
    """A method that somebody has put in the place of `forward`."""

    def forward(self: Net, x: Tensor) -> Tensor:
        return self.head(self.maps(x).amax((2, 3)))

    net = Net()
    net.forward = types.MethodType(forward, net)  # type: ignore[method-assign]
    return net


def partial() -> nn.Module:
    net = Net()
    net.forward = functools.partial(Net.forward, net)  # type: ignore[method-assign]
    return net


def hostile() -> nn.Module:
    """Something that cannot be copied."""
    net = Net()
    net.lock, net.files = threading.Lock(), {"log": [threading.RLock(), 1]}
    net.stream = (i for i in range(3))
    return net


def ran(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """After a step of training."""

    def build() -> nn.Module:
        net = make().train()
        net(torch.randn(4, 3, SIDE, SIDE)).sum().backward()
        return net

    return build


def frozen() -> nn.Module:
    net = Net().train()
    net.bn.eval()
    net.first.requires_grad_(False)
    net.bn.weight.requires_grad_(False)
    return net


def compiled_inside() -> nn.Module:
    net = Net()
    net.second = torch.compile(net.second, backend="eager")
    return net


def compiled_forward() -> nn.Module:
    net = Net()
    net.maps = torch.compile(net.maps, backend="eager")
    return net


def compiled_in_place() -> nn.Module:
    net = Net()
    net.second.compile(backend="eager")
    return net


def adapted(kind: Callable[[nn.Linear], nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = Shared()
        net.a = kind(nn.Linear(16, 32))
        return net

    return make


def parametrized() -> nn.Module:
    net = Net()
    parametrize.register_parametrization(net.second, "weight", Symmetric())
    parametrize.register_parametrization(net.head, "weight", Symmetric())
    return net


COPIES: dict[str, Callable[[], nn.Module]] = {
    "plain": Net,
    "in training": lambda: Net().train(),
    "after a step": ran(Net),
    "frozen": frozen,
    "counting": Counting,
    "remembering": Remembering,
    "remembering, after a step": ran(Remembering),
    "lazy table": lambda: Lazy(buffer=False),
    "lazy buffer": lambda: Lazy(buffer=True),
    "lazy buffer, after a step": ran(lambda: Lazy(buffer=True)),
    "table by size": Table,
    "buffer that is not saved": NonPersistent,
    "shared": Shared,
    "hooks": hooked,
    "hook with a closure": closing,
    "wrapped forward": wrapped,
    "bound forward": bound,
    "partial forward": partial,
    "what cannot be copied": hostile,
    "weight norm": normed(parametrizations.weight_norm),
    "weight norm, after a step": ran(normed(parametrizations.weight_norm)),
    "old weight norm": normed(torch.nn.utils.weight_norm),
    "old weight norm, after a step": ran(normed(torch.nn.utils.weight_norm)),
    "spectral norm": normed(parametrizations.spectral_norm),
    "spectral norm, after a step": ran(normed(parametrizations.spectral_norm)),
    "old spectral norm": normed(torch.nn.utils.spectral_norm),
    "old spectral norm, after a step": ran(normed(torch.nn.utils.spectral_norm)),
    "parametrisation": parametrized,
    "pruned": pruned,
    "pruned, after a step": ran(pruned),
    "adapter": adapted(Adapter),
    "merged adapter": adapted(Merged),
    "compiled": lambda: torch.compile(Net(), backend="eager"),
    "compiled inside": compiled_inside,
    "compiled method": compiled_forward,
    "compiled in place": compiled_in_place,
    "compiled, after a step": ran(lambda: torch.compile(Net(), backend="eager")),
    "data parallel": lambda: nn.DataParallel(Net()),
}


# --- whether they are still as they were ---------------------------------------------------------------------------


def belongings(network: nn.Module) -> dict[tuple[str, ...], Any]:
    """All that a network has: values of weights, flags, hooks, attributes, and whether they are the same objects."""
    found: dict[tuple[str, ...], Any] = {}
    for name, part in network.named_modules():
        for key, value in vars(part).items():
            items = value.items() if isinstance(value, dict) and key.startswith("_") else [("", value)]
            for inner, entry in items:
                found[name, key, str(inner)] = _told(entry)
    return found


def _told(value: Any) -> Any:
    if isinstance(value, Tensor):
        return type(value), id(value), value.requires_grad, value.detach().clone()
    if isinstance(value, (list, dict, set)):
        inside = list(value.values()) if isinstance(value, dict) else list(value)
        return id(value), [_told(entry) for entry in inside]
    return value if isinstance(value, (bool, int, float, str)) else id(value)


def untouched(before: Any, after: Any) -> bool:
    """Whether two of `belongings` are equal."""
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and before.shape == after.shape and bool(torch.equal(before, after))
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(untouched(before[key], after[key]) for key in before)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(untouched(a, b) for a, b in zip(before, after, strict=True))
    return bool(before == after)
