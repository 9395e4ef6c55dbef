"""`sartor bench`: strategies side by side on a table of published results, many runs each, with equal evaluations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from sartor import config
from sartor.core import plugins
from sartor.core.contracts import CostModel, Evaluator, Problem, Space, Strategy
from sartor.core.errors import BudgetError, BudgetSpentError, ConfigError
from sartor.core.records import Arch, Constraint, Objective, Proposal
from sartor.core.rng import derive
from sartor.costs.tabular import Tabular as LookedUp
from sartor.evaluators.tabular import METRIC, Tabular
from sartor.jobs.fit.assemble import analytic_costs
from sartor.jobs.fit.workers import workers_of
from sartor.regions.region import Price
from sartor.rewards import compression
from sartor.run.journal import MemoryJournal
from sartor.run.pool import Pool
from sartor.run.simulated import SimulatedLab
from sartor.run.stopwatch import Stopwatch
from sartor.run.work import Order, Work
from sartor.tabular import SETTINGS, Table, dataset_of, networks_of, shipped

Floats: TypeAlias = NDArray[np.float64]

MARKS = (10, 20, 50, 100, 200, 500, 1000)
"""Numbers of evaluations at which means are reported."""
POINTS = 200
"""In time, of a curve."""
OBJECTIVES = (METRIC.name, "compression")


@dataclass(frozen=True)
class Bench:
    """What is compared, and how.

    Attributes:
        space: A space, by name or as a table of settings; classes and size follow the table's data set.
        table: The file with the results; empty: the one that comes with sartor for this space.
        strategies: Names, or tables of settings by the name they go by.
        budget: Metric -> bound, in the units of the cost: `{"macs": 140e6}`; also on what the table has a column of.
        evaluations: Trials per run.
        runs: Of each strategy.
        seed: Of everything random.
        signal: The column that searches see; empty: the one that is reported.
        noise: Standard deviation of the noise on it, in points.
        dataset: Which one, if the table has several.
        objective: What every strategy maximises, and what is reported: `accuracy`, or `compression`, C (2 - C) times
            the accuracy as a share of that of the space's reference, C the share of its parameters removed, in per
            cent (sartor.rewards.compression).
    """

    space: str | config.Table
    table: str
    strategies: Mapping[str, config.Table]
    budget: Mapping[str, float] = field(default_factory=dict)
    evaluations: int = 200
    runs: int = 100
    seed: int = 0
    signal: str = ""
    noise: float = 0.0
    dataset: str = ""
    objective: str = METRIC.name

    def __post_init__(self) -> None:
        for name in ("evaluations", "runs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for metric, bound in self.budget.items():
            if isinstance(bound, bool) or not isinstance(bound, int | float):
                raise ConfigError(f"the budget on {metric} must be one number here, as in macs=140e6; got {bound!r}")
        if self.objective not in OBJECTIVES:
            raise ConfigError(f"objective is {self.objective!r}; it must be one of {', '.join(OBJECTIVES)}")
        if not self.strategies:
            raise ConfigError("there is no strategy to compare; name one, as in --strategies random_search,layernas")

    @property
    def file(self) -> str:
        """The table: the one named, or the one that comes with sartor.

        Raises:
            ConfigError: None is named, and none comes with sartor for this space.
        """
        name = self.space if isinstance(self.space, str) else str(self.space.get("name"))
        if not self.table and name not in shipped():
            plugins.load("spaces", name)  # a name that is wrong is the likelier mistake
            raise ConfigError(
                f"no table comes with sartor for the space {name!r}, only for {', '.join(shipped())}; name a file, as "
                "in --table results.csv.gz"
            )
        return self.table or str(shipped()[name])


def bench(task: Bench, *, workers: int = 1, show: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Run everything; the result does not depend on `workers`.

    Returns:
        What `bench.json` holds, and under `curves` per strategy the value of the best network so far, `(runs,
        evaluations)`: not a number where there is none yet; under `timed` the same against the seconds of training,
        `(points,)` and `(runs, points)`, empty if the table has no times of the signal.

    Raises:
        BudgetError: No network of the table is inside the budget.
        CapabilityError: A strategy needs what a table cannot give, such as a supernet.
        ConfigError: A name, a column or a setting does not exist.
        DataError: The table does not fit the space.
    """
    stand = Stand(task)
    stand.optimum()
    for name in task.strategies:
        stand.strategy(name, 0)  # mistakes show before anything runs
    chunks = [(name, runs) for name in task.strategies for runs in _chunks(task.runs, max(1, 4 * workers))]
    found: dict[str, dict[int, Run]] = {name: {} for name in task.strategies}
    done, total = 0, task.runs * len(task.strategies)
    for name, part in _worked(stand, chunks, workers):
        found[name] |= part
        done += len(part)
        if show is not None:
            show(done, total)
    every = {name: [parts[r] for r in range(task.runs)] for name, parts in found.items()}
    curves = {name: np.stack([run.curve for run in runs]) for name, runs in every.items()}
    clocks = {name: np.stack([run.clock for run in runs]) for name, runs in every.items() if stand.timed}
    seconds = {name: sum(run.seconds for run in runs) for name, runs in every.items()}
    timed = {name: over_time(curve, clocks[name]) for name, curve in curves.items()} if stand.timed else {}
    return {**summary(stand, curves, clocks, seconds), "curves": curves, "timed": timed}


