from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress

import onnxruntime
import pytest
import torch
from torch import nn

from sartor.core import files
from sartor.core.errors import StateError, TargetError
from sartor.jobs.fit.api import fit_config
from sartor.jobs.fit.assemble import assemble
from sartor.jobs.fit.deliver import environment
from sartor.report.table import summary_text
from small import latency_settings, settings


def test_environment_names_what_a_result_depends_on():
    facts = environment(assemble(settings()), "sartor fit")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["seed"] == 0
    assert facts["threads"] == 1
    assert facts["command"] == "sartor fit"
    assert facts["data"]["name"] == "digits"
    assert len(facts["data"]["fingerprint"]) >= 16
    assert {"sartor", "torch", "python", "processor", "target"} <= facts.keys()


def test_delivered_files_agree_with_the_result(finished):
    words = json.loads((finished.folder / "architecture.json").read_text())
    winner = finished.result.points[0].winner
    assert words["arch"] == list(winner.arch)
    assert words["inputs"] == {"input": [1, 1, 16, 16]}
    assert (finished.folder / "model.onnx").read_bytes() == (finished.folder / winner.file).read_bytes()


def test_every_file_has_its_digest(finished):
    found = finished.result.files
    winner = finished.result.points[0].winner
    wanted = {"model.onnx", "model.pt2", "model.safetensors", "architecture.json", winner.file, winner.weights}
    assert wanted <= found.keys()
    assert {e.file for e in finished.result.networks.values()} <= found.keys()
    for name, digest in found.items():
        assert files.sha256(finished.folder / name) == digest
    assert finished.result.changed(finished.folder) == {}


def test_what_is_missing_of_a_finished_run_comes_back_as_it_was(finished, tmp_path):
    """Files that have a twin, or are text; of the others the run says which it is."""
    names, alone = list(finished.result.files), []
    for name in names:
        run = tmp_path / "run"
        shutil.copytree(finished.folder, run)
        (run / name).unlink()
        says = re.escape(f"{run / name} is missing; restore it, or run the fit again in a new folder")
        with suppress(StateError):
            assert fit_config(latency_settings(), run).result.changed(run) == {}
        if not (run / name).exists():
            alone.append(name)
            with pytest.raises(StateError, match=f"^{says}$"):
                fit_config(latency_settings(), run)
        shutil.rmtree(run)
    assert {"model.onnx", "model.pt2", "model.safetensors", "architecture.json"} <= set(names) - set(alone)
    assert "artifacts/reference.safetensors" in alone  # nothing else holds the reference's weights


def test_a_delivered_file_that_is_another_now_is_named_and_kept(finished, tmp_path):
    for name in finished.result.files:
        run = tmp_path / "run"
        shutil.copytree(finished.folder, run)
        (run / name).write_bytes(b"something of somebody's own")
        with pytest.raises(
            StateError, match=rf"{re.escape(name)} has SHA-256 .* delivered with .*; (remove|restore) it"
        ) as e:
            fit_config(latency_settings(), run)
        assert "\n" not in str(e.value)
        assert (run / name).read_bytes() == b"something of somebody's own"
        if "; remove it" in str(e.value):
            (run / name).unlink()
            assert fit_config(latency_settings(), run).result.changed(run) == {}
        shutil.rmtree(run)


def test_the_page_of_a_finished_run_is_drawn_again(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    fit_config(latency_settings(), tmp_path / "run")
    assert "<html" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_the_delivered_files_take_any_batch_and_agree(finished):
    session = onnxruntime.InferenceSession(finished.folder / "model.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(finished.folder / "model.pt2").module()
    for batch in (1, 3, 5):
        x = torch.randn(batch, 1, 16, 16)
        with torch.no_grad():
            expected = finished.network(x)
        torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            torch.tensor(session.run(["output"], {"input": x.numpy()})[0]), expected, rtol=1e-3, atol=1e-4
        )


def test_each_network_is_exported_once_and_the_files_are_used_again(tmp_path, monkeypatch):
    saved, save = [], torch.export.save

    def counted(program, file, **kwargs):
        saved.append(program)
        save(program, file, **kwargs)

    monkeypatch.setattr(torch.export, "save", counted)
    fit = fit_config(settings(budget={"macs": ["60%", "40%"]}), tmp_path / "run")
    networks = {e.file for e in fit.result.networks.values()}
    assert len(saved) == len(networks) == len(fit.result.networks)
    for point in fit.result.points:
        own = fit.folder / point.folder
        assert (own / "model.pt2").read_bytes() == (fit.folder / point.winner.file).read_bytes()
    assert (fit.folder / "model.pt2").read_bytes() == (fit.folder / "budget_0" / "model.pt2").read_bytes()
    assert {"budget_0/model.pt2", "budget_1/model.pt2", "model.pt2"} <= fit.result.files.keys()


def test_sizes_are_open_where_the_config_asks_for_them(tmp_path):
    config = settings(strategy={"name": "uniform_width"}, export={"dynamic": ["height", "width"]})
    fit = fit_config(config, tmp_path / "run")
    program = torch.export.load(fit.folder / "model.pt2").module()
    x = torch.randn(3, 1, 12, 20)
    with torch.no_grad():
        torch.testing.assert_close(program(x), fit.network(x), rtol=1e-4, atol=1e-5)
    assert fit.result.points[0].winner.note == ""


class Fixed(nn.Module):
    """A dense layer over all pixels: of one size only."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 16, 3, padding=1), nn.Linear(1024, 10)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)).flatten(1))


def test_a_network_of_one_size_is_refused_before_training_or_delivered_with_a_word(tmp_path):
    config = settings(space={"name": "object"}, strategy={"name": "uniform_width"}, training={"epochs": 1, "lr": 0.01})
    with pytest.raises(TargetError, match=r"open height: Fixed itself cannot take .* export.otherwise = 'fixed'"):
        fit_config({**config, "export": {"dynamic": ["height"]}}, tmp_path / "a", objects={"space": Fixed()})
    assert not (tmp_path / "a").exists()
    wish = {"dynamic": ["height"], "otherwise": "fixed"}
    fit = fit_config({**config, "export": wish}, tmp_path / "b", objects={"space": Fixed()})
    note = fit.result.points[0].winner.note
    assert note.startswith("the exported file takes inputs of (1, 1, 8, 8) only: ")
    assert note in summary_text(fit.result, width=400)
