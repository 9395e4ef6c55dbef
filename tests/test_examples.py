"""Every example runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_none_is_forgotten():
    assert {p.stem for p in EXAMPLES.glob("*.py")} == {"fit_from_python", "networks", "networks_other", "solve_budgets"}


def test_fit_from_python(tmp_path):
    fit = load("fit_from_python").main(tmp_path / "run")
    assert fit.verdict == "PASS"
    (point,) = fit.result.points
    assert point.winner.macs <= point.budget["macs"]
    assert point.winner.params <= point.budget["params"]


def test_solve_budgets():
    shares = load("solve_budgets").main()
    assert 0 < shares[0] < shares[1] < shares[2] < 1


def test_networks():
    networks = load("networks")
    assert networks.sr_x2()(torch.rand(1, 3, 8, 12)).shape == (1, 3, 16, 24)
    assert networks.sr_x3()(torch.rand(1, 3, 8, 12)).shape == (1, 3, 24, 36)
    assert networks.camvid()(torch.rand(2, 3, 24, 32)).shape == (2, 11, 24, 32)
    metres = networks.nyu_depth()(torch.rand(2, 3, 32, 48))
    assert metres.shape == (2, 1, 32, 48)
    assert (metres > 0).all()
