from __future__ import annotations

import pytest

from sartor.jobs.verification import judge


def entry(value, low, high, macs=1000):
    return {"latency_ms": {"value": value, "low": low, "high": high}, "macs": macs}


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
