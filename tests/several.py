"""Small networks with several inputs and with outputs of many kinds: what is left of them must come back alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sartor.core.rng import global_seed
from sartor.core.trees import Inputs


class Answer(NamedTuple):
    """Like torchvision's for GoogLeNet."""

    logits: Tensor
    auxiliary: Tensor | None


@dataclass
class Output:
    """Like those of HuggingFace, with something that is not there."""

    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    loss: Tensor | None = None


@dataclass
class Found(OrderedDict[str, Any]):
    """A mapping and a dataclass at once, without what is None, as HuggingFace's."""

    logits: Tensor | None = None
    hidden: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("logits", "hidden"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)


class _Towers(nn.Module):
    """An image and a vector, each through a tower of its own."""

    def __init__(self, image: int = 16, vector: int = 16) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.body = nn.Conv2d(12, image, 3, stride=2, padding=1)
        self.first, self.second = nn.Linear(10, 12), nn.Linear(12, vector)

    def look(self, image: Tensor) -> Tensor:
        return torch.relu(self.body(torch.relu(self.bn(self.stem(image)))))

    def read(self, vector: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(vector))))


class Concat(_Towers):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.head = nn.Sequential(nn.Linear(28, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        return self.head(torch.cat([self.look(image).mean((2, 3)), self.read(vector)], 1))


class Add(_Towers):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        return self.head(self.look(image).mean((2, 3)) + self.read(vector))


class Modulate(_Towers):
    """The vector says how much of each channel passes; what comes out is a dict, with the input in it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(16, 4, 1)
        self.scale = nn.Parameter(torch.ones(7))

    def forward(self, image: Tensor, vector: Tensor) -> dict[str, Tensor]:
        gate = torch.sigmoid(self.read(vector))[:, :, None, None]
        return {"out": self.head(self.look(image) * gate), "vector": vector, "scale": self.scale}


class Cross(nn.Module):
    """Questions look at an image: cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.ask, self.key, self.value = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.mix, self.head = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, image: Tensor, questions: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.patches(image).flatten(2).transpose(1, 2)
        share = torch.softmax(self.ask(questions) @ self.key(seen).transpose(1, 2) / 4, -1)
        return self.head(torch.relu(self.mix(share @ self.value(seen)))), share


class Attend(nn.Module):
    """The same with torch's own attention, and a mask of what may be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.ask, self.tell = nn.Linear(6, 16), nn.Linear(5, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.up, self.head = nn.Linear(16, 24), nn.Linear(24, 3)

    def forward(self, questions: Tensor, memory: Tensor, hidden: Tensor) -> list[Tensor]:
        seen = self.tell(memory)
        found, _ = self.attention(self.ask(questions), seen, seen, key_padding_mask=hidden, need_weights=False)
        return [self.head(torch.relu(self.up(found))), hidden]


class Words(_Towers):
    """Token ids through an embedding, and an image; a dataclass comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.up = nn.Embedding(20, 12), nn.Linear(12, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor, ids: Tensor, weights: Tensor | None = None) -> Output:
        text = torch.relu(self.up(self.words(ids)))
        text = text.mean(1) if weights is None else (text * weights[..., None]).sum(1)
        hidden = self.look(image).mean((2, 3)) + text
        return Output(self.head(hidden), (image.mean((1, 2, 3)),))


class Ids(nn.Module):
    """Nothing but token ids; what comes out is a mapping that is a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(20, 16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, input_ids: Tensor) -> Found:
        x = self.words(input_ids)
        x = x + self.down(torch.relu(self.up(x)))
        return Found(logits=self.head(x.mean(1)))


class Deep(_Towers):
    """Outputs in outputs, one of them twice, and what is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(16, 2, 1), nn.Conv2d(16, 3, 1)

    def forward(self, image: Tensor) -> dict[str, Any]:
        x = self.look(image)
        one = self.one(x)
        return {"maps": [one, (self.two(x), one)], "answer": Answer(one.mean((2, 3)), None), "scale": 2, "none": None}


class Ordered(_Towers):
    """A number of channels in the code, so that cuts are graphs; arguments that must be named."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 5)

    def forward(self, *, vector: Tensor, image: Tensor) -> OrderedDict[str, Tensor]:
        x = self.look(image).flatten(2).mean(2) + self.read(vector)
        return OrderedDict(out=self.head(x.reshape(-1, 16)), aux=image.mean((1, 2, 3)))


class Twins(nn.Module):
    """Two images through one tower: side by side in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 16, 3, stride=2)
        self.head = nn.Linear(16, 8)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.body(torch.relu(self.stem(torch.cat([left, right])))))
        a, b = self.head(x.mean((2, 3))).chunk(2)
        return a, b


