"""`sartor bench`: strategies side by side on a table of published results, many runs each, with equal evaluations."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from math import inf
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from sartor import config
from sartor.core import plugins
from sartor.core.contracts import Problem, Space, Strategy
from sartor.core.errors import BudgetError, BudgetSpentError, ConfigError
from sartor.core.records import Arch, Constraint, Objective
from sartor.core.rng import derive
from sartor.evaluators.tabular import Tabular
from sartor.jobs.parts import analytic_costs
from sartor.run.simulated import SimulatedLab
from sartor.sampling.region import Price
from sartor.tabular import SETTINGS, Table, dataset_of

Floats: TypeAlias = NDArray[np.float64]

MARKS = (10, 20, 50, 100, 200, 500, 1000)
"""Numbers of evaluations at which means are reported."""


@dataclass(frozen=True)
class Bench:
    """What is compared, and how.

    Attributes:
        space: A space, by name or as a table of settings; classes and size follow the table's data set.
        table: The file with the results.
        strategies: Names, or tables of settings by the name they go by.
        budget: Metric -> bound, in the units of the cost: `{"macs": 140e6}`.
        evaluations: Trials per run.
        runs: Of each strategy.
        seed: Of everything random.
        signal: The column that searches see; empty: the one that is reported.
        noise: Standard deviation of the noise on it, in points.
        dataset: Which one, if the table has several.
    """

    space: str | Mapping[str, Any]
    table: str
    strategies: Mapping[str, Mapping[str, Any]]
    budget: Mapping[str, float] = field(default_factory=dict)
    evaluations: int = 200
    runs: int = 100
    seed: int = 0
    signal: str = ""
    noise: float = 0.0
    dataset: str = ""

    def __post_init__(self) -> None:
        for name in ("evaluations", "runs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for metric, bound in self.budget.items():
            if isinstance(bound, bool) or not isinstance(bound, int | float):
                raise ConfigError(f"the budget on {metric} must be one number here, as in macs=140e6; got {bound!r}")
        if not self.strategies:
            raise ConfigError("there is no strategy to compare; name one, as in --strategies random_search,layernas")


def bench(task: Bench, *, workers: int = 1, show: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Run everything; the result does not depend on `workers`.

    Returns:
        What `bench.json` holds, and under `curves` per strategy the value of the best network so far, `(runs,
        evaluations)`: not a number where there is none yet.

    Raises:
        BudgetError: No network of the table is inside the budget.
        ConfigError: A name, a column or a setting does not exist.
        DataError: The table does not fit the space.
    """
    stand = Stand(task)
    stand.optimum()
    for name in task.strategies:
        stand.strategy(name, 0)  # mistakes show before anything runs
    chunks = [(name, runs) for name in task.strategies for runs in _chunks(task.runs, max(1, 4 * workers))]
    found: dict[str, dict[int, tuple[Floats, float]]] = {name: {} for name in task.strategies}
    done, total = 0, task.runs * len(task.strategies)
    for name, part in _worked(stand, chunks, workers):
        found[name] |= part
        done += len(part)
        if show is not None:
            show(done, total)
    curves = {name: np.stack([parts[r][0] for r in range(task.runs)]) for name, parts in found.items()}
    seconds = {name: sum(spent for _, spent in parts.values()) for name, parts in found.items()}
    return {**summary(stand, curves, seconds), "curves": curves}


class Stand:
    """The problem, its table, and the strategies: the same in every process."""

    def __init__(self, task: Bench) -> None:
        self.task = task
        self.space = _space(task)
        self.table = Table.read(task.table, self.space, task.dataset)
        costs = analytic_costs(self.space)
        unknown = [m for m in task.budget if m not in costs]
        if unknown:
            raise ConfigError(f"no budget on {unknown[0]!r} here; it may be one of {', '.join(costs)}")
        self.prices = {m: Price(costs[m]) for m in task.budget}
        self.problem = Problem(
            space=self.space,
            objectives=(Objective("accuracy", "max"),),
            constraints=tuple(Constraint(m, upper) for m, upper in task.budget.items()),
            costs={m: costs[m] for m in task.budget},
        )
        signal = task.signal or self.table.best_signal()
        self.evaluator = Tabular.of(self.problem, self.table, signal=signal, noise=task.noise)

    def cost(self, arch: Arch) -> Mapping[str, float]:
        """Metric -> cost of a network."""
        return {m: price(arch) for m, price in self.prices.items()}

    def strategy(self, name: str, run: int) -> Strategy:
        """A fresh strategy for a run."""
        table = {"name": name, **self.task.strategies[name]}  # a table may say that it is another's settings
        accepted = inspect.signature(plugins.load("strategies", table["name"])).parameters
        if "trials" in accepted:
            table.setdefault("trials", self.task.evaluations)
        built: Strategy = config.build("strategies", table, self.problem, derive(self.task.seed, name, run))
        return built

    def run(self, name: str, run: int) -> tuple[Floats, float]:
        """The reported value of the best network so far after each evaluation, `(evaluations,)`, and the seconds."""
        begin = time.perf_counter()
        strategy = self.strategy(name, run)
        seed = derive(self.task.seed, name, run, "trials")
        lab = SimulatedLab(self.evaluator, seed, max_trials=self.task.evaluations, costs=self.cost)
        try:
            while strategy.step(lab):
                pass
        except BudgetSpentError:
            pass
        return self._curve(lab), time.perf_counter() - begin

    def _curve(self, lab: SimulatedLab) -> Floats:
        curve = np.full(self.task.evaluations, np.nan)
        best, value = (-inf, -inf), np.nan
        for i, trial in enumerate(lab.trials):
            rank = (trial.fidelity, trial.metrics["accuracy"])  # what was trained longer counts first
            if rank > best and all(trial.metrics[m] <= upper for m, upper in self.task.budget.items()):
                best, value = rank, self.evaluator.true(trial.arch)
            curve[i] = value
        curve[len(lab.trials) :] = value  # it has nothing more to try
        return curve

    def optimum(self) -> float:
        """The best value in the table inside the budget."""
        index = np.array(self._all())
        costs = {m: price.many(index) for m, price in self.prices.items()}
        inside = np.ones(len(index), dtype=bool)
        for m, values in costs.items():
            inside &= values <= self.task.budget[m]
        if not inside.any():
            text = ", ".join(f"{m} {values.min():g}" for m, values in costs.items())
            raise BudgetError(f"no network of the table is inside {dict(self.task.budget)}; the smallest has {text}")
        return max(self.evaluator.true(tuple(a)) for a in index[inside].tolist())

    def _all(self) -> list[Arch]:
        return list(product(*(range(len(c.options)) for c in self.space.choices)))


