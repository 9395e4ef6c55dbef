from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from report.test_compare import ACCURACY, ERROR, by, found
from sartor.core.errors import StateError
from sartor.run.comparison import Tried, Use, read, write

COMPARISON = found()


def test_a_comparison_comes_back_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, COMPARISON)
    assert [p.name for p in tmp_path.iterdir()] == ["compare.json"]
    assert read(tmp_path) == COMPARISON
    bare = replace(COMPARISON, corner=None, given=None, spent=None, yardstick=None, notes=("a",), folders=("b", "c"))
    write(tmp_path, bare)
    assert read(tmp_path) == bare
    assert json.loads((tmp_path / "compare.json").read_text())["version"] == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"strategies": {}}', r"was written by sartor 0\.1 \(schema 1, this is 2\); run the comparison again"),
        ('{"version": 3}', r"was written by another version of sartor \(schema 3, this is 2\); run the comparison"),
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object, not a list; run the comparison again"),
        ('{"version": 2}', "title is not as it should be .field required.; restore the file"),
    ],
)
def test_what_is_no_comparison_of_this_version_is_one_clear_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "compare.json").write_text(text)
    with pytest.raises(StateError, match=words) as error:
        read(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "compare.json"))
    assert "\n" not in str(error.value)


def test_a_field_deep_inside_is_named(tmp_path: Path) -> None:
    write(tmp_path, COMPARISON)
    data = json.loads((tmp_path / "compare.json").read_text())
    data["contestants"]["net"]["answers"][1]["used"]["epochs"] = "many"
    (tmp_path / "compare.json").write_text(json.dumps(data))
    with pytest.raises(StateError, match=r"contestants\.net\.answers\[1\]\.used\.epochs is not as it should be"):
        read(tmp_path)


def test_the_best_mean_comes_first_and_who_has_none_last() -> None:
    rows = dict(COMPARISON.contestants)
    rows = {"none": replace(rows["net"], tested=replace(rows["net"].tested, mean=None)), **rows}
    assert [n for n, _ in replace(COMPARISON, contestants=rows).ranked] == ["good<b>", "net", "random_search", "none"]
    turned = replace(COMPARISON, contestants=rows, metric=ERROR)
    assert [n for n, _ in turned.ranked] == ["random_search", "net", "good<b>", "none"]
    assert [n for n, _ in by(ERROR, -1).ranked] == [n for n, _ in by(ACCURACY, 1).ranked]


def test_the_cost_is_the_first_with_a_bound() -> None:
    assert replace(COMPARISON, budget={"macs": 1.0, "latency_ms": 2.0}).cost == "macs"


def test_what_was_used_goes_by_its_unit() -> None:
    assert [Use(3, 4.5).of(u) for u in ("trials", "epochs", "seconds")] == [3, 4.5, None]
    tried = Tried(2, 9.0, None, 0.5, 0.8, 1.0, inside=True)
    assert [tried.of(u) for u in ("trials", "epochs", "seconds", "best")] == [2.0, 9.0, None, None]
