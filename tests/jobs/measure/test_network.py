from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

from sartor.core.errors import ConfigError, TargetError
from sartor.jobs.fit.api import fit_config
from sartor.jobs.measure.network import measure_network, write_plan, yardstick
from sartor.networks import macs_params
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.targets.torch_cpu import TorchCpu
from several import CASES
from small import latency_settings

SHAPE = torch.empty(1, 3, 16, 16, device="meta")


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def test_a_network_by_name_and_the_same_as_a_file(tmp_path):
    target = OnnxRuntime(threads=1)
    found = measure_network("jobs.measure.test_network:small", target, SHAPE, rounds=6, sessions=2)
    assert (found["processes"], found["note"]) == (3, ""), "a verdict takes several by default"
    assert found["macs"] == 14 * 14 * 4 * 27 + 8
    assert found["params"] == 4 * 27 + 4 + 10
    assert found["memory_bytes"] >= 0
    assert found["latency_ms"]["low"] <= found["latency_ms"]["value"] <= found["latency_ms"]["high"]
    assert found["target"]["runtime"] == "onnxruntime"
    target.prepare(small(), torch.zeros(1, 3, 16, 16), tmp_path)
    file = measure_network(str(tmp_path / "model.onnx"), target, SHAPE, rounds=5, sessions=2, processes=1, peak=False)
    assert file["processes"] == 1
    assert file["macs"] is None
    assert file["relative"]["value"] > 0


def test_several_inputs_are_measured():
    inputs = {"ids": torch.empty(2, 6, dtype=torch.int64, device="meta"), "image": torch.empty(2, 3, 8, 8)}
    found = measure_network("several:words", TorchCpu(), inputs, rounds=3, sessions=2)
    assert found["input"] == {"ids": [2, 6], "image": [2, 3, 8, 8]}
    assert found["latency_ms"]["value"] > 0
    case = CASES["words and image"]
    assert (found["macs"] // 2, found["params"]) == macs_params(case.network(), case.batch(1))
    assert {u["why"] for u in found["uncounted"]} == {"lookup"}
    assert found["memory_bytes"] > 0
    assert (found["processes"], found["note"]) == (3, "")


def test_mistakes_are_named():
    target = OnnxRuntime(threads=1)
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        measure_network("torchvision:resnet81", target, SHAPE)
    with pytest.raises(TargetError, match="no file"):
        measure_network("nowhere.onnx", target, SHAPE)


def test_the_yardstick_never_changes():
    assert macs_params(yardstick(), torch.zeros(1, 16, 32, 32))[0] == 32 * 32 * (16 * 32 * 9 + 32 * 64 + 64 * 16)
    a, b = yardstick().state_dict(), yardstick().state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_plan_comes_back_filled_in_from_another_device(tmp_path):
    """The device is a formula here: 0.1 ms and 0.01 ms per channel; the fit reads the CSV and measures nothing."""
    manifest, number = write_plan(latency_settings(), 8, tmp_path / "plan")
    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    assert len(rows) == number >= 8 + 5  # the held-out ones are drawn at random: some may coincide
    assert all((tmp_path / "plan" / row["file"]).exists() for row in rows)
    for row in rows:
        row["latency_ms"] = str(0.1 + 0.01 * sum(int(row[n]) for n in ("conv0", "separable1", "separable2")))
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    fit = fit_config(latency_settings(latency_model={"samples": str(manifest)}), tmp_path / "run")
    stages = {s.name: s for s in fit.result.spent.stages}
    assert stages["latency_model"].networks_measured == 0
    assert fit.result.latency_model.training_networks == 8
    (point,) = fit.result.points
    limit = point.budget["latency_ms"]
    assert limit == pytest.approx(0.7 * (0.1 + 0.01 * 3 * 128), rel=0.05), "per cent of the reference on that device"
    assert 0.1 + 0.01 * sum(point.winner.options.values()) <= 1.05 * limit
    assert point.winner.elsewhere
    assert fit.verdict == "UNSURE", "nothing here has measured that device"
    assert "time the exported file on the device" in point.sentence
