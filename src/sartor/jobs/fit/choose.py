"""The stage between search and training: which network, given what the target really measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sartor import archs
from sartor.core.abilities import Scalable
from sartor.core.contracts import CostModel
from sartor.core.errors import BudgetError
from sartor.core.records import Arch
from sartor.jobs.fit.meter import Meter
from sartor.jobs.fit.stage import Job
from sartor.run.result import Look

ROUNDS = 40
LOOKS = 6
"""How many networks are measured, at most, to find the best one whose measured latency is inside the budget."""
TRIALS = 12
"""How many trials of a search are measured, at most, the best ones first, until one is inside."""
MARGIN = 0.998
"""How far below what is needed the next limit is set, so that rounding does not bring the same network back."""
SLACK = 0.97
"""A network this far below the budget wastes it: the limit is loosened, if that gives another network."""
DOUBT = 1.1
"""Trials that the model puts this far above the budget may be inside it when they are measured."""
FACTORS = 400
"""Steps up to the reference in which the uniformly scaled network is looked for."""


@dataclass(frozen=True)
class Pick:
    """The network for one point of the budget.

    Attributes:
        arch: None if no network meets the budget.
        looks: What was measured on the way.
    """

    arch: Arch | None
    looks: tuple[Look, ...] = ()


class Asked(Protocol):
    """Who names networks: a search, or uniform scaling."""

    def propose(self, limits: Mapping[str, float]) -> Arch:
        """The best network under limits; raises BudgetError if there is none."""

    def ranked(self, limits: Mapping[str, float]) -> Sequence[Arch]:
        """Those under limits that have been tried, the best first; none if nothing is tried."""


class Chooser:
    """Finds the best network whose *measured* latency is inside the budget, without training anything again.

    The latency model is right within some per cent. So the network that the strategy names is measured, and if it
    misses the budget, the limit is tightened by as much and the strategy asked again; if it leaves room, loosened.
    A strategy that names its best trial has others that are nearly as good: they are measured one after another, as a
    lower limit would exclude all networks that the model errs about less.
    """

    def __init__(self, job: Job, meter: Meter | None, costs: Mapping[str, CostModel], asked: Asked) -> None:
        self._job, self._meter, self._costs, self._asked = job, meter, costs, asked

    def choose(self, limits: Mapping[str, float], *, start: float | None = None) -> Pick:
        """The arch for one point of the budget, and what was measured on the way.

        Args:
            limits: Metric -> bound.
            start: The modelled latency to begin with, instead of the bound itself.
        """
        if self._meter is None or "latency_ms" not in limits:
            return Pick(tuple(self._asked.propose(limits)))
        looks = list[Look]()
        best = None if start else self._best_trial(limits, looks)
        if best is None:
            best = self._closest(limits, start or limits["latency_ms"], looks)
        elif best.measured.high < SLACK * limits["latency_ms"]:
            best = self._larger(best, limits, looks)
        self._job.display.bar(1, 1, "measuring the choice")
        return Pick(best.arch, tuple(looks))

    def _larger(self, best: Look, limits: Mapping[str, float], looks: list[Look]) -> Look:
        """What a search that can tell names for the room that its best trial has left; that trial if nothing."""
        room = limits["latency_ms"] * limits["latency_ms"] / best.measured.high
        looser = {**limits, "latency_ms": room}
        if self._ask(looser, first=False) in self._asked.ranked(looser):  # it names trials, and those are measured
            return best
        try:
            found = self._closest(limits, room, looks)
        except BudgetError:
            return best
        return found if found.measured.value > best.measured.value else best

    def _closest(self, limits: Mapping[str, float], start: float, looks: list[Look]) -> Look:
        """The answer under the limit that makes it as slow as the budget allows."""
        budget, limit = limits["latency_ms"], start
        best: Look | None = None
        low, high = 0.0, float("inf")  # limits known to give networks inside, and outside, the budget
        for number in range(LOOKS):
            self._job.display.bar(number, LOOKS, "measuring the choice")
            arch = self._ask({**limits, "latency_ms": limit}, first=not looks)
            if arch is None:
                break
            look = replace(self._seen(arch, looks) or self._look(arch, limit, looks), limit=limit)
            longest = look.measured.high
            if longest <= budget:
                best, low = look if best is None or limit > best.limit else best, max(low, limit)
                if longest >= SLACK * budget:
                    break
                wish = limit * min(budget / longest, 1.2)
            else:
                high = min(high, limit)
                wish = limit * budget / longest * MARGIN
            limit = wish if low < wish < high else (low + min(high, 2 * low)) / 2 if low else wish
            if low and high / low < 1.005:
                break
        if best is None:
            raise BudgetError(_missed(budget, looks))
        return best

    def _best_trial(self, limits: Mapping[str, float], looks: list[Look]) -> Look | None:
        """The best trial that is inside when measured; None if the strategy's answer is no trial, or none is inside."""
        budget = limits["latency_ms"]
        if [self._ask(limits, first=False)] != list(self._asked.ranked(limits)[:1]):
            return None
        for number, arch in enumerate(self._asked.ranked({**limits, "latency_ms": DOUBT * budget})[:TRIALS]):
            self._job.display.bar(number, TRIALS, "measuring the choice")
            look = self._look(arch, budget, looks)
            if look.measured.high <= budget:
                return look
        return None

    def _ask(self, limits: Mapping[str, float], *, first: bool) -> Arch | None:
        try:
            return tuple(self._asked.propose(limits))
        except BudgetError:
            # the model may put even the smallest network above a budget that it meets when measured
            return archs.smallest(self._job.parts.space) if first else None

    @staticmethod
    def _seen(arch: Arch, looks: Sequence[Look]) -> Look | None:
        return next((x for x in looks if x.arch == arch), None)

    def _look(self, arch: Arch, limit: float, looks: list[Look]) -> Look:
        assert self._meter is not None
        measured = self._meter.compare({"candidate": arch}, rounds=ROUNDS)["candidate"]
        self._job.ledger.count(measured=1)
        self._job.ledger.book()
        modelled = float(self._costs["latency_ms"]([arch])[0])
        looks.append(Look(arch, limit, modelled, measured))
        return looks[-1]


@dataclass(frozen=True)
class Uniform:
    """Uniform scaling, asked like a search: it has tried nothing."""

    space: Scalable
    costs: Mapping[str, CostModel]

    def propose(self, limits: Mapping[str, float]) -> Arch:
        """The widest uniformly scaled network whose modelled costs are under `limits`.

        Raises:
            BudgetError: Not even the narrowest is.
        """
        candidates = list(dict.fromkeys(self.space.scaled(step / FACTORS) for step in range(2, 2 * FACTORS + 1)))
        values = {metric: self.costs[metric](candidates).tolist() for metric in limits}
        inside = [i for i in range(len(candidates)) if all(values[m][i] <= v for m, v in limits.items())]
        if not inside:
            raise BudgetError(f"no uniformly scaled network meets {dict(limits)}; raise the budget")
        return candidates[max(inside, key=values[next(iter(limits))].__getitem__)]

    def ranked(self, limits: Mapping[str, float]) -> list[Arch]:  # noqa: ARG002 - there are none
        """None."""
        return []


def _missed(budget: float, looks: Sequence[Look]) -> str:
    tried = ", ".join(f"{x.measured.value:.3g} ms" for x in looks)
    return (
        f"no network was found whose measured latency is inside {budget:.3g} ms (measured: {tried}); "
        "raise the budget, or measure more networks for the latency model"
    )
