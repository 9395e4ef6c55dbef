from __future__ import annotations

import json
import shutil

import pytest
import tomli_w

from sartor.core.errors import ConfigError, StateError
from sartor.jobs.compare.allowance import Allowance
from sartor.jobs.compare.folders import gather
from sartor.jobs.compare.run import Comparison, compare
from sartor.run.folder import read_config
from sartor.run.journal import FileJournal
from small import latency_settings


@pytest.fixture
def copies(finished, tmp_path):
    """Runs of random search and PPO at two seeds, made of one finished fit by changing names, seeds and accuracies."""

    def make(name, strategy, seed, accuracy, **changes):
        folder = tmp_path / name
        shutil.copytree(finished.folder, folder)
        result = json.loads((folder / "result.json").read_text())
        result["search"] |= {"strategy": strategy, "settings": changes.pop("settings", {})}
        result["environment"]["seed"] = seed
        result["curve"][0]["winner"]["accuracy"] = accuracy
        result["curve"][0]["uniform"]["accuracy"] = 0.5 + seed / 100
        for key, value in changes.items():
            part, _, last = key.partition("__")
            result[part][last] = value
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    return make


def four(copies):
    kinds = [("random_search", 0.60), ("ppo", 0.70)]
    return [copies(f"{n}{s}", n, s, a + 0.01 * s * (n == "ppo")) for n, a in kinds for s in (0, 1)]


def test_fits_are_compared_with_their_uniform_networks(copies, tmp_path):
    folders = four(copies)
    found = gather(folders, tmp_path / "out")
    rows = found["strategies"]
    assert list(rows) == ["random_search", "uniform_width", "ppo"]
    assert [r["accuracy"] for r in rows["ppo"]["runs"]] == [0.70, 0.71]
    assert [r["accuracy"] for r in rows["uniform_width"]["runs"]] == [0.50, 0.51]  # of each seed once
    assert rows["ppo"]["gain"]["value"] == pytest.approx(0.105)
    assert "paired" in rows["ppo"]["gain"]["method"]
    assert found["seeds"] == [0, 1]
    assert all(0 < r["valid"] < 1 for r in rows["ppo"]["runs"])
    (run, _) = rows["ppo"]["runs"]
    assert run["latency_ms"]["low"] < run["latency_ms"]["value"]
    assert run["spent"]["epochs"] == len(run["trials"]) == 1  # one epoch of one network
    assert json.loads((tmp_path / "out/compare.json").read_text()) == found


def test_where_uniform_scaling_has_won_the_searchs_own_network_is_compared(copies, tmp_path):
    folders = [copies("new", "ppo", 0, 0.7), copies("old", "random_search", 0, 0.6)]
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())
        point = result["curve"][0]
        if folder.name == "new":
            point["searched"], point["winner"] = point["winner"], point["uniform"]
        else:
            del point["searched"]
        (folder / "result.json").write_text(json.dumps(result))
    rows = gather(folders, tmp_path / "out")["strategies"]
    assert {n: [r["accuracy"] for r in row["runs"]] for n, row in rows.items()} == {
        "ppo": [0.7],
        "uniform_width": [0.5],
        "random_search": [0.6],
    }


def test_other_settings_are_another_strategy(copies, tmp_path):
    folders = [copies("a", "ppo", 0, 0.7), copies("b", "ppo", 0, 0.8, settings={"lr": 0.1})]
    assert list(gather(folders, tmp_path / "out")["strategies"]) == ["ppo", "uniform_width", "ppo (lr=0.1)"]
    with pytest.raises(ConfigError, match="named twice"):
        gather([folders[0], folders[1], folders[0]], tmp_path / "out")
    with pytest.raises(ConfigError, match="ppo at seed 0"):
        gather([folders[0], copies("c", "ppo", 0, 0.9)], tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment__data": {"fingerprint": "other"}}, "their data differ .*other"),
        ({"search__choices": [{"name": "x", "options": [1, 2]}]}, "their space differ .3 choices and 1 choices"),
    ],
)
def test_different_problems_are_refused(copies, tmp_path, changes, message):
    folders = [copies("a", "ppo", 0, 0.7), copies("b", "random_search", 0, 0.7, **changes)]
    with pytest.raises(ConfigError, match=message):
        gather(folders, tmp_path / "out")


def test_the_first_choice_that_differs_and_another_budget_are_named(copies, tmp_path):
    first, second = copies("a", "ppo", 0, 0.7), copies("b", "random_search", 0, 0.7)
    result = json.loads((second / "result.json").read_text())
    result["search"]["choices"][1]["options"][0] = 9
    (second / "result.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match=r"separable1.*\[8, .*separable1.*\[9, "):
        gather([first, second], tmp_path / "out")
    third = copies("c", "random_search", 0, 0.7)
    config = {**read_config(third / "config.toml"), "budget": {"latency_ms": "60%"}}
    (third / "config.toml").write_text(tomli_w.dumps(config))
    with pytest.raises(ConfigError, match=r"their budget differ .*70%.*60%"):
        gather([first, third], tmp_path / "out")


def test_what_is_no_finished_run_is_said(copies, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StateError, match="finish the run first"):
        gather([tmp_path / "empty"], tmp_path / "out")
    folder = copies("a", "ppo", 0, 0.7)
    (folder / "result.json").write_text('{"curve": [{}]}')
    with pytest.raises(StateError, match="no result that can be compared"):
        gather([folder], tmp_path / "out")
    with pytest.raises(ConfigError, match="there is no 2"):
        gather([copies("b", "ppo", 0, 0.7)], tmp_path / "out", point=2)
    with pytest.raises(ConfigError, match="a run of its own"):
        gather([copies("c", "ppo", 0, 0.7)], tmp_path / "c")


def test_other_recipes_of_the_training_are_told(copies, tmp_path):
    folders = [copies("a", "ppo", 0, 0.7), copies("b", "random_search", 0, 0.7)]
    config = {**read_config(folders[1] / "config.toml"), "training": {"epochs": 7}}
    (folders[1] / "config.toml").write_text(tomli_w.dumps(config))
    assert any("different recipes" in note for note in gather(folders, tmp_path / "out")["notes"])


def test_a_comparison_on_the_target_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("sartor.jobs.compare.ROUNDS", 6)  # nobody looks at the figures
    monkeypatch.setattr("sartor.jobs.fit.reference.ANCHOR_ROUNDS", 6)
    recipe = {**latency_settings(), "strategy": {"name": "random_search"}}
    recipe["task"] = {**recipe["task"], "augment": ""}
    recipe |= {"latency_model": {"networks": 8, "heldout": 2, "sweeps": 1, "rounds": 2}}
    recipe |= {"budget": {"latency_ms": "95%"}, "target": {"name": "torch_cpu"}}  # nothing to export: seconds
    asked = Comparison({}, Allowance("trials", 1), seeds=1)
    before = compare(recipe, tmp_path / "whole", asked)
    times = [r["latency_ms"] for row in before["strategies"].values() for r in row["runs"]]
    assert all(t["low"] <= t["value"] <= t["high"] for t in times)
    assert before["reference"]["latency_ms"]["value"] > 0
    stages = [r["name"] for r in FileJournal(tmp_path / "whole/journal.jsonl").read() if r["kind"] == "stage"]
    assert sum(s.startswith("measurement.") for s in stages) == 1  # all of them in the same rounds
    again = gather([tmp_path / "whole"], tmp_path / "out")
    for key in ("strategies", "budget", "metric", "problem", "hypervolume_reference", "seeds"):
        assert again[key] == before[key]
