from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sartor.core import records
from sartor.core.errors import ConfigError
from sartor.core.records import Axis, Choice, Constraint, Estimate, Layer, LayerKey, Objective, Proposal, Trial


def test_records_need_neither_torch_nor_numpy() -> None:
    tree = ast.parse(Path(records.__file__).read_text(encoding="utf-8"))
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert modules == {"__future__", "collections.abc", "dataclasses", "typing", "sartor.core.errors"}


@pytest.mark.parametrize(
    "record",
    [
        Choice("a", (1,)),
        Proposal((0,)),
        Trial(0, (0,), 1.0, {}),
        Objective("a", "min"),
        Constraint("a", 1.0),
        Estimate(1.0, 0.9, 1.1),
    ],
)
def test_records_are_frozen(record: object) -> None:
    name = dataclasses.fields(record)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)


def test_trials_are_hashable_although_their_metrics_are_not() -> None:
    assert len({Trial(0, (0,), 1.0, {"a": 1.0}), Trial(0, (0,), 1.0, {"a": 1.0})}) == 1


def test_a_choice_without_options_or_with_duplicates_is_refused() -> None:
    with pytest.raises(ConfigError, match="choice 'width' has no options"):
        Choice("width", ())
    with pytest.raises(ConfigError, match=r"choice 'width' has duplicate options \(4, 8, 4\)"):
        Choice("width", (4, 8, 4))


def test_the_loss_is_lower_for_the_better_trial_and_infinite_for_a_failed_one() -> None:
    good, bad = Trial(0, (0,), 1.0, {"a": 0.9, "ms": 1.0}), Trial(1, (0,), 1.0, {"a": 0.1, "ms": 5.0})
    failed = Trial(2, (0,), 1.0, {}, "ValueError: no")
    for objective in (Objective("a", "max"), Objective("ms", "min")):
        assert objective.loss(good) < objective.loss(bad) < objective.loss(failed) == float("inf")
    assert Objective("a", "max").loss(good) == -0.9
    assert Objective("ms", "min").loss(good) == 1.0
    assert (good.ok, failed.ok) == (True, False)


def test_an_unknown_goal_is_refused() -> None:
    with pytest.raises(ConfigError, match="goal of 'a' must be 'min' or 'max', got 'maximise'"):
        Objective("a", "maximise")  # type: ignore[arg-type]


def test_levels_may_not_exceed_the_bound() -> None:
    assert Constraint("macs", 5.0, (5.0, 1.0)).levels == (5.0, 1.0)
    with pytest.raises(ConfigError, match=r"levels \(6\.0,\) of 'macs' must not exceed its bound 5\.0"):
        Constraint("macs", 5.0, (6.0,))


def test_an_axis_is_fixed_or_follows_its_choice() -> None:
    assert [Axis((3,)).at(a) for a in ((0, 1), (1, 0))] == [3, 3]
    assert [Axis((8, 16), 1).at(a) for a in ((0, 1), (1, 0))] == [16, 8]
    with pytest.raises(ConfigError, match="an axis that no choice sets has one size"):
        Axis((8, 16))


def layer(**changes: object) -> Layer:
    settings = {"name": "a", "kind": "conv", "in_size": (7, 9), "kernel": 3, "stride": 2, "bias": False}
    return Layer(**{**settings, "c_in": Axis((3,)), "c_out": Axis((8, 16), 0), **changes})  # type: ignore[arg-type]


def test_a_layer_s_key_has_the_channels_of_the_arch() -> None:
    assert layer().key((1,)) == LayerKey("conv", (7, 9), 3, 2, False, 3, 16)
    assert layer().key((0,)) == layer(name="other").sized(3, 8)


@given(st.integers(1, 300), st.integers(1, 4), st.integers(0, 3))
def test_the_output_size_is_that_of_a_padded_convolution(size: int, stride: int, half: int) -> None:
    kernel = 2 * half + 1
    conv = (size + 2 * half - kernel) // stride + 1
    assert LayerKey("conv", (size, 1), kernel, stride, False, 1, 1).out_size == (conv, 1)


def test_estimates_scale_and_become_plain_data() -> None:
    estimate = Estimate(2.0, 1.0, 4.0)
    assert estimate.scaled(0.5) == Estimate(1.0, 0.5, 2.0)
    assert estimate.as_dict() == {"value": 2.0, "low": 1.0, "high": 4.0}
