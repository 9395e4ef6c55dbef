from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from run.toys import Draws, Score, Sum, Toy, Walk, problem, same
from sartor.core.contracts import AskTell, CostModel, Evaluator, Problem, Space, Strategy, Supernet, Target, Task
from sartor.core.errors import CapabilityError, ConfigError, LeakError, StateError
from sartor.core.metrics import Metric
from sartor.core.records import Choice, Constraint, Objective
from sartor.run.journal import MemoryJournal
from sartor.run.lab import JournaledLab


@pytest.mark.parametrize("contract", [Space, CostModel, Evaluator, Target, Strategy, AskTell, Supernet])
def test_contracts_are_abstract(contract: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        contract()


def test_a_space_s_reference_is_its_last_options_and_every_arch_its_own_representative() -> None:
    assert Toy().reference == (3, 3, 3)
    assert Toy().canonical((0, 1, 2)) == (0, 1, 2)


def test_a_space_need_not_say_what_enters_it_and_names_networks_by_their_options() -> None:
    assert Toy().input_shape is None
    assert Toy().key((0, 1, 3)) == "1:2:4"


def test_what_is_not_said_costs_and_shares_nothing() -> None:
    assert Score().epochs(1.0) == 0.0
    assert not Draws(problem(), 0).shares_weights


def task() -> Task:
    def batches(*_: object) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(torch.zeros(1, 1), torch.zeros(1))]

    return Task(
        train=batches,
        valid=batches,
        test=batches,
        loss=nn.functional.cross_entropy,
        distance=nn.functional.mse_loss,
        metrics=(Metric("accuracy", "max"), Metric("error", "min")),
        example=torch.zeros(1, 1),
        fingerprint="abc",
    )


def test_the_first_metric_decides_and_names_are_different() -> None:
    assert task().metric.name == "accuracy"
    assert task().named("error") == Metric("error", "min")
    assert task().named("other") is None
    for metrics in ((), (Metric("a", "max"), Metric("a", "min"))):
        with pytest.raises(ConfigError, match="at least one metric, each with a name of its own"):
            replace(task(), metrics=metrics)


def test_a_sealed_task_has_everything_but_the_test_split() -> None:
    sealed = task().sealed()
    with pytest.raises(LeakError, match="a search may not touch the test split"):
        sealed.test()
    assert len(list(sealed.valid())) == 1
    assert len(list(sealed.train(torch.Generator()))) == 1
    assert sealed.fingerprint == "abc"
    assert len(list(task().test())) == 1


def test_a_problem_gives_costs_limits_and_levels_or_says_what_is_missing() -> None:
    p = Problem(
        Toy(),
        (Objective("accuracy", "max"),),
        (Constraint("macs", 9.0, (4.0, 6.0, 9.0)), Constraint("latency_ms", 2.0)),
        {"macs": Sum()},
    )
    assert isinstance(p.cost("macs"), Sum)
    assert p.limit("macs") == 9.0
    assert p.levels("macs") == (9.0, 6.0, 4.0)
    assert p.levels("latency_ms") == (2.0,)
    assert p.limits() == {"macs": 9.0, "latency_ms": 2.0}
    with pytest.raises(CapabilityError, match=r"no cost model for 'params'; the problem has \['macs'\]"):
        p.cost("params")
    with pytest.raises(CapabilityError, match="no constraint on 'params'; add one"):
        p.limit("params")


def test_feasible_is_what_meets_every_bound_that_a_cost_can_check() -> None:
    p = Problem(Toy(), (), (Constraint("macs", 4.0), Constraint("accuracy_drop", 0.0)), {"macs": Sum()})
    assert [p.feasible(a) for a in ((1, 1, 1), (2, 1, 1), (2, 2, 1))] == [True, True, False]
    assert Problem(Toy(), (), (Constraint("macs", 0.0),)).feasible((3, 3, 3))


def drive(strategy: Strategy, journal: MemoryJournal, steps: int, resume_at: int = 0) -> int:
    lab = JournaledLab(problem(), Score(), journal, 0, resume_at=resume_at)
    for _ in range(steps):
        strategy.step(lab)
    return lab.count


@pytest.mark.parametrize("kind", [Draws, Walk])
def test_a_strategy_rebuilt_from_its_state_goes_on_exactly(kind: type[Draws] | type[Walk]) -> None:
    whole, journal = kind(problem(), 0), MemoryJournal()
    drive(whole, journal, 3)
    half, other = kind(problem(), 0), MemoryJournal()
    count = drive(half, other, 1)
    rebuilt = kind(problem(), 99)
    rebuilt.load_state_dict(half.state_dict())
    drive(rebuilt, other, 2, resume_at=count)
    assert same(rebuilt.state_dict(), whole.state_dict())


def test_one_state_can_be_loaded_twice() -> None:
    strategy = Walk(problem(), 0)
    drive(strategy, MemoryJournal(), 1)
    state = strategy.state_dict()
    ends = []
    for _ in range(2):
        rebuilt = Walk(problem(), 1)
        rebuilt.load_state_dict(state)
        drive(rebuilt, MemoryJournal(), 2)
        ends.append(rebuilt.state_dict())
    assert same(*ends)


def test_a_state_with_other_names_is_refused() -> None:
    with pytest.raises(StateError, match=r"state of Draws does not fit: missing \['told'\], unexpected \['x'\]"):
        Draws(problem(), 0).load_state_dict({"rng": {}, "x": 1})


def test_ask_tell_ends_with_an_empty_ask_and_is_not_told_then() -> None:
    strategy = Draws(problem(), 0, batch=3, trials=3)
    lab = JournaledLab(problem(), Score(), MemoryJournal(), 0)
    assert strategy.step(lab)
    assert not strategy.step(lab)
    assert [t.index for t in strategy.told] == [0, 1, 2]


class Talkative(Draws):
    """Says how many it knew when it was asked."""

    def notes(self):
        return {"known": len(self.told)} if self.told else {}


def test_what_an_ask_tell_strategy_has_to_say_is_logged_once_per_step() -> None:
    strategy, lab = Talkative(problem(), 0, batch=3, trials=7), JournaledLab(problem(), Score(), MemoryJournal(), 0)
    while strategy.step(lab):
        pass
    assert lab.pending == [{"known": 3.0}, {"known": 6.0}]


def test_a_choice_of_the_space_is_a_record() -> None:
    assert all(isinstance(c, Choice) for c in Toy.choices)
