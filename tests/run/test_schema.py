from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sartor.core.errors import StateError
from sartor.core.records import Choice, Scalar
from sartor.run.comparison import Comparison
from sartor.run.result import Result, Searched
from sartor.run.schema import _documented, _records, decode, encode, load, page


@dataclass(frozen=True)
class Leaf:
    """A leaf.

    Attributes:
        value: What it is worth, which takes
            two lines to say.
        label: Its name.
    """

    value: float
    label: str | None = None


@dataclass(frozen=True)
class Tree:
    """A tree of everything that records are made of.

    More of it.

    Attributes:
        leaves: By name.
        row: One after another.
        grid: Numbers.
        kind: Which.
        first: Of the leaves.
        plain: Anything.
        settings: As in a config.
        version: Of the schema.
    """

    leaves: Mapping[str, Leaf] = field(default_factory=dict)
    row: tuple[Leaf, ...] = ()
    grid: tuple[tuple[int, ...], ...] = ()
    kind: Literal["oak", "pine"] = "oak"
    first: Leaf | None = None
    plain: tuple[Scalar, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[[], int] | None = field(default=None, compare=False, repr=False)
    version: int = 7


def there_and_back(value: Any) -> Any:
    return decode(type(value), json.loads(json.dumps(encode(value))), "a file")


leaves = st.builds(Leaf, st.floats(allow_nan=False, allow_infinity=False), st.none() | st.text(max_size=5))
scalars = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)


@given(
    st.builds(
        Tree,
        leaves=st.dictionaries(st.text(max_size=5), leaves, max_size=3),
        row=st.lists(leaves, max_size=3).map(tuple),
        grid=st.lists(st.lists(st.integers(), max_size=3).map(tuple), max_size=3).map(tuple),
        kind=st.sampled_from(["oak", "pine"]),
        first=st.none() | leaves,
        plain=st.lists(scalars, max_size=4).map(tuple),
        settings=st.dictionaries(st.text(max_size=5), scalars | st.lists(scalars, max_size=2), max_size=3),
    )
)
def test_nested_records_come_back_as_they_were(tree: Tree) -> None:
    back = there_and_back(tree)
    assert back == tree
    assert [type(v) for v in back.plain] == [type(v) for v in tree.plain]


@pytest.mark.parametrize("options", [(True, False), (0, 1), (0.0, 1.0), ("0", "1"), (True, 2, 2.5, "2")])
def test_options_keep_their_exact_type(options: tuple[Scalar, ...]) -> None:
    back = there_and_back(Choice("x", options, ordered=True))
    assert list(map(repr, back.options)) == list(map(repr, options))  # True equals 1, and 1 equals 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_has_no_word_for_come_back(value: float) -> None:
    text = json.dumps(encode([Leaf(value)]), allow_nan=False)
    (back,) = decode(list[Leaf], json.loads(text), "a file")
    assert repr(back.value) == repr(value)


def test_what_cannot_be_written_is_left_out() -> None:
    tree = Tree(make=lambda: 3)
    assert "make" not in encode(tree)
    assert there_and_back(tree).make is None
    assert encode({"trees": [tree], 3: (1, 2)}) == {"trees": [encode(tree)], "3": [1, 2]}


def test_mappings_and_lists_of_records_are_read_too() -> None:
    assert decode(dict[str, Leaf], {"a": {"value": 1}}, "a stage") == {"a": Leaf(1.0)}
    assert decode(list[Leaf], [{"value": 1}], "a stage") == [Leaf(1.0)]


def test_unknown_fields_are_ignored() -> None:
    assert decode(Leaf, {"value": 1, "from": "a later version", "more": {"x": [1]}}, "a file") == Leaf(1.0)


