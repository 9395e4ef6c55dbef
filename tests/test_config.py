from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import pytest

from run.toys import Toy
from sartor import config
from sartor.core import plugins
from sartor.core.contracts import Problem
from sartor.core.errors import ConfigError
from sartor.run.runner import Limits


class Part:
    """Takes a setting of every type that plug-ins use."""

    def __init__(
        self,
        problem: object = None,
        *,
        epochs: int = 1,
        rate: float = 0.1,
        nesterov: bool = False,
        mode: Literal["min", "max"] = "min",
        steps: Literal[1, 2] = 1,
        limit: int | None = None,
        width: int | str = 1,
        widths: tuple[int, ...] = (),
        size: tuple[int, int] = (1, 1),
        pairs: tuple[tuple[int, float], ...] = (),
        maybe: tuple[int, ...] | None = None,
        grid: tuple[tuple[int, ...], ...] | None = None,
        names: Sequence[str] = (),
        items: list[int] | None = None,
        either: float | tuple[float, ...] = 0.0,
        root: Path = Path(),
        place: Path | None = None,
        table: Mapping[str, Any] | None = None,
        bare: tuple = (),  # type: ignore[type-arg]
        anything: Any = None,
    ) -> None:
        self.settings = {k: v for k, v in locals().items() if k != "self"}


@pytest.mark.parametrize(
    ("key", "value", "got"),
    [
        ("epochs", 3, 3),
        ("rate", 1, 1),
        ("rate", 0.5, 0.5),
        ("nesterov", True, True),
        ("mode", "max", "max"),
        ("limit", 3, 3),
        ("limit", None, None),
        ("width", "50%", "50%"),
        ("widths", [1, 2], (1, 2)),
        ("widths", (1, 2), (1, 2)),
        ("widths", [], ()),
        ("size", [3, 4], (3, 4)),
        ("pairs", [[1, 0.5], [2, 1]], ((1, 0.5), (2, 1))),
        ("maybe", [1, 2], (1, 2)),
        ("maybe", None, None),
        ("grid", [[1], [2, 3]], ((1,), (2, 3))),
        ("names", ["a", "b"], ["a", "b"]),
        ("items", [1], [1]),
        ("either", 0.5, 0.5),
        ("either", [0.5, 1], (0.5, 1)),
        ("root", "photos", Path("photos")),
        ("place", "photos", Path("photos")),
        ("place", Path("photos"), Path("photos")),
        ("table", {"a": [1]}, {"a": [1]}),
        ("bare", [1, "a"], (1, "a")),
        ("anything", [1, [2]], [1, [2]]),
    ],
)
def test_values_of_the_right_type_arrive_converted(key: str, value: object, got: object) -> None:
    settings = config.call(Part, {key: value}).settings
    assert settings[key] == got
    assert type(settings[key]) is type(got)


def test_nested_lists_arrive_as_hashable_tuples() -> None:
    assert hash(config.call(Part, {"grid": [[1], [2, 3]]}).settings["grid"])
    assert hash(config.call(Part, {"pairs": [[1, 0.5]]}).settings["pairs"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epochs", 1.0, "must be a whole number, got 1.0"),
        ("epochs", True, "must be a whole number, got True"),
        ("epochs", "3", "must be a whole number, got '3'"),
        ("rate", "fast", "must be a number, got 'fast'"),
        ("rate", False, "must be a number, got False"),
        ("nesterov", 1, "must be true or false, got 1"),
        ("mode", "mean", "must be one of 'min', 'max', got 'mean'"),
        ("steps", True, "must be one of 1, 2, got True"),
        ("steps", 1.0, "must be one of 1, 2, got 1.0"),
        ("limit", "x", "must be a whole number, got 'x'"),
        ("width", 1.5, "must be a whole number or a string, got 1.5"),
        ("widths", 4, "must be a list, each item a whole number, got 4"),
        ("widths", [1, 0.5], "must be a list, each item a whole number"),
        ("widths", "12", "must be a list"),
        ("size", [1, 2, 3], "must be a list of 2: a whole number, a whole number"),
        ("size", [1], "must be a list of 2"),
        ("pairs", [[1]], "must be a list, each item a list of 2: a whole number, a number"),
        ("grid", [1], "must be a list, each item a list"),
        ("names", "abc", "must be a list, each item a string"),
        ("either", "x", "must be a number or a list"),
        ("root", 3, "must be a path, got 3"),
        ("table", [1], "must be "),
        ("bare", 1, "must be a list, got 1"),
    ],
)
def test_values_of_the_wrong_type_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.call(Part, {key: value})
    assert f"Part.{key} {message}" in str(error.value)


