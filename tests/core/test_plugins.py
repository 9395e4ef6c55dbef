from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sartor.core import plugins
from sartor.core.errors import ConfigError
from sartor.evaluators.synthetic import Synthetic


def test_names_are_the_modules_of_the_folder_without_private_ones() -> None:
    folder = Path(sys.modules["sartor.core.plugins"].__file__ or "").parents[1]
    for kind in ("spaces", "strategies", "evaluators", "costs", "targets", "tasks"):
        names = plugins.names(kind)
        files = [p.stem for p in (folder / kind).glob("*.py")]
        folders = [p.parent.name for p in (folder / kind).glob("*/__init__.py")]
        assert names == sorted(name for name in files + folders if not name.startswith("_"))
        assert names


def test_a_folder_is_a_plug_in_like_a_file() -> None:
    assert (Path(sys.modules["sartor.core.plugins"].__file__ or "").parents[1] / "strategies/esnac").is_dir()
    assert plugins.load("strategies", "esnac").__name__ == "Esnac"
    assert plugins.purpose("strategies", "esnac").startswith("ESNAC: Bayesian optimisation")


def test_a_plug_in_is_loaded_by_the_name_of_its_file() -> None:
    assert plugins.load("evaluators", "synthetic") is Synthetic


def test_a_near_miss_is_named_and_otherwise_all_names() -> None:
    with pytest.raises(ConfigError, match=r"no evaluators called 'synthetc'; did you mean 'synthetic'\?"):
        plugins.load("evaluators", "synthetc")
    with pytest.raises(ConfigError, match=r"no evaluators called 'zzz'; known: .*synthetic"):
        plugins.load("evaluators", "zzz")


@pytest.mark.parametrize("name", ["_private", "", "../core/state"])
def test_private_modules_and_paths_are_no_names(name: str) -> None:
    with pytest.raises(ConfigError, match="no evaluators called"):
        plugins.load("evaluators", name)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "my_own_plug_in.py"
    yield path
    sys.modules.pop("my_own_plug_in", None)


def test_a_class_from_anywhere(module: Path) -> None:
    module.write_text("class Mine:\n    pass\n")
    assert plugins.load("strategies", "my_own_plug_in:Mine").__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_own_plug_in:Other", "module 'my_own_plug_in' has no 'Other'"),
        ("my_own_plug_in:", "module 'my_own_plug_in' has no ''"),
        ("no_such_module:Mine", "no module 'no_such_module'"),
        ("my_own_plug_in.deeper:Mine", r"no module 'my_own_plug_in\.deeper'"),
        (":Mine", "no module in ':Mine'"),
    ],
)
def test_what_is_not_there_is_a_config_error(module: Path, name: str, message: str) -> None:
    module.write_text("class Mine:\n    pass\n")
    with pytest.raises(ConfigError, match=message):
        plugins.load("strategies", name)


def test_what_a_private_module_fails_to_import_is_not_hidden(module: Path) -> None:
    module.write_text("import a_package_that_is_missing\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing") as error:
        plugins.load("strategies", "my_own_plug_in:Mine")
    assert not isinstance(error.value, ConfigError)
