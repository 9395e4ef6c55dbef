"""Searches with shared weights against the exact optimum, on an objective that is a sum over the choices.

The space is that of ProxylessNAS: 21 blocks with six or seven options each. Latencies are read from a published table
of operators. The "supernet" gives, instead of logits, a loss: the sum over the choices of what its options cost, each
weighted with its gate, plus noise per option and example, plus what training takes away. Every strategy learns from
that, in one search per seed; what it answers to five latency budgets is compared with the exact optimum.

    OMP_NUM_THREADS=1 python benchmarks/separable.py --table mobile_trim.yaml --out benchmarks/results/separable.json

The gap of a network is its loss minus the least under the budget, relative to the least loss (`gap`), and to how much
better the optimum is than random networks within the budget (`regret`: 0 is optimal, 1 is no better than chance).
`hull` is the gap of the best network that some fixed weight of the latency in the loss could lead to. Names with a
colon are variants that run only when named: the penalties of ProxylessNAS without a temperature.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sartor import archs
from sartor.core import plugins
from sartor.core.contracts import Evaluator, Problem, Space, Strategy, Supernet, Task
from sartor.core.files import atomically
from sartor.core.metrics import Metric
from sartor.core.records import Arch, Choice, Constraint, Objective, Operator, Operators, Trial
from sartor.core.rng import derive, numpy_rng, torch_rng
from sartor.core.tables import Tables
from sartor.costs.lookup import Lookup
from sartor.evaluators.inherited import Inherited
from sartor.solvers import chain
from sartor.solvers.constrained import optimum

STAGES = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))
"""Width, blocks and first stride, as ProxylessNAS's."""
KINDS = tuple((kernel, expand) for kernel in (3, 5, 7) for expand in (3, 6))
FIXED = (
    "Conv-input:224x224x3-output:112x112x32",
    "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0",
    "Conv_1-input:7x7x320-output:7x7x1280",
    "Logits-input:7x7x1280-output:1000",
)
SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Budgets, between the fastest network and the one with the least loss of all."""
NOISE, BATCH, BATCHES = 0.1, 64, 50
"""Of each option in each example; examples per batch, batches per epoch."""
_PROXYLESS: dict[str, Any] = {
    "epochs": 20,
    "every": 1,
    "arch_lr": 0.1,
    "warmup": 0.1,
    "lr": 2.0,
    "temperature": 2.0,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "one_shot": {"epochs": 10, "samples": 300, "batch": 50, "lr": 2.0, "weight_decay": 0.0},
    "darts": {"epochs": 12, "arch_lr": 0.1, "arch_weight_decay": 0.0, "lr": 0.1, "temperature": 2.0},
    "tunas": {
        "epochs": 16,
        "arch_lr": 0.02,
        "arch_schedule": "cosine",
        "samples": 32,
        "together": True,
        "lr": 1.0,
        "temperature": 0.5,
    },
    "proxyless": _PROXYLESS,
    "proxyless:mul_log": {**_PROXYLESS, "penalty": "mul_log", "temperature": 0.0},
    "proxyless:add_linear": {**_PROXYLESS, "penalty": "add_linear", "penalty_weight": 1.0, "temperature": 0.0},
    "proxyless:none": {**_PROXYLESS, "penalty": "none", "temperature": 0.0},
}


class Sums(Space):
    """Blocks whose losses add up.

    Args:
        seed: Of what the options cost.
    """

    def __init__(self, seed: int = 0) -> None:
        self._operators, choices = [], []
        size, c_in = 112, 16
        for stage, (c_out, blocks, first) in enumerate(STAGES):
            for block in range(blocks):
                stride = first if block == 0 else 1
                residual = stride == 1 and c_in == c_out
                names = [f"{k}x{k}_e{e}" for k, e in KINDS]
                keys = [_key(size, c_in, c_out, k, e, stride, residual) for k, e in KINDS]
                options = [(Operator(key, (c_in, size, size)),) for key in keys]
                if residual:
                    names, options = ["skip", *names], [(), *options]
                choices.append(Choice(f"block{stage}.{block}", tuple(names)))
                self._operators.append(tuple(options))
                size, c_in = size // stride, c_out
        self.choices = tuple(choices)
        self.losses = _losses(seed, [len(c.options) for c in choices])

    def operators(self) -> Operators:
        return Operators(tuple(Operator(key, ()) for key in FIXED), tuple(self._operators))

    def operator(self, operator: Operator) -> nn.Module:
        raise AssertionError(f"{operator} is not run")

    def build(self, arch: Arch) -> nn.Module:
        return _Network(self.losses, arch, torch.ones(sum(len(c.options) for c in self.choices), dtype=torch.float64))

    def supernet(self) -> Supernet:
        return _Sum(self.losses)


class _Sum(Supernet):
    """Output `(batch,)`: a loss. Weights start at one and are best at zero, each for its own option."""

    def __init__(self, losses: Tables) -> None:
        super().__init__()
        self.losses = losses
        self.register_buffer("costs", torch.cat(losses.unary))
        self.weight = nn.Parameter(torch.ones(len(torch.cat(losses.unary)), dtype=torch.float64))

    def forward(self, x: Tensor, gates: Any) -> Tensor:
        gate = torch.cat([g.to(x) for g in gates], -1)
        return ((x + self.costs + START * self.weight**2) * gate).sum(-1)

    def extract(self, arch: Arch) -> nn.Module:
        return _Network(self.losses, arch, self.weight.detach())


class _Network(nn.Module):
    def __init__(self, losses: Tables, arch: Arch, weight: Tensor) -> None:
        super().__init__()
        starts = torch.tensor([0, *[len(u) for u in losses.unary]]).cumsum(0)
        index = starts[:-1] + torch.tensor(arch)
        self.register_buffer("index", index)
        self.register_buffer("costs", torch.cat(losses.unary)[index])
        self.weight = nn.Parameter(weight[index].clone())

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, self.index] + self.costs + START * self.weight**2).sum(-1)


START = 0.2
"""What an untrained option costs more than a trained one."""


class _Mean:
    """A metric: how good the mean output is, in (0, 1) where it matters."""

    def __init__(self, worst: float) -> None:
        self.worst, self.total, self.count = worst, 0.0, 0

    def to(self, _device: Any) -> _Mean:
        return self

    def update(self, output: Tensor, _target: Tensor) -> None:
        self.total, self.count = self.total + float(output.sum()), self.count + len(output)

    def compute(self) -> float:
        return 1 - self.total / self.count / self.worst


def _key(size: int, c_in: int, c_out: int, kernel: int, expand: int, stride: int, residual: bool) -> str:
    out = size // stride
    return (
        f"expanded_conv-input:{size}x{size}x{c_in}-output:{out}x{out}x{c_out}"
        f"-expand:{expand}-kernel:{kernel}-stride:{stride}-idskip:{int(residual)}"
    )


def _losses(seed: int, sizes: list[int]) -> Tables:
    """Falling with kernel and expansion, rising to the skip; blocks differ in weight, options in luck."""
    rng = numpy_rng(seed, "losses")
    unary = []
    for k in sizes:
        gain = [0.25 * (kernel - 3) / 4 + 0.35 * (expand == 6) + 0.3 for kernel, expand in KINDS]
        gain = [0.0] * (k - len(KINDS)) + gain
        luck = rng.normal(0, 0.1, k)
        weight = rng.uniform(0.3, 1.0)
        unary.append(torch.tensor([weight * (1 - g + n) for g, n in zip(gain, luck, strict=True)], dtype=torch.float64))
    return Tables(tuple(unary))


def _batches(generator: torch.Generator, count: int, width: int) -> list[tuple[Tensor, Tensor]]:
    y = torch.zeros(BATCH)
    return [(NOISE * torch.randn(BATCH, width, generator=generator, dtype=torch.float64), y) for _ in range(count)]


def problem(space: Sums, table: Path) -> Problem:
    """Five levels of latency."""
    width, latency = sum(len(c.options) for c in space.choices), Lookup(space, table=table)
    worst = sum(float(u.max()) for u in space.losses.unary)
    free = tuple(int(u.argmin()) for u in space.losses.unary)
    least = optimum(latency.terms()[0], []).loss
    limits = [least + share * (latency.terms()[0].cost(free) - least) for share in SHARES]
    valid = _batches(torch_rng(0, "valid"), 64, width)
    task = Task(
        train=lambda generator: _batches(generator, BATCHES, width),
        valid=lambda: valid,
        test=lambda: [],
        loss=lambda output, _: output,
        distance=lambda output, _: output,
        metrics=(Metric("quality", "max", make=lambda: _Mean(worst)),),
        example=torch.zeros(1, width, dtype=torch.float64),
    )
    bound = Constraint("latency_ms", max(limits), tuple(limits))
    return Problem(space, (Objective("quality", "max"),), (bound,), {"latency_ms": latency}, task)


class _Lab:
    """Evaluates, keeps files, writes no journal."""

    def __init__(self, evaluator: Evaluator, folder: Path) -> None:
        self.evaluator, self.folder, self.trials = evaluator, folder, list[Trial]()
        self.logs: list[dict[str, float]] = []

    def evaluate(self, proposals: Any) -> list[Trial]:
        new = [Trial(len(self.trials) + i, p.arch, p.fidelity, self.evaluator(p, 0)) for i, p in enumerate(proposals)]
        self.trials += new
        return new

    def log(self, **scalars: float) -> None:
        self.logs.append(scalars)

    def artifact(self, name: str) -> Path:
        return self.folder / name

    def progress(self, done: float, total: float, label: str = "") -> None:
        pass


def searched(name: str, settings: dict[str, Any], seed: int, table: Path) -> list[dict[str, Any]]:
    """One search: the gaps of its answers to all budgets."""
    space = Sums(seed)
    given = problem(space, table)
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        strategy: Strategy = plugins.load("strategies", name.partition(":")[0])(given, seed, **settings)
        judge = Inherited(given, supernet=Path(folder) / "supernet.safetensors", calibrate=0, batches=4, device="cpu")
        lab = _Lab(judge, Path(folder))
        while strategy.step(lab):
            pass
        answers = [strategy.solve({"latency_ms": limit}) for limit in given.levels("latency_ms")]  # type: ignore[attr-defined]
    seconds = time.process_time() - begun
    rows = [_row(given, arch, limit, seed) for arch, limit in zip(answers, given.levels("latency_ms"), strict=True)]
    about = {"strategy": name, "seed": seed, "trials": len(lab.trials), "seconds": seconds}
    return [{**about, "share": share, **row} for share, row in zip(sorted(SHARES, reverse=True), rows, strict=True)]


def _row(given: Problem, arch: Arch, limit: float, seed: int) -> dict[str, float]:
    space, cost = given.space, given.cost("latency_ms").terms()[0]  # type: ignore[attr-defined]
    best = optimum(space.losses, [(cost, limit)]).loss  # type: ignore[attr-defined]
    assert cost.cost(arch) <= limit
    rng = numpy_rng(derive(seed, "chance"))
    narrow = replace(given, constraints=(Constraint("latency_ms", limit),))
    drawn = [archs.sample_feasible(narrow, rng, tries=20) for _ in range(30)]
    chance, loss = float(space.losses(drawn).mean()), space.losses.cost(arch)  # type: ignore[attr-defined]
    return {
        "gap": loss / best - 1,
        "regret": (loss - best) / (chance - best),
        "hull": chain.lagrangian(space.losses, cost, limit).loss / best - 1,  # type: ignore[attr-defined]
        "loss": loss,
        "optimum": best,
        "chance": chance,
        "latency_ms": cost.cost(arch),
        "limit_ms": limit,
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians and worst cases per strategy and budget."""
    found = []
    for name in dict.fromkeys(r["strategy"] for r in rows):
        for share in SHARES:
            part = [r for r in rows if (r["strategy"], r["share"]) == (name, share)]
            line: dict[str, Any] = {"strategy": name, "share": share, "seeds": len(part)}
            for key in ("gap", "regret", "hull"):
                values = sorted(r[key] for r in part)
                line |= {f"{key}_median": statistics.median(values), f"{key}_worst": values[-1]}
            line["seconds"] = statistics.median(r["seconds"] for r in part)
            found.append(line)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="latencies of operators, in the published format")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; what is in it is not searched again")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--strategies", nargs="*", default=[n for n in SETTINGS if ":" not in n])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    for name in args.strategies:
        for seed in range(args.seeds):
            if any((r["strategy"], r["seed"]) == (name, seed) for r in rows):
                continue
            rows += searched(name, SETTINGS[name], seed, args.table)
            print(
                name,
                seed,
                [f"{r['gap']:.2%}" for r in rows[-len(SHARES) :]],
                f"{rows[-1]['seconds']:.1f} s",
                flush=True,
            )
            text = json.dumps({"settings": SETTINGS, "summary": summary(rows), "rows": rows}, indent=1) + "\n"
            atomically(args.out, lambda part, text=text: part.write_text(text))  # type: ignore[misc]
    for line in summary(rows):
        print(line)


if __name__ == "__main__":
    main()
