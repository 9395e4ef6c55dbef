from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from operated import Operations, device
from sartor import archs
from sartor.core.errors import DataError, MissingExtraError
from sartor.latency.operator_table import Entry, OperatorTable

SPACE = Operations()
KEYS = [o.key for o in SPACE.operators().all()]
TABLE = OperatorTable({k: Entry(device(k), 0.01, 7) for k in KEYS}, {"target": {"runtime": "made up"}, "sessions": 3})


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_a_table_survives_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"operators.{suffix}"
    TABLE.write(path)
    found = OperatorTable.read(path)
    assert found.entries == TABLE.entries
    assert found.facts == TABLE.facts
    assert found.name == str(path)


def test_the_published_format_is_read_and_only_the_mean_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text("Conv-input:8x8x3-output:4x4x8:\n  count: 982\n  mean: 4.25\n  var: 0.5\nLogits:\n  mean: 1\n")
    found = OperatorTable.read(path)
    assert found.entries == {"Conv-input:8x8x3-output:4x4x8": Entry(4.25, 0.5, 982), "Logits": Entry(1.0)}
    assert not found.facts


def test_a_table_of_sartor_reads_as_the_published_format_does(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "operators.json")
    content = json.loads((tmp_path / "operators.json").read_text())
    assert all(content[key]["mean"] == device(key) for key in KEYS)


def test_the_tables_are_the_sum_over_the_operators_that_run() -> None:
    tables = TABLE.tables(SPACE)
    operators = SPACE.operators()
    assert not tables.pairwise
    for arch in archs.enumerate_all(SPACE):
        run = [*operators.fixed, *(o for options, a in zip(operators.options, arch, strict=True) for o in options[a])]
        assert tables.cost(arch) == pytest.approx(sum(device(o.key) for o in run), rel=1e-12)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["stem-8"], "no latency of 'stem-8', which every network runs; measure it: sartor measure --operators"),
        (["k5-8-2"], "no latency of 'k5-8-2', which option 'k5' of choice 'block0' runs; measure"),
        (["k3-4-1", "k1-4-1"], r"'k1-4-1', which option 'k1' of choice 'block1' runs \(and 1 more keys\); measure"),
    ],
)
def test_a_missing_key_is_named_with_who_needs_it(missing: list[str], message: str) -> None:
    table = OperatorTable({k: e for k, e in TABLE.entries.items() if k not in missing})
    with pytest.raises(DataError, match=message):
        table.tables(SPACE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", "[1]", "must map keys of operators"),
        ("a.json", "{}", "must map keys of operators"),
        ("a.yaml", "a: [", "is not YAML"),
        ("a.yaml", "a: 5", "entry of 'a' is no latency: 5"),
        ("a.yaml", "a: {var: 5}", "entry of 'a' is no latency"),
        ("a.yaml", "a: {mean: fast}", "entry of 'a' is no latency"),
        ("a.yaml", "a: {mean: -1}", "entry of 'a' is no latency: -1.0; give it a mean"),
        ("a.yaml", "a: {mean: .nan}", "entry of 'a' is no latency: nan"),
        ("a.json", '{"sartor_operators": {"version": 2}}', "of another version, this one reads 1; upgrade"),
        ("a.json", '{"sartor_operators": 5}', "of another version"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        OperatorTable.read(tmp_path / name)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no latency table .*; measure it: sartor measure --operators"):
        OperatorTable.read(tmp_path / "none.json")


def test_yaml_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "published.yaml").write_text("Logits:\n  mean: 1\n")
    TABLE.write(tmp_path / "operators.json")
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert OperatorTable.read(tmp_path / "operators.json").entries == TABLE.entries
    with pytest.raises(
        MissingExtraError, match=r"published.yaml is YAML, which needs PyYAML: pip install 'sartor.yaml.'"
    ):
        OperatorTable.read(tmp_path / "published.yaml")
