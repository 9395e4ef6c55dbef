from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from problems import small_problem
from sartor.core.errors import ConfigError, DataError
from sartor.core.records import Proposal
from sartor.evaluators.tabular import Tabular
from sartor.tabular import Table

ARCHS = list(product(range(4), repeat=3))


@pytest.fixture
def problem():
    return small_problem()


@pytest.fixture
def path(problem, tmp_path):
    header = "arch_str,x_valid_1,x_valid_10,x_valid_100,x_test_100,x_seconds_1,x_seconds_100,extra"
    rows = [f"{problem.space.key(a)},{i},{i + 1},{i + 2},{i + 3},{i / 2},{i / 4},{2 * i}" for i, a in enumerate(ARCHS)]
    (tmp_path / "x.csv").write_text("\n".join([header, *rows]))
    return tmp_path / "x.csv"


def test_looked_up(problem, path):
    score = Tabular(problem, table=path)
    assert score.signal == "x_valid_100"
    for i, arch in enumerate(ARCHS):
        found = score(Proposal(arch), i)
        assert found["accuracy"] == found["x_valid_100"] == i + 2
        assert (found["x_test_100"], found["seconds"]) == (i + 3, i / 4)
        assert score.true(arch) == i + 3


def test_a_signal_of_one_s_own(problem, path):
    assert Tabular(problem, table=path, signal="x_test_100")(Proposal(ARCHS[7]), 0)["accuracy"] == 10
    short = Tabular(problem, table=path, signal="x_valid_10")(Proposal(ARCHS[7]), 0)
    assert short["accuracy"] == 8
    assert "seconds" not in short  # the table does not say it of ten epochs
    other = Tabular(problem, table=path, signal="extra")(Proposal(ARCHS[7], fidelity=0.5), 0)
    assert (other["accuracy"], other["extra"]) == (14, 14)


@pytest.mark.parametrize(("fidelity", "epochs"), [(1.0, 100), (0.5, 10), (0.1, 10), (0.05, 1), (0.001, 1)])
def test_low_fidelity_is_a_shorter_training(problem, path, fidelity, epochs):
    found = Tabular(problem, table=path)(Proposal(ARCHS[9], fidelity=fidelity), 0)
    assert found["accuracy"] == found[f"x_valid_{epochs}"]
    assert found.get("seconds") == found.get(f"x_seconds_{epochs}")


def test_curves_end_where_the_training_does(problem, path):
    curve = Tabular(problem, table=path, curve=True)
    found = curve(Proposal(ARCHS[9]), 0)
    assert {k: v for k, v in found.items() if k.startswith("accuracy_")} == {
        "accuracy_1": 9,
        "accuracy_10": 10,
        "accuracy_100": 11,
    }
    short = curve(Proposal(ARCHS[9], fidelity=0.5), 0)
    assert short["accuracy_10"] == short["accuracy"] == 10
    assert "accuracy_100" not in short
    assert "accuracy_1" not in Tabular(problem, table=path)(Proposal(ARCHS[9]), 0)
    test = Tabular(problem, table=path, signal="x_test_100", curve=True)(Proposal(ARCHS[9]), 0)
    assert [k for k in test if k.startswith("accuracy_")] == ["accuracy_100"]
    noisy = Tabular(problem, table=path, curve=True, noise=1.0)(Proposal(ARCHS[9]), 3)
    assert len({noisy["accuracy_1"] - 9, noisy["accuracy_10"] - 10, noisy["accuracy"] - 11}) == 3


def test_noise(problem, path):
    exact, noisy = Tabular(problem, table=path), Tabular(problem, table=path, noise=0.5)
    whole = Proposal(ARCHS[20])
    errors = np.array([noisy(whole, seed)["accuracy"] - exact(whole, seed)["accuracy"] for seed in range(4000)])
    assert errors.mean() == pytest.approx(0, abs=0.03)
    assert errors.std() == pytest.approx(0.5, rel=0.05)
    assert (np.abs(errors) > 1).mean() == pytest.approx(0.0455, abs=0.015)  # two standard deviations
    assert noisy(whole, 3) == noisy(whole, 3)
    assert noisy(whole, 3)["x_test_100"] == exact(whole, 3)["x_test_100"]
    assert noisy.true(ARCHS[20]) == exact.true(ARCHS[20])


def test_a_table_in_memory(problem, path):
    table = Table.read(path, problem.space)
    one, two = (
        Tabular.of(problem, table, signal="x_test_100", noise=1.0),
        Tabular(problem, table=str(path), signal="x_test_100", noise=1.0),
    )
    assert one(Proposal(ARCHS[5]), 9) == two(Proposal(ARCHS[5]), 9)


def test_errors(problem, path):
    with pytest.raises(ConfigError, match="set table to a CSV file"):
        Tabular(problem)
    with pytest.raises(ConfigError, match="noise must not be negative"):
        Tabular(problem, table=path, noise=-1.0)
    with pytest.raises(ConfigError, match="no column 'x_valid_11'; did you mean"):
        Tabular(problem, table=path, signal="x_valid_11")
    with pytest.raises(ConfigError, match="no results on 'y'"):
        Tabular(problem, table=path, dataset="y")
    with pytest.raises(DataError, match="there is no table"):
        Tabular(problem, table="missing.csv")
