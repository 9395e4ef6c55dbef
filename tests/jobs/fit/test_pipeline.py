"""What makes a network the winner: one that misses the budget gives way, and so does one that uniform scaling beats."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import sartor
from sartor.core.moves import Moves
from sartor.jobs.compare.folders import gather
from sartor.jobs.fit import verify
from sartor.jobs.fit.api import fit_config
from sartor.report.table import summary_text
from sartor.spaces.tiny import Tiny
from sartor.timing import estimate
from small import latency_settings, settings


def test_a_winner_that_misses_the_budget_is_replaced_without_searching_again(tmp_path, monkeypatch):
    real = verify.latencies
    seen = []

    def slow_at_first(subjects, anchor, effort, **settings):
        """The first verified winner takes three times as long as it did when it was chosen."""
        times = real(subjects, anchor, effort, **settings)
        seen.append(times["searched_0"])
        if len(seen) == 1:
            times["searched_0"] = times["searched_0"].scaled(3.0)
        return times

    monkeypatch.setattr(verify, "latencies", slow_at_first)
    fit = fit_config(latency_settings(), tmp_path / "run")
    stages = {s.name: s for s in fit.result.spent.stages}
    assert stages["training"].networks_trained == 3
    assert len(seen) >= 2
    names = sorted(p.name for p in (tmp_path / "run/artifacts").glob("searched*.safetensors"))
    assert names == ["searched_0.safetensors", "searched_0_1.safetensors"]
    point = fit.result.points[0]
    assert point.searched.weights == "artifacts/searched_0_1.safetensors"
    assert fit.verdict == estimate.verdict(point.winner.latency_ms, point.budget["latency_ms"])


class Smallest(Moves):
    def draw(self, rng):
        return (0,) * len(self.choices)


class Poor(Tiny):
    """At random it names its smallest network only."""

    @property
    def moves(self):
        return Smallest(self.choices, self.canonical)


def badly_searched(folder):
    return sartor.fit(
        Poor(widths=(1, 12, 16, 24)),
        settings()["task"],
        budget={"macs": ["75%", "50%"]},
        strategy={"name": "random_search", "trials": 1},
        folder=folder,
        recipe=settings(training={"epochs": 4, "lr": 0.3}, verification={"rounds": 5, "sessions": 1}),
    )


@pytest.fixture(scope="module")
def outdone(tmp_path_factory):
    """A fit whose search has found next to nothing."""
    return badly_searched(tmp_path_factory.mktemp("outdone") / "run")


def test_the_uniformly_scaled_network_is_delivered_where_it_is_better(outdone):
    result, folder = outdone.result, outdone.folder
    for i, point in enumerate(result.points):
        assert point.delivered == "uniform"
        assert point.winner == point.uniform
        assert point.winner.weights == f"artifacts/uniform_{i}.safetensors"
        assert point.searched.weights == f"artifacts/searched_{i}.safetensors"
        assert point.searched.arch == (0, 0, 0)
        assert point.winner.scores["accuracy"].value > point.searched.scores["accuracy"].value + 0.05
        assert point.winner.macs > point.searched.macs
        assert point.sentence.startswith("PASS: ")
        assert "on the validation split it is better than the search's (" in point.reason
        delivered = load_file(folder / point.folder / "model.safetensors")
        expected = load_file(folder / point.winner.weights)
        assert all(torch.equal(delivered[name], value) for name, value in expected.items())
        assert outdone.networks[i].state_dict().keys() == expected.keys()
        words = json.loads((folder / point.folder / "architecture.json").read_text())
        assert words["options"] == point.winner.options != point.searched.options
    assert outdone.metrics == {n: s.value for n, s in result.points[0].winner.scores.items()}
    assert summary_text(result).count("the winner is the uniformly scaled network: on the validation split") == 2


def test_what_is_delivered_does_not_change_when_the_end_is_done_again(outdone):
    """Also where a file of another network was left in the folder: nothing is trained, everything is written."""
    folder = outdone.folder
    for name in ("result.json", "report.html"):
        (folder / name).unlink()
    (folder / "model.pt2").write_bytes(b"of another network")
    weights = (folder / "artifacts" / "uniform_0.safetensors").stat().st_mtime_ns
    again = badly_searched(folder)
    assert again.result.points == outdone.result.points
    assert (folder / "artifacts" / "uniform_0.safetensors").stat().st_mtime_ns == weights
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.export.load(folder / "model.pt2").module()(x), outdone.network(x))


def test_comparisons_are_of_what_the_search_has_found(outdone, tmp_path):
    rows = gather([outdone.folder], tmp_path / "out", point=1).contestants
    (own,), (scaled,) = rows["random_search"].answers, rows["uniform_width"].answers
    point = outdone.result.points[1]
    for answer, entry in ((own, point.searched), (scaled, point.uniform)):
        assert (answer.arch, answer.quality) == (entry.arch, entry.scores["accuracy"].value)
    assert own.valid < scaled.valid - 0.05
    (other,) = own.others
    assert other.quality == outdone.result.points[0].searched.scores["accuracy"].value