@pytest.mark.parametrize(
    ("data", "path", "rule"),
    [
        ({"row": [{"value": 1}, {"label": "x"}]}, "row[1].value", "field required"),
        ({"leaves": {"a": {"value": "much"}}}, "leaves.a.value", "should be a valid number"),
        ({"leaves": {"a": {"value": None}}}, "leaves.a.value", "should be a valid number"),
        ({"grid": [[1, 2], [3, "x"]]}, "grid[1][1]", "should be a valid integer"),
        ({"grid": [1]}, "grid[0]", "should be a valid tuple"),
        ({"kind": "elm"}, "kind", "should be 'oak' or 'pine'"),
        ({"first": 3}, "first", "should be a dictionary or an instance of leaf"),
        ({"plain": [1, None]}, "plain[1]", "valid boolean or input should be a valid integer or input should be"),
        ({"plain": [1, [2]]}, "plain[1]", "valid boolean or input should be a valid integer or input should be"),
        ({"settings": 5}, "settings", "should be a valid dictionary"),
        ([], "its content", "should be a dictionary"),
    ],
)
def test_errors_name_the_file_the_field_and_the_rule(data: Any, path: str, rule: str) -> None:
    with pytest.raises(StateError) as error:
        decode(Tree, data, "runs/a/result.json")
    said = str(error.value)
    assert said.startswith(f"runs/a/result.json: {path} is not as it should be (")
    assert rule in said
    assert said.count("\n") == 0


def test_a_record_that_refuses_its_values_says_so_with_the_place() -> None:
    with pytest.raises(StateError, match=r"^a file: \[1\] is not as it should be .*choice 'x' has no options"):
        decode(tuple[Choice, ...], [{"name": "y", "options": [1]}, {"name": "x", "options": []}], "a file")


def test_a_file_is_read_if_it_is_of_this_version(tmp_path) -> None:
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(encode(Tree(row=(Leaf(1.0),)))))
    assert load(Tree, path, 7, "plant again") == Tree(row=(Leaf(1.0),))
    for text, words in (
        ("{", r"tree\.json is not JSON"),
        ("[1]", r"tree\.json must hold a JSON object, not a list; plant again"),
        ("null", "not a NoneType; plant again"),
        ("{}", r"tree\.json was written by sartor 0\.1 \(schema 1, this is 7\); plant again"),
        ('{"version": 8}', r"was written by another version of sartor \(schema 8, this is 7\); plant again"),
        ('{"version": "7"}', "was written by another version"),
        ('{"version": 7, "row": [{}]}', r"tree\.json: row\[0\]\.value is not as it should be"),
    ):
        path.write_text(text)
        with pytest.raises(StateError, match=words):
            load(Tree, path, 7, "plant again")
    path.unlink()
    with pytest.raises(StateError, match="does not exist"):
        load(Tree, path, 7, "plant again")


def test_the_page_lists_every_field_with_its_words() -> None:
    text = page("Trees", "What they are.", [("tree.json", Tree, "All of it."), ("leaf.json", Leaf, "A part.")])
    assert text.startswith(
        "# Trees\n\nWhat they are.\n\n## tree.json\n\nAll of it.\n\n### Tree\n\nA tree of everything"
    )
    assert "More of it." in text
    for line in (
        "| `leaves` | object, name to [Leaf](#leaf) | By name. |",
        "| `row` | list of [Leaf](#leaf) | One after another. |",
        "| `grid` | list of lists of whole numbers | Numbers. |",
        "| `kind` | `oak` or `pine` | Which. |",
        "| `first` | [Leaf](#leaf) or null | Of the leaves. |",
        "| `plain` | list of true or false or numbers or texts | Anything. |",
        "| `settings` | object, name to anything | As in a config. |",
        "| `version` | whole number | Of the schema. |",
        "| `value` | number | What it is worth, which takes two lines to say. |",
        "| `label` | text or null | Its name. |",
    ):
        assert f"\n{line}\n" in text
    assert "make" not in text, "what is not written is not shown"
    assert text.count("### Leaf") == 1, "what two files are made of is explained once"
    assert text.endswith("## leaf.json\n\nA part.\n")


RECORDS = list(dict.fromkeys(r for kind in (Result, Searched, Comparison) for r in _records(kind)))


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
def test_every_field_of_every_record_has_a_line(record: type) -> None:
    about, attributes = _documented(record)
    shown = [f.name for f in dataclasses.fields(record) if f.repr]
    assert about
    assert [name for name in shown if not attributes.get(name)] == []
    assert not any("|" in words for words in (about, *attributes.values())), "a bar would end a cell of the table"
    assert set(attributes) <= {f.name for f in dataclasses.fields(record)}, "a line for what is not there"


def test_there_are_many_records_each_with_a_name_of_its_own() -> None:
    names = [r.__name__ for r in RECORDS]
    assert len(names) >= 25
    assert len(set(names)) == len(names)
