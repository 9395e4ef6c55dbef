"""The last stages: export the trained networks, check and time the files, choose what is delivered, test, judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sartor import exporting
from sartor.core.contracts import Session
from sartor.core.records import Estimate
from sartor.jobs.budget import human
from sartor.jobs.stages import Chosen, Job
from sartor.timing import estimate
from sartor.timing.meter import Effort, Subject, time_together
from sartor.training import accuracy_interval, evaluate

Point = Mapping[str, float]

OUTSIDE = {"UNSURE": "not surely inside", "FAIL": "over"}
"""What a verdict says of the network, before "the budget"."""


def export(job: Job, chosen: Chosen) -> dict[str, Any]:
    """Prepare the trained network on the target and check its outputs against PyTorch's.

    Returns:
        Where the deployable file is, relative to the run folder, and the largest relative error.
    """
    folder = job.folder.artifacts / chosen.name
    folder.mkdir(exist_ok=True)
    module, example = job.load(chosen), job.parts.task.example
    session = job.parts.target.prepare(module, example, folder)
    error = exporting.parity(session, module, example, tolerance=job.parts.verification.tolerance)
    artifact = session.artifact
    return {"file": str(artifact.relative_to(job.folder.path)) if artifact else None, "relative_error": error}


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


def judge(network: Mapping[str, Any], point: Point) -> tuple[str, str]:
    """Verdict and sentence of one network against one point of the budget; the worst metric decides."""
    found = [
        _elsewhere(float(network["predicted_latency_ms"]), limit)
        if metric == "latency_ms" and network.get("elsewhere")
        else _judged(metric, network[metric], limit)
        for metric, limit in point.items()
    ]
    worst = max((verdict for verdict, _ in found), key=("PASS", "UNSURE", "FAIL").index)
    return worst, "; ".join(text for _, text in found)


def _elsewhere(modelled: float, limit: float) -> tuple[str, str]:
    """A budget in milliseconds of a device that is not here: what was not measured is not called done."""
    verdict = "UNSURE" if modelled <= limit else "FAIL"
    return (
        verdict,
        f"{verdict}: modelled {modelled:.3g} ms, budget {limit:.3g} ms; time the exported file on the device",
    )


def _judged(metric: str, value: Any, limit: float) -> tuple[str, str]:
    """One metric: "PASS: 0.94 ms (0.93-0.95) <= 0.96 ms"."""
    if isinstance(value, Mapping):
        verdict: str = estimate.verdict(Estimate(value["value"], value["low"], value["high"]), limit)
        digits = 3 if limit < 0.3 else 2 if limit < 10 else 1
        numbers = " ".join(
            (f"{value['value']:.{digits}f} ms", f"({value['low']:.{digits}f}-{value['high']:.{digits}f})")
        )
        bound = f"{limit:.{digits}f} ms"
    else:
        verdict = "PASS" if value <= limit else "FAIL"
        numbers, bound = f"{human(metric, value)}", f"{human(metric, limit)} {metric}"
    sign = {"PASS": "<=", "FAIL": ">", "UNSURE": "around"}[verdict]
    return verdict, f"{verdict}: {numbers} {sign} {bound}"


def deliverable(
    searched: Mapping[str, Any], uniform: Mapping[str, Any] | None, valid: Mapping[str, float], point: Point
) -> tuple[bool, str]:
    """Whether the uniformly scaled network is delivered, and not the search's own.

    It must be inside the budget as measured; and the search's own is not, or is worse on the validation split. The test
    split has no say: a network chosen by it would be reported with an accuracy that is too good.

    Args:
        searched: Entry of the search's own network.
        uniform: That of the uniformly scaled one; None if there is none.
        valid: First metric of the task, which is one to maximise, of `searched` and `uniform` on the validation split.
        point: The limits.

    Returns:
        The answer, and the reason for either, of which "it" is the uniformly scaled network; "" where there is nothing
        to choose.
    """
    if uniform is None or list(uniform["arch"]) == list(searched["arch"]):
        return False, ""
    inside, own = judge(uniform, point)[0], judge(searched, point)[0]
    if inside != "PASS":
        return False, f"it is {OUTSIDE[inside]} the budget"
    if own != "PASS":
        return True, f"the search's own is {OUTSIDE[own]} the budget"
    better = valid["uniform"] > valid["searched"]
    figures = f"{100 * valid['uniform']:.2f} against {100 * valid['searched']:.2f} %"
    return better, f"on the validation split it is {'better' if better else 'no better'} than the search's ({figures})"


def test_accuracy(job: Job, chosen: Chosen) -> dict[str, Any]:
    """The only place of a job that touches the test split."""
    task = job.parts.task
    metrics = evaluate(job.load(chosen), task.test(), task, device=job.parts.recipe.device)
    first = next(iter(task.metrics))
    count = sum(len(y) for _, y in task.test())
    low, high = accuracy_interval(metrics[first], count)
    return {
        "accuracy": metrics[first],
        "accuracy_interval": {"low": low, "high": high},
        "accuracy_on": "test",
        "accuracy_examples": count,
        "metrics": metrics,
    }
