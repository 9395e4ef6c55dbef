"""The stages of a fit in order; each is done once, whatever kills the process in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from sartor import archs
from sartor.core.contracts import CostModel, Scalable, Trained
from sartor.core.errors import BudgetError
from sartor.core.records import Estimate
from sartor.costs.fitted import Fitted
from sartor.jobs import choice, latency, searching, verification
from sartor.jobs.budget import aimed, check_reachable, constraints, words
from sartor.jobs.choice import Chooser
from sartor.jobs.meter import Meter
from sartor.jobs.parts import analytic_costs
from sartor.jobs.stages import Chosen, Job, costs_of, keep_network, train_network

Point = Mapping[str, float]
Entries = dict[str, dict[str, Any]]


class Pipeline:
    """From the reference to verified networks.

    Attributes:
        points: The absolute limits, one mapping per network to find.
        chosen: Role (`reference`, `winner_0`, `uniform_0`, `winner_1`, ...) -> network; `winner` is the search's own.
        entries: Role -> the network entry of the report.
        delivered: For every point, the role that is delivered, and why; once all are verified.
        looks: For every point, what was measured on the way to the choice.
        search: The search, once it has run.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.parts, self.space = job, job.parts, job.parts.space
        self.meter: Meter | None = None
        self.costs: dict[str, CostModel] = analytic_costs(self.space)
        self.points: list[dict[str, float]] = []
        self.chosen: dict[str, Chosen] = {"reference": Chosen("reference", self.space.reference)}
        self.entries: Entries = {}
        self.delivered: list[tuple[str, str]] = []
        self.looks: list[list[dict[str, Any]]] = []

    def run(self) -> None:
        """All stages up to the accuracy on the test split."""
        try:
            self._find_points()
            self._train("reference")
            self._model_latency()
            self._search(final=True)
            self._choose_all()
            self._finish()
        finally:
            self.close()

    def run_search(self) -> None:
        """The stages that a search alone needs; `run` in the same folder goes on from there."""
        try:
            self.pose()
            self._search(final=False)
        finally:
            self.close()

    def pose(self) -> None:
        """The stages before any search: the limits, and the latency model where one is needed. Then `close`."""
        self._find_points()
        self._model_latency()

    def close(self) -> None:
        """Let go of what the target holds."""
        if self.meter is not None:
            self.meter.close()

    def _find_points(self) -> None:
        """Measure the reference and the floor if latency is bounded; turn the budget into limits, checked."""
        smallest = archs.smallest(self.space)
        reference = {m: float(c([self.space.reference])[0]) for m, c in self.costs.items()}
        floor = {m: float(c([smallest])[0]) for m, c in self.costs.items()}
        if self.parts.budget.measured and self.parts.latency_model.elsewhere:
            self._model_latency()
            for costs, arch in ((reference, self.space.reference), (floor, smallest)):
                costs["latency_ms"] = float(self.costs["latency_ms"]([arch])[0])
        elif self.parts.budget.measured:
            with self.job.ledger.stage("reference"):
                self.meter = meter = Meter(self.parts)
            title = "Reference network on the target"
            found = self.job.stage("reference.latency", title, lambda: latency.measure_reference(self.job, meter))
            meter.anchor = Estimate(**found["anchor"])
            reference["latency_ms"], floor["latency_ms"] = found["anchor"]["value"], found["floor"]["low"]
        self.points = self.parts.budget.points(reference)
        check_reachable(self.points, reference, floor)

    def _model_latency(self) -> None:
        if not self.parts.budget.measured or "latency_ms" in self.costs:
            return
        fitted: list[Fitted] = []

        def work() -> dict[str, Any]:
            fitted.append(latency.measured_model(self.job, self.meter))
            return latency.facts(fitted[0])

        self.job.stage("latency_model.fit", "Latency model", work)
        with self.job.ledger.stage("latency_model"):
            model = fitted[0] if fitted else latency.latency_model(self.job, self.meter)
        self.costs = {**self.costs, "latency_ms": model}

    def _search(self, *, final: bool) -> None:
        """Run the search, or restore it; `final`: one that a limit has stopped counts as done, too."""
        job = self.job
        self.search = searching.prepare(job, self.costs, constraints(self._aims()))
        if job.folder.stage_result("search.run") is None:
            job.display.stage(f"Search: {self.parts.config['strategy']['name']}")
            with job.ledger.stage("search"):
                finished = self.search.run()
                job.ledger.count(trained=int(self.search.shares_weights and finished))
            if finished or final:
                job.folder.end_stage("search.run", {"finished": finished})
        # What is decided rests on the checkpoint, so that a resumed run decides the same.
        self.search.restore()

    def _aims(self) -> list[dict[str, float]]:
        """The limits that the search knows."""
        model = self.costs.get("latency_ms")
        if not isinstance(model, Fitted) or not model.heldout_networks or "latency_ms" not in self.points[0]:
            return self.points
        return aimed(self.points, model.nrmse, least=float(model([archs.smallest(self.space)])[0]))

    def _choose_all(self) -> None:
        self.looks = [[] for _ in self.points]
        for i, point in enumerate(self.points):
            self._choose_winner(i, 0, None)
            if isinstance(self.space, Scalable):
                self._choose_uniform(i, point)

    def _choose_winner(self, i: int, attempt: int, start: float | None) -> None:
        search, point = self.search, self.points[i]
        chooser = Chooser(self.job, self.meter, search.propose, self.costs, search.ranked)
        found = self.job.stage(
            f"choice.winner.{i}.{attempt}",
            f"Choosing the network for {words(point)}",
            lambda: chooser.choose(point, start=start),
        )
        name = f"winner_{i}" + (f"_{attempt}" if attempt else "")
        self.chosen[f"winner_{i}"] = Chosen(name, tuple(found["arch"]))
        self.looks[i] += found["looks"]

    def _choose_uniform(self, i: int, point: Point) -> None:
        chooser = Chooser(self.job, self.meter, lambda p: choice.uniform(self.job, self.costs, p), self.costs)

        def work() -> dict[str, Any]:
            try:
                return chooser.choose(point)
            except BudgetError as error:  # scaling alone may not go down far enough
                self.job.display.say(f"  no uniformly scaled network: {error}")
                return {"arch": None}

        found = self.job.stage(f"choice.uniform.{i}", f"Uniformly scaled network for {words(point)}", work)
        if found["arch"] is not None:
            self.chosen[f"uniform_{i}"] = Chosen(f"uniform_{i}", tuple(found["arch"]))

    def _finish(self) -> None:
        """Train and verify; a winner that misses the budget gives way to a smaller one, a few times."""
        last = self.parts.verification.attempts - 1
        for attempt in range(last + 1):
            for role in self.chosen:
                self._train(role)
            self._verify(attempt)
            missed = [i for i, p in enumerate(self.points) if self._verdict(i, p) != "PASS"]
            if not missed or self.meter is None or attempt == last:
                break
            for i in missed:
                self._replace(i, attempt + 1)
        self.delivered = [self._deliverable(i, point) for i, point in enumerate(self.points)]
        tested = self.job.stage("test.accuracy", "Accuracy on the test split", self._test)
        for role, entry in self.entries.items():
            entry.update(tested[role])

    def _verdict(self, i: int, point: Point) -> str:
        return verification.judge(self.entries[f"winner_{i}"], point)[0]

    def _deliverable(self, i: int, point: Point) -> tuple[str, str]:
        """Role and reason; rests on what the journal holds, so that a resumed run decides the same."""
        roles = {"searched": f"winner_{i}", "uniform": f"uniform_{i}"}
        valid = {name: self._valid(role) for name, role in roles.items() if role in self.chosen}
        entries = self.entries
        scaled, why = verification.deliverable(entries[f"winner_{i}"], entries.get(f"uniform_{i}"), valid, point)
        if scaled:
            self.job.display.say(f"  {words(point)}: the uniformly scaled network is delivered: {why}")
        return roles["uniform" if scaled else "searched"], why

    def _valid(self, role: str) -> float:
        """First metric on the validation split, after the last training."""
        trained = self.job.folder.stage_result(f"training.training.{self.chosen[role].name}") or {}
        return float(trained["valid"][next(iter(self.parts.task.metrics))])

    def _replace(self, i: int, attempt: int) -> None:
        """Ask the search for a network that is smaller by as much as the last one missed the budget."""
        budget, entry = self.points[i]["latency_ms"], self.entries[f"winner_{i}"]
        over = max(entry["latency_ms"]["high"] / budget, 1.002)
        self.job.display.say(f"  {words(self.points[i])} missed by {over - 1:.1%}: choosing a smaller network")
        self._choose_winner(i, attempt, entry["predicted_latency_ms"] / over * choice.MARGIN)

    def _train(self, role: str) -> None:
        chosen, label = self.chosen[role], f"training the {_spoken(role, len(self.points))}"
        if role == "reference" and isinstance(self.space, Trained) and self.space.trained:
            self.job.stage("reference.weights", "The network as it is", lambda: keep_network(self.job, chosen))
            return

        def work() -> dict[str, Any]:
            return train_network(self.job, chosen, label, teacher=self._teacher(role))

        group = "reference" if role == "reference" else "training"
        self.job.stage(f"{group}.training.{chosen.name}", label.capitalize(), work)

    def _teacher(self, role: str) -> nn.Module | None:
        """The trained reference, for recipes that set `distil_weight`."""
        wanted = self.parts.config.get("training", {}).get("distil_weight", 0)
        return self.job.load(self.chosen["reference"]) if wanted and role != "reference" else None

    def _verify(self, attempt: int) -> None:
        """Export everything, check it against PyTorch, and time it in the same rounds."""
        job, settings = self.job, self.parts.verification
        anchor = self.meter.anchor if self.meter is not None else None

        def work() -> dict[str, Any]:
            exports = {role: verification.export(job, chosen) for role, chosen in self.chosen.items()}
            subjects = verification.subjects_of(job, self.chosen, {r: e["file"] for r, e in exports.items()})
            times: dict[str, Estimate] = {}
            for effort in (settings.effort, settings.effort.doubled()):  # unsure verdicts get a second, longer look
                show, say = job.bar("interleaved rounds"), job.display.say
                times = verification.latencies(subjects, anchor, effort, show=show, say=say)
                if not self._unsure(times):
                    break
            job.ledger.count(measured=len(subjects))
            return {"exports": exports, "times": {n: t.as_dict() for n, t in times.items()}}

        found = job.stage(f"verification.{attempt}", "Verification on the target", work)
        modelled = self.costs.get("latency_ms")
        for role, chosen in self.chosen.items():
            self.entries[role] = {
                **costs_of(job, chosen.arch),
                "latency_ms": found["times"][role],
                "predicted_latency_ms": None if modelled is None else float(modelled([chosen.arch])[0]),
                "export": found["exports"][role],
                "elsewhere": self.parts.latency_model.elsewhere,
                "weights": str(job.weights(chosen.name).relative_to(job.folder.path)),
            }

    def _unsure(self, times: Mapping[str, Estimate]) -> bool:
        if self.meter is None:
            return False
        return any(
            "latency_ms" in p
            and verification.judge({"latency_ms": times[role].as_dict()}, {"latency_ms": p["latency_ms"]})[0]
            == "UNSURE"
            for i, p in enumerate(self.points)
            for role in self._contenders(i)
        )

    def _contenders(self, i: int) -> list[str]:
        """The search's own network, and the uniformly scaled one if it is the better one and must only be inside."""
        own, uniform = f"winner_{i}", f"uniform_{i}"
        better = uniform in self.chosen and self._valid(uniform) > self._valid(own)
        return [own, uniform] if better else [own]

    def _test(self) -> dict[str, Any]:
        return {role: verification.test_accuracy(self.job, chosen) for role, chosen in self.chosen.items()}

    def curve(self) -> Sequence[dict[str, Any]]:
        """The points of the budget with their networks and verdicts, for `result.json`."""
        several = len(self.points) > 1
        points = []
        for i, point in enumerate(self.points):
            role, reason = self.delivered[i]
            verdict, sentence = verification.judge(self.entries[role], point)
            own = self.entries[f"winner_{i}"]
            points.append(
                {
                    "budget": dict(point),
                    "winner": self.entries[role],
                    "uniform": self.entries.get(f"uniform_{i}"),
                    "searched": None if role == f"winner_{i}" else own,
                    "reason": reason,
                    "verdict": verdict,
                    "sentence": sentence,
                    "looks": self.looks[i],
                    "tightened": _tightened(self.looks[i], point),
                    "folder": f"budget_{i}" if several else ".",
                }
            )
        return points


def _spoken(role: str, points: int) -> str:
    """`winner_0` as a person says it."""
    kind, _, number = role.partition("_")
    name = {"uniform": "uniformly scaled network"}.get(kind, kind)
    return f"{name} of budget {int(number) + 1}" if number and points > 1 else name


def _tightened(looks: Sequence[Mapping[str, Any]], point: Point) -> list[Mapping[str, Any]]:
    """The limits that followed a first choice which was measured over the budget."""
    over = bool(looks) and looks[0]["measured"]["high"] > point["latency_ms"]
    return [look for look in looks[1:] if look["limit"] < point["latency_ms"]] if over else []
