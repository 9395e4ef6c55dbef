"""Every file of a run folder, damaged in every way: the command says so in a line, or the result is what it was.

The files are listed from folders that real commands have left, finished and half-done: a new one is tried by itself.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import tomli_w
import torch

from disk import DEADLY, KINDS, MANNERS, FaultyDisk
from sartor.cli import main
from sartor.jobs.fit.api import fit_config
from sartor.run.folder import read_json
from sartor.run.result import read_result
from small import latency_settings, settings

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "garbled": lambda data: data[: len(data) // 2] + bytes(range(240, 256)) + data[len(data) // 2 + 16 :],
}
WAYS = [*DAMAGES, "removed", "another run's"]
SEARCH = settings(strategy={"name": "random_search", "trials": 6, "batch": 2}, evaluator={"name": "synthetic"})
DELIVERED = {"architecture.json", "model.onnx", "model.pt2", "report.html"}
"""Of a finished fit: written last and for the user."""


def searched(folder: Path, *, seed: int = 0, trials: int = 6) -> Path:
    folder.mkdir(exist_ok=True)
    config = folder / f"{seed}.toml"
    config.write_text(tomli_w.dumps({**SEARCH, "seed": seed}))
    assert main(["search", str(config), str(folder / "run"), "--quiet", "--set", f"limits.trials={trials}"]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A finished search, one that a limit has stopped after two of three steps, and another run of each."""
    place = tmp_path_factory.mktemp("searches")
    return {
        "finished": searched(place / "finished", trials=100),
        "half-done": searched(place / "half", trials=4),
        "other finished": searched(place / "other", seed=1, trials=100),
        "other half-done": searched(place / "other half", seed=1, trials=4),
    }


