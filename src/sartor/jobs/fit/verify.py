"""The last stages: export the trained networks, check and time the files, choose what is delivered, test, judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sartor import exporting, training
from sartor.core.contracts import Session
from sartor.core.metrics import Metric, Score
from sartor.core.records import Estimate
from sartor.jobs.fit.budget import human
from sartor.jobs.fit.stage import Chosen, Job
from sartor.run.result import WORST_LAST, Entry, Verdict
from sartor.timing import estimate
from sartor.timing.meter import Effort, Subject, time_together

Point = Mapping[str, float]

OUTSIDE = {"UNSURE": "not surely inside", "FAIL": "over"}
"""What a verdict says of the network, before "the budget"."""


@dataclass(frozen=True)
class Export:
    """A network on the target.

    Attributes:
        file: What a user deploys, relative to the run folder; None if the target writes none.
        relative_error: Largest difference between its outputs and PyTorch's.
        note: In what the file takes less than it might, and why; "" if in nothing.
    """

    file: str | None
    relative_error: float
    note: str = ""


@dataclass(frozen=True)
class Verified:
    """All networks, timed together: milliseconds by role."""

    times: Mapping[str, Estimate]


@dataclass(frozen=True)
class Tested:
    """Role -> metric -> its score on the test split."""

    scores: Mapping[str, Mapping[str, Score]]


def export(job: Job, chosen: Chosen) -> Export:
    """Prepare the trained network on the target and check its outputs against PyTorch's."""
    parts, folder = job.parts, job.folder.artifacts / chosen.name
    folder.mkdir(exist_ok=True)
    module, tolerance = job.load(chosen), parts.verification.tolerance
    found = exporting.prepare(parts.target, module, parts.task.example, folder, parts.export, tolerance=tolerance)
    artifact = found.session.artifact
    return Export(str(artifact.relative_to(job.folder.path)) if artifact else None, found.relative_error, found.note)


def latencies(
    subjects: Mapping[str, Subject],
    anchor: Estimate | None,
    effort: Effort,
    *,
    show: Callable[[int, int], None],
    say: Callable[[str], None],
) -> dict[str, Estimate]:
    """Time networks in the same rounds, for a verdict.

    Args:
        subjects: What is timed; `reference` must be among them.
        anchor: Milliseconds of the reference; None measures them here.
        effort: How well.
        show: Progress.
        say: Told if no other processes took part although they should have.

    Returns:
        Milliseconds by name: the ratio to the reference times the anchor.
    """
    timed = time_together(subjects, effort, reference="reference", on_round=show)
    if timed.note:
        say(f"  {timed.note}: what other processes would measure is not in the intervals")
    return timed.latencies(anchor)


def subjects_of(job: Job, chosen: Mapping[str, Chosen], files: Mapping[str, str | None]) -> dict[str, Subject]:
    """The exported networks, by role, as they can be timed."""
    target, example = job.parts.target, job.parts.task.example

    def prepared(role: str) -> Session:
        return target.prepare(job.load(chosen[role]), example, job.folder.artifacts / chosen[role].name)

    def subject(role: str) -> Subject:
        file = files[role]
        if file is None:
            return Subject(lambda: prepared(role), example)
        return Subject.of_file(target, job.folder.path / file, example)

    return {role: subject(role) for role in chosen}


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
    verdict = estimate.verdict(latency, limit)
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
