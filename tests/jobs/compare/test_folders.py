from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import tomli_w

from sartor.core.errors import ConfigError, StateError
from sartor.core.metrics import Metric
from sartor.core.records import Choice
from sartor.jobs.compare.allowance import Allowance
from sartor.jobs.compare.folders import gather
from sartor.jobs.compare.run import Setup, compare
from sartor.run import comparison as comparisons
from sartor.run import result as results
from sartor.run.comparison import Other
from sartor.run.folder import read_config
from sartor.run.journal import FileJournal
from small import latency_settings


def quality(entry, value):
    """The network as if it had this accuracy on the test split."""
    return replace(entry, scores={"accuracy": replace(entry.scores["accuracy"], value=value)})


@pytest.fixture
def copies(finished, tmp_path):
    """Runs of random search and PPO at two seeds, made of one finished fit by changing names, seeds and accuracies.

    The winner of each is the search's own network; `change` takes and gives a result.
    """

    def make(name, strategy, seed, accuracy, settings=(), change=lambda result: result):
        folder = tmp_path / name
        shutil.copytree(finished.folder, folder)
        result = results.read_result(folder)
        (point,) = result.points
        point = replace(
            point,
            delivered="searched",
            searched=quality(point.searched, accuracy),
            uniform=quality(point.uniform or point.searched, 0.5 + seed / 100),
        )
        search = replace(result.search, strategy=strategy, settings=dict(settings))
        environment = {**result.environment, "seed": seed}
        results.write(folder, change(replace(result, points=(point,), search=search, environment=environment)))
        return folder

    return make


def four(copies):
    kinds = [("random_search", 0.60), ("ppo", 0.70)]
    return [copies(f"{n}{s}", n, s, a + 0.01 * s * (n == "ppo")) for n, a in kinds for s in (0, 1)]


def test_fits_are_compared_with_their_uniform_networks(copies, tmp_path):
    folders = four(copies)
    found = gather(folders, tmp_path / "out")
    rows = found.contestants
    assert list(rows) == ["random_search", "uniform_width", "ppo"]
    assert [a.quality for a in rows["ppo"].answers] == [0.70, 0.71]
    assert [a.quality for a in rows["uniform_width"].answers] == [0.50, 0.51]  # of each seed once
    assert rows["ppo"].gain.value == pytest.approx(0.105)
    assert "paired" in rows["ppo"].gain.method
    assert found.seeds == (0, 1)
    assert all(0 < a.valid < 1 for a in rows["ppo"].answers)
    (answer, _) = rows["ppo"].answers
    assert answer.latency_ms.low < answer.latency_ms.value
    assert answer.used.epochs == len(answer.trials) == 1  # one epoch of one network
    assert comparisons.read(tmp_path / "out") == found
    assert found.folders == tuple(map(str, folders))
    assert found.given is None


def test_where_uniform_scaling_has_won_the_searchs_own_network_is_compared(copies, tmp_path):
    def outdone(result):
        return replace(result, points=(replace(result.points[0], delivered="uniform"),))

    folders = [copies("new", "ppo", 0, 0.7, change=outdone), copies("old", "random_search", 0, 0.6)]
    rows = gather(folders, tmp_path / "out").contestants
    assert {n: [a.quality for a in row.answers] for n, row in rows.items()} == {
        "ppo": [0.7],
        "uniform_width": [0.5],
        "random_search": [0.6],
    }


def test_answers_at_other_points_come_along(copies, tmp_path):
    def twice(result):
        (point,) = result.points
        slow = replace(point.searched.latency_ms, value=7.5)
        other = replace(point, searched=replace(quality(point.searched, 0.9), latency_ms=slow))
        return replace(result, points=(point, other))

    folder = copies("a", "random_search", 0, 0.7, change=twice)
    (answer,) = gather([folder], tmp_path / "out").contestants["random_search"].answers
    assert (answer.quality, answer.others) == (0.7, (Other(7.5, 0.9),))
    (answer,) = gather([folder], tmp_path / "out", point=1).contestants["random_search"].answers
    assert (answer.quality, [o.quality for o in answer.others]) == (0.9, [0.7])