class Run(NamedTuple):
    """One run of one strategy.

    Attributes:
        curve: The reported value of the best network so far after each evaluation, `(evaluations,)`.
        clock: What the trainings up to there took by the table, in seconds, `(evaluations,)`.
        seconds: What the run itself took.
    """

    curve: Floats
    clock: Floats
    seconds: float

    def plain(self) -> list[Any]:
        """As JSON-able data."""
        return [self.curve.tolist(), self.clock.tolist(), self.seconds]

    @classmethod
    def of(cls, found: Sequence[Any]) -> Run:
        """What `plain` made."""
        return cls(np.array(found[0]), np.array(found[1]), found[2])


class Stand:
    """The problem, its table, and the strategies: the same in every process."""

    def __init__(self, task: Bench) -> None:
        self.task = task
        self.space = _space(task)
        self.table = Table.read(task.file, self.space, task.dataset)
        self._priced = Priced(self.space, self.table, told=_is_told(task))
        costs = self._costs()
        self.prices = {m: Price(cost) for m, cost in costs.items()}
        self.problem = Problem(
            space=self.space,
            objectives=(Objective(task.objective, "max"),),
            constraints=tuple(Constraint(m, upper) for m, upper in task.budget.items()),
            costs=costs,
        )
        signal = task.signal or self.table.best_signal()
        tabular = Tabular.of(self.problem, self.table, signal=signal, noise=task.noise, curve=True)
        self.evaluator = Compressed(tabular, self._priced) if task.objective == "compression" else tabular
        self.signal, self.timed = signal, "seconds" in tabular(Proposal(self.space.reference), 0)

    def _costs(self) -> dict[str, CostModel]:
        """What there are budgets on."""
        known = [*analytic_costs(self.space), *self.table.costs()]
        for metric in self.task.budget:
            if metric not in known:
                raise ConfigError(f"no budget on {metric!r} here; it may be one of {', '.join(dict.fromkeys(known))}")
        return {metric: self._priced.model(metric) for metric in self.task.budget}

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

    def run(self, name: str, run: int) -> Run:
        """One run, from the first to the last evaluation."""
        watch = Stopwatch()
        strategy = self.strategy(name, run)
        seed = derive(self.task.seed, name, run, "trials")
        lab = SimulatedLab(self.evaluator, seed, max_trials=self.task.evaluations, costs=self.cost)
        try:
            while strategy.step(lab):
                pass
        except BudgetSpentError:
            pass
        return Run(self._curve(lab), self._clock(lab), watch.lap())

    def _clock(self, lab: SimulatedLab) -> Floats:
        spent = np.zeros(self.task.evaluations)
        spent[: len(lab.trials)] = [trial.metrics.get("seconds", 0.0) for trial in lab.trials]
        return np.asarray(spent.cumsum())

    def _curve(self, lab: SimulatedLab) -> Floats:
        curve = np.full(self.task.evaluations, np.nan)
        best, value = (-inf, -inf), np.nan
        for i, trial in enumerate(lab.trials):
            rank = (trial.fidelity, trial.metrics[self.task.objective])  # what was trained longer counts first
            if rank > best and all(trial.metrics[m] <= upper for m, upper in self.task.budget.items()):
                best, value = rank, self.evaluator.true(trial.arch)
            curve[i] = value
        curve[len(lab.trials) :] = value  # it has nothing more to try
        return curve

    def optimum(self) -> float:
        """The best value in the table inside the budget."""
        index = np.array(networks_of(self.space))
        costs = {m: price.many(index) for m, price in self.prices.items()}
        inside = np.ones(len(index), dtype=bool)
        for m, values in costs.items():
            inside &= values <= self.task.budget[m]
        if not inside.any():
            text = ", ".join(f"{m} {values.min():g}" for m, values in costs.items())
            raise BudgetError(f"no network of the table is inside {dict(self.task.budget)}; the smallest has {text}")
        return max(self.evaluator.true(tuple(a)) for a in index[inside].tolist())


