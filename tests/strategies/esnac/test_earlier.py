from __future__ import annotations

import json

import pytest

from sartor.core.errors import ConfigError
from sartor.strategies.esnac.earlier import earlier

from strategies.searching import problem  # isort: skip

PLACE = problem(3, 4)


def ended(folder, archs, *, place=PLACE, result="search.json", **changes):
    """A run folder as `sartor search` leaves it."""
    (folder / "search").mkdir(parents=True)
    choices = [{"name": c.name, "options": list(c.options)} for c in place.space.choices]
    (folder / result).write_text(json.dumps({"search": {"choices": choices}}))
    lines = [{"kind": "start", "index": 0}]
    for i, arch in enumerate(archs):
        record = {"index": i, "arch": arch, "fidelity": 1.0, "metrics": {"accuracy": i / 10}, "error": None}
        lines.append({"kind": "trial", "parent": None, **record, **changes})
    (folder / "search" / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_trials_of_several_searches(tmp_path):
    a = ended(tmp_path / "a", [[0, 0], [1, 2]])
    b = ended(tmp_path / "b", [[2, 3], [0, 1], [1, 2]], result="result.json")
    found = earlier(f"{a}, {b}", PLACE, 1.0)
    assert {t.arch: t.metrics["accuracy"] for t in found} == {(0, 0): 0, (1, 2): 0.2, (2, 3): 0, (0, 1): 0.1}
    assert earlier([str(a), str(b)], PLACE, 1.0) == found
    assert earlier("", PLACE, 1.0) == earlier([], PLACE, 1.0) == []


def test_what_was_taken_back_or_failed_is_left_out(tmp_path):
    folder = ended(tmp_path, [[0, 0], [1, 2]])
    with (folder / "search" / "journal.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "rewind", "to": 1}) + "\n")
        bad = {"index": 1, "arch": [2, 2], "fidelity": 1.0, "metrics": {}, "error": "ValueError: no", "parent": None}
        file.write(json.dumps({"kind": "trial", **bad}) + "\n")
    assert [t.arch for t in earlier(str(folder), PLACE, 1.0)] == [(0, 0)]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (problem(3, 4, 2), "searched another space: 3 choices, here are 2"),
        (problem(3, 5), r"searched another space: 'c1' is one of \[0, 1, 2, 3, 4\], here of \[0, 1, 2, 3\]"),
    ],
)
def test_another_space(tmp_path, other, message):
    with pytest.raises(ConfigError, match=message):
        earlier(str(ended(tmp_path / "a", [[0, 0]], place=other)), PLACE, 1.0)


def test_other_names(tmp_path):
    folder = ended(tmp_path, [[0, 0]])
    told = json.loads((folder / "search.json").read_text())
    told["search"]["choices"][1]["name"] = "width:fc"
    (folder / "search.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="another space: choice 1 is 'width:fc', here it is 'c1'"):
        earlier(str(folder), PLACE, 1.0)


def test_searches_that_teach_nothing(tmp_path):
    with pytest.raises(ConfigError, match="has no search that has ended"):
        earlier(str(tmp_path / "nowhere"), PLACE, 1.0)
    with pytest.raises(ConfigError, match=r"has no trials at fidelity 0\.5"):
        earlier(str(ended(tmp_path / "a", [[0, 0]])), PLACE, 0.5)
    with pytest.raises(ConfigError, match="have no accuracy, only mse"):
        earlier(str(ended(tmp_path / "b", [[0, 0]], metrics={"mse": 1.0})), PLACE, 1.0)
    broken = ended(tmp_path / "c", [[0, 0]])
    (broken / "search" / "journal.jsonl").write_text("words")
    with pytest.raises(ConfigError, match="is no journal of a search"):
        earlier(str(broken), PLACE, 1.0)
    (broken / "search.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no result of a search"):
        earlier(str(broken), PLACE, 1.0)
