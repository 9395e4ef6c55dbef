"""What a run has found: the only schema of `result.json`, written and read here and nowhere else.

The trials are not in it: the journal of the search is the result, and `read` gives both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from sartor.core import files
from sartor.core.errors import StateError
from sartor.core.metrics import Metric, Score
from sartor.core.records import Arch, Choice, Estimate, Objective, Scalar, Trial
from sartor.run.folder import json_text, read_json, write_json
from sartor.run.journal import FileJournal, read_logs, read_trials
from sartor.run.schema import decode, encode, load

T = TypeVar("T")

VERSION = 2
"""Of the schema; 1 was that of sartor 0.1, which had no number."""

FILE, SEARCH_FILE = "result.json", "search.json"

REMEDY = (
    "its network files work as ever; to verify, compare or show it, use that version, or run the fit again in a new "
    "folder"
)
"""What to do with a file of another version."""

Verdict: TypeAlias = Literal["PASS", "UNSURE", "FAIL"]
WORST_LAST: tuple[Verdict, ...] = ("PASS", "UNSURE", "FAIL")

Role: TypeAlias = Literal["searched", "uniform"]
"""`searched`: the search's own network; `uniform`: the uniformly scaled one."""


@dataclass(frozen=True)
class Entry:
    """All that is known of one trained network.

    Attributes:
        arch: One option index per choice of the space.
        options: The same in words: choice, to option.
        macs: Multiply-adds of one example: convolutions and products with weights, nothing for normalisation.
        params: Parameters.
        memory_bytes: Modelled peak of the activations of one example, bytes.
        latency_ms: Milliseconds of the exported file on the target, for the example, as measured with the others.
        predicted_latency_ms: What the latency model says; null without one.
        elsewhere: Whether the budget is in milliseconds of another device, which `latency_ms` says nothing of.
        scores: Metric, to its value on the test split.
        valid: Metric, to its value on the validation split.
        weights: File of the weights, relative to the run folder.
        file: The exported file, relative to the run folder; null if the target writes none.
        relative_error: Largest difference between the exported network's outputs and PyTorch's, relative.
        note: In what the exported file takes less than any batch and the sizes asked for, and why; "" if in nothing.
    """

    arch: Arch
    options: Mapping[str, Scalar]
    macs: int
    params: int
    memory_bytes: int
    latency_ms: Estimate
    weights: str
    predicted_latency_ms: float | None = None
    elsewhere: bool = False
    scores: Mapping[str, Score] = field(default_factory=dict)
    valid: Mapping[str, float] = field(default_factory=dict)
    file: str | None = None
    relative_error: float | None = None
    note: str = ""

    def cost(self, metric: str) -> Estimate:
        """A cost with its interval; one that is counted is exact."""
        found = getattr(self, metric)
        return found if isinstance(found, Estimate) else Estimate(float(found), float(found), float(found))


@dataclass(frozen=True)
class Look:
    """One network that was measured on the way to a choice.

    Attributes:
        arch: One option index per choice of the space.
        limit: The modelled latency that the search was asked for, milliseconds.
        modelled: What the latency model says of the answer, milliseconds.
        measured: What the target says, milliseconds.
    """

    arch: Arch
    limit: float
    modelled: float
    measured: Estimate


@dataclass(frozen=True)
class Point:
    """One point of the budget, and the networks fitted to it.

    Attributes:
        budget: Cost, to its upper bound.
        delivered: Which of the two is delivered, the winner: `searched` or `uniform`.
        searched: The search's own network.
        uniform: The reference made smaller evenly to the same budget; null if none meets it, or there is no such thing.
        reason: Why the uniform one is delivered, or is not, of which "it" is that network.
        verdict: Whether the winner is inside the budget as measured: `PASS`, `FAIL`, or `UNSURE` if the interval holds
            the bound.
        sentence: The verdict with its numbers.
        looks: What was measured on the way to the search's network.
        folder: Where the winner's files are, relative to the run folder.
    """

    budget: Mapping[str, float]
    delivered: Role
    searched: Entry
    uniform: Entry | None
    reason: str
    verdict: Verdict
    sentence: str
    looks: tuple[Look, ...] = ()
    folder: str = "."

    @property
    def winner(self) -> Entry:
        """What is delivered."""
        return self.searched if self.delivered == "searched" or self.uniform is None else self.uniform

    @property
    def rival(self) -> Entry | None:
        """What the winner is compared with: the other one of the two."""
        return self.uniform if self.delivered == "searched" else self.searched

    @property
    def tightened(self) -> tuple[Look, ...]:
        """The lower limits that followed a first choice which was measured over the budget."""
        limit = self.budget.get("latency_ms")
        if limit is None or not self.looks or self.looks[0].measured.high <= limit:
            return ()
        return tuple(look for look in self.looks[1:] if look.limit < limit)