def _space(task: Bench) -> Space:
    """The space with what the table's data set needs, unless the settings say otherwise."""
    table: dict[str, Any] = {"name": task.space} if isinstance(task.space, str) else dict(task.space)
    known = config.keywords(plugins.load("spaces", table["name"]))
    for key, value in SETTINGS.get(dataset_of(task.table, task.dataset), {}).items():
        if key in known:
            table.setdefault(key, value)
    built: Space = config.build("spaces", table)
    return built


def _chunks(runs: int, count: int) -> list[range]:
    size = max(1, -(-runs // count))
    return [range(start, min(runs, start + size)) for start in range(0, runs, size)]


_STAND: list[Stand] = []
"""Of a worker process."""


def _worked(stand: Stand, chunks: Sequence[tuple[str, range]], workers: int) -> Any:
    """`(strategy, run -> result)` of each chunk as it is done."""
    if workers <= 1:
        for name, runs in chunks:
            yield name, {r: stand.run(name, r) for r in runs}
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(stand.task,)) as pool:
        for (name, _), part in zip(chunks, pool.map(_part, *zip(*chunks, strict=True)), strict=True):
            yield name, part


def _start(task: Bench) -> None:
    torch.set_num_threads(1)
    _STAND[:] = [Stand(task)]


def _part(name: str, runs: range) -> dict[int, tuple[Floats, float]]:
    return {r: _STAND[0].run(name, r) for r in runs}


def summary(stand: Stand, curves: Mapping[str, Floats], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Figures of each strategy, and how sure their differences are."""
    task = stand.task
    return {
        "space": task.space if isinstance(task.space, str) else dict(task.space),
        "table": Path(task.table).name,
        "dataset": stand.table.dataset,
        "signal": stand.evaluator.signal,
        "noise": task.noise,
        "reported": stand.table.best_signal(),
        "budget": dict(task.budget),
        "evaluations": task.evaluations,
        "runs": task.runs,
        "seed": task.seed,
        "optimum": stand.optimum(),
        "strategies": {
            name: {
                **_figures(curve, task.evaluations),
                "seconds": seconds[name],
                "settings": dict(task.strategies[name]),
            }
            for name, curve in curves.items()
        },
        "tests": _tests({name: curve[:, -1] for name, curve in curves.items()}),
    }


def _figures(curve: Floats, evaluations: int) -> dict[str, Any]:
    final = curve[:, -1]
    low, middle, high = np.quantile(final, [0.25, 0.5, 0.75])
    return {
        "mean": float(final.mean()),
        "std": float(final.std(ddof=1)) if len(final) > 1 else 0.0,
        "median": float(middle),
        "q25": float(low),
        "q75": float(high),
        "at": {str(n): float(curve[:, n - 1].mean()) for n in MARKS if n <= evaluations},
    }


def _tests(finals: Mapping[str, Floats]) -> list[dict[str, Any]]:
    """Mann-Whitney's test of every pair, with Holm's correction for their number."""
    names = list(finals)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    raw = [
        1.0 if np.ptp([*finals[a], *finals[b]]) == 0 else float(mannwhitneyu(finals[a], finals[b]).pvalue)
        for a, b in pairs
    ]
    corrected, worst = [0.0] * len(raw), 0.0
    for rank, i in enumerate(np.argsort(raw)):
        worst = corrected[i] = max(worst, min(1.0, raw[i] * (len(raw) - rank)))
    return [
        {"a": a, "b": b, "difference": float(finals[a].mean() - finals[b].mean()), "p": p}
        for (a, b), p in zip(pairs, corrected, strict=True)
    ]