class Priced:
    """What the networks of a table cost on its data set: by its own columns, else as the space counts them.

    Where both say the same, the space's costs are taken, which have tables for strategies that need them.

    Args:
        space: Of the networks.
        table: With their results.
        told: Whether the space has been told what its costs depend on (classes, size), by the user or because the data
            set is known.
    """

    def __init__(self, space: Space, table: Table, *, told: bool) -> None:
        self.space, self._table, self._told = space, table, told
        self._counted = analytic_costs(space)
        self._archs = networks_of(space)
        self._lines = [table.line(space, arch) for arch in self._archs]

    def model(self, metric: str) -> CostModel:
        """The cost model of a metric.

        Raises:
            ConfigError: The table contradicts the space, or has no such column and its data set is not known.
        """
        if metric not in self._counted:
            return LookedUp.of(self.space, self._table, metric)
        differs = self._differs(metric)
        if differs is None and not self._is_certain():
            raise ConfigError(
                f"nobody knows {metric} on the data set {self._table.dataset!r}: {self._table.path} has no such column "
                f"and to {type(self.space).__name__} the data set is unknown; add the column, or say classes and size, "
                "as in --space classes=10 --space size=32"
            )
        if differs and self._told:
            raise ConfigError(
                f"{self._table.path} contradicts {type(self.space).__name__} on the data set {self._table.dataset!r}: "
                f"{differs}; correct the table, its data set's name, or classes and size of the space"
            )
        return LookedUp.of(self.space, self._table, metric) if differs else self._counted[metric]

    def _is_certain(self) -> bool:
        """Whether the space counts what the data set costs: it was told, or the table lists the same multiply-adds."""
        return self._told or self._differs("macs") == ""

    def _differs(self, metric: str) -> str | None:
        """Where the table and the space say different things, "" if nowhere; None if the table does not list it."""
        listed = self._table.cost(metric)
        if listed is None:
            return None
        have, counted = listed[self._lines], self._counted[metric](self._archs).numpy()
        off = np.abs(have - counted) > _CLOSE * counted + _rounding(have)
        if not off.any():
            return ""
        k = int(np.argmax(off))
        return f"{metric} of {self.space.key(self._archs[k])!r} are {have[k]:g} there and {counted[k]:g} here"


_CLOSE = 0.01
"""Relative differences between tables that count the same."""


def _rounding(values: Floats) -> float:
    """Half of the last decimal that numbers in millions are given with."""
    digits = next((d for d in range(7) if np.allclose(values, np.round(values / 1e6, d) * 1e6, rtol=1e-12)), 7)
    return 0.5 * 10.0 ** (6 - digits)


class Compressed(Evaluator):
    """A table's accuracies as rewards of compression, in per cent: `compression`, `compression_1`, ...

    Args:
        inner: The table.
        priced: Tells the parameters; the reference of its space is the teacher, with its accuracies in the table.

    Raises:
        ConfigError: The parameters of the space's networks are not known, or the teacher's accuracy is 0.
    """

    def __init__(self, inner: Tabular, priced: Priced) -> None:
        space = priced.space
        if "params" not in analytic_costs(space):
            raise ConfigError(
                f"nobody knows the parameters of {type(space).__name__}; take objective = {METRIC.name!r}"
            )
        teacher = space.canonical(space.reference)
        self.inner, self._price = inner, Price(priced.model("params"))
        self._whole = self._price(teacher)
        self._seen = float(inner.table.column(inner.signal)[inner.table.line(space, teacher)])
        self._true = inner.true(teacher)

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        """What the table has, and the rewards of all that are called accuracies."""
        metrics, share = self.inner(proposal, seed), self._price(proposal.arch) / self._whole
        rewards = {
            name.replace(METRIC.name, "compression"): 100 * compression(share, value, self._seen)
            for name, value in metrics.items()
            if name.split("_")[0] == METRIC.name
        }
        return {**rewards, **metrics}

    def true(self, arch: Arch) -> float:
        """The reward of what is reported of a network."""
        return 100 * compression(self._price(arch) / self._whole, self.inner.true(arch), self._true)