def test_positional_arguments_are_handed_on_and_are_not_settings() -> None:
    assert config.call(Part, {}, "p").settings["problem"] == "p"
    with pytest.raises(ConfigError, match="Part has no setting 'problem'"):
        config.call(Part, {"problem": 1})


def test_a_near_miss_is_named_and_otherwise_all_settings() -> None:
    with pytest.raises(ConfigError, match=r"Part has no setting 'epcohs'; did you mean 'epochs'\?"):
        config.call(Part, {"epcohs": 1})
    with pytest.raises(ConfigError, match=r"Part has no setting 'zzz'; it takes epochs, rate, "):
        config.call(Part, {"zzz": 1})

    def bare() -> None: ...

    with pytest.raises(ConfigError, match="bare has no setting 'x'; it takes none"):
        config.call(bare, {"x": 1})


def test_functions_can_be_called_too() -> None:
    def task(*, size: int = 1) -> int:
        return size

    assert config.call(task, {"size": 4}) == 4


def test_limits_are_a_table() -> None:
    assert config.call(Limits, {"trials": 5, "hours": 8}) == Limits(trials=5, hours=8)


def test_settings_whose_types_only_checkers_know_are_not_checked() -> None:
    def odd(*, x: Unknown = 1) -> object:  # type: ignore[name-defined] # noqa: F821
        return x

    assert config.call(odd, {"x": "y"}) == "y"


def test_build_finds_plug_ins_by_name() -> None:
    problem = Problem(Toy(), ())
    assert config.build("evaluators", {"name": "synthetic", "metric": "x"}, problem).metric == "x"
    with pytest.raises(ConfigError, match=r"\[evaluator\] has no name; known: .*synthetic"):
        config.build("evaluators", {})
    with pytest.raises(ConfigError, match="name must be a string, got 3"):
        config.build("evaluators", {"name": 3})
    with pytest.raises(ConfigError, match=r"no evaluators called 'synthetik'; did you mean 'synthetic'\?"):
        config.build("evaluators", {"name": "synthetik"})
    with pytest.raises(ConfigError, match=r"Synthetic has no setting 'metrik'; did you mean 'metric'\?"):
        config.build("evaluators", {"name": "synthetic", "metrik": "x"}, None)