def files_of(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def damage(path: Path, way: str, other: Path) -> bool:
    """Whether there was anything to do."""
    before = path.read_bytes()
    if way == "removed":
        path.unlink()
    elif way == "another run's":
        if not other.exists():
            return False
        shutil.copy(other, path)
    else:
        path.write_bytes(DAMAGES[way](before))
    return not path.exists() or path.read_bytes() != before


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says if it refuses, in one line; empty if it works. Anything else fails the test."""
    capsys.readouterr()
    code = main(arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert code in (0, 1, 2), (arguments, code, lines)  # 1: all well, but the budget is missed
    if code != 2:
        return ""
    assert len(lines) == 1, lines
    assert lines[0].startswith("sartor: "), lines
    return lines[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", ["finished", "half-done"])
def test_a_search_is_refused_or_ends_as_it_would(folders, tmp_path, capsys, state, way):
    whole, names = folders["finished"], files_of(folders[state])
    assert {"config.toml", "journal.jsonl", "search/journal.jsonl", "search/state.safetensors"} <= set(names)
    silent = []
    for name in names:
        run = tmp_path / "run"
        shutil.copytree(folders[state], run)
        if damage(run / name, way, folders[f"other {state}"] / name):
            config = whole.parent / "0.toml"
            said = refused(["search", str(config), str(run), "--quiet", "--set", "limits.trials=100"], capsys)
            if not said and read_json(run / "search.json")["found"] != read_json(whole / "search.json")["found"]:
                silent.append(name)
        shutil.rmtree(run)
    assert not silent, f"{way}: the result is another, and nobody says so"


@pytest.fixture(scope="module")
def fits(finished, tmp_path_factory) -> dict[str, Path]:
    """A finished fit, and the same as it was before its networks were verified; and those of another run."""
    place = tmp_path_factory.mktemp("fits")
    fit_config({**latency_settings(), "seed": 1}, place / "other finished")
    for state, source in (("finished", finished.folder), ("other finished", None)):
        if source is not None:
            shutil.copytree(source, place / state)
        half = place / state.replace("finished", "half-done")
        shutil.copytree(place / state, half)
        for name in (*DELIVERED, "result.json", "model.safetensors"):
            (half / name).unlink()
        lines = (half / "journal.jsonl").read_text().splitlines(keepends=True)
        verified = next(i for i, line in enumerate(lines) if '"verification' in line and '"stage"' in line)
        (half / "journal.jsonl").write_text("".join(lines[:verified]))
    return {path.name: path for path in place.iterdir()}


def fitted(folder: Path) -> dict[str, object]:
    """What of a result no clock has a say in."""
    found = json.loads((folder / "result.json").read_text())
    searched, digests = found["points"][0]["searched"], found["files"]
    scores = {name: score["value"] for name, score in searched["scores"].items()}
    same = {name: digests[name] for name in digests if name.endswith(".safetensors")}
    return {"arch": searched["arch"], "macs": found["reference"]["macs"], "scores": scores, "weights": same}


def strange(folder: Path) -> list[str]:
    """Delivered files that are not the delivered network's: told by what they compute."""
    network = fit_config(latency_settings(), folder).network
    x = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = network(x)
    program = torch.export.load(folder / "model.pt2").module()(x)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    found = {"model.pt2": program, "model.onnx": torch.tensor(session.run(None, {"input": x.numpy()})[0])}
    return [name for name, y in found.items() if not torch.allclose(y, wanted, rtol=1e-3, atol=1e-3)]


def try_fits(fits: dict[str, Path], tmp_path: Path, capsys, state: str, way: str) -> list[str]:
    """Files whose damage changes the result without a word."""
    config, silent = tmp_path / "small.toml", []
    config.write_text(tomli_w.dumps(latency_settings()))
    for name in files_of(fits[state]):
        run = tmp_path / "run"
        shutil.copytree(fits[state], run)
        if damage(run / name, way, fits[f"other {state}"] / name):
            said = refused(["fit", str(config), str(run), "--quiet"], capsys)
            if not said and (fitted(run) != fitted(fits["finished"]) or read_result(run).changed(run)):
                silent.append(name)
            if not said and way == "another run's":
                silent += strange(run)
            if state == "finished" and not said:
                refused(["report", str(run)], capsys)
        shutil.rmtree(run)
    return silent


@pytest.mark.parametrize("way", ["truncated", "garbled", "removed", "another run's"])
def test_a_finished_fit_is_refused_or_is_what_it_was(fits, tmp_path, capsys, way):
    assert set(files_of(fits["finished"])) > DELIVERED
    assert try_fits(fits, tmp_path, capsys, "finished", way) == []


@pytest.mark.parametrize(
    "way", [way if way == "another run's" else pytest.param(way, marks=pytest.mark.slow) for way in WAYS]
)
def test_a_half_done_fit_is_refused_or_ends_as_it_would(fits, tmp_path, capsys, way):
    assert try_fits(fits, tmp_path, capsys, "half-done", way) == []


@pytest.mark.parametrize("manner", [manner for manner in MANNERS if manner not in DEADLY])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("truncate", "remove")])
def test_a_disk_that_fails_under_a_command_is_one_line(folders, tmp_path, capsys, kind, manner):
    config = folders["finished"].parent / "0.toml"

    def command(folder):
        return ["search", str(config), str(folder), "--quiet", "--set", "limits.trials=100"]

    with FaultyDisk(tmp_path / "count") as disk:
        assert main(command(tmp_path / "count")) == 0
    for at in range(1, disk.counts[kind] + 1, 7):
        folder = tmp_path / str(at)
        with FaultyDisk(folder, kind, at, manner) as failing:
            refused(command(folder), capsys)
        assert failing.struck
        assert refused(command(folder), capsys) == ""
        assert read_json(folder / "search.json")["found"] == read_json(folders["finished"] / "search.json")["found"]


def test_an_error_of_the_disk_that_nobody_has_put_into_words_is_one_line(monkeypatch, capsys):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere/model.onnx")

    monkeypatch.setattr("sartor.cli._run", full)
    assert "cannot read or write somewhere/model.onnx: No space left on device" in refused(["fit"], capsys)
    monkeypatch.setattr("sartor.cli._run", lambda *_: (_ for _ in ()).throw(FileNotFoundError(errno.ENOENT, "a bug")))
    with pytest.raises(FileNotFoundError, match="a bug"):
        main(["fit"])
