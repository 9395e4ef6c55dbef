"""LayerNAS on NATS-Bench's size space: `SARTOR_NATS_SIZE=nats_size_cifar10.csv.gz make slow`."""

from __future__ import annotations

import os

import pytest

from sartor.jobs.bench import Bench, bench

TABLE = os.environ.get("SARTOR_NATS_SIZE", "")
RIVALS = ("random_search", "regularized_evolution", "ppo")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TABLE, reason="SARTOR_NATS_SIZE names no table of the size space on CIFAR-10"),
]


def compared(noise, runs, budget=140e6):
    strategies = {name: {} for name in ("layernas", *RIVALS)}
    return bench(
        Bench(
            space="nats_size",
            table=TABLE,
            strategies=strategies,
            budget={"macs": budget},
            evaluations=100,
            runs=runs,
            noise=noise,
            signal="cifar10_test_90",
        )
    )


def test_the_optimum_is_found_in_every_run_and_by_nobody_else():
    found = compared(0.0, 100)
    assert found["optimum"] == pytest.approx(93.34)
    assert (found["curves"]["layernas"][:, 99] == found["optimum"]).all()
    assert found["curves"]["layernas"][:, 49].mean() >= 93.30
    assert all((found["curves"][name][:, 99] < found["optimum"]).any() for name in RIVALS)


@pytest.mark.parametrize("noise", [0.2, 0.5, 1.0, 2.0])
def test_it_is_ahead_of_all_others_from_20_evaluations_on(noise):
    curves = compared(noise, 60)["curves"]
    ours = curves["layernas"][:, 19:].mean(0)
    for name in RIVALS:
        assert (ours > curves[name][:, 19:].mean(0)).all(), name


@pytest.mark.parametrize("budget", [30e6, 50e6, 80e6, 200e6])
def test_other_budgets_end_at_their_optimum_too(budget):
    found = compared(0.0, 20, budget)
    assert (found["curves"]["layernas"][:, 99] == found["optimum"]).mean() >= 0.95
