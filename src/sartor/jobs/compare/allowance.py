"""One search of a comparison: an allowance of trials, epochs or seconds, and what of it has been used."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from sartor import config as configs
from sartor.config import Table
from sartor.core import plugins
from sartor.core.abilities import Shareable, require
from sartor.core.contracts import Lab, Space, Strategy
from sartor.core.errors import BudgetSpentError, ConfigError
from sartor.core.records import Proposal, Trial
from sartor.run.journal import Journal
from sartor.run.stopwatch import Stopwatch

UNITS = ("trials", "epochs", "seconds")
Price: TypeAlias = Callable[[float], float]
"""Passes over the training data that a trial takes, by its fidelity: `Evaluator.epochs`."""

FREE = "uniform_width"
"""It names its network without looking at any data."""
PLENTY = 10**9
"""What a strategy is told where only the clock ends it."""
SHARE = 0.9
"""Of the seconds, the part that a supernet's epochs are planned to take; the rest is for its evaluations."""


@dataclass(frozen=True)
class Allowance:
    """What every search may use.

    Attributes:
        unit: `trials`; `epochs`, passes over the training data; or `seconds` of processor time.
        amount: How many.
    """

    unit: str
    amount: float

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(f"a search is given one of {', '.join(UNITS)}, not {self.unit!r}; take one of these")
        if not 0 < self.amount < math.inf:
            raise ConfigError(f"{self.unit} must be a positive number, got {self.amount}")
        if self.unit == "trials" and self.amount != int(self.amount):
            raise ConfigError(f"trials must be a whole number, got {self.amount}")

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"


@dataclass(frozen=True)
class Entrant:
    """A strategy as a comparison runs it.

    Attributes:
        name: What it goes by.
        strategy: Its table, without what the allowance decides.
        evaluator: The table of its evaluator, with the name.
        shares_weights: Whether it trains one network for all its trials.
    """

    name: str
    strategy: Table
    evaluator: Table
    shares_weights: bool

    @property
    def free(self) -> bool:
        """Whether it uses nothing of an allowance."""
        return str(self.strategy["name"]) == FREE

    @classmethod
    def of(cls, name: str, table: Table, config: Table, allowance: Allowance) -> Entrant:
        """Check what can be checked without the space.

        Args:
            name: What it goes by: of the plug-in, unless the table says another.
            table: Its settings.
            config: The recipe, whose `[strategy]` counts where it is the same, and `[evaluator]` where it applies.
            allowance: What every search may use.

        Raises:
            ConfigError: It or a setting does not exist, or the allowance has no meaning for it.
        """
        plugin = str(table.get("name", name))
        own = config.get("strategy", {})
        mine = {k: v for k, v in own.items() if k not in ("trials", "epochs")} if own.get("name") == plugin else {}
        settings = {**mine, **table, "name": plugin}
        kind = plugins.load("strategies", plugin)
        configs.validate(kind, {k: v for k, v in settings.items() if k != "name"})
        judge = evaluator_of(kind, config)
        if plugin != FREE:
            _check_unit(name, kind, settings, judge, allowance)
        return cls(name, settings, judge, kind.shares_weights)

    def check_space(self, space: Space) -> None:
        """Raise CapabilityError if the space lacks the supernet that it trains."""
        if self.shares_weights:
            require(space, Shareable, self.name)

    def check_price(self, price: Price, allowance: Allowance) -> None:
        """Raise ConfigError if its trials use nothing of an allowance of epochs, so that it would never end."""
        if allowance.unit == "epochs" and not self.shares_weights and not self.free and not price(1.0) > 0:
            raise ConfigError(
                f"a trial of {self.name} takes no epochs (its evaluator is {self.evaluator['name']}), so that they "
                "mean nothing for it; compare with --trials or --seconds"
            )

    def table(self, allowance: Allowance, price: Price, pace: float | None) -> dict[str, Any]:
        """Its table, told what it will get.

        Args:
            allowance: What every search may use.
            price: Of its trials.
            pace: Seconds of one epoch of its supernet, if it trains one and the allowance is of seconds.
        """
        known, table = _accepted(self.strategy["name"]), dict(self.strategy)
        if self.shares_weights and "epochs" in known:
            if allowance.unit == "epochs":
                table["epochs"] = int(allowance.amount)
            elif pace is not None:
                table["epochs"] = max(1, int(SHARE * allowance.amount / pace))
        elif "trials" in known:
            most = allowance.amount if allowance.unit == "trials" else float(PLENTY)
            if allowance.unit == "epochs":
                # all trials of a method with several fidelities may be cheap ones: it is stopped when all is used
                most = allowance.amount / max(price(0.0 if "least" in known else 1.0), 1e-9)
            table.setdefault("trials", max(1, int(min(most + 1e-9, PLENTY))))
        return table


