from __future__ import annotations

import json
import re
from pathlib import Path

import tomli_w

from sartor import config
from sartor.cli import main
from sartor.jobs.compare.allowance import Allowance
from sartor.jobs.compare.run import Setup, line_up
from sartor.jobs.fit.assemble import assemble
from small import settings

EXAMPLE = Path(__file__).parents[2] / "examples/compare_digits.toml"


def test_from_a_recipe_to_a_page_and_from_folders_to_another(tmp_path, capsys):
    recipe, out = tmp_path / "small.toml", tmp_path / "out"
    table = settings(task={"name": "digits", "size": 8, "batch": 512, "augment": ""}, training={"epochs": 1})
    del table["strategy"]
    recipe.write_text(tomli_w.dumps(table))
    arguments = ["compare", str(recipe), "--strategies", "few, random_search", "--trials", "2", "--seeds", "1"]
    arguments += ["--set", "few.name=regularized_evolution", "--set", "few.trials=1", "--set", "training.lr=0.2"]
    arguments += ["--out", str(out), "--quiet"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["contestants"]["few"]["used"]["trials"] == 1
    assert found["contestants"]["few"]["settings"] == {"trials": 1}
    assert found == json.loads((out / "compare.json").read_text())
    assert {"compare.html", "compare.json", "compare.png"} < {p.name for p in out.iterdir()}
    assert main(arguments) == 0  # nothing is left to do
    shown = capsys.readouterr().out
    assert "few: no gain can be claimed" in shown
    assert "One seed" in shown
    assert main(["compare", str(out), "--out", str(tmp_path / "page")]) == 0
    assert "few: no gain can be claimed" in capsys.readouterr().out
    assert (tmp_path / "page/compare.html").exists()


def test_the_example_lines_up():
    text = EXAMPLE.read_text()
    names = re.search(r"^# +(random_search,[a-z_,]+)", text, re.M)[1].split(",")
    parts = assemble({**config.read(EXAMPLE), "strategy": {"name": "random_search"}})
    entrants, absent = line_up(parts, Setup({n: {} for n in names}, Allowance("epochs", 72)))
    assert [e.name for e in entrants] == [*names, "uniform_width", "autoslim"]
    assert not absent


def test_mistakes_are_one_line(tmp_path, capsys):
    for arguments, words in (
        (["digits", "--strategies", "random_search"], "--epochs"),
        (["digits", "--strategies", "randon_search", "--trials", "2"], "random_search"),
        (["digits", "--trials", "2", "--seeds", "0"], "seeds"),
        (["nowhere", "--trials", "2"], "nowhere"),
        ([str(tmp_path)], "result.json"),
    ):
        assert main(["compare", *arguments, "--out", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