def test_build_finds_private_classes() -> None:
    built = config.build("strategies", {"name": "collections:Counter"}, [1, 1])
    assert built == {1: 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = = 1", "is not TOML"),
        (b"\xff", "is not TOML"),
        ("[strategie]\nname = 'x'", "a config has no 'strategie'; did you mean 'strategy'?"),
        ("zzz = 1", "a config has no 'zzz'; it takes seed, title, space"),
        ("space = 'tiny'", "space must be a table, as in [space] name = ..., got 'tiny'"),
        ("seed = 'x'", "seed must be a whole number, got 'x'"),
        ("seed = true", "seed must be a whole number, got True"),
        ("seed = 1.5", "seed must be a whole number, got 1.5"),
    ],
)
def test_broken_files_say_what_is_wrong(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as error:
        config.read(path)
    assert message in str(error.value)


def test_a_missing_file_and_a_folder_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config at"):
        config.read(tmp_path / "config.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        config.read(tmp_path)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('seed = 3\ntitle = "größer"\n[space]\nname = "tiny"\nwidths = [1, 2]\n', encoding="utf-8")
    assert config.read(path) == {"seed": 3, "title": "größer", "space": {"name": "tiny", "widths": [1, 2]}}


BASE = {"seed": 0, "strategy": {"name": "aows", "epochs": 8, "deep": {"a": 1, "b": 2}}, "budget": {"macs": "50%"}}


@pytest.mark.parametrize(
    ("assignment", "table", "key", "value"),
    [
        ("strategy.epochs=20", "strategy", "epochs", 20),
        (" strategy.epochs = 20 ", "strategy", "epochs", 20),
        ("strategy.rate=1e-3", "strategy", "rate", 1e-3),
        ("strategy.flag=true", "strategy", "flag", True),
        ("strategy.widths=[1, 2]", "strategy", "widths", [1, 2]),
        ("strategy.mode=mean", "strategy", "mode", "mean"),
        ("strategy.mode='1'", "strategy", "mode", "1"),
        ("space.network=torchvision:mobilenet_v2", "space", "network", "torchvision:mobilenet_v2"),
        ("space.network=a=b", "space", "network", "a=b"),
        ("budget.latency_ms=50%", "budget", "latency_ms", "50%"),
        ("task.root=", "task", "root", ""),
        ("task.root=/data/x y", "task", "root", "/data/x y"),
    ],
)
def test_set_takes_toml_and_bare_words(assignment: str, table: str, key: str, value: object) -> None:
    result = config.override(BASE, [assignment])
    assert result[table][key] == value
    assert type(result[table][key]) is type(value)


def test_set_leaves_the_rest_and_its_input_alone() -> None:
    before = {k: dict(v) if isinstance(v, dict) else v for k, v in BASE.items()}
    result = config.override(BASE, ["seed=5", "strategy.deep.a=7", "budget.macs=1000000"])
    assert result == {
        "seed": 5,
        "strategy": {"name": "aows", "epochs": 8, "deep": {"a": 7, "b": 2}},
        "budget": {"macs": 1000000},
    }
    assert before == BASE
    assert BASE["strategy"]["deep"] == {"a": 1, "b": 2}  # type: ignore[index]
    result["strategy"]["deep"]["b"] = 0
    assert BASE["strategy"]["deep"] == {"a": 1, "b": 2}  # type: ignore[index]


@pytest.mark.parametrize("order", [0, 1])
def test_set_of_another_plug_in_drops_the_settings_of_the_old_one(order: int) -> None:
    assignments = ["strategy.name=random_search", "strategy.trials=5"]
    result = config.override(BASE, assignments[::-1] if order else assignments)
    assert result["strategy"] == {"name": "random_search", "trials": 5}


@pytest.mark.parametrize("assignment", ["strategy.epochs", "=5", "strategy.=5", ".epochs=5", "a..b=5", ""])
def test_set_without_a_key_or_a_value_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="--set takes key=value"):
        config.override(BASE, [assignment])


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["seed.x=1"], "seed is not a table"),
        (["strategy.epochs.x=1"], "epochs is not a table"),
        (["strategy.rate=1", "strategy.rate.x=1"], "rate is not a table"),
        (["stratgy.epochs=1"], "did you mean 'strategy'"),
        (["strategy=aows"], "strategy must be a table"),
        (["seed=x"], "seed must be a whole number"),
    ],
)
def test_set_of_what_does_not_exist_is_refused(assignments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.override(BASE, assignments)


@pytest.mark.parametrize(
    ("top", "strategy"),
    [
        ({}, {"name": "aows", "epochs": 8, "deep": {"a": 1, "b": 2}}),
        ({"strategy": {"epochs": 9}}, {"name": "aows", "epochs": 9, "deep": {"a": 1, "b": 2}}),
        ({"strategy": {"name": "aows", "x": 1}}, {"name": "aows", "epochs": 8, "deep": {"a": 1, "b": 2}, "x": 1}),
        ({"strategy": {"name": "ows"}}, {"name": "ows"}),
        ({"strategy": {"deep": {"a": 3}}}, {"name": "aows", "epochs": 8, "deep": {"a": 3, "b": 2}}),
    ],
)
def test_a_config_goes_over_a_recipe_table_by_table(top: dict[str, Any], strategy: dict[str, Any]) -> None:
    merged = config.merge(BASE, top)
    assert merged["strategy"] == strategy
    assert (merged["seed"], merged["budget"]) == (0, {"macs": "50%"})


def test_a_name_over_a_table_without_one_replaces_it() -> None:
    assert config.merge({"task": {"root": "x"}}, {"task": {"name": "digits"}}) == {"task": {"name": "digits"}}


def test_merged_tables_are_copies() -> None:
    top = {"task": {"name": "digits", "deep": {"a": 1}}}
    merged = config.merge(BASE, top)
    merged["task"]["deep"]["a"] = 2
    merged["budget"]["macs"] = 0
    assert top["task"]["deep"] == {"a": 1}  # type: ignore[index]
    assert BASE["budget"] == {"macs": "50%"}


def test_shortcuts_are_assignments():
    got = config.shortcuts(
        network="torchvision:resnet18",
        weights="net.pt",
        data="arrays:a.npz,b.npz",
        budget=["macs=50%", "latency_ms=5, 8"],
        target="torch_cpu",
        strategy="ows",
    )
    assert config.override({}, got) == {
        "space": {"name": "widths", "network": "torchvision:resnet18", "weights": "net.pt"},
        "task": {"name": "arrays", "train": "a.npz", "test": "b.npz"},
        "budget": {"macs": "50%", "latency_ms": [5, 8]},
        "target": {"name": "torch_cpu"},
        "strategy": {"name": "ows"},
    }
    assert config.shortcuts() == []


@pytest.mark.parametrize(
    ("data", "task"),
    [
        ("digits", {"name": "digits"}),
        ("image_folder:my photos/all", {"name": "image_folder", "root": "my photos/all"}),
        ("arrays:a.npz", {"name": "arrays", "train": "a.npz"}),
        ("arrays:a.npz,b.npz", {"name": "arrays", "train": "a.npz", "test": "b.npz"}),
        ("torchvision_dataset:MNIST,data", {"name": "torchvision_dataset", "dataset": "MNIST", "root": "data"}),
    ],
)
def test_data_by_kind_and_place(data, task):
    assert config.override({}, config.shortcuts(data=data)) == {"task": task}


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_every_task_that_reads_a_path_takes_it_first(name):
    hints = get_type_hints(plugins.load("tasks", name))
    known = config.keywords(plugins.load("tasks", name))
    paths = [s for s in known if Path in get_args(hints[s])]
    if paths:
        set_ = config.override({}, config.shortcuts(data=f"{name}:a,b"))["task"] if len(paths) > 1 else {}
        one = config.override({}, config.shortcuts(data=f"{name}:a"))["task"]
        assert len(one) == 2
        assert not set_ or set(set_.values()) == {name, "a", "b"}
        assert known.index(paths[0]) <= 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"budget": ["macs"]}, "METRIC=BOUND, as in latency_ms=5 or macs=50%; got 'macs'"),
        ({"budget": ["macs="]}, "got 'macs='"),
        ({"data": "digits:x"}, "'digits:x' has 1 places; it takes digits alone"),
        ({"data": "arrays:"}, "'arrays:' has 0 places; it takes arrays:TRAIN,TEST"),
        ({"data": "csv:a.csv"}, "no tasks called 'csv'"),
    ],
)
def test_shortcuts_that_say_nothing_are_refused(asked, message):
    with pytest.raises(ConfigError, match=message):
        config.shortcuts(**asked)


