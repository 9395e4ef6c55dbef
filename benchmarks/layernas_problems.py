"""LayerNAS on problems that it was not developed on: what is missing to the optimum after 20, 50, 100, 200 evaluations.

Four families, made of NATS-Bench's size table and of random functions: the table under several limits; the same with
layers or options in another order and with other scales of accuracy; its smooth part, stretched, with fresh noise per
network, as other data sets would give; random smooth functions with strong interactions under costs of their own.

    python benchmarks/layernas_problems.py --table FILE --out benchmarks/results/layernas_problems.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sartor.core import plugins
from sartor.core.contracts import CostModel, Problem, Space
from sartor.core.errors import CapabilityError
from sartor.core.records import Arch, Choice, Constraint, Objective, Trial
from sartor.core.rng import derive
from sartor.core.tables import Tables
from sartor.costs.macs import Macs
from sartor.spaces.nats_size import NatsSize
from sartor.tabular import Table

Floats: TypeAlias = NDArray[np.float64]

MARKS = (20, 50, 100, 200)
SEARCHES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "layernas": ("layernas", {}),
    "plain": ("layernas", {"surrogate": False}),
    "evolution": ("regularized_evolution", {}),
    "random": ("random_search", {}),
}


class Grid(Space):
    """Nothing but choices."""

    def __init__(self, sizes: Sequence[int], *, ordered: bool = True) -> None:
        self.choices = tuple(Choice(f"c{i}", tuple(range(k)), ordered=ordered) for i, k in enumerate(sizes))

    def build(self, arch: Arch) -> nn.Module:
        raise CapabilityError(f"{arch} is no network; these are looked up")


class Priced(CostModel):
    """A cost that is a sum of tables."""

    metric = "price"

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return self._tables(archs)

    def terms(self) -> Sequence[Tables]:
        return (self._tables,)


@dataclass(frozen=True)
class Case:
    """A function on a grid to maximise inside a limit.

    Attributes:
        values: One per network, the last choice fastest.
    """

    name: str
    values: Floats
    problem: Problem
    sizes: tuple[int, ...]

    @classmethod
    def of(
        cls, name: str, values: Floats, tables: Tables, limit: float, sizes: tuple[int, ...], *, ordered: bool = True
    ) -> Case:
        space, limits = Grid(sizes, ordered=ordered), (Constraint("price", limit),)
        return cls(
            name, values, Problem(space, (Objective("accuracy", "max"),), limits, {"price": Priced(tables)}), sizes
        )

    def missing(self, search: str, seed: int, evaluations: int) -> Floats:
        """The optimum minus the best so far, `(evaluations,)`; the worst inside as long as there is none."""
        name, settings = SEARCHES[search]
        strategy = plugins.load("strategies", name)(self.problem, seed, trials=evaluations, **settings)
        inside = self.problem.costs["price"](every(self.sizes)).numpy() <= self.problem.limit("price")
        best = self.values[inside].min()
        rest = np.full(evaluations, np.nan)
        done = 0
        while done < evaluations and (proposals := strategy.ask()):
            trials = []
            for proposal in proposals[: evaluations - done]:
                row = int(np.ravel_multi_index(proposal.arch, self.sizes))
                trials.append(Trial(done, proposal.arch, 1.0, {"accuracy": float(self.values[row])}))
                best = max(best, self.values[row]) if inside[row] else best
                rest[done] = self.values[inside].max() - best
                done += 1
            strategy.tell(trials)
        rest[done:] = self.values[inside].max() - best
        return rest


def every(sizes: Sequence[int]) -> list[Arch]:
    """All networks, the last choice fastest."""
    return [tuple(a) for a in np.indices(sizes).reshape(len(sizes), -1).T.tolist()]


def families(path: Path) -> Iterator[tuple[str, list[Case]]]:
    """Name and problems."""
    space = NatsSize()
    sizes = tuple(len(c.options) for c in space.choices)
    table = Table.read(path, space)
    column = table.column(table.best_signal())
    accuracy = np.array([column[table.rows[space.key(a)]] for a in every(sizes)])
    macs = Macs(space).terms()[0] * 1e-6
    rng = np.random.default_rng(77)
    yield (
        "the size table under five limits",
        [Case.of(f"{limit} MMACs", accuracy, macs, limit, sizes) for limit in (30, 50, 80, 140, 200)],
    )
    likely = smooth(accuracy, sizes)
    yield (
        "its smooth part or itself, stretched, with fresh noise per network",
        [
            *(
                Case.of(
                    f"{k} x smooth + {s}", 60 + k * (likely - 91) + rng.normal(0, s, len(likely)), macs, limit, sizes
                )
                for (k, s), limit in zip(
                    ((1, 0.2), (2.5, 0.35), (2.5, 0.5), (3, 0.6)) * 2,
                    (140, 140, 140, 140, 60, 60, 100, 100),
                    strict=True,
                )
            ),
            *(
                Case.of("2.5 x table + 0.4", 2.5 * accuracy + rng.normal(0, 0.4, len(accuracy)), macs, limit, sizes)
                for limit in (140, 70, 100, 40)
            ),
        ],
    )
    yield "the table in another order, or on another scale", list(reordered(accuracy, macs, sizes, rng))
    yield "random smooth functions with strong interactions", [interacting(1000 + s) for s in range(8)]


def smooth(values: Floats, sizes: Sequence[int]) -> Floats:
    """The least-squares fit of effects of choices and of pairs of them."""
    hot = [
        np.eye(k)[np.array(column)] for k, column in zip(sizes, np.indices(sizes).reshape(len(sizes), -1), strict=True)
    ]
    pairs = [(a[:, :, None] * b[:, None]).reshape(len(values), -1) for a, b in combinations(hot, 2)]
    x = np.concatenate([*hot, *pairs], axis=1)
    found: Floats = x @ np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ values)
    return found


def reordered(accuracy: Floats, macs: Tables, sizes: tuple[int, ...], rng: np.random.Generator) -> Iterator[Case]:
    """The same function for whoever does not look at names, orders and scales."""
    grid = accuracy.reshape(sizes)
    for order in ((4, 3, 2, 1, 0), (3, 1, 4, 0, 2)):
        yield Case.of(f"layers {order}", grid.transpose(order).ravel(), layers_moved(macs, order), 140, sizes)
    options = [rng.permutation(k).tolist() for k in sizes]
    moved = Tables(
        tuple(u[torch.tensor(o)] for u, o in zip(macs.unary, options, strict=True)),
        {(i, j): p[torch.tensor(options[i])][:, torch.tensor(options[j])] for (i, j), p in macs.pairwise.items()},
        macs.constant,
    )
    yield Case.of("options in any order", grid[np.ix_(*options)].ravel(), moved, 140, sizes, ordered=False)
    yield Case.of("-log error", -np.log(94.5 - accuracy), macs, 140, sizes)
    yield Case.of("exp", np.exp((accuracy - 93) * 1.5), macs, 80, sizes)


def layers_moved(tables: Tables, order: Sequence[int]) -> Tables:
    """The tables of choices `order[0], order[1], ...`."""
    place = {old: new for new, old in enumerate(order)}
    pairs = {}
    for (i, j), pair in tables.pairwise.items():
        a, b = place[i], place[j]
        pairs[min(a, b), max(a, b)] = pair if a < b else pair.T.contiguous()
    return Tables(tuple(tables.unary[old] for old in order), pairs, tables.constant)


def interacting(seed: int) -> Case:
    """Saturating gains per choice, products of all pairs and of one triple, a little noise; a chain of costs."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(4, 7))
    k = {4: 10, 5: 8, 6: 6}[count]
    sizes = (k,) * count
    x = (np.array(every(sizes)) + 1) / k
    weights = rng.gamma(2, 1, count)
    gains = [1 - np.exp(-rng.uniform(0.5, 6) * x[:, i]) for i in range(count)]
    gains = [(g - g.mean()) / g.std() for g in gains]
    y = sum(w * g for w, g in zip(weights, gains, strict=True))
    for i, j in combinations(range(count), 2):
        y = y + 0.4 * rng.normal() * np.sqrt(weights[i] * weights[j]) * gains[i] * gains[j]
    i, j, m = rng.choice(count, 3, replace=False)
    y = y + 0.3 * rng.normal() * weights.mean() * gains[i] * gains[j] * gains[m]
    y = 93 + 1.3 * (y - y.mean()) / y.std() + rng.normal(0, rng.uniform(0.1, 0.3), len(y))
    sides, c = torch.arange(1, k + 1, dtype=torch.float64) / k, rng.uniform(0.2, 1, count + 1)
    tables = Tables(
        (c[0] * sides, *[0 * sides] * (count - 2), c[count] * sides),
        {(i, i + 1): c[i + 1] * torch.outer(sides, sides) for i in range(count - 1)},
    )
    limit = float(np.quantile(tables(every(sizes)).numpy(), rng.uniform(0.2, 0.7)))
    return Case.of(f"random {seed}", y, tables, limit, sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for family, cases in families(args.table):
        means: dict[str, list[Floats]] = {}
        for case in cases:
            for search in SEARCHES:
                curves = [case.missing(search, derive(0, case.name, r), MARKS[-1]) for r in range(args.runs)]
                means.setdefault(search, []).append(np.mean(curves, axis=0)[np.array(MARKS) - 1])
            print(f"{case.name:28s}", {s: np.round(m[-1], 3).tolist() for s, m in means.items()}, flush=True)
        found[family] = {
            search: {
                "mean": dict(zip(map(str, MARKS), np.mean(rows, axis=0).tolist(), strict=True)),
                "worst": dict(zip(map(str, MARKS), np.max(rows, axis=0).tolist(), strict=True)),
            }
            for search, rows in means.items()
        }
    for family, rows in found.items():
        for search, row in rows.items():
            print(f"{family:70s} {search:10s}", " / ".join(f"{v:.2f}" for v in row["mean"].values()))
    if args.out:
        args.out.write_text(json.dumps({"runs": args.runs, "families": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
