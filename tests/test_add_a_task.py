"""The page on adding a task: its two files, taken from the page, work as a plug-in of the package."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

import sartor.tasks
from sartor.core import plugins
from sartor.core.errors import DataError
from sartor.training import check_fits, score

PAGE = Path(__file__).parents[1] / "docs" / "add_a_task.md"


def files(text):
    """Path -> code of every block of Python that follows a path in backticks."""
    return dict(re.findall(r"`((?:src|tests)/[\w/]+\.py)`.*?```python\n(.*?)```", text, re.DOTALL))


@pytest.fixture
def task_module(tmp_path, monkeypatch):
    """The page's task, found by name as if it lay in the package."""
    found = files(PAGE.read_text(encoding="utf-8"))
    assert sorted(found) == ["src/sartor/tasks/forecast.py", "tests/tasks/test_forecast.py"]
    for place, code in found.items():
        (tmp_path / Path(place).name).write_text(code, encoding="utf-8")
    monkeypatch.setattr(sartor.tasks, "__path__", [*sartor.tasks.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield tmp_path / "test_forecast.py"
    sys.modules.pop("sartor.tasks.forecast", None)


def loaded(path):
    spec = importlib.util.spec_from_file_location("test_of_the_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plug_in_is_found_and_keeps_the_rules(task_module):
    assert "forecast" in plugins.names("tasks")
    make = plugins.load("tasks", "forecast")
    for name, parameter in inspect.signature(make).parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert f"{name}: " in inspect.getdoc(make)
    with pytest.raises(DataError, match="give the setting 'data' a path"):
        make()


def test_the_sample_can_be_scored(task_module, tmp_path):
    settings, network = loaded(task_module).sample(tmp_path)
    task = plugins.load("tasks", "forecast")(**settings)
    check_fits(task, network)
    found = score(network, task.test(), task)["mae"]
    assert found.low < found.value < found.high
    assert task.metric.text(found.value).endswith("degrees")


def test_the_pages_own_tests_pass(task_module, tmp_path):
    module = loaded(task_module)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) >= 3
    for i, test in enumerate(tests):
        folder = tmp_path / str(i)
        folder.mkdir()
        test(folder)