@dataclass(frozen=True)
class Group:
    """Settings that belong together."""

    hidden: int = 4
    widths: tuple[int, ...] = (1,)
    root: Path = Path()


class Grouped:
    def __init__(self, *, group: Group = Group(), maybe: Group | None = None, rate: float = 0.1) -> None:
        self.group, self.maybe, self.rate = group, maybe, rate


def test_a_table_becomes_the_dataclass_that_the_setting_is() -> None:
    made = config.call(Grouped, {"group": {"hidden": 8, "widths": [1, 2], "root": "photos"}, "maybe": {"hidden": 2}})
    assert made.group == Group(8, (1, 2), Path("photos"))
    assert made.maybe == Group(hidden=2)
    assert config.call(Grouped, {}).group == Group()
    assert config.call(Grouped, {"group": Group(3)}).group == Group(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": {"hiden": 3}}, r"Group has no setting 'hiden'; did you mean 'hidden'\?"),
        ({"group": {"hidden": 0.5}}, r"Group\.hidden must be a whole number, got 0\.5"),
        ({"maybe": {"widths": 3}}, r"Group\.widths must be a list, each item a whole number, got 3"),
        ({"group": 3}, r"Grouped\.group must be a table of hidden, widths, root, got 3"),
    ],
)
def test_a_mistake_in_a_table_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.validate(Grouped, settings)  # before anything is made of them
    with pytest.raises(ConfigError, match=message):
        config.call(Grouped, settings)