class Frames(_Towers):
    """Any number of images, which must be unpacked."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, *images: Tensor) -> Tensor:
        return self.head(sum(self.look(image) for image in images))


class Heads(_Towers):
    """A head that only training uses, as Inception's."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.extra = nn.Linear(16, 5), nn.Linear(16, 5)

    def forward(self, image: Tensor, vector: Tensor) -> Answer | Tensor:
        x = self.look(image).mean((2, 3))
        out = self.head(x * self.read(vector))
        return Answer(out, self.extra(x)) if self.training else out


class Lookup(nn.Module):
    """Nothing that could be traced: a path that depends on values; by name, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor, *, other: Tensor) -> dict[str, Tensor]:
        y = self.layer(x) if float(x.detach().sum()) > 0 else x
        return {"skipped": x, "both": y + other}


class Partly(_Towers):
    """A part that is left alone, called by name, of whose results one is used."""

    def __init__(self) -> None:
        super().__init__()
        self.lookup, self.up, self.head = Lookup(), nn.Linear(16, 24), nn.Linear(24, 5)

    def forward(self, image: Tensor, vector: Tensor) -> dict[str, Tensor]:
        x = self.lookup(self.look(image).mean((2, 3)), other=self.read(vector))["both"]
        return {"out": self.head(torch.relu(self.up(x)))}


class Recur(nn.Module):
    """A sequence and the state to start from; both come back."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.cell = nn.Linear(6, 16), nn.GRU(4, 16, batch_first=True)
        self.up, self.head = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, steps: Tensor, state: Tensor) -> tuple[Tensor, list[Tensor]]:
        found, last = self.cell(steps, self.start(state)[None])
        return self.head(torch.relu(self.up(found))), [last[0]]


@dataclass(frozen=True)
class Case:
    """A network, and inputs for it.

    Attributes:
        make: Gives the network.
        inputs: Shapes without the batch, by place or by name; of whole numbers below 20 as a list, of truths as a set.
        plain: Whether cuts are of the network's own class.
        ignore: Modules to leave as they are.
    """

    make: Callable[[], nn.Module]
    inputs: tuple[Any, ...] | Mapping[str, Any]
    plain: bool = True
    ignore: tuple[str, ...] = ()

    def network(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """With weights as if it was trained."""
        with global_seed(0):
            network = self.make()
            for value in (*network.parameters(), *network.buffers()):
                if value.is_floating_point() and value.dim() == 1:
                    value.data.uniform_(0.5, 1.5)
        return network.to(dtype).eval()

    def batch(self, examples: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Inputs:
        """Random inputs."""
        generator = torch.Generator().manual_seed(seed)

        def draw(shape: Any) -> Tensor:
            if isinstance(shape, list):
                return torch.randint(20, (examples, *shape), generator=generator)
            if isinstance(shape, frozenset):
                mask = torch.rand((examples, *shape), generator=generator) < 0.4
                return mask & (torch.arange(mask.shape[1]) > 0)
            return torch.randn((examples, *shape), generator=generator).to(dtype)

        if isinstance(self.inputs, Mapping):
            return {name: draw(shape) for name, shape in self.inputs.items()}
        found = tuple(draw(shape) for shape in self.inputs)
        return found if len(found) > 1 else found[0]


IMAGE, VECTOR = (3, 8, 8), (10,)
CASES: Mapping[str, Case] = {
    "concat": Case(Concat, (IMAGE, VECTOR)),
    "add": Case(Add, {"vector": VECTOR, "image": IMAGE}),
    "mul": Case(Modulate, (IMAGE, VECTOR)),
    "mul by name": Case(Modulate, {"vector": VECTOR, "image": IMAGE}),
    "cross-attention": Case(Cross, (IMAGE, (5, 6))),
    "attention with a mask": Case(
        Attend, {"hidden": frozenset([7]), "memory": (7, 5), "questions": (4, 6)}, plain=False
    ),
    "words and image": Case(Words, {"ids": [6], "image": IMAGE}),
    "words, weights and image": Case(Words, (IMAGE, [6], (6,))),
    "nothing but words": Case(Ids, {"input_ids": [6]}),
    "outputs in outputs": Case(Deep, (IMAGE,)),
    "ordered, by name only": Case(Ordered, {"image": IMAGE, "vector": VECTOR}, plain=False),
    "twins": Case(Twins, (IMAGE, IMAGE)),
    "frames": Case(Frames, (IMAGE, IMAGE, IMAGE)),
    "auxiliary head": Case(Heads, (IMAGE, VECTOR)),
    "partly left alone": Case(Partly, (IMAGE, VECTOR), ignore=("lookup",)),
    "recurrent": Case(Recur, {"state": (6,), "steps": (5, 4)}),
}


def concat() -> nn.Module:
    """For the command line."""
    return CASES["concat"].network()


def words() -> nn.Module:
    """For the command line."""
    return CASES["words and image"].network()
