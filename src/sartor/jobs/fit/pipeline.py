"""The stages of a fit in order; each is done once, whatever kills the process in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sartor import archs
from sartor.core.abilities import Pretrained, Scalable
from sartor.core.contracts import CostModel
from sartor.core.errors import BudgetError
from sartor.core.records import Estimate
from sartor.costs.fitted import Fitted
from sartor.jobs.fit import choose, reference, search, verify
from sartor.jobs.fit.assemble import analytic_costs
from sartor.jobs.fit.budget import aimed, check_reachable, constraints, words
from sartor.jobs.fit.choose import Chooser, Pick, Uniform
from sartor.jobs.fit.meter import Meter
from sartor.jobs.fit.search import Search
from sartor.jobs.fit.stage import Chosen, Job
from sartor.jobs.fit.train import TrainedNetwork, forget_training, keep_network, train_network
from sartor.jobs.fit.verify import Export, Tested, Verified
from sartor.jobs.fit.workers import pool_for
from sartor.run.result import Entry, LatencyModel, Look, Point, Role


@dataclass(frozen=True)
class Searched:
    """Whether the search has ended by itself."""

    finished: bool


class Pipeline:
    """From the reference to verified networks.

    Attributes:
        limits: The absolute limits, one mapping per network to find.
        chosen: Role (`reference`, `searched_0`, `uniform_0`, `searched_1`, ...) -> network.
        entries: Role -> what is known of it.
        search: The search, once it has run.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.parts, self.space = job, job.parts, job.parts.space
        self.meter: Meter | None = None
        self.costs: dict[str, CostModel] = analytic_costs(self.space)
        self.limits: list[dict[str, float]] = []
        self.chosen: dict[str, Chosen] = {"reference": Chosen("reference", self.space.reference)}
        self.entries: dict[str, Entry] = {}
        self.search: Search
        self._looks: list[list[Look]] = []

    def run(self) -> list[Point]:
        """All stages up to the scores on the test split; the points of the budget with their networks and verdicts."""
        try:
            self._find_limits()
            self._train("reference")
            self._export("reference")  # what no file can hold is found before the search
            self._model_latency()
            self._search(final=True)
            self._choose_all()
            self._finish()
        finally:
            self.close()
        return [self._point(i, limits) for i, limits in enumerate(self.limits)]

    def run_search(self) -> None:
        """The stages that a search alone needs; `run` in the same folder goes on from there."""
        try:
            self.pose()
            self._search(final=False)
        finally:
            self.close()

    def pose(self) -> None:
        """The stages before any search: the limits, and the latency model where one is needed. Then `close`."""
        self._find_limits()
        self._model_latency()

    def close(self) -> None:
        """Let go of what the target holds."""
        if self.meter is not None:
            self.meter.close()

    @property
    def latency_model(self) -> LatencyModel | None:
        """The facts of the latency model, where there is one."""
        return self.job.done("latency_model.fit", LatencyModel)

    def _find_limits(self) -> None:
        """Measure the reference and the floor if latency is bounded; turn the budget into limits, checked."""
        for metric in self.parts.budget.limits:
            if metric in self.costs:
                self.costs[metric].check()
        smallest = archs.smallest(self.space)
        full = {m: float(c([self.space.reference])[0]) for m, c in self.costs.items()}
        floor = {m: float(c([smallest])[0]) for m, c in self.costs.items()}
        if self.parts.budget.measured and self.parts.latency_model.elsewhere:
            self._model_latency()
            for costs, arch in ((full, self.space.reference), (floor, smallest)):
                costs["latency_ms"] = float(self.costs["latency_ms"]([arch])[0])
        elif self.parts.budget.measured:
            with self.job.ledger.stage("reference"):
                self.meter = meter = Meter(self.parts)
            ends = self.job.done("reference.latency", reference.Ends)
            if ends is None:
                with self.job.stage("reference.latency", "Reference network on the target"):
                    ends = self.job.end("reference.latency", reference.measure_reference(self.job, meter))
            meter.anchor = ends.anchor
            full["latency_ms"], floor["latency_ms"] = ends.anchor.value, ends.floor.low
        self.limits = self.parts.budget.points(full)
        check_reachable(self.limits, full, floor)

    def _model_latency(self) -> None:
        if not self.parts.budget.measured or "latency_ms" in self.costs:
            return
        job = self.job
        if self.latency_model is None:
            with job.stage("latency_model.fit", "Latency model"):
                model = reference.measured_model(job, self.meter)
                job.end("latency_model.fit", reference.facts(model))
        else:
            with job.ledger.stage("latency_model"):
                model = reference.latency_model(job, self.meter)
        self.costs = {**self.costs, "latency_ms": model}

    def _search(self, *, final: bool) -> None:
        """Run the search, or restore it; `final`: one that a limit has stopped counts as done, too."""
        job = self.job
        self.search = search.prepare(job, self.costs, constraints(self._aims()))
        if job.done("search.run", Searched) is None:
            with job.stage("search.run", f"Search: {self.parts.config['strategy']['name']}"):
                with pool_for(job, type(self.search.strategy), self.search.problem) as pool:
                    finished = self.search.run(pool)
                if finished or final:
                    job.ledger.count(trained=self.search.trained(finished=finished))
                    job.end("search.run", Searched(finished))
        # What is decided rests on the checkpoint, so that a resumed run decides the same.
        self.search.restore()

    def _aims(self) -> list[dict[str, float]]:
        """The limits that the search knows."""
        model = self.costs.get("latency_ms")
        if not isinstance(model, Fitted) or not model.heldout_networks or "latency_ms" not in self.limits[0]:
            return self.limits
        return aimed(self.limits, model.nrmse, least=float(model([archs.smallest(self.space)])[0]))

    def _choose_all(self) -> None:
        self._looks = [[] for _ in self.limits]
        for i, limits in enumerate(self.limits):
            self._choose_searched(i, 0, None)
            if isinstance(self.space, Scalable):
                self._choose_uniform(i, limits, Uniform(self.space, self.costs))

    def _choose_searched(self, i: int, attempt: int, start: float | None) -> None:
        limits, stage = self.limits[i], f"choice.searched.{i}.{attempt}"
        pick = self.job.done(stage, Pick)
        if pick is None:
            with self.job.stage(stage, f"Choosing the network for {words(limits)}"):
                chooser = Chooser(self.job, self.meter, self.costs, self.search)
                pick = self.job.end(stage, chooser.choose(limits, start=start))
        assert pick.arch is not None, "a chooser names a network, or raises"
        name = f"searched_{i}" + (f"_{attempt}" if attempt else "")
        self.chosen[f"searched_{i}"] = Chosen(name, pick.arch)
        self._looks[i] += pick.looks

    def _choose_uniform(self, i: int, limits: Mapping[str, float], scaling: Uniform) -> None:
        stage = f"choice.uniform.{i}"
        pick = self.job.done(stage, Pick)
        if pick is None:
            with self.job.stage(stage, f"Uniformly scaled network for {words(limits)}"):
                try:
                    pick = Chooser(self.job, self.meter, self.costs, scaling).choose(limits)
                except BudgetError as error:  # scaling alone may not go down far enough
                    self.job.display.say(f"  no uniformly scaled network: {error}")
                    pick = Pick(None)
                self.job.end(stage, pick)
        if pick.arch is not None:
            self.chosen[f"uniform_{i}"] = Chosen(f"uniform_{i}", pick.arch)

    def _finish(self) -> None:
        """Train and verify; a network that misses the budget gives way to a smaller one, a few times; then test."""
        last = self.parts.verification.attempts - 1
        for attempt in range(last + 1):
            for role in self.chosen:
                self._train(role)
            self._verify(attempt)
            missed = [
                i for i, p in enumerate(self.limits) if verify.judge(self.entries[f"searched_{i}"], p)[0] != "PASS"
            ]
            if not missed or self.meter is None or attempt == last:
                break
            for i in missed:
                self._replace(i, attempt + 1)
        tested = self.job.done("test.scores", Tested)
        if tested is None:
            with self.job.stage("test.scores", "Quality on the test split"):
                scores = {role: verify.test(self.job, chosen) for role, chosen in self.chosen.items()}
                tested = self.job.end("test.scores", Tested(scores))
        for role, entry in self.entries.items():
            self.entries[role] = replace(entry, scores=tested.scores[role])

    def _replace(self, i: int, attempt: int) -> None:
        """Ask the search for a network that is smaller by as much as the last one missed the budget."""
        budget, entry = self.limits[i]["latency_ms"], self.entries[f"searched_{i}"]
        over = max(entry.latency_ms.high / budget, 1.002)
        self.job.display.say(f"  {words(self.limits[i])} missed by {over - 1:.1%}: choosing a smaller network")
        assert entry.predicted_latency_ms is not None, "a measured budget has a latency model"
        self._choose_searched(i, attempt, entry.predicted_latency_ms / over * choose.MARGIN)

    def _train(self, role: str) -> None:
        job, chosen, stage = self.job, self.chosen[role], self._training(role)
        if job.done(stage, TrainedNetwork) is None:
            label = f"training the {_spoken(role, len(self.limits))}"
            kept = role == "reference" and isinstance(self.space, Pretrained) and self.space.trained
            with job.stage(stage, "The network as it is" if kept else label.capitalize()):
                if kept:
                    job.end(stage, keep_network(job, chosen))
                else:
                    taught = self.parts.taught and role != "reference"
                    teacher = job.load(self.chosen["reference"]) if taught else None
                    job.end(stage, train_network(job, chosen, label, teacher=teacher))
        forget_training(job, chosen)

    def _training(self, role: str) -> str:
        """The stage in which a network gets its final weights."""
        return f"{'reference' if role == 'reference' else 'training'}.training.{self.chosen[role].name}"

    def _valid(self, role: str) -> Mapping[str, float]:
        """Metrics on the validation split, after the last training."""
        trained = self.job.done(self._training(role), TrainedNetwork)
        return trained.valid if trained is not None else {}

    def _export(self, role: str) -> Export:
        """The file of a trained network, checked against PyTorch: each is written once, for timing and for delivery."""
        chosen = self.chosen[role]
        stage = f"export.{chosen.name}"
        found = self.job.done(stage, Export)
        if found is None:
            with self.job.stage(stage, f"Exporting the {_spoken(role, len(self.limits))}"):
                found = self.job.end(stage, verify.export(self.job, chosen))
            if found.note:
                self.job.display.say(f"  {found.note}")
        return found

    def _verify(self, attempt: int) -> None:
        """Export everything, check it against PyTorch, and time it in the same rounds."""
        job, stage = self.job, f"verification.{attempt}"
        exports = {role: self._export(role) for role in self.chosen}
        found = job.done(stage, Verified)
        if found is None:
            with job.stage(stage, "Verification on the target"):
                found = job.end(stage, Verified(self._times(exports)))
        modelled = self.costs.get("latency_ms")
        for role, chosen in self.chosen.items():
            export = exports[role]
            predicted = None if modelled is None else float(modelled([chosen.arch])[0])
            self.entries[role] = replace(
                job.entry(chosen, found.times[role], predicted),
                file=export.file,
                relative_error=export.relative_error,
                note=export.note,
                valid=self._valid(role),
            )

    def _times(self, exports: Mapping[str, Export]) -> dict[str, Estimate]:
        """Milliseconds of all networks; unsure verdicts get a second, longer look."""
        job, effort = self.job, self.parts.verification.effort
        anchor = self.meter.anchor if self.meter is not None else None
        subjects = verify.subjects_of(job, self.chosen, {r: e.file for r, e in exports.items()})
        job.ledger.count(measured=len(subjects))
        show, say = job.bar("interleaved rounds"), job.display.say
        times = verify.latencies(subjects, anchor, effort, show=show, say=say)
        if self._unsure(times):
            times = verify.latencies(subjects, anchor, effort.doubled(), show=show, say=say)
        return times

    def _unsure(self, times: Mapping[str, Estimate]) -> bool:
        if self.meter is None:
            return False
        return any(
            verify.judge_latency(times[role], limits["latency_ms"])[0] == "UNSURE"
            for i, limits in enumerate(self.limits)
            for role in self._contenders(i)
        )

    def _contenders(self, i: int) -> list[str]:
        """The search's own network, and the uniformly scaled one if it is the better one and must only be inside."""
        own, uniform = f"searched_{i}", f"uniform_{i}"
        metric = self.parts.task.metric
        if uniform not in self.chosen:
            return [own]
        better = metric.gain(self._valid(uniform)[metric.name], self._valid(own)[metric.name]) > 0
        return [own, uniform] if better else [own]

    def _point(self, i: int, limits: Mapping[str, float]) -> Point:
        """One point of the budget; rests on what the journal holds, so that a resumed run decides the same."""
        searched, uniform = self.entries[f"searched_{i}"], self.entries.get(f"uniform_{i}")
        metric = self.parts.task.metric
        both = {"searched": searched, "uniform": uniform}
        valid = {name: entry.valid[metric.name] for name, entry in both.items() if entry is not None}
        scaled, reason = verify.deliverable(searched, uniform, valid, metric, limits)
        if scaled:
            self.job.display.say(f"  {words(limits)}: the uniformly scaled network is delivered: {reason}")
        delivered: Role = "uniform" if scaled else "searched"
        verdict, sentence = verify.judge(self.entries[f"{delivered}_{i}"], limits)
        return Point(
            budget=dict(limits),
            delivered=delivered,
            searched=searched,
            uniform=uniform,
            reason=reason,
            verdict=verdict,
            sentence=sentence,
            looks=tuple(self._looks[i]),
            folder=f"budget_{i}" if len(self.limits) > 1 else ".",
        )


def _spoken(role: str, points: int) -> str:
    """`searched_0` as a person says it."""
    kind, _, number = role.partition("_")
    name = {"uniform": "uniformly scaled network", "searched": "network that the search chose"}.get(kind, kind)
    return f"{name} of budget {int(number) + 1}" if number and points > 1 else name
