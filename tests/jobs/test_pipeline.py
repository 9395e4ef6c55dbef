"""What a pipeline does when the target disagrees with the plan: a winner that misses gives way to a smaller one."""

from __future__ import annotations

from sartor import measure
from sartor.jobs import verification
from sartor.jobs.fit import fit_config
from sartor.measure import Estimate
from small import latency_settings


def test_a_winner_that_misses_the_budget_is_replaced_without_searching_again(tmp_path, monkeypatch):
    real = verification.time_together
    seen = []

    def slow_at_first(makers, example, anchor, **settings):
        """The first verified winner takes three times as long as it did when it was chosen."""
        times = real(makers, example, anchor, **settings)
        seen.append(times["winner_0"])
        if len(seen) == 1:
            times["winner_0"] = times["winner_0"].scaled(3.0)
        return times

    monkeypatch.setattr(verification, "time_together", slow_at_first)
    fit = fit_config(latency_settings(), tmp_path / "run")
    stages = {s["name"]: s for s in fit.result["ledger"]["stages"]}
    assert stages["training"]["networks_trained"] == 3
    assert len(seen) >= 2
    names = sorted(p.name for p in (tmp_path / "run/artifacts").glob("winner*.safetensors"))
    assert names == ["winner_0.safetensors", "winner_0_1.safetensors"]
    winner = fit.result["winner"]
    assert winner["weights"] == "artifacts/winner_0_1.safetensors"
    verdict = measure.verdict(Estimate(**winner["latency_ms"]), fit.result["budget"]["latency_ms"][0])
    assert fit.verdict == verdict
