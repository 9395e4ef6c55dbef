from itertools import islice

import numpy as np
import pytest

from latency.toy import Toy
from operated import Operations
from sartor import archs
from sartor.core.errors import ConfigError
from sartor.core.rng import numpy_rng
from sartor.latency.design import BLOCK, Design
from sartor.latency.models import Samples, fit_with, nrmse
from sartor.latency.operators import design_of
from sartor.latency.plan import Kind as PlanKind
from sartor.latency.plan import _options, coverage, heldout, plan
from sartor.spaces.mobilenet_v1 import MobilenetV1
from sartor.spaces.tiny import Tiny

KINDS: tuple[PlanKind, ...] = ("uniform", "coverage", "optimal")


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_distinct_repeatable_and_begins_with_the_landmarks(kind: PlanKind) -> None:
    space = Toy()
    first, second = (plan(space, 20, numpy_rng(3, "plan"), kind) for _ in range(2))
    assert first == second
    assert len(set(first)) == 20
    assert {space.reference, archs.smallest(space), archs.largest(space)} <= set(first[:3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_that_is_exhausted_ends_the_plan(kind: PlanKind) -> None:
    space = Toy((8, 16))
    assert sorted(plan(space, 50, numpy_rng(0, "plan"), kind)) == sorted(archs.enumerate_all(space))


def test_coverage_sees_every_entry_far_sooner_than_uniform_draws() -> None:
    space = Toy()
    design = Design(space)
    assert coverage(design, plan(space, 45, numpy_rng(0, "plan"), "coverage")) >= 1
    for repeat in range(5):
        assert coverage(design, plan(space, 90, numpy_rng(repeat, "plan"), "uniform")) == 0


@pytest.mark.slow
def test_coverage_of_mobilenet_v1() -> None:
    space = MobilenetV1(size=64)
    design, rng = Design(space), numpy_rng(0, "plan")
    assert coverage(design, plan(space, 260, rng, "coverage")) >= 1
    assert coverage(design, plan(space, 1000, rng, "uniform")) == 0


def test_an_optimal_plan_predicts_random_networks_better_than_uniform_draws() -> None:
    space = Toy()
    design = Design(space)
    rng = numpy_rng(0, "truth")
    everyone = list(archs.enumerate_all(space))
    everything, physical = design.matrix(everyone), design.physical()

    def error(kind: PlanKind, repeat: int) -> float:
        chosen = design.matrix(plan(space, 16, numpy_rng(repeat, "plan"), kind))
        truth = physical @ numpy_rng(repeat, "factors").exponential(size=physical.shape[1])
        noise = np.exp(0.02 * rng.standard_normal(chosen.shape[0]))
        model = fit_with(
            design, Samples(chosen, chosen @ truth * noise, np.full(len(noise), 0.02)), "physical", {"block": BLOCK}
        )
        return nrmse(model.predict(everything), everything @ truth)

    optimal, uniform = (np.mean([error(kind, r) for r in range(4)]) for kind in ("optimal", "uniform"))
    assert optimal < uniform


def test_heldout_networks_are_new() -> None:
    space = Toy()
    taken = plan(space, 30, numpy_rng(0, "plan"), "uniform")
    held = heldout(space, 40, numpy_rng(0, "held"), taken)
    assert len(set(held)) == 40
    assert not set(held) & set(taken)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="n >= 1"):
        plan(Toy(), 0, numpy_rng(0, "plan"))
    with pytest.raises(ConfigError, match="kind"):
        plan(Toy(), 5, numpy_rng(0, "plan"), "clever")  # type: ignore[arg-type]


def test_networks_with_whole_vectors_of_channels_are_among_the_planned_ones() -> None:
    space = Tiny(widths=range(3, 17))
    even = [a for a in plan(space, 20, numpy_rng(0, "even")) if all(c.options[i] % 8 == 0 for c, i in pairs(space, a))]
    assert len(even) >= 3  # of 343 random networks, one


def pairs(space, arch):
    return zip(space.choices, arch, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_for_a_space_of_operators_has_every_option_of_every_choice(kind: PlanKind) -> None:
    space = Operations(blocks=8)
    found = plan(space, 3 + 5, numpy_rng(0, "plan"), kind)
    assert found[0] == space.reference
    assert [set(options) for options in zip(*found, strict=True)] == [set(range(len(c.options))) for c in space.choices]
    more = plan(space, 40, numpy_rng(0, "plan"), kind)
    assert len(set(more)) == 40
    assert coverage(design_of(space, "a test"), more) >= 3


class Sorted(Operations):
    """Skips come last: no canonical arch has some options."""

    def canonical(self, arch):
        first, *rest = arch
        return (first, *sorted(rest, key=lambda option: option == 0))


@pytest.mark.parametrize("kind", KINDS)
def test_every_operator_is_planned_though_some_options_are_not_canonical(kind: PlanKind) -> None:
    space = Sorted(blocks=6)
    found = plan(space, 3 + 5, numpy_rng(0, "plan"), kind)
    assert all(space.canonical(arch) == arch for arch in found)
    assert coverage(design_of(space, "a test"), found) >= 1
    asked = list(islice(_options(space, numpy_rng(1, "plan"), [space.reference]), 50))
    assert len(set(asked)) > 40, "an option that no canonical arch has is not asked for again and again"