def _check_unit(name: str, kind: type[Strategy], settings: Table, judge: Table, allowance: Allowance) -> None:
    known, shares = _accepted(settings["name"]), kind.shares_weights
    if allowance.unit == "trials" and kind.evaluator != Strategy.evaluator:
        raise ConfigError(
            f"the trials of {name} are not those of the others (it works with the evaluator {judge['name']} only), so "
            "that trials mean nothing for it; compare with --epochs or --seconds"
        )
    if shares and "epochs" in settings:
        raise ConfigError(f"the epochs of {name} are what the comparison gives every strategy; leave the setting out")
    if shares and "epochs" not in known:
        raise ConfigError(f"{name} trains a supernet and takes no epochs: it cannot be given {allowance}")
    if shares and allowance.unit == "epochs" and allowance.amount < 1:
        raise ConfigError(f"{name} needs one epoch at least, got {allowance.amount:g}")


def evaluator_of(kind: type[Strategy], config: Table) -> dict[str, Any]:
    """The `[evaluator]` table of a strategy: the recipe's, unless the strategy works with another one only.

    Without a name, settings that only networks trained one by one have are for strategies that do so.
    """
    given = dict(config.get("evaluator", {}))
    usual = Strategy.evaluator
    if kind.evaluator != usual and "name" not in given:
        own, other = (configs.keywords(plugins.load("evaluators", name)) for name in (kind.evaluator, usual))
        given = {k: v for k, v in given.items() if k in own or k not in other}
    elif given.get("name", kind.evaluator) != kind.evaluator != usual:
        given = {}
    return {"name": kind.evaluator, **given}


def pace_of(allowance: Allowance, epochs: int) -> float:
    """Seconds of an epoch with which so many are planned."""
    return SHARE * allowance.amount / (epochs + 0.5)


class Purse:
    """What is left of an allowance.

    Seconds are processor time, written down after every trial and step, so that those of earlier sessions count.

    Args:
        allowance: What there is.
        price: Of a trial, in epochs.
        journal: Keeps the seconds.
    """

    def __init__(self, allowance: Allowance, price: Price, journal: Journal) -> None:
        self.allowance, self.price, self.journal = allowance, price, journal
        self.seconds = sum(r["seconds"] for r in journal.read())
        self._watch = Stopwatch(own=True)

    def start(self) -> None:
        """Time runs from now."""
        self._watch.lap()

    def book(self, trials: int) -> None:
        """Write down the seconds since the last booking: they led to so many trials."""
        seconds = self._watch.lap()
        self.journal.append({"kind": "spent", "trials": trials, "seconds": seconds}, soon=True)
        self.seconds += seconds

    @property
    def late(self) -> bool:
        """Whether the seconds are over."""
        return self.allowance.unit == "seconds" and self.seconds >= self.allowance.amount

    def cost(self, proposal: Proposal) -> float:
        """Of a trial, in the unit of the allowance; seconds are known only afterwards."""
        if self.allowance.unit == "epochs":
            return self.price(proposal.fidelity)
        return float(self.allowance.unit == "trials")


class Capped(Strategy):
    """A strategy that is stopped when its allowance does not reach for what it asks next.

    Trials and epochs are never exceeded; of seconds, the step under way is finished.

    Args:
        inner: The strategy.
        purse: What it may use.
    """

    saved = ("inner", "paid", "count")

    def __init__(self, inner: Strategy, purse: Purse) -> None:
        self.inner, self.purse = inner, purse
        self.paid = 0.0
        """Used so far, in the unit of the allowance; seconds are in the purse."""
        self.count = 0
        """Of trials."""

    def step(self, lab: Lab) -> bool:
        """One step of the strategy."""
        if self.purse.late:
            return False
        self.purse.start()
        try:
            return self.inner.step(_CappedLab(lab, self))
        finally:
            self.purse.book(self.count)

    @property
    def used(self) -> float:
        """In the unit of the allowance."""
        return self.purse.seconds if self.purse.allowance.unit == "seconds" else self.paid

    def recall(self, trials: Sequence[Trial]) -> None:
        """For the strategy."""
        self.inner.recall(trials)

    def parents(self) -> Collection[int]:
        """Those of the strategy."""
        return self.inner.parents()


class _CappedLab:
    """The lab, as far as the allowance reaches."""

    def __init__(self, lab: Lab, capped: Capped) -> None:
        self._lab, self._capped = lab, capped

    def evaluate(
        self,
        proposals: Sequence[Proposal],
        ahead: Sequence[Proposal] = (),  # noqa: ARG002 - one may be more than the allowance
    ) -> list[Trial]:
        """Trials in the order of `proposals`.

        Raises:
            BudgetSpentError: The next one is more than what is left.
        """
        return [self._one(p) for p in proposals]

    def log(self, **scalars: float) -> None:
        self._lab.log(**scalars)

    def artifact(self, name: str) -> Path:
        return self._lab.artifact(name)

    def progress(self, done: float, total: float, label: str = "") -> None:
        self._lab.progress(done, total, label)

    def _one(self, proposal: Proposal) -> Trial:
        capped = self._capped
        cost, amount = capped.purse.cost(proposal), capped.purse.allowance.amount
        if cost and capped.paid + cost > amount * (1 + 1e-9):
            raise BudgetSpentError(
                f"{capped.paid:g} of {capped.purse.allowance} are used, the next trial takes {cost:g}"
            )
        (trial,) = self._lab.evaluate([proposal])
        capped.paid, capped.count = capped.paid + cost, capped.count + 1
        capped.purse.book(capped.count)
        return trial


def _accepted(plugin: str) -> list[str]:
    return configs.keywords(plugins.load("strategies", plugin))
