"""Searches along choices in order on NATS-Bench's cells: `SARTOR_NATS_TOPOLOGY=TABLE.csv.gz make slow`."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from sartor.jobs.bench import Bench, bench

TABLE = os.environ.get("SARTOR_NATS_TOPOLOGY", "")
METHODS = ("mcts", "block_qnn", "nasnet")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TABLE, reason="SARTOR_NATS_TOPOLOGY names no table of the topology space"),
]


@pytest.fixture(scope="module", params=[100, 500])
def found(request):
    strategies = {name: {} for name in ("random_search", *METHODS)}
    return bench(Bench("nats_topology", TABLE, strategies, evaluations=request.param, runs=40))


@pytest.mark.parametrize("name", METHODS)
def test_better_than_random_search(found, name):
    ours, random = (found["curves"][n][:, -1] for n in (name, "random_search"))
    assert mannwhitneyu(ours, random, alternative="greater").pvalue < 0.01


def test_the_best_cell_within_200_evaluations_on_average(found):
    hits = found["curves"]["mcts"] == found["optimum"]
    if hits.shape[1] < 500:
        pytest.skip("too few evaluations to tell")
    first = np.where(hits.any(1), hits.argmax(1) + 1, hits.shape[1])
    assert first.mean() <= 200
