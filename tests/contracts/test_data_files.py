"""Every task that reads files says which of them it cannot read: all at once, before anything else, in one line."""

from __future__ import annotations

import importlib
import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from PIL import Image
from scipy.io import wavfile

from sartor.cli import main
from sartor.core import plugins
from sartor.core.errors import ConfigError, DataError
from small import settings as small

NAMES = plugins.names("tasks")
OF_THE_DATA_SET = {"torchvision_dataset"}
"""Tasks whose files are read by somebody else, who names the data set alone."""


def place_of(name: str) -> str:
    """The first setting that takes a path; empty if there is none."""
    parameters = inspect.signature(plugins.load("tasks", name)).parameters.values()
    return next((p.name for p in parameters if "Path" in str(p.annotation) and "Iterable" not in str(p.annotation)), "")


READING = [name for name in NAMES if place_of(name)]


def sampled(name: str) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: dict(importlib.import_module(f"tasks.test_{name}").sample(folder)[0])


def png(number: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def pictures(folder: Path, *places: str) -> Path:
    for place in places:
        (folder / place).mkdir(parents=True)
        for i in range(16):
            (folder / place / f"{i:02}.png").write_bytes(png(i))
    return folder


def recordings(folder: Path) -> dict[str, Any]:
    for name in ("no", "yes"):
        (folder / "words" / name).mkdir(parents=True)
        for i in range(12):
            wavfile.write(folder / "words" / name / f"{i}.wav", 8000, np.arange(4000, dtype=np.int16))
    return {"data": folder / "words", "seconds": 0.4}


def listed(folder: Path) -> dict[str, Any]:
    recordings(folder)
    files = [p.relative_to(folder) for p in sorted((folder / "words").rglob("*.wav"))]
    rows = "".join(f"{file.as_posix()},{file.parent.name}\n" for file in files)
    (folder / "list.csv").write_text(f"file,label\n{rows}")
    return {"data": folder / "list.csv", "seconds": 0.4}


def table(folder: Path, **columns: list[Any]) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), folder / "table.parquet")
    return folder / "table.parquet"


def arrays(folder: Path) -> Path:
    (folder / "arrays").mkdir()
    for name in ("x", "y", "z"):
        np.save(folder / "arrays" / f"{name}.npy", np.random.default_rng(0).normal(size=40))
    return folder / "arrays"


def labels(folder: Path) -> Path:
    (folder / "scene").mkdir()
    for name in ("a", "b", "label"):
        pixels = np.random.default_rng(0).integers(0, 2, (12, 12), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "scene" / f"{name}.png")
    return folder / "scene"


LAYOUTS: dict[str, dict[str, Callable[[Path], dict[str, Any]]]] = {
    "arrays": {"table": lambda f: {"train": table(f, png=[png(i) for i in range(40)], label=[0, 1] * 20)}},
    "audio": {"folder": recordings, "list": listed},
    "imitate": {
        "folder": lambda f: {"data": pictures(f / "photos", "."), "size": 16},
        "arrays": lambda f: {"data": arrays(f)},
    },
    "multisource": {"scene": lambda f: {"data": labels(f), "patch": 3}},
    "regression": {
        "arrays": lambda f: {"data": arrays(f)},
        "table": lambda f: {"data": table(f, x=list(range(40)), y=list(range(40)))},
    },
    "super_resolution": {"one folder": lambda f: {"train": pictures(f / "photos", "train", "val", "test"), "patch": 4}},
}

CASES = [
    pytest.param(name, make, id=f"{name}-{layout}")
    for name in READING
    for layout, make in {"sample": sampled(name), **LAYOUTS.get(name, {})}.items()
]
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "corrupt": lambda data: b"this is not what the name says" * 9,
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "its head alone": lambda data: data[:24],
}


def read_all(name: str, settings: dict[str, Any]) -> None:
    """Makes the task, and takes all that is in it."""
    task = plugins.load("tasks", name)(**settings)
    for batches in (task.train(importlib.import_module("sartor.core.rng").torch_rng(0)), task.valid(), task.test()):
        for _ in batches:
            pass


def refused(name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: Any, capsys: Any) -> str:
    """What is said, in Python and on the command line alike."""
    with pytest.raises((DataError, ConfigError)) as caught:
        read_all(name, settings)
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(small(task={"name": name, **plain})))
    assert main(["fit", "recipe.toml", "run", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert said == f"sartor: {caught.value}\n"
    return said


def members(path: Path) -> list[Path]:
    """Up to three files of data below a path, from the first to the last; a list of files stays whole."""
    if path.suffix == ".csv" and (path.parent / "words").is_dir():
        path = path.parent / "words"
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return list(dict.fromkeys([files[0], files[len(files) // 2], files[-1]]))


def test_no_task_that_reads_files_is_left_out() -> None:
    assert set(NAMES) - set(READING) == {"digits", "loaders"}
    assert len(CASES) >= 18
    assert set(LAYOUTS) <= set(READING)


@pytest.mark.parametrize(("name", "make"), CASES)
def test_the_layout_is_read_as_it_is(name: str, make: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    if name == "imitate":  # which cannot say what is lost before it has seen a network, yet gives its inputs
        read_all(name, {**make(tmp_path), "augment": ""})
    else:
        read_all(name, make(tmp_path))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("name", "make"), CASES)
def test_damaged_files_are_all_named(name, make, damage, tmp_path, monkeypatch, capsys) -> None:
    settings = make(tmp_path)
    broken = members(Path(str(settings[place_of(name)])))
    if damage == "truncated" and broken[0].suffix == ".csv":
        pytest.skip("a table in plain text has no end: half of one is one")
    for path in broken:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    said = refused(name, settings, tmp_path, monkeypatch, capsys)
    if name in OF_THE_DATA_SET:
        assert str(settings[place_of(name)]) in said
    else:
        assert [path for path in broken if str(path) not in said] == []


@pytest.mark.parametrize(("name", "make"), CASES)
def test_an_empty_folder_and_a_file_in_its_place(name, make, tmp_path, monkeypatch, capsys) -> None:
    settings = make(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no data")
    for other in ("empty", "notes.txt"):
        said = refused(name, settings | {place_of(name): tmp_path / other}, tmp_path, monkeypatch, capsys)
        assert str(tmp_path / other) in said
