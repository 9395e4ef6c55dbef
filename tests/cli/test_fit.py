"""The command as a user runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tomli_w

from sartor.cli import main
from small import settings


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(tomli_w.dumps(settings()))
    return path


def sartor(*arguments, **options):
    command = [sys.executable, "-m", "sartor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_a_budget_that_is_met_exits_with_zero_and_shows_the_table(config, tmp_path):
    done = sartor("fit", config, tmp_path / "run", "--set", "training.epochs=1", "--set", "strategy.name=uniform_width",
                  "--set", "strategy.epochs=2")  # fmt: skip
    assert done.returncode == 2
    assert "UniformWidth has no setting 'epochs'" in done.stderr
    done = sartor("fit", config, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for word in ("reference", "winner", "uniform", "PASS"):
        assert word in done.stdout
    again = sartor("fit", config, tmp_path / "run", "--json", "--quiet")
    assert again.returncode == 0
    assert [p["verdict"] for p in json.loads(again.stdout)["points"]] == ["PASS"]
    assert "finished" in sartor("fit", config, tmp_path / "run").stderr
    other = sartor("fit", config, tmp_path / "run", "--set", "training.epochs=7")
    assert other.returncode == 2
    assert "another config (changed: training.epochs)" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.toml"], "no config at nowhere.toml"),
        (["fti"], "did you mean 'fit'"),
        (["fit", "digits", "--set", "strategy.epochs"], "--set takes key=value"),
        (["fit", "digits", "--set", "strategy.name=aowss"], "did you mean 'aows'"),
        (["fit", "digits", "--set", "budget.latency=3"], "did you mean 'latency_ms'"),
        (["verify", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["measure"], "name a network"),
        (["measure", "torchvision:resnet81"], "did you mean 'resnet18'"),
        (["measure", "--plan", "3"], "--out"),
        (["list", "spices"], "there is no kind 'spices'"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_two(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_option_exits_with_two(capsys):
    assert main(["fit", "--fast"]) == 2


def _heeds_interrupts() -> None:
    """Shells start what runs in the background, such as these tests, with interrupts ignored; children inherit it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted_says_how_to_go_on_and_goes_on(config, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "sartor", "fit", str(config), str(folder)]
    command += ["--set", "training.epochs=40"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_heeds_interrupts,  # noqa: PLW1509
    )
    journal = folder / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and '"epoch"' in journal.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "nothing is lost. To go on, run the same again: sartor fit" in error
    assert "Traceback" not in error
    assert '"kind": "stage"' not in journal.read_text()
    epochs = journal.read_text().count('"kind": "epoch"')
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    lines = [json.loads(x) for x in journal.read_text().splitlines()]
    reference = [r["epoch"] for r in lines if r["kind"] == "epoch" and r["network"] == "reference"]
    assert reference == list(range(1, 41))
    assert 0 < epochs < 40


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_help_costs_no_torch():
    code = "import sys; from sartor.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    for arguments in (["--help"], ["fit", "--help"], ["measure", "--help"], ["list"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=dict(os.environ)
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout) > 100


@pytest.mark.parametrize(
    "command",
    [["fit"], ["search"], ["compare", "--trials", "1"], ["measure", "--plan", "1", "--out", "out", "--recipe"]],
)
def test_a_recipe_from_another_folder_runs_no_code_of_this_one_unasked(command, tmp_path, monkeypatch, capsys):
    name = f"code_of_{tmp_path.name}"  # imported once for each command
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / f"{name}.py").write_text("from pathlib import Path\nPath('it-ran').touch()\n")
    recipe = there / "r.toml"
    recipe.write_text(tomli_w.dumps(settings(space={"name": "widths", "network": f"{name}:build"})))
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main([*command, str(recipe)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{name}:build" in said
    assert "--trust-code" in said
    assert not (here / "it-ran").exists()
    assert main([*command, str(recipe), "--trust-code"]) == 2  # it has no `build`
    assert f"{name} has no 'build'" in capsys.readouterr().err
    assert (here / "it-ran").exists()
