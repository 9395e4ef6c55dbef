from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from operated import Operations
from sartor.core.contracts import Target
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.costs.lookup import Lookup
from sartor.jobs.measure.operators import Wish, measure_operators, space_of
from sartor.jobs.search import search
from sartor.latency.operator_table import OperatorTable
from sartor.spaces.tiny import Tiny
from small import settings

SPACE = Operations(blocks=3, channels=24, size=16)
KEYS = [o.key for o in SPACE.operators().all()]
QUICK = Wish(sessions=2, rounds=3)


class Plain(Target):
    """PyTorch as it is, without files.

    Args:
        name: Another name is another target.
    """

    def __init__(self, *, name: str = "plain") -> None:
        self.name, self.prepared = name, 0

    def prepare(self, module, example, folder):
        self.prepared += 1
        return Running(module)

    def load(self, artifact):
        raise NotImplementedError

    def describe(self):
        return {"runtime": self.name}


class Running:
    artifact = None

    def __init__(self, module):
        self.module = module

    @torch.no_grad()
    def __call__(self, x):
        return self.module(x)

    def bind(self, x):
        return lambda: self(x)


def test_every_operator_is_in_the_table(tmp_path: Path) -> None:
    seen: list[tuple[float, float, str]] = []
    found = measure_operators(SPACE, Plain(), tmp_path / "o.json", QUICK, show=lambda *args: seen.append(args))
    table = OperatorTable.read(tmp_path / "o.json")
    assert list(table.entries) == KEYS
    assert all(e.mean > 0 and e.var >= 0 for e in table.entries.values())
    assert table.entries[found["anchor"]].count == 2 * 3
    assert table.facts["target"] == {"runtime": "plain"}
    assert (found["operators"], found["check"], found["anchor"]) == (len(KEYS), None, "k3-16-2")
    assert found["anchor_ms"] == table.entries["k3-16-2"].mean
    assert {label for *_, label in seen} == {"preparing operators", "latency of operators"}
    assert seen[-1][0] == seen[-1][1]
    assert table.entries["k5-8-1"].mean > table.entries["k1-8-1"].mean
    assert Lookup(SPACE, table=tmp_path / "o.json")([(0, 0, 0)]).item() > 0


def test_the_error_of_the_sums_is_told_and_stored(tmp_path: Path) -> None:
    found = measure_operators(SPACE, Plain(), tmp_path / "o.yaml", Wish(sessions=2, rounds=3, check=4))
    check, sums = found["check"], Lookup(SPACE, table=tmp_path / "o.yaml")
    archs = [tuple(row["arch"]) for row in check["rows"]]
    assert len(set(archs)) == check["networks"] == 4
    assert sums(archs).tolist() == pytest.approx([row["predicted"] for row in check["rows"]], rel=1e-3)
    assert check["scale"] > 0
    assert OperatorTable.read(tmp_path / "o.yaml").facts["check"] == check


def test_what_was_visited_is_not_visited_again(tmp_path: Path) -> None:
    first, again, more = Plain(), Plain(), Plain()
    found = measure_operators(SPACE, first, tmp_path / "o.json", QUICK)
    content = (tmp_path / "o.json").read_bytes()
    assert first.prepared > len(KEYS)
    assert measure_operators(SPACE, again, tmp_path / "o.json", QUICK) == found
    assert again.prepared == 0
    assert (tmp_path / "o.json").read_bytes() == content
    visits = tmp_path / "o.visits.jsonl"
    lines = visits.read_text().splitlines()
    assert len(lines) == 1 + 2
    visits.write_text("\n".join(lines[:2]) + '\n{"kind": "vis')  # killed in the second sweep
    measure_operators(SPACE, more, tmp_path / "o.json", QUICK)
    assert [json.loads(line).get("sweep") for line in visits.read_text().splitlines()] == [None, 0, 1]
    measure_operators(SPACE, more, tmp_path / "o.json", Wish(sessions=3, rounds=3))
    assert OperatorTable.read(tmp_path / "o.json").entries[found["anchor"]].count == 3 * 3


def test_a_check_adds_to_what_is_there(tmp_path: Path) -> None:
    measure_operators(SPACE, Plain(), tmp_path / "o.json", QUICK)
    found = measure_operators(SPACE, Plain(), tmp_path / "o.json", Wish(sessions=1, rounds=3, check=2))
    assert found["check"]["networks"] == 2
    assert OperatorTable.read(tmp_path / "o.json").entries[found["anchor"]].count == 3 * 3


def test_mistakes_are_named(tmp_path: Path) -> None:
    measure_operators(SPACE, Plain(), tmp_path / "o.json", Wish(sessions=1, rounds=1))
    for space, target in ((SPACE, Plain(name="other")), (Operations(), Plain())):
        with pytest.raises(DataError, match="visits of another space or target; give --out another name"):
            measure_operators(space, target, tmp_path / "o.json", QUICK)
    with pytest.raises(ConfigError, match=r"a latency table is a .json or .yaml file, got .*o.csv"):
        measure_operators(SPACE, Plain(), tmp_path / "o.csv")
    with pytest.raises(CapabilityError, match="measure --operators needs Operated, which Tiny does not offer"):
        measure_operators(Tiny(), Plain(), tmp_path / "p.json")
    for wrong in ({"sessions": 0}, {"rounds": 0}, {"check": -1}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be at least"):
            Wish(**wrong)


def test_the_space_of_a_config_knows_the_data() -> None:
    space = space_of({"space": {"name": "operated:Operations", "blocks": 2}, "task": {"name": "digits", "size": 16}})
    assert isinstance(space, Operations)
    assert (len(space.choices), space.input_shape) == (2, (1, 16, 16))
    with pytest.raises(ConfigError, match=r"the config has no \[task\]"):
        space_of({"space": {"name": "tiny"}})


def test_a_search_in_operators_gets_its_latency_model_by_itself(tmp_path: Path) -> None:
    space = {"name": "operated:Operations", "blocks": 2, "channels": 24}
    measure_operators(space_of(settings(space=space)), Plain(), tmp_path / "o.json", Wish(sessions=1, rounds=3))
    config = settings(
        space=space,
        target={"name": "jobs.measure.test_operators:Plain"},
        budget={"latency_ms": "95%"},
        strategy={"name": "random_search", "trials": 2},
        latency_model={"networks": 9, "heldout": 3, "sweeps": 1, "rounds": 3, "table": str(tmp_path / "o.json")},
        training={"epochs": 1, "lr": 0.1},
    )
    found = search(config, tmp_path / "run", command="a test")
    model = found.latency_model
    assert (model.training_networks, model.heldout_networks) == (9, 3)
    assert model.lookup.networks == 3
    assert found.found
    (tmp_path / "o.json").unlink()
