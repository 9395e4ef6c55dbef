from __future__ import annotations

import json

import pytest
import torch

from problems import small_problem
from sartor.core.errors import ConfigError
from sartor.evaluators.synthetic import Synthetic
from sartor.run.runner import run
from sartor.strategies.aows import Aows, temperature


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, problem = tmp_path_factory.mktemp("aows"), small_problem()
    strategy = Aows(problem, 0, epochs=8, resolve_every=2)
    run(strategy, problem, Synthetic(problem), folder=folder, seed=0)
    return strategy, folder


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 1), (5, 1), (6, 0.01), (8, 0.00316228), (10, 0.001), (15, 0.000707107), (20, 0.0005)]
)
def test_the_temperature_is_log_linear_between_the_papers_epochs(epoch, expected):
    assert temperature(epoch / 20) == pytest.approx(expected, rel=1e-4)


def test_narrowing_is_uniform_first_and_sharp_last(finished):
    lines = [json.loads(line) for line in (finished[1] / "artifacts/narrowing.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert all(sum(row) == pytest.approx(1) for line in lines for row in line["probabilities"])
    entropy = [sum(float(torch.special.entr(torch.tensor(r)).sum()) for r in line["probabilities"]) for line in lines]
    assert entropy[0] == entropy[1] == pytest.approx(3 * torch.log(torch.tensor(4.0)).item())
    assert entropy[-1] < 0.8 * entropy[0]


def test_paths_are_drawn_near_the_budgets(finished):
    strategy, _ = finished
    macs = small_problem().cost("macs").terms()[0]
    for row, limits in enumerate(strategy.levels):
        marginals = [table[row] for table in strategy._current]
        assert float(macs.expected(marginals)) < 1.3 * limits["macs"]


def test_the_warm_up_is_like_ows():
    from sartor.strategies.ows import Ows

    class Quiet:
        def log(self, **_):
            pass

        def progress(self, *_):
            pass

        def artifact(self, name):
            raise AssertionError

    problem = small_problem()
    adaptive, plain = Aows(problem, 0, epochs=4), Ows(problem, 0, epochs=4)
    adaptive.training.epoch(Quiet(), adaptive._probabilities)
    paths = adaptive._current
    plain.training.epoch(Quiet(), lambda _: paths)
    assert torch.equal(adaptive.training.statistics.gram, plain.training.statistics.gram)


@pytest.mark.parametrize("settings", [{"warmup": 0.0}, {"warmup": 1.5}, {"resolve_every": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match="warmup"):
        Aows(small_problem(), 0, **settings)