@dataclass(frozen=True)
class Predicted:
    """A network that the latency model had not seen.

    Attributes:
        predicted: Milliseconds.
        measured: Milliseconds.
    """

    predicted: float
    measured: Estimate


@dataclass(frozen=True)
class Sums:
    """How well the plain sums of a table of operators agree with whole networks.

    Attributes:
        networks: How many were compared.
        nrmse: Root mean squared error over the mean measurement.
        bias: Mean error over the mean measurement: positive if the sums are too high.
        scale: What to multiply the sums with for the least relative error.
        scaled_nrmse: The NRMSE that this leaves.
    """

    networks: int
    nrmse: float
    bias: float
    scale: float
    scaled_nrmse: float


@dataclass(frozen=True)
class LatencyModel:
    """The model that says how long an unmeasured network takes.

    Attributes:
        kind: Which model.
        nrmse: Root mean squared error over the mean, on held-out networks; null without any.
        training_networks: Networks it was fitted to.
        heldout_networks: Further, uniformly random networks that only test it.
        heldout: These, predicted and measured.
        lookup: For a space of operators with a table: its plain sums; else null.
    """

    kind: str
    nrmse: float | None
    training_networks: int
    heldout_networks: int
    heldout: tuple[Predicted, ...] = ()
    lookup: Sums | None = None


@dataclass(frozen=True)
class Paid:
    """What a trial costs.

    Attributes:
        fidelity: Of the trial.
        epochs: Passes over the training data.
    """

    fidelity: float
    epochs: float


@dataclass(frozen=True)
class Search:
    """How the network was looked for.

    Attributes:
        strategy: Its name.
        settings: Those that the config gives.
        evaluations: Trials in the journal of the search.
        failed: Those that ended with an error.
        objectives: What it looked for; the first one decides.
        choices: The space, choice by choice: `name`, `options`, and whether they are `ordered`.
        paid: What trials cost, by their fidelity; the training of a supernet is not in it.
    """

    strategy: str
    settings: Mapping[str, Any]
    evaluations: int
    failed: int
    choices: tuple[Choice, ...]
    objectives: tuple[Objective, ...] = ()
    paid: tuple[Paid, ...] = ()


@dataclass(frozen=True)
class Stage:
    """What one stage took.

    Attributes:
        name: Of the stage.
        seconds: Wall time, all sessions.
        networks_trained: How many.
        networks_measured: How many.
    """

    name: str
    seconds: float
    networks_trained: int
    networks_measured: int


@dataclass(frozen=True)
class Spent:
    """Where the time went.

    Attributes:
        stages: In order of appearance.
        total_seconds: Their sum.
        wall_seconds: By the clock of each session: a check of the sum.
    """

    stages: tuple[Stage, ...] = ()
    total_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """All of a `result.json`.

    Attributes:
        title: Of the run.
        task: The kind of task.
        metrics: What quality is; the first one decides.
        reference: The network that all others are compared with.
        points: The points of the budget, in the order of the config.
        search: How the networks were looked for.
        latency_model: Null where latency is not bounded.
        spent: Where the time went.
        environment: Versions, machine, target, data, seed, command: whatever somebody needs to judge or repeat the run.
        files: SHA-256 of every file that is delivered, and of every network that was timed, with its weights; by its
            path, relative to the run folder.
        version: Of this schema.
    """

    title: str
    task: str
    metrics: tuple[Metric, ...]
    reference: Entry
    points: tuple[Point, ...]
    search: Search
    latency_model: LatencyModel | None = None
    spent: Spent = field(default_factory=Spent)
    environment: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    @property
    def metric(self) -> Metric:
        """The metric that decides."""
        return self.metrics[0]

    @property
    def cost(self) -> str:
        """The first cost that the budget bounds."""
        return next(iter(self.points[0].budget))

    @property
    def verdict(self) -> Verdict:
        """The worst of all points."""
        return max((p.verdict for p in self.points), key=WORST_LAST.index)

    def changed(self, folder: Path) -> dict[str, str]:
        """Files of the run that are not as they were delivered -> `is missing`, or what their SHA-256 is and was."""
        found = {}
        for name, then in self.files.items():
            now = files.sha256(folder / name) if (folder / name).is_file() else ""
            if now != then:
                found[name] = (
                    f"has SHA-256 {now[:16]}..., it was delivered with {then[:16]}..." if now else "is missing"
                )
        return found

    def check(self, folder: Path, names: Iterable[str] | None = None) -> None:
        """Whether files of the run, all by default, are those that were delivered.

        Raises:
            StateError: Names the first that is not, and how many more.
        """
        found = self.changed(folder)
        wrong = [name for name in (found if names is None else names) if name in found]
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise StateError(
                f"{folder / wrong[0]} {found[wrong[0]]}{more}; restore it, or run the fit again in a new folder"
            )

    @property
    def networks(self) -> dict[str, Entry]:
        """Every network by role: `reference`, then per point `searched_0`, `uniform_0`, ..."""
        found = {"reference": self.reference}
        for i, point in enumerate(self.points):
            found[f"searched_{i}"] = point.searched
            if point.uniform is not None:
                found[f"uniform_{i}"] = point.uniform
        return found


