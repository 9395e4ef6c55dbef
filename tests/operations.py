"""A toy space of operations: a chain of linear maps, of which each choice takes one; its supernet is plain autograd."""

from __future__ import annotations

import torch
from torch import nn

from sartor.core.contracts import CostModel, Problem, Space, Supernet, Task
from sartor.core.metrics import Metric
from sartor.core.records import Choice, Constraint, Objective, Operator, Operators
from sartor.core.rng import torch_rng
from sartor.core.tables import Tables
from sartor.data.losses import squared

SIZES = (3, 2, 4)
WIDTH = 3


class Chain(Supernet):
    """Output `(batch, WIDTH)`, multilinear in the gates."""

    def __init__(self, sizes=SIZES):
        super().__init__()
        shapes = [(k, WIDTH, WIDTH) for k in sizes]
        self.maps = nn.ParameterList(nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in shapes)

    def forward(self, x, gates):
        for maps, gate in zip(self.maps, gates, strict=True):
            x = torch.einsum("...j,jab,nb->na" if gate.dim() == 1 else "nj,jab,nb->na", gate.to(x), maps, x)
        return x

    def extract(self, arch):
        return Path([maps.detach()[a] for maps, a in zip(self.maps, arch, strict=True)])


class Path(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.maps = nn.ParameterList(nn.Parameter(m.clone()) for m in maps)

    def forward(self, x):
        for m in self.maps:
            x = x @ m.T
        return x


class Maps(Space):
    """Option 0 of the first choice is a skip."""

    def __init__(self, sizes=SIZES, ordered=False):
        self.sizes = sizes
        self.choices = tuple(Choice(f"c{i}", tuple(range(k)), ordered=ordered) for i, k in enumerate(sizes))

    def build(self, arch):
        return Chain(self.sizes).extract(arch)

    def supernet(self):
        return Chain(self.sizes)

    def operators(self):
        ran = [
            [() if (i, k) == (0, 0) else (Operator(f"{i}.{k}", (WIDTH,)),) for k in range(n)]
            for i, n in enumerate(self.sizes)
        ]
        return Operators((), tuple(map(tuple, ran)))

    def operator(self, operator):
        raise AssertionError(f"{operator} is not run")


class Latency(CostModel):
    """A sum over choices, and over one pair of them."""

    metric = "latency_ms"

    def __init__(self, sizes=SIZES):
        unary = tuple(torch.arange(1, k + 1, dtype=torch.float64) for k in sizes)
        pair = torch.rand(sizes[0], sizes[1], generator=torch_rng(0), dtype=torch.float64)
        self._tables = Tables(unary, {(0, 1): pair}, 2.0)

    def __call__(self, archs):
        return self._tables(archs)

    def terms(self):
        return (self._tables,)


def batches(generator, count, size=8):
    for _ in range(count):
        x = torch.randn(size, WIDTH, generator=generator, dtype=torch.float64)
        yield x, x.sum(1)


def linear(output, y):
    """A loss that is linear in the output."""
    return output.sum(1) + 0 * y


def toy(*, upper=9.0, levels=(), loss=linear, ordered=False, metrics=None):
    """Three choices of three, two and four options; two batches per epoch."""
    space = Maps(ordered=ordered)
    task = Task(
        train=lambda generator: batches(generator, 2),
        valid=lambda: batches(torch_rng(1), 3),
        test=lambda: [],
        loss=loss,
        distance=squared,
        metrics=tuple(Metric(n, "max", make=make) for n, make in (metrics or {"unused": None}).items()),
        example=torch.zeros(1, WIDTH, dtype=torch.float64),
    )
    limits = (Constraint("latency_ms", upper, levels),)
    return Problem(space, (Objective("accuracy", "max"),), limits, {"latency_ms": Latency()}, task)


class Notes:
    """A lab that takes notes, and evaluates by a function of the arch."""

    def __init__(self, folder=None, score=None):
        self.logs, self.folder, self.score, self.trials = [], folder, score, []

    def log(self, **scalars):
        self.logs.append(scalars)

    def progress(self, done, total, label=""):
        pass

    def artifact(self, name):
        return self.folder / name

    def evaluate(self, proposals):
        from sartor.core.records import Trial

        first = len(self.trials)
        self.trials += [
            Trial(first + i, p.arch, 1.0, {"accuracy": self.score(p.arch)}) for i, p in enumerate(proposals)
        ]
        return self.trials[first:]
