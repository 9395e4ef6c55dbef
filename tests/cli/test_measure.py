from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli_w

from sartor.cli import main


def test_json_and_text(capsys):
    arguments = [
        "measure",
        "jobs.measure.test_network:small",
        "--input",
        "1,3,16,16",
        "--rounds",
        "3",
        "--threads",
        "1",
    ]
    assert main([*arguments, "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["input"] == [1, 3, 16, 16]
    assert found["latency_ms"]["value"] > 0
    assert found["processes"] == 3
    assert main([*arguments, "--quiet", "--target", "torch_cpu", "--processes", "1"]) == 0
    text = capsys.readouterr().out
    assert "ms (" in text
    assert "MACs        21.18 k" in text
    assert "processes   1\n" in text


OPERATED = {
    "space": {"name": "operated:Operations", "blocks": 2},
    "task": {"name": "digits", "size": 8},
    "target": {"name": "jobs.measure.test_operators:Plain"},
}


def test_operators_of_a_space_as_json_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = tmp_path / "space.toml", tmp_path / "operators.json"
    recipe.write_text(tomli_w.dumps(OPERATED))
    arguments = ["measure", "--operators", "--recipe", str(recipe), "--out", str(out), "--quiet", "--sessions", "1"]
    assert main([*arguments, "--rounds", "2"]) == 2
    assert "names code that is not installed, operated:Operations" in capsys.readouterr().err
    arguments.append("--trust-code")
    assert main([*arguments, "--rounds", "2"]) == 0
    text = capsys.readouterr().out
    assert f"operators   8, in {out}" in text
    assert "check       none: --check 20 tells" in text
    assert main([*arguments, "--rounds", "2", "--check", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["check"]["networks"] == 3
    assert main([*arguments, "--rounds", "2", "--check", "3"]) == 0
    assert "whole networks\nbias" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operators"], "--operators needs --out FILE"),
        (["--operators", "--out", "o.txt"], "a latency table is a .json or .yaml file, got o.txt"),
        (["--operators", "--out", "o.json"], "measure --operators needs Operated, which MobilenetV1 does not offer"),
        (["--operators", "--out", "o.json", "--sessions", "0"], "sessions must be at least 1, got 0"),
        (["--operators", "--plan", "3", "--out", "o"], "give one of them"),
        (["--operators", "torchvision:resnet18", "--out", "o.json"], "the space of a config, not torchvision:resnet18"),
        (["--check", "3", "torchvision:resnet18"], "--check belongs to --operators"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--quiet", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
