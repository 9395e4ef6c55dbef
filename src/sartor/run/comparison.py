"""What a comparison of searches has found: the only schema of `compare.json`, written and read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sartor.core.metrics import Metric
from sartor.core.records import Arch, Choice, Estimate, Scalar
from sartor.run.folder import write_json
from sartor.run.result import Spent
from sartor.run.schema import encode, load

VERSION = 2
FILE = "compare.json"

Said: TypeAlias = Literal["gain", "loss", "no gain", "unknown"]


@dataclass(frozen=True)
class Use:
    """What a search has used.

    Attributes:
        trials: Networks evaluated.
        epochs: Passes over the training data.
        seconds: Of processor time; of runs of `sartor fit`, on the clock. Null is what nobody knows.
    """

    trials: float | None = None
    epochs: float | None = None
    seconds: float | None = None

    def of(self, unit: str) -> float | None:
        """By the name of a field."""
        return getattr(self, unit)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Tried:
    """One trial, with what had been used when it was done.

    Attributes:
        trials: Its number, from 1.
        epochs: Passes over the training data so far.
        seconds: So far.
        cost: The first cost with a bound, as the search saw it.
        quality: The deciding metric, as the search saw it; null if the trial failed.
        fidelity: Of its training.
        inside: Whether the search thought it inside the budget.
        best: The quality of the network that the search would name now.
        hypervolume: What its trials dominate so far; a share of the box.
    """

    trials: int
    epochs: float | None
    seconds: float | None
    cost: float | None
    quality: float | None
    fidelity: float
    inside: bool
    best: float | None = None
    hypervolume: float | None = None

    def of(self, unit: str) -> float | None:
        """By the name of a field."""
        value = getattr(self, unit)
        return None if value is None else float(value)


@dataclass(frozen=True)
class Other:
    """An answer at another point of the budget.

    Attributes:
        cost: The first cost with a bound.
        quality: On the test split.
    """

    cost: float
    quality: float


@dataclass(frozen=True)
class Answer:
    """What one search has named, and what became of it.

    Attributes:
        seed: Of the search.
        arch: One option index per choice of the space; null if it named no network, for `reason`.
        reason: Why it named none.
        quality: Of the answer, trained in full, on the test split.
        valid: The same on the validation split.
        examples: Size of the test split.
        modelled: Cost, to what the search thought of the answer.
        latency_ms: As measured.
        options: The answer in words.
        used: By the search.
        hypervolume: Of its trials.
        others: Answers at further points of the budget.
        trials: One after another.
    """

    seed: int
    arch: Arch | None
    reason: str = ""
    quality: float | None = None
    valid: float | None = None
    examples: int | None = None
    modelled: Mapping[str, float] = field(default_factory=dict)
    latency_ms: Estimate | None = None
    options: Mapping[str, Scalar] = field(default_factory=dict)
    used: Use = field(default_factory=Use)
    hypervolume: float | None = None
    others: tuple[Other, ...] = ()
    trials: tuple[Tried, ...] = ()


@dataclass(frozen=True)
class Gain:
    """How much better than random search.

    Attributes:
        value: Positive if it is better, whether the metric is to be large or small.
        low: Lower end of the 95 % interval; null if too few seeds tell.
        high: Upper end.
        method: Which interval.
        verdict: What the interval says.
        sentence: The same with its numbers.
    """

    value: float | None
    low: float | None
    high: float | None
    method: str
    verdict: Said
    sentence: str


@dataclass(frozen=True)
class Figures:
    """Of values over seeds.

    Attributes:
        median: Null without any value.
        mean: Null without any value.
        interval: The mean with Student's 95 % interval; null for fewer than two values.
    """

    median: float | None
    mean: float | None
    interval: Estimate | None


@dataclass(frozen=True)
class Contestant:
    """One strategy.

    Attributes:
        plugin: Its own name, whatever it goes by here.
        settings: Its own.
        trained: Whether its trials are trained networks; else they inherit a supernet's weights: another scale.
        answers: One per seed.
        tested: Of the answers, on the test split.
        used: Medians over seeds.
        gain: Over random search; null for random search itself.
        hypervolume: Median over seeds.
    """

    plugin: str
    settings: Mapping[str, Any]
    trained: bool
    answers: tuple[Answer, ...]
    tested: Figures
    used: Use
    gain: Gain | None
    hypervolume: float | None


@dataclass(frozen=True)
class Corner:
    """The box that hypervolumes are shares of: from the reference network's cost and the worst trial to no cost.

    Attributes:
        cost: Of the reference network.
        worst: The worst quality of any trial that counts.
        best: The best one.
    """

    cost: float
    worst: float
    best: float


@dataclass(frozen=True)
class Posed:
    """What two runs must share to be compared.

    Attributes:
        fingerprint: Of the data.
        choices: Of the space.
        metrics: Of the task.
        costs: With a bound.
        budget: As the config has it.
    """

    fingerprint: str
    choices: tuple[Choice, ...]
    metrics: tuple[Metric, ...]
    costs: tuple[str, ...]
    budget: Mapping[str, Any]


@dataclass(frozen=True)
class Given:
    """What every search was given.

    Attributes:
        unit: `trials`; `epochs`, passes over the training data; or `seconds` of processor time.
        amount: How many.
    """

    unit: str
    amount: float


@dataclass(frozen=True)
class Yardstick:
    """The reference network.

    Attributes:
        modelled: Cost, to what is modelled.
        values: Its quality on the test split, seed by seed.
        latency_ms: As measured.
        tested: Of the values.
    """

    modelled: Mapping[str, float]
    values: tuple[float, ...]
    tested: Figures
    latency_ms: Estimate | None = None


@dataclass(frozen=True)
class Comparison:
    """All of a `compare.json`.

    Attributes:
        title: Of the recipe.
        metric: What is compared.
        budget: Cost, to its bound.
        seeds: All.
        problem: What all runs share.
        reference: The reference network.
        contestants: By the name that a strategy goes by.
        yardstick: The name of random search among them.
        corner: What hypervolumes are shares of; null if no trial counts.
        given: What every search was given; null for finished runs.
        left_out: Baselines that are not there, to the reason.
        notes: What one must know to read the figures.
        folders: Of finished runs.
        spent: Where the time went.
        environment: As of a result.
        version: Of this schema.
    """

    title: str
    metric: Metric
    budget: Mapping[str, float]
    seeds: tuple[int, ...]
    problem: Posed
    reference: Yardstick
    contestants: Mapping[str, Contestant]
    yardstick: str | None = None
    corner: Corner | None = None
    given: Given | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    spent: Spent | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @property
    def cost(self) -> str:
        """The first cost with a bound."""
        return next(iter(self.budget))

    @property
    def ranked(self) -> list[tuple[str, Contestant]]:
        """The best mean first; those without any quality last."""
        sign = self.metric.sign

        def key(item: tuple[str, Contestant]) -> tuple[bool, float]:
            mean = item[1].tested.mean
            return (True, 0.0) if mean is None else (False, -sign * mean)

        return sorted(self.contestants.items(), key=key)


def write(folder: Path, comparison: Comparison) -> None:
    """Write `compare.json`, atomically."""
    write_json(folder / FILE, encode(comparison))


def read(folder: Path) -> Comparison:
    """The comparison in a folder.

    Raises:
        StateError: There is none, or it is of another version of sartor, or damaged.
    """
    return load(Comparison, folder / FILE, VERSION, "run the comparison again in a new folder")
