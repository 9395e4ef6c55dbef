from __future__ import annotations

import pytest

from sartor.core.metrics import Metric, Score
from sartor.core.records import Estimate
from sartor.jobs.fit.verify import deliverable, judge, latencies
from sartor.run.result import Entry
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing.meter import Effort, Subject
from timing.network import EXAMPLE, file_of
from timing.strange import Restless

ACCURACY = Metric("accuracy", "max", "share", "proportion")
ERROR = Metric("accuracy", "min", "share", "proportion")


def entry(value, low, high, macs=1000, arch=(1, 2), scores=None):
    return Entry(arch, {}, macs, 1, 1, Estimate(value, low, high), "w", scores=scores or {})


@pytest.mark.parametrize(
    ("network", "verdict", "sentence"),
    [
        (entry(0.94, 0.93, 0.95), "PASS", "PASS: 0.94 ms (0.93-0.95) <= 0.96 ms"),
        (entry(0.96, 0.94, 0.98), "UNSURE", "UNSURE: 0.96 ms (0.94-0.98) around 0.96 ms"),
        (entry(0.99, 0.97, 1.01), "FAIL", "FAIL: 0.99 ms (0.97-1.01) > 0.96 ms"),
    ],
)
def test_only_an_interval_wholly_on_one_side_decides(network, verdict, sentence):
    assert judge(network, {"latency_ms": 0.96}) == (verdict, sentence)


def test_the_worst_metric_decides():
    verdict, sentence = judge(entry(0.9, 0.89, 0.91, macs=2_000_000), {"latency_ms": 0.96, "macs": 1e6})
    assert verdict == "FAIL"
    assert sentence.startswith("PASS: 0.9")
    assert sentence.endswith("FAIL: 2 M > 1 M macs")


def test_what_was_not_measured_here_is_not_called_done():
    far = Entry((1,), {}, 1, 1, 1, Estimate(9.0, 9.0, 9.0), "w", predicted_latency_ms=0.9, elsewhere=True)
    verdict, sentence = judge(far, {"latency_ms": 0.96})
    assert (verdict, sentence[:21]) == ("UNSURE", "UNSURE: modelled 0.9 ")
    assert judge(far, {"latency_ms": 0.8})[0] == "FAIL"


INSIDE, AROUND, OVER = (0.94, 0.93, 0.95), (0.96, 0.94, 0.98), (0.99, 0.97, 1.01)


@pytest.mark.parametrize(
    ("own", "scaled", "valid", "delivered", "reason"),
    [
        (INSIDE, INSIDE, (0.80, 0.81), True, "on the validation split it is better than the search's ("),
        (INSIDE, INSIDE, (0.80, 0.80), False, "on the validation split it is no better than the search's ("),
        (INSIDE, INSIDE, (0.81, 0.80), False, "on the validation split it is no better"),
        (INSIDE, AROUND, (0.80, 0.90), False, "it is not surely inside the budget"),
        (INSIDE, OVER, (0.80, 0.90), False, "it is over the budget"),
        (AROUND, INSIDE, (0.80, 0.70), True, "the search's own is not surely inside the budget"),
        (OVER, INSIDE, (0.80, 0.70), True, "the search's own is over the budget"),
        (OVER, AROUND, (0.80, 0.90), False, "it is not surely inside the budget"),
    ],
)
@pytest.mark.parametrize(("metric", "sign"), [(ACCURACY, 1), (ERROR, -1)])
def test_the_better_network_inside_the_budget_is_delivered(own, scaled, valid, delivered, reason, metric, sign):
    """By the validation split, whichever direction is better: the test split has no say."""
    searched = entry(*own, arch=(1, 2), scores={"accuracy": Score(sign * 1.0)})
    uniform = entry(*scaled, arch=(1, 1), scores={"accuracy": Score(sign * 0.0)})
    known = {name: sign * value for name, value in zip(("searched", "uniform"), valid, strict=True)}
    found, why = deliverable(searched, uniform, known, metric, {"latency_ms": 0.96})
    assert found is delivered
    assert why.startswith(reason)


def test_the_reason_has_the_unit_of_the_metric():
    pair = (entry(*INSIDE, arch=(1, 2)), entry(*INSIDE, arch=(1, 1)))
    valid = {"searched": 31.0, "uniform": 31.2}
    _, why = deliverable(*pair, valid, Metric("psnr", "max", "dB"), {"latency_ms": 0.96})
    assert why.endswith("(31.2 dB against 31 dB)")
    _, why = deliverable(*pair, {"searched": 0.8, "uniform": 0.81}, ACCURACY, {"latency_ms": 0.96})
    assert why.endswith("(81.00 % against 80.00 %)")


def test_without_another_network_there_is_nothing_to_choose():
    searched, point = entry(*AROUND, arch=(1, 1)), {"latency_ms": 0.96}
    assert deliverable(searched, None, {"searched": 0.8}, ACCURACY, point) == (False, "")
    same = entry(*INSIDE, arch=(1, 1))
    assert deliverable(searched, same, {"searched": 0.8, "uniform": 0.9}, ACCURACY, point) == (False, "")


@pytest.mark.parametrize(("target", "says"), [(OnnxRuntime, 0), (Restless, 1)])
def test_whoever_gets_the_intervals_of_one_process_is_told(tmp_path, target, says):
    subject, said, seen = Subject.of_file(target(), file_of(tmp_path), EXAMPLE), [], []
    found = latencies(
        {"reference": subject, "searched_0": subject},
        Estimate(2.0, 1.9, 2.1),
        Effort(4, 1, 2, warmup=0.01),
        show=lambda done, total: seen.append((done, total)),
        say=said.append,
    )
    assert found["reference"] == Estimate(2.0, 1.9, 2.1)
    assert found["searched_0"].low < 2.0 < found["searched_0"].high, "the same file"
    assert len(said) == says
    assert all("what other processes would measure is not in the intervals" in line for line in said)
    assert seen[-1] == (4, 4)