def _is_told(task: Bench) -> bool:
    """Whether the space knows what its costs depend on: by the data set, by the settings, or because it is nothing."""
    table: dict[str, Any] = {"name": task.space} if isinstance(task.space, str) else dict(task.space)
    keys = {key for facts in SETTINGS.values() for key in facts}
    needed = keys & set(config.keywords(plugins.load("spaces", table["name"])))
    return dataset_of(task.file, task.dataset) in SETTINGS or needed <= table.keys()


def _space(task: Bench) -> Space:
    """The space with what the table's data set needs, unless the settings say otherwise."""
    table: dict[str, Any] = {"name": task.space} if isinstance(task.space, str) else dict(task.space)
    known = config.keywords(plugins.load("spaces", table["name"]))
    for key, value in SETTINGS.get(dataset_of(task.file, task.dataset), {}).items():
        if key in known:
            table.setdefault(key, value)
    built: Space = config.build("spaces", table)
    return built


def _chunks(runs: int, count: int) -> list[range]:
    size = max(1, -(-runs // count))
    return [range(start, min(runs, start + size)) for start in range(0, runs, size)]


def _worked(stand: Stand, chunks: Sequence[tuple[str, range]], workers: int) -> Iterator[tuple[str, Mapping[int, Run]]]:
    """`(strategy, run -> result)` of each chunk as it is done."""
    if workers <= 1:
        for name, runs in chunks:
            yield name, {r: stand.run(name, r) for r in runs}
        return
    order = Order(f"{__name__}:many_runs", asdict(stand.task))
    with Pool(workers_of({"name": "processes", "count": workers}, order), MemoryJournal()) as pool:
        pool.expect({i: {"strategy": name, "runs": list(runs)} for i, (name, runs) in enumerate(chunks)})
        for i, (name, runs) in enumerate(chunks):
            yield name, {r: Run.of(found) for r, found in zip(runs, pool.take(i).got(), strict=True)}


def many_runs(task: Mapping[str, Any]) -> Work:
    """What a worker does: runs of a strategy."""
    stand = Stand(Bench(**task))
    return lambda job: [stand.run(job["strategy"], run).plain() for run in job["runs"]]


def summary(
    stand: Stand, curves: Mapping[str, Floats], clocks: Mapping[str, Floats], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Figures of each strategy, and how sure their differences are."""
    task = stand.task
    return {
        "space": task.space if isinstance(task.space, str) else dict(task.space),
        "table": Path(task.file).name,
        "dataset": stand.table.dataset,
        "objective": task.objective,
        "signal": stand.signal,
        "noise": task.noise,
        "reported": ("compression by " if task.objective == "compression" else "") + stand.table.best_signal(),
        "budget": dict(task.budget),
        "evaluations": task.evaluations,
        "runs": task.runs,
        "seed": task.seed,
        "optimum": stand.optimum(),
        "strategies": {
            name: {
                **_figures(curve, task.evaluations),
                **({"at_seconds": _at_seconds(curve, clocks[name])} if name in clocks else {}),
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


def over_time(curve: Floats, clock: Floats) -> tuple[Floats, Floats]:
    """A strategy's curves against seconds of training: points in time, `(points,)`, and values, `(runs, points)`.

    From where all runs have a value to where half of them have ended.
    """
    if np.isnan(curve[:, -1]).any():  # a run that found nothing inside the budget
        return np.zeros(0), np.zeros((len(curve), 0))
    start = max(float(row[np.flatnonzero(~np.isnan(values))[0]]) for values, row in zip(curve, clock, strict=True))
    times = np.geomspace(start, max(start, float(np.median(clock[:, -1]))), POINTS)
    return times, np.stack([_at(*run, times) for run in zip(curve, clock, strict=True)])


def _at(values: Floats, clock: Floats, times: Floats) -> Floats:
    """The values of one run at these times."""
    return values[np.maximum(np.searchsorted(clock, times * (1 + 1e-12), side="right") - 1, 0)]


def _at_seconds(curve: Floats, clock: Floats) -> dict[str, float]:
    """Means at 1, 2, 5, 10, ... seconds of training."""
    times, _ = over_time(curve, clock)
    marks = [m * 10.0**e for e in range(-3, 10) for m in (1, 2, 5)]
    inside = np.array([m for m in marks if len(times) and times[0] <= m <= times[-1]])
    means = np.mean([_at(*run, inside) for run in zip(curve, clock, strict=True)], axis=0)
    return {f"{mark:g}": float(mean) for mark, mean in zip(inside, means, strict=True)}


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