def test_a_setting_of_a_table_can_be_set_alone() -> None:
    base = {"strategy": {"name": "esnac", "embedding": {"hidden": 8}}}
    merged = config.override(base, ["strategy.embedding.layers=1"])
    assert merged["strategy"]["embedding"] == {"hidden": 8, "layers": 1}


CODE = """
def build():
    raise SystemExit("the code of the recipe ran")
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A recipe in another folder that names code in this one."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / "found_here.py").write_text(CODE)
    (there / "r.toml").write_text('[space]\nname = "widths"\nnetwork = "found_here:build"\n')
    monkeypatch.chdir(here)
    return there / "r.toml"


def test_code_that_a_recipe_from_elsewhere_names_needs_a_word(elsewhere):
    line = r"r\.toml is in another folder and names code .* found_here:build \(in .*found_here\.py\).*--trust-code"
    with pytest.raises(ConfigError, match=line):
        config.asked(elsewhere)
    with pytest.raises(ConfigError, match=line):
        config.asked(elsewhere, ["space.seed=1"])
    trusted = config.asked(elsewhere, trust_code=True)
    assert trusted["space"]["network"] == "found_here:build"


def test_a_recipe_of_this_folder_and_code_that_was_typed_need_none(elsewhere, monkeypatch):
    typed = config.asked(elsewhere, ["space.network=found_here:build"])
    assert typed["space"]["network"] == "found_here:build"
    assert config.asked(elsewhere, ["space.network=torchvision:resnet18"])["space"]["network"] == "torchvision:resnet18"
    assert config.asked("digits")["space"]["name"] == "mobilenet_v1"
    here = elsewhere.parent.parent / "here" / "r.toml"
    here.write_text(elsewhere.read_text())
    for path in ("r.toml", here):
        assert config.asked(path)["space"]["network"] == "found_here:build"
    (here.parent / "a link").symlink_to(elsewhere.parent)
    (here.parent / "linked.toml").symlink_to(elsewhere)
    for name in ("a link/r.toml", "linked.toml"):
        with pytest.raises(ConfigError, match="--trust-code"):
            config.asked(name)


def test_configs_are_bounded(tmp_path):
    (tmp_path / "deep.toml").write_text(f"a = {'[' * 10_000}")
    (tmp_path / "large.toml").write_bytes(b"#" * (2**22 + 1))
    (tmp_path / "latin.toml").write_bytes(b"title = '\xe9'")
    for name, message in {"deep": "nested too deep", "large": "more than 4.19 MB", "latin": "is not TOML"}.items():
        with pytest.raises(ConfigError, match=message):
            config.read(tmp_path / f"{name}.toml")
