"""Every strategy keeps every promise; a new module in sartor.strategies is picked up by itself."""

from __future__ import annotations

import pytest

from contracts import checks
from sartor.core import plugins

NAMES = plugins.names("strategies")


@pytest.fixture(params=NAMES, scope="module")
def cls(request):
    return plugins.load("strategies", request.param)


@pytest.fixture(scope="module")
def whole(cls, tmp_path_factory):
    """The folder of an uninterrupted search."""
    folder = tmp_path_factory.mktemp(cls.__name__)
    checks.search(checks.fresh(cls), folder)
    return folder


def test_the_list_is_not_short():
    assert {"aows", "autoslim", "ows", "random_search", "uniform_width"} <= set(NAMES)


def test_is_final_with_keyword_settings(cls):
    checks.is_final_with_keyword_settings(cls)


def test_documents_every_setting(cls):
    checks.documents_every_setting(cls)


def test_finishes_with_trials(cls, tmp_path):
    checks.finishes_with_trials(cls, tmp_path)


def test_proposes_only_archs_of_the_space(cls, whole):
    checks.proposes_only_archs_of_the_space(cls, whole)


def test_stays_within_limits(cls, whole):
    if not cls.within_limits:
        pytest.skip(f"{cls.__name__} walks in from outside the limits")
    checks.stays_within_limits(cls, whole)


def test_says_whether_it_shares_weights(cls, whole):
    checks.says_whether_it_shares_weights(cls, whole)


def test_same_seed_same_run(cls, whole, tmp_path):
    checks.same_seed_same_run(cls, whole, tmp_path)


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 11])
def test_killed_in_a_trial_resumes_exactly(cls, whole, tmp_path, calls):
    checks.killed_in_a_trial_resumes_exactly(cls, whole, tmp_path, calls)


@pytest.mark.parametrize("calls", [0, 2, 4, 6, 9, 13])
def test_killed_in_a_step_resumes_exactly(cls, whole, tmp_path, calls):
    checks.killed_in_a_step_resumes_exactly(cls, whole, tmp_path, calls)


@pytest.mark.parametrize("first", [1, 5, 7])
def test_a_larger_budget_goes_on_exactly(cls, whole, tmp_path, first):
    checks.larger_budget_goes_on_exactly(cls, whole, tmp_path, first)


def test_saved_state_is_complete(cls, whole, tmp_path):
    checks.saved_state_is_complete(cls, whole, tmp_path)


def test_killed_without_a_word_resumes_exactly(cls, whole, tmp_path):
    checks.killed_without_a_word_resumes_exactly(cls, whole, tmp_path)


def test_a_checkpoint_does_not_grow_with_the_trials(cls, tmp_path):
    checks.checkpoint_does_not_grow(cls, tmp_path)


def test_a_long_search_goes_on_exactly_after_every_step(cls, tmp_path):
    checks.long_search_goes_on_exactly(cls, tmp_path)


def test_survives_failed_trials(cls, tmp_path):
    checks.survives_failed_trials(cls, tmp_path)


def test_leaves_global_generators_alone(cls, tmp_path):
    checks.leaves_global_generators_alone(cls, tmp_path)


def test_solves_within_limits(cls, tmp_path):
    checks.solves_within_limits(cls, tmp_path)


def test_refuses_limits_below_the_floor(cls, tmp_path):
    checks.refuses_limits_below_the_floor(cls, tmp_path)


def test_refuses_a_problem_below_the_floor(cls, tmp_path):
    checks.refuses_a_problem_below_the_floor(cls, tmp_path)
