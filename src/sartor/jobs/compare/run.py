"""`sartor compare`: several strategies on one real problem, with equal allowances and several seeds.

The problem (limits, latency model) is posed once. Then every strategy searches at every seed, in a folder of its own;
its answer is trained in full and tested; and all answers are timed in the same rounds.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import torch

from sartor import archs
from sartor import config as configs
from sartor.config import Table
from sartor.core import plugins
from sartor.core.abilities import Pretrained, Scalable, Shareable
from sartor.core.contracts import Batch, Task
from sartor.core.errors import BudgetError, CapabilityError, ConfigError
from sartor.core.metrics import Score
from sartor.core.records import Arch, Estimate, Trial
from sartor.core.rng import derive
from sartor.jobs.compare.allowance import FREE, Allowance, Capped, Entrant, Price, Purse, pace_of
from sartor.jobs.compare.statistics import Frame, Outcome, contestants, figures, history
from sartor.jobs.fit import search, verify
from sartor.jobs.fit.assemble import Parts, assemble
from sartor.jobs.fit.budget import constraints
from sartor.jobs.fit.deliver import environment
from sartor.jobs.fit.pipeline import Pipeline
from sartor.jobs.fit.search import Search
from sartor.jobs.fit.stage import Chosen, Job
from sartor.jobs.fit.train import TrainedNetwork, forget_training, keep_network, train_network
from sartor.jobs.fit.verify import Tested
from sartor.jobs.fit.workers import check, seen, workers_of
from sartor.run import comparison as comparisons
from sartor.run.comparison import Answer, Comparison, Given, Posed, Use, Yardstick
from sartor.run.folder import RunFolder, plain
from sartor.run.journal import FileJournal, MemoryJournal
from sartor.run.lab import JournaledLab
from sartor.run.ledger import Ledger
from sartor.run.pool import Pool
from sartor.run.progress import Display, Silent
from sartor.run.runner import Limits, restore, run
from sartor.run.schema import decode, encode
from sartor.run.work import Order, Work
from sartor.training import batches_of

ROUNDS = 40
PROBE = 4
"""Epochs of the short training that tells how long an epoch of a supernet takes."""
BASELINES = ("random_search", FREE, "autoslim", "local_search")
"""What a comparison may add."""


@dataclass(frozen=True)
class Named:
    """The network that a search names, or why it names none."""

    arch: Arch | None
    reason: str = ""


@dataclass(frozen=True)
class Pace:
    """Processor seconds of an epoch of a supernet."""

    seconds: float


@dataclass(frozen=True)
class Network:
    """An answer, trained in full.

    Attributes:
        valid: Metric -> its value on the validation split.
        scores: Metric -> its score on the test split.
    """

    valid: Mapping[str, float]
    scores: Mapping[str, Score]


Answers: TypeAlias = Mapping[tuple[str, int], Named]
"""By strategy and seed."""


@dataclass(frozen=True)
class Setup:
    """What is to be compared.

    Attributes:
        strategies: Tables of settings by the name they go by; the baselines are added.
        allowance: What every search may use.
        seeds: How many; the recipe's and those that follow.
    """

    strategies: Mapping[str, Table]
    allowance: Allowance
    seeds: int = 3

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"seeds must be at least 1, got {self.seeds}; intervals need two, better three or more")
        for name in self.strategies:
            if not re.fullmatch(r"[\w][\w.:-]*", name):
                raise ConfigError(
                    f"{name!r} cannot name a strategy here, as it names its folder, too; use letters, digits and _"
                )


def compare_recipe(
    what: Sequence[str],
    folder: Path,
    *,
    strategies: str,
    given: Mapping[str, float | None],
    seeds: int,
    assignments: Sequence[str] = (),
    trust_code: bool = False,
    display: Display | None = None,
    age: float = 0.0,
    command: str = "sartor.jobs.compare",
) -> Comparison:
    """`compare`, as the command line says it.

    Args:
        what: One recipe, packaged or a file.
        folder: Where everything goes.
        strategies: Names with commas between them.
        given: `trials`, `epochs` and `seconds`, of which one is set.
        seeds: How many.
        assignments: `training.epochs=5` for the recipe, `ppo.lr=0.1` for a strategy.
        trust_code: See `sartor.config.asked`.
        display: Where progress is shown.
        age: Seconds that the process had spent before.
        command: What the user typed.
    """
    if len(what) != 1:
        missing = next((w for w in what if not Path(w).is_dir()), what[0])
        raise ConfigError(f"compare takes one recipe, or folders of finished runs; {missing} is no folder")
    amounts = {unit: amount for unit, amount in given.items() if amount is not None}
    if len(amounts) != 1:
        raise ConfigError(
            f"every search gets the same of one thing: give one of --trials, --epochs, --seconds; got "
            f"{', '.join(amounts) or 'none'}"
        )
    ((unit, amount),) = amounts.items()
    top = [
        a for a in assignments if a.partition("=")[0].partition(".")[0].strip() in ("seed", "title", *configs.TABLES)
    ]
    settings = configs.asked(what[0], top, trust_code=trust_code)
    tables = configs.assigned({}, [a for a in assignments if a not in top])
    names = [name.strip() for name in strategies.split(",") if name.strip()]
    if any(not isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f"--set takes TABLE.SETTING=VALUE, as in ppo.lr=0.1; got {', '.join(assignments)}")
    listed = [*names, *(n for n in BASELINES if n in tables and n not in names)]
    if unknown := [n for n in tables if n not in listed]:
        raise ConfigError(f"--set {unknown[0]}...: neither a table of a recipe nor one of {', '.join(listed)}")
    asked = Setup({n: tables.get(n, {}) for n in listed}, Allowance(unit, float(amount)), seeds)
    return compare(settings, folder, asked, display=display, age=age, command=command)


def compare(
    settings: Table,
    folder: Path,
    setup: Setup,
    *,
    display: Display | None = None,
    age: float = 0.0,
    command: str = "sartor.jobs.compare",
) -> Comparison:
    """Run, or go on with, a comparison; more strategies and more seeds in the same folder go on, too.

    Args:
        settings: The tables of a recipe; its `[strategy]` gives settings to the strategy of that name.
        folder: Where everything goes; locked meanwhile.
        setup: What is compared.
        display: Where progress is shown.
        age: Seconds that the process had spent before.
        command: What the user typed, for the page.

    Returns:
        What `compare.json` holds.

    Raises:
        BudgetError: The budget cannot be met (says the floor), or the reference meets it.
        CapabilityError: A strategy needs what the space or its costs cannot give.
        ConfigError: A name, a setting or the allowance makes no sense.
        StateError: The folder is of another comparison.
    """
    display = display or Silent()
    check(settings)
    parts = assemble({**settings, "strategy": settings.get("strategy") or {"name": "random_search"}})
    if any(len(bounds) > 1 for bounds in parts.budget.limits.values()):
        raise ConfigError("a comparison has one budget; give one bound per metric, not a list")
    entrants, absent = line_up(parts, setup)
    with RunFolder(folder, identity(settings, setup)) as place:
        job = Job(parts, place, Ledger(place.journal, age=age), display)
        try:
            found = replace(_Contest(job, setup, entrants).run(), left_out=absent)
            found = replace(found, environment=environment(parts, command), spent=job.ledger.summary())
            comparisons.write(folder, found)
        finally:
            job.ledger.book()
            display.close()
    return found


def line_up(parts: Parts, setup: Setup) -> tuple[list[Entrant], dict[str, str]]:
    """The strategies named, and the baselines that are always there; and why one of these is not.

    Random search, uniform scaling (which costs no search), and a greedy one: AutoSlim where there is a supernet of
    ordered choices, which can be made narrower step by step, and the allowance gives it epochs, else local search.
    """
    tables = {name: dict(table) for name, table in setup.strategies.items()}
    plugins_named = {table.get("name", name) for name, table in tables.items()}
    slimmable = isinstance(parts.space, Shareable) and all(c.ordered for c in parts.space.choices)
    slims = slimmable and setup.allowance.unit != "trials"
    absent: dict[str, str] = {}
    for baseline in ("random_search", FREE, "autoslim" if slims else "local_search"):
        if baseline == FREE and not isinstance(parts.space, Scalable) and FREE not in plugins_named:
            absent[FREE] = f"{type(parts.space).__name__} cannot say what scaling it uniformly means"
        elif baseline not in plugins_named:
            tables[baseline] = {}
    entrants = [Entrant.of(name, table, parts.config, setup.allowance) for name, table in tables.items()]
    for entrant in entrants:
        entrant.check_space(parts.space)
        if entrant.free and not isinstance(parts.space, Scalable):
            raise CapabilityError(f"{entrant.name} needs Scalable, which {type(parts.space).__name__} does not offer")
    return entrants, absent


class _Contest:
    """The stages of a comparison; each is done once, whatever kills the process in between."""

    def __init__(self, job: Job, setup: Setup, entrants: Sequence[Entrant]) -> None:
        self.job, self.parts, self.setup, self.entrants = job, job.parts, setup, entrants
        self.allowance = setup.allowance
        self.seeds = [job.parts.seed + i for i in range(setup.seeds)]
        self.pipeline = Pipeline(job)

    def run(self) -> Comparison:
        """Search, train, test and time everything."""
        try:
            self.pipeline.pose()
            self._check()
            answers = self._answers()
            networks = {seed: self._networks(seed, answers) for seed in self.seeds}
            times = self._times(answers)
        finally:
            self.pipeline.close()
        return self._found(answers, networks, times)

    def _check(self) -> None:
        """Build every strategy once: what one lacks shows before any of them runs."""
        for entrant in self.entrants:
            entrant.check_price(self.prices[entrant.name], self.allowance)
            with suppress(BudgetError) if entrant.free else nullcontext():  # uniform scaling may not go down far enough
                self._prepare(self._job(entrant, self.seeds[0], self.job.folder, pace=1.0))

    @cached_property
    def prices(self) -> dict[str, Price]:
        """Of the trials of every strategy, once the problem is posed."""
        return {e.name: self._price(e) for e in self.entrants}

    def _price(self, entrant: Entrant) -> Price:
        parts = replace(self.parts, config={**self.parts.config, "evaluator": entrant.evaluator})
        problem = search.problem_for(parts, self.pipeline.costs, constraints(self.pipeline.limits))
        strategy = plugins.load("strategies", entrant.strategy["name"])
        return search.evaluator_for(parts, self.job.folder.path, strategy, problem).epochs

    def _job(self, entrant: Entrant, seed: int, place: RunFolder, *, pace: float | None) -> Job:
        """The job of one search: the recipe with its strategy, its evaluator and its seed."""
        config = self._config(entrant, seed, pace=pace)
        return Job(replace(self.parts, config=config, seed=seed), place, self.job.ledger, self.job.display)

    def _config(self, entrant: Entrant, seed: int, *, pace: float | None) -> dict[str, Any]:
        table = entrant.table(self.allowance, self.prices[entrant.name], pace)
        return {**shared(self.parts.config), "seed": seed, "strategy": table, "evaluator": dict(entrant.evaluator)}

    def _prepare(self, job: Job) -> Search:
        return search.prepare(job, self.pipeline.costs, constraints(self.pipeline.limits))

    def _pace(self, entrant: Entrant) -> float | None:
        """Processor seconds of an epoch of a supernet, where seconds are what it gets.

        On average over a short training of `PROBE` epochs with a part of the batches each: what a step runs may change
        along a training, from all operations at once to a single one.
        """
        if not entrant.shares_weights or self.allowance.unit != "seconds":
            return None

        name = f"pace.{entrant.name}"
        known = self.job.done(name, Pace)
        if known is not None:
            return known.seconds
        with self.job.stage(name, f"An epoch of {entrant.name}"):
            task, share = thinned(self.parts.task, PROBE)
            job = self._job(entrant, self.seeds[0], self.job.folder, pace=pace_of(self.allowance, PROBE))
            found = self._prepare(replace(job, parts=replace(job.parts, task=task)))
            with TemporaryDirectory(prefix="sartor-") as folder:
                lab = JournaledLab(found.problem, found.evaluator, MemoryJournal(), 0, artifacts=Path(folder))
                purse = Purse(Allowance("seconds", sys.float_info.max), found.evaluator.epochs, MemoryJournal())
                capped = Capped(found.strategy, purse)
                for _ in range(PROBE):
                    capped.step(lab)
            return self.job.end(name, Pace(max(purse.seconds / (PROBE * share), 1e-6))).seconds

    def _answers(self) -> Answers:
        """What all searches name: one after another, or side by side where there are workers."""
        wanted = [(entrant, seed) for seed in self.seeds for entrant in self.entrants]
        table = {k: v for k, v in self.parts.config.get("workers", {}).items() if k != "trial_seconds"}
        workers = workers_of(table, self._order()) if table else None
        if workers is None or not workers.used:
            return {(entrant.name, seed): self.answer(entrant, seed) for entrant, seed in wanted}
        for entrant in self.entrants:
            self._pace(entrant)  # timed here, before anything runs beside it
        answers: dict[tuple[str, int], Named] = {}
        self.job.display.stage(f"{len(wanted)} searches, {workers.count} side by side")
        with Pool(workers, MemoryJournal()) as pool, self.job.ledger.stage("search"):
            pool.expect({i: {"strategy": e.name, "seed": seed} for i, (e, seed) in enumerate(wanted)})
            for i, (entrant, seed) in enumerate(wanted):
                found = pool.take(i).got()
                self.job.ledger.count(trained=found["trained"])
                self.job.display.bar(i + 1, len(wanted), "searches")
                answers[entrant.name, seed] = decode(Named, found["named"], f"the answer of {entrant.name}")
        return answers

    def _order(self) -> Order:
        config = {**self.parts.config, "limits": search.limits_of(self.parts.config)}  # a job is a whole search here
        arguments = {
            "config": plain({k: v for k, v in config.items() if k != "workers"}),
            "folder": str(self.job.folder.path.absolute()),
            "setup": encode(self.setup),
        }
        return Order(f"{__name__}:searches", arguments, seen(self.job.folder.path))

    def answer(self, entrant: Entrant, seed: int) -> Named:
        """What the search names, run or gone on with in a folder of its own."""
        pace = self._pace(entrant)
        config = self._config(entrant, seed, pace=pace)
        with RunFolder(self._folder(entrant.name, seed), config) as place:
            job = self._job(entrant, seed, place, pace=pace)
            found = job.done("search.answer", Named)
            if found is None:
                with job.stage("search.answer", f"{entrant.name}, seed {seed}"):
                    found = job.end("search.answer", self._search(entrant, job))
        return found

    def _search(self, entrant: Entrant, job: Job) -> Named:
        point = self.pipeline.limits[0]
        try:
            found = self._prepare(job)
            if not entrant.free:
                self._run(entrant, found)
            arch = self.parts.space.canonical(found.propose(point))
        except BudgetError as error:
            job.display.say(f"  {entrant.name} names no network: {error}")
            return Named(None, str(error))
        return Named(arch)

    def _run(self, entrant: Entrant, found: Search) -> None:
        """As far as the allowance reaches; then what is decided rests on the checkpoint."""
        job = found.job
        folder, label = job.folder.path / "search", f"{entrant.name}, seed {job.parts.seed}"
        folder.mkdir(exist_ok=True)
        purse = Purse(self.allowance, self.prices[entrant.name], FileJournal(folder / "spent.jsonl"))
        capped = Capped(found.strategy, purse)

        def on_trial(trial: Trial) -> None:
            job.ledger.count(trained=int(trial.ok and self.prices[entrant.name](trial.fidelity) > 0))
            job.ledger.book()
            if not entrant.shares_weights:
                job.display.bar(capped.used, self.allowance.amount, label)

        limits = configs.call(Limits, self.parts.config.get("limits", {}))
        run(
            capped,
            found.problem,
            found.evaluator,
            folder=folder,
            seed=derive(job.parts.seed, "search"),
            limits=Limits(trial_seconds=limits.trial_seconds),
            progress=lambda done, total, what: job.display.bar(done, total, f"{label}: {what}"),
            on_trial=on_trial,
        )
        restore(capped, folder)

    def _folder(self, name: str, seed: int) -> Path:
        return self.job.folder.path / "searches" / name / str(seed)

    def _networks(self, seed: int, answers: Answers) -> dict[Arch, Network]:
        """Train and test every network that a search has named at this seed, and the reference: each once."""
        wanted = dict.fromkeys([self.parts.space.reference, *_named(answers, seed)])
        config = {**shared(self.parts.config), "seed": seed}
        with RunFolder(self.job.folder.path / "networks" / str(seed), config) as place:
            parts = replace(self.parts, config=config, seed=seed)
            job = Job(parts, place, self.job.ledger, self.job.display)
            return {arch: self._network(job, arch, f"{i} of {len(wanted)}") for i, arch in enumerate(wanted, 1)}

    def _network(self, job: Job, arch: Arch, which: str) -> Network:
        chosen = Chosen(_name(arch), arch)
        training, testing = f"training.{chosen.name}", f"test.{chosen.name}"
        trained = job.done(training, TrainedNetwork)
        if trained is None:
            label = f"training network {which}, seed {job.parts.seed}"
            with job.stage(training, label.capitalize()):
                trained = job.end(training, self._train(job, chosen, label))
        forget_training(job, chosen)
        tested = job.done(testing, Tested)
        if tested is None:
            with job.stage(testing, "On the test split"):
                tested = job.end(testing, Tested({chosen.name: verify.test(job, chosen)}))
        return Network(trained.valid, tested.scores[chosen.name])

    def _train(self, job: Job, chosen: Chosen, label: str) -> TrainedNetwork:
        space = self.parts.space
        if chosen.arch != space.reference:
            reference = Chosen(_name(space.reference), space.reference)
            return train_network(job, chosen, label, teacher=job.load(reference) if self.parts.taught else None)
        if isinstance(space, Pretrained) and space.trained:
            return keep_network(job, chosen)
        return train_network(job, chosen, label)

    def _times(self, answers: Answers) -> dict[Arch, Estimate]:
        """All answers and the reference in the same rounds, where latency has a bound on a target that is here."""
        meter = self.pipeline.meter
        if meter is None:
            return {}
        wanted = dict.fromkeys([self.parts.space.reference, *_named(answers)])

        which = hashlib.sha256("".join(sorted(map(_name, wanted))).encode()).hexdigest()[:12]
        title = "All answers on the target, in the same rounds"
        found = self.job.done(f"measurement.{which}", dict[str, Estimate])
        if found is None:
            with self.job.stage(f"measurement.{which}", title):
                self.job.ledger.count(measured=len(wanted))
                bar = self.job.bar("interleaved rounds")
                timed = meter.compare({_name(a): a for a in wanted}, rounds=ROUNDS, on_round=bar)
                found = self.job.end(f"measurement.{which}", timed)
        return {arch: found[_name(arch)] for arch in wanted}

    def _found(
        self, answers: Answers, networks: Mapping[int, Mapping[Arch, Network]], times: Mapping[Arch, Estimate]
    ) -> Comparison:
        space, metric = self.parts.space, self.parts.task.metric
        full = self._modelled(space.reference)
        frame = Frame(metric, self.pipeline.limits[0], full)
        outcomes = [
            Outcome(
                strategy=entrant.name,
                plugin=entrant.strategy["name"],
                trained=not entrant.shares_weights,
                answer=self._judged(entrant, seed, answers[entrant.name, seed], frame, networks[seed], times),
                settings={k: v for k, v in entrant.strategy.items() if k != "name"},
            )
            for entrant in self.entrants
            for seed in self.seeds
        ]
        tested = [networks[seed][space.reference].scores[metric.name].value for seed in self.seeds]
        found, yardstick, corner = contestants(outcomes, frame)
        return Comparison(
            title=self.parts.config.get("title", "sartor compare"),
            metric=metric,
            budget=dict(frame.limits),
            seeds=tuple(self.seeds),
            problem=problem_of(self.parts),
            reference=Yardstick(full, tuple(tested), figures(tested), times.get(space.reference)),
            contestants=found,
            yardstick=yardstick,
            corner=corner,
            given=Given(self.allowance.unit, self.allowance.amount),
        )

    def _modelled(self, arch: Arch) -> dict[str, float]:
        return {m: float(c([arch])[0]) for m, c in self.pipeline.costs.items()}

    def _judged(
        self,
        entrant: Entrant,
        seed: int,
        named: Named,
        frame: Frame,
        networks: Mapping[Arch, Network],
        times: Mapping[Arch, Estimate],
    ) -> Answer:
        trials, used = history(self._folder(entrant.name, seed) / "search", frame, self.prices[entrant.name])
        answer = Answer(seed, None, named.reason, used=Use(0.0, 0.0, 0.0) if entrant.free else used, trials=trials)
        if named.arch is None:
            return answer
        network, name = networks[named.arch], frame.metric.name
        return replace(
            answer,
            arch=named.arch,
            quality=network.scores[name].value,
            valid=network.valid[name],
            examples=network.scores[name].examples,
            modelled=self._modelled(named.arch),
            latency_ms=times.get(named.arch),
            options=archs.describe(self.parts.space, named.arch),
        )


def searches(arguments: Mapping[str, Any]) -> Work:
    """What a worker does: whole searches of a comparison, each in its own folder, of which it has posed the problem."""
    folder, parts = Path(arguments["folder"]), assemble(arguments["config"])
    setup = decode(Setup, arguments["setup"], "the set-up of a comparison")
    entrants, _ = line_up(parts, setup)
    contest = _Contest(
        Job(parts, RunFolder(folder, identity(parts.config, setup), own=False), Ledger(MemoryJournal()), Silent()),
        setup,
        entrants,
    )
    contest.pipeline.pose()

    def search_one(job: Mapping[str, Any]) -> dict[str, Any]:
        ledger = Ledger(MemoryJournal())
        contest.job = replace(contest.job, ledger=ledger)
        entrant = next(e for e in entrants if e.name == job["strategy"])
        named = contest.answer(entrant, job["seed"])
        return {"named": encode(named), "trained": sum(stage.networks_trained for stage in ledger.summary().stages)}

    return search_one


def thinned(task: Task, parts: int) -> tuple[Task, float]:
    """The task with a `parts`-th of its batches in an epoch, rounded up; and what share of them that really is."""
    whole = batches_of(task)
    count = -(-whole // parts)

    def train(generator: torch.Generator) -> list[Batch]:
        return list(islice(task.train(generator), count))

    return replace(task, train=train), count / whole


def shared(config: Table) -> dict[str, Any]:
    """What all searches of a comparison have in common: the recipe without its strategy."""
    return {k: v for k, v in config.items() if k not in ("strategy", "evaluator", "limits", "workers")}


def identity(config: Table, setup: Setup) -> dict[str, Any]:
    """What a comparison and whoever goes on with it must have in common."""
    return {**shared(config), "compare": {"unit": setup.allowance.unit, "amount": float(setup.allowance.amount)}}


def problem_of(parts: Parts) -> Posed:
    """What two runs must share to be compared."""
    return Posed(
        fingerprint=parts.task.fingerprint,
        choices=tuple(parts.space.choices),
        metrics=parts.task.metrics,
        costs=tuple(parts.budget.limits),
        budget=plain(parts.config["budget"]),
    )


def _named(answers: Answers, seed: int | None = None) -> list[Arch]:
    """The networks that searches have named, at one seed or at any, each once."""
    found = [a.arch for (_, s), a in answers.items() if a.arch is not None and seed in (None, s)]
    return list(dict.fromkeys(found))


def _name(arch: Arch) -> str:
    """Of a network's files."""
    return hashlib.sha256(repr(tuple(arch)).encode()).hexdigest()[:12]
