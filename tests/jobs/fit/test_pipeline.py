"""What makes a network the winner: one that misses the budget gives way, and so does one that uniform scaling beats."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import sartor
from sartor.core.moves import Moves
from sartor.core.records import Estimate
from sartor.jobs import verification
from sartor.jobs.compare.folders import gather
from sartor.jobs.fit.api import fit_config
from sartor.report.table import summary_text
from sartor.spaces.tiny import Tiny
from sartor.timing import estimate
from small import latency_settings, settings


def test_a_winner_that_misses_the_budget_is_replaced_without_searching_again(tmp_path, monkeypatch):
    real = verification.latencies
    seen = []

    def slow_at_first(subjects, anchor, effort, **settings):
        """The first verified winner takes three times as long as it did when it was chosen."""
        times = real(subjects, anchor, effort, **settings)
        seen.append(times["winner_0"])
        if len(seen) == 1:
            times["winner_0"] = times["winner_0"].scaled(3.0)
        return times

    monkeypatch.setattr(verification, "latencies", slow_at_first)
    fit = fit_config(latency_settings(), tmp_path / "run")
    stages = {s["name"]: s for s in fit.result["ledger"]["stages"]}
    assert stages["training"]["networks_trained"] == 3
    assert len(seen) >= 2
    names = sorted(p.name for p in (tmp_path / "run/artifacts").glob("winner*.safetensors"))
    assert names == ["winner_0.safetensors", "winner_0_1.safetensors"]
    assert (fit.result["searched"] or fit.result["winner"])["weights"] == "artifacts/winner_0_1.safetensors"
    winner = fit.result["winner"]
    verdict = estimate.verdict(Estimate(**winner["latency_ms"]), fit.result["budget"]["latency_ms"][0])
    assert fit.verdict == verdict


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
    for i, point in enumerate(result["curve"]):
        assert point["winner"] == point["uniform"]
        assert point["winner"]["weights"] == f"artifacts/uniform_{i}.safetensors"
        assert point["searched"]["weights"] == f"artifacts/winner_{i}.safetensors"
        assert point["searched"]["arch"] == [0, 0, 0]
        assert point["winner"]["accuracy"] > point["searched"]["accuracy"] + 0.05
        assert point["winner"]["macs"] > point["searched"]["macs"]
        assert point["sentence"].startswith("PASS: ")
        assert "on the validation split it is better than the search's (" in point["reason"]
        delivered = load_file(folder / point["folder"] / "model.safetensors")
        expected = load_file(folder / point["winner"]["weights"])
        assert all(torch.equal(delivered[name], value) for name, value in expected.items())
        assert outdone.networks[i].state_dict().keys() == expected.keys()
        words = json.loads((folder / point["folder"] / "architecture.json").read_text())
        assert words["widths"] == point["winner"]["widths"] != point["searched"]["widths"]
    assert outdone.metrics == result["winner"]["metrics"]
    assert {k: result[k] for k in ("winner", "uniform", "searched")} == {
        k: result["curve"][0][k] for k in ("winner", "uniform", "searched")
    }
    assert summary_text(result).count("the winner is the uniformly scaled network: on the validation split") == 2


def test_what_is_delivered_does_not_change_when_the_end_is_done_again(outdone):
    """Also where a file of another network was left in the folder: nothing is trained, everything is written."""
    folder = outdone.folder
    for name in ("result.json", "report.html"):
        (folder / name).unlink()
    (folder / "model.pt2").write_bytes(b"of another network")
    weights = (folder / "artifacts" / "uniform_0.safetensors").stat().st_mtime_ns
    again = badly_searched(folder)
    assert again.result["curve"] == outdone.result["curve"]
    assert (folder / "artifacts" / "uniform_0.safetensors").stat().st_mtime_ns == weights
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.export.load(folder / "model.pt2").module()(x), outdone.network(x))


def test_comparisons_are_of_what_the_search_has_found(outdone, tmp_path):
    rows = gather([outdone.folder], tmp_path / "out", point=1)["strategies"]
    (own,), (scaled,) = rows["random_search"]["runs"], rows["uniform_width"]["runs"]
    point = outdone.result["curve"][1]
    for run, entry in ((own, point["searched"]), (scaled, point["uniform"])):
        assert (run["arch"], run["accuracy"]) == (entry["arch"], entry["accuracy"])
    assert own["valid"] < scaled["valid"] - 0.05
    (other,) = own["others"]
    assert other["accuracy"] == outdone.result["curve"][0]["searched"]["accuracy"]
