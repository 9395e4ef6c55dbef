"""The last stages: export the trained networks, check and time the files, choose what is delivered, test, judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sartor import exporting, measure, training
from sartor.core.contracts import Session
from sartor.core.metrics import Metric, Score
from sartor.core.records import Estimate
from sartor.core.trees import Inputs
from sartor.jobs.fit.budget import human
from sartor.jobs.fit.stage import Chosen, Job
from sartor.run.result import WORST_LAST, Entry, Verdict

Point = Mapping[str, float]

OUTSIDE = {"UNSURE": "not surely inside", "FAIL": "over"}
"""What a verdict says of the network, before "the budget"."""


@dataclass(frozen=True)
class Export:
    """A network on the target.

    Attributes:
        file: What a user deploys, relative to the run folder; None if the target writes none.
        relative_error: Largest difference between its outputs and PyTorch's.
    """

    file: str | None
    relative_error: float


@dataclass(frozen=True)
class Verified:
    """All networks, exported, checked and timed together, by role."""

    exports: Mapping[str, Export]
    times: Mapping[str, Estimate]


@dataclass(frozen=True)
class Tested:
    """Role -> metric -> its score on the test split."""

    scores: Mapping[str, Mapping[str, Score]]


def export(job: Job, chosen: Chosen) -> Export:
    """Prepare the trained network on the target and check its outputs against PyTorch's."""
    folder = job.folder.artifacts / chosen.name
    folder.mkdir(exist_ok=True)
    module, example = job.load(chosen), job.parts.task.example
    session = job.parts.target.prepare(module, example, folder)
    error = exporting.parity(session, module, example, tolerance=job.parts.verification.tolerance)
    artifact = session.artifact
    return Export(str(artifact.relative_to(job.folder.path)) if artifact else None, error)


def time_together(
    makers: Mapping[str, Callable[[], Session]],
    example: Inputs,
    anchor: Estimate | None,
    *,
    rounds: int,
    each: int,
    show: Callable[[float, float], None],
) -> dict[str, Estimate]:
    """Time networks in the same rounds, `each` fresh sessions of every one.

    Args:
        makers: Name -> maker of a session; `reference` must be among them.
        example: The inputs, each `(1, ...)`.
        anchor: Milliseconds of the reference; None measures them here.
        rounds: Rounds at most.
        each: Sessions per network.
        show: Progress.

    Returns:
        Milliseconds by name: the ratio to the reference times the anchor.
    """
    calls = {name: [make().bind(example) for _ in range(each)] for name, make in makers.items()}
    timed = measure.interleave(calls, rounds=rounds, on_round=show)
    anchor = anchor or measure.absolute(timed, "reference")
    times = {n: measure.ratio(timed, n, "reference").scaled(anchor.value) for n in calls if n != "reference"}
    return {"reference": anchor, **times}


def session_makers(
    job: Job, chosen: Mapping[str, Chosen], files: Mapping[str, str | None]
) -> dict[str, Callable[[], Session]]:
    """How to make fresh sessions of the exported networks, role -> maker."""

    def make(role: str) -> Session:
        file = files[role]
        if file is not None:
            return job.parts.target.load(job.folder.path / file)
        folder = job.folder.artifacts / chosen[role].name
        return job.parts.target.prepare(job.load(chosen[role]), job.parts.task.example, folder)

    return {role: (lambda r=role: make(r)) for role in chosen}


def judge(network: Entry, point: Point) -> tuple[Verdict, str]:
    """Verdict and sentence of one network against one point of the budget; the worst metric decides."""
    found = [
        _elsewhere(network.predicted_latency_ms or float("inf"), limit)
        if cost == "latency_ms" and network.elsewhere
        else judge_latency(network.latency_ms, limit)
        if cost == "latency_ms"
        else _counted(cost, network.cost(cost).value, limit)
        for cost, limit in point.items()
    ]
    worst = max((verdict for verdict, _ in found), key=WORST_LAST.index)
    return worst, "; ".join(text for _, text in found)


def judge_latency(latency: Estimate, limit: float) -> tuple[Verdict, str]:
    """Only an interval wholly on one side of the limit decides: "PASS: 0.94 ms (0.93-0.95) <= 0.96 ms"."""
    verdict = measure.verdict(latency, limit)
    digits = 3 if limit < 0.3 else 2 if limit < 10 else 1
    value, low, high = (f"{v:.{digits}f}" for v in (latency.value, latency.low, latency.high))
    return verdict, f"{verdict}: {value} ms ({low}-{high}) {_sign(verdict)} {limit:.{digits}f} ms"


def _elsewhere(modelled: float, limit: float) -> tuple[Verdict, str]:
    """A budget in milliseconds of a device that is not here: what was not measured is not called done."""
    verdict: Verdict = "UNSURE" if modelled <= limit else "FAIL"
    return (
        verdict,
        f"{verdict}: modelled {modelled:.3g} ms, budget {limit:.3g} ms; time the exported file on the device",
    )


def _counted(cost: str, value: float, limit: float) -> tuple[Verdict, str]:
    verdict: Verdict = "PASS" if value <= limit else "FAIL"
    return verdict, f"{verdict}: {human(cost, value)} {_sign(verdict)} {human(cost, limit)} {cost}"


def _sign(verdict: Verdict) -> str:
    return {"PASS": "<=", "FAIL": ">", "UNSURE": "around"}[verdict]


def deliverable(
    searched: Entry, uniform: Entry | None, valid: Mapping[str, float], metric: Metric, point: Point
) -> tuple[bool, str]:
    """Whether the uniformly scaled network is delivered, and not the search's own.

    It must be inside the budget as measured; and the search's own is not, or is worse on the validation split. The test
    split has no say: a network chosen by it would be reported with a quality that is too good.

    Args:
        searched: The search's own network.
        uniform: The uniformly scaled one; None if there is none.
        valid: The deciding metric of `searched` and `uniform` on the validation split.
        metric: What it is.
        point: The limits.

    Returns:
        The answer, and the reason for either, of which "it" is the uniformly scaled network; "" where there is nothing
        to choose.
    """
    if uniform is None or uniform.arch == searched.arch:
        return False, ""
    inside, own = judge(uniform, point)[0], judge(searched, point)[0]
    if inside != "PASS":
        return False, f"it is {OUTSIDE[inside]} the budget"
    if own != "PASS":
        return True, f"the search's own is {OUTSIDE[own]} the budget"
    better = metric.gain(valid["uniform"], valid["searched"]) > 0
    figures = f"{metric.precise(valid['uniform'])} against {metric.precise(valid['searched'])}"
    return better, f"on the validation split it is {'better' if better else 'no better'} than the search's ({figures})"


def test(job: Job, chosen: Chosen) -> dict[str, Score]:
    """The only place of a job that touches the test split."""
    task = job.parts.task
    return training.score(job.load(chosen), task.test(), task, device=job.parts.recipe.device)