def test_other_settings_are_another_strategy(copies, tmp_path):
    folders = [copies("a", "ppo", 0, 0.7), copies("b", "ppo", 0, 0.8, settings={"lr": 0.1})]
    assert list(gather(folders, tmp_path / "out").contestants) == ["ppo", "uniform_width", "ppo (lr=0.1)"]
    with pytest.raises(ConfigError, match="named twice"):
        gather([folders[0], folders[1], folders[0]], tmp_path / "out")
    with pytest.raises(ConfigError, match="ppo at seed 0"):
        gather([folders[0], copies("c", "ppo", 0, 0.9)], tmp_path / "out")


def elsewhere(result):
    return replace(result, environment={**result.environment, "data": {"fingerprint": "other"}})


def smaller(result):
    return replace(result, search=replace(result.search, choices=(Choice("x", (1, 2)),)))


def by_another(result):
    return replace(result, metrics=(*result.metrics, Metric("loss", "min", "nats")))


def turned(result):
    return replace(result, metrics=(replace(result.metric, goal="min"),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (elsewhere, "their data differ .*other"),
        (smaller, "their space differ .3 choices and 1 choices"),
        (by_another, r"their metrics differ .accuracy \(max\) share and accuracy \(max\) share, loss \(min\) nats"),
        (turned, r"their metrics differ .accuracy \(max\) share and accuracy \(min\) share"),
    ],
)
def test_different_problems_are_refused(copies, tmp_path, change, message):
    folders = [copies("a", "ppo", 0, 0.7), copies("b", "random_search", 0, 0.7, change=change)]
    with pytest.raises(ConfigError, match=message):
        gather(folders, tmp_path / "out")


def test_the_first_choice_that_differs_and_another_budget_are_named(copies, tmp_path):
    def wider(result):
        first, second, *rest = result.search.choices
        second = replace(second, options=(9, *second.options[1:]))
        return replace(result, search=replace(result.search, choices=(first, second, *rest)))

    first, second = copies("a", "ppo", 0, 0.7), copies("b", "random_search", 0, 0.7, change=wider)
    with pytest.raises(ConfigError, match=r"separable1.*\(8, .*separable1.*\(9, "):
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
    with pytest.raises(StateError, match=r"was written by sartor 0\.1"):
        gather([folder], tmp_path / "out")
    (folder / "result.json").write_text('{"version": 2, "title": "x"}')
    with pytest.raises(StateError, match="task is not as it should be"):
        gather([folder], tmp_path / "out")
    with pytest.raises(ConfigError, match="there is no 2"):
        gather([copies("b", "ppo", 0, 0.7)], tmp_path / "out", point=2)
    with pytest.raises(ConfigError, match="a run of its own"):
        gather([copies("c", "ppo", 0, 0.7)], tmp_path / "c")


def test_other_recipes_of_the_training_are_told(copies, tmp_path):
    folders = [copies("a", "ppo", 0, 0.7), copies("b", "random_search", 0, 0.7)]
    config = {**read_config(folders[1] / "config.toml"), "training": {"epochs": 7}}
    (folders[1] / "config.toml").write_text(tomli_w.dumps(config))
    assert any("different recipes" in note for note in gather(folders, tmp_path / "out").notes)


def test_a_comparison_on_the_target_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("sartor.jobs.compare.run.ROUNDS", 6)  # nobody looks at the figures
    monkeypatch.setattr("sartor.jobs.fit.reference.ANCHOR_ROUNDS", 6)
    recipe = {**latency_settings(), "strategy": {"name": "random_search"}}
    recipe["task"] = {**recipe["task"], "augment": ""}
    recipe |= {"latency_model": {"networks": 8, "heldout": 2, "sweeps": 1, "rounds": 2}}
    recipe |= {"budget": {"latency_ms": "95%"}, "target": {"name": "torch_cpu"}}  # nothing to export: seconds
    asked = Setup({}, Allowance("trials", 1), seeds=1)
    before = compare(recipe, tmp_path / "whole", asked)
    times = [a.latency_ms for row in before.contestants.values() for a in row.answers]
    assert all(t.low <= t.value <= t.high for t in times)
    assert before.reference.latency_ms.value > 0
    stages = [r["name"] for r in FileJournal(tmp_path / "whole/journal.jsonl").read() if r["kind"] == "stage"]
    assert sum(s.startswith("measurement.") for s in stages) == 1  # all of them in the same rounds
    again = gather([tmp_path / "whole"], tmp_path / "out")
    for key in ("contestants", "yardstick", "budget", "metric", "problem", "corner", "seeds"):
        assert getattr(again, key) == getattr(before, key)
    assert again.reference == replace(before.reference, latency_ms=None)