@dataclass(frozen=True)
class Moment:
    """How likely the options of every choice were at one moment of a search.

    Attributes:
        epoch: When.
        probabilities: Per choice, of its options.
    """

    epoch: int
    probabilities: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Trace:
    """What the journal and the artifacts of a search hold.

    Attributes:
        trials: All that stand.
        logs: Logged scalars, each with its `step`.
        narrowing: How likely options were along the search.
    """

    trials: tuple[Trial, ...] = ()
    logs: tuple[Mapping[str, Any], ...] = ()
    narrowing: tuple[Moment, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a search alone names for one point of the budget.

    Attributes:
        budget: Cost, to its upper bound.
        arch: One option index per choice; null if no network was found, for `reason`.
        reason: Why none was found.
        options: The same in words.
        changed: The choices that are not as in the reference.
        modelled: Cost, to what is modelled or counted; nothing is measured.
    """

    budget: Mapping[str, float]
    arch: Arch | None
    reason: str = ""
    options: Mapping[str, Scalar] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    modelled: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Searched:
    """All of a `search.json`: a search alone, whose networks are not trained.

    Attributes:
        found: One per point of the budget.
        search: How the networks were looked for.
        latency_model: Null where latency is not bounded.
        spent: Where the time went.
        environment: As of a result.
        version: Of this schema.
    """

    found: tuple[Found, ...]
    search: Search
    latency_model: LatencyModel | None = None
    spent: Spent = field(default_factory=Spent)
    environment: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION


def write(folder: Path, result: Result | Searched) -> None:
    """Write `result.json`, or `search.json`, atomically; the journal has its digest before."""
    path, data = folder / (FILE if isinstance(result, Result) else SEARCH_FILE), encode(result)
    digest = hashlib.sha256(json_text(data).encode()).hexdigest()
    FileJournal(folder / "journal.jsonl").append({"kind": "result", "name": path.name, "sha256": digest})
    write_json(path, data)


def read(folder: Path) -> tuple[Result, Trace]:
    """The result of a finished run, and what its search wrote down.

    Raises:
        StateError: The run is not finished, is of another version of sartor, or the file is damaged.
    """
    return read_result(folder), read_trace(folder / "search")


def read_result(folder: Path) -> Result:
    """`result.json` alone; see `read`."""
    return _own(folder / FILE, load(Result, folder / FILE, VERSION, REMEDY))


def read_searched(folder: Path) -> Searched:
    """The `search.json` of a search alone; raises as `read`."""
    return _own(folder / SEARCH_FILE, load(Searched, folder / SEARCH_FILE, VERSION, REMEDY))


def _own(path: Path, found: T) -> T:
    """What was found at `path`, if it is what the run there has written; a run of before has kept no digest."""
    records = FileJournal(path.parent / "journal.jsonl").read()
    digests = [r["sha256"] for r in records if r["kind"] == "result" and r["name"] == path.name]
    if digests and digests[-1] != hashlib.sha256(path.read_bytes()).hexdigest():
        raise StateError(
            f"{path} is not what the run in this folder has written; restore it, or remove it and run again"
        )
    return found


def read_trace(folder: Path) -> Trace:
    """What a search, finished or not, has written into its folder."""
    journal = FileJournal(folder / "journal.jsonl")
    logs = read_logs(journal)
    return Trace(tuple(read_trials(journal)), tuple(logs), _narrowing(folder / "artifacts", logs))


def _narrowing(artifacts: Path, logs: list[dict[str, Any]]) -> tuple[Moment, ...]:
    """Along the search, or at its end, where it wrote that down."""
    along, learned = artifacts / "narrowing.jsonl", artifacts / "preferences.json"
    if along.exists():
        rows = [json.loads(line) for line in along.read_text(encoding="utf-8").splitlines()]
    elif learned.exists():
        last = max((int(log["epoch"]) for log in logs if "epoch" in log), default=0)
        rows = [{"epoch": last, "probabilities": read_json(learned)["probabilities"]}]
    else:
        return ()
    return tuple(decode(Moment, row, str(artifacts)) for row in rows)
