"""The main job end to end, on real data: what it gives back, what it never does, and that a kill loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, TensorDataset

import nets
import sartor
from nets import random_
from sartor.core.errors import BudgetError, CapabilityError, LeakError, StateError
from sartor.core.records import Estimate
from sartor.core.rng import global_seed
from sartor.jobs.fit.api import fit_config
from sartor.networks import macs_params
from sartor.run.result import read, read_result
from sartor.spaces.tiny import Tiny
from sartor.tasks.digits import digits
from small import latency_settings, settings


def test_result_holds_what_is_promised(finished):
    result = finished.result
    assert read_result(finished.folder) == result
    point = result.points[0]
    for entry in (result.reference, point.winner, point.uniform):
        score = entry.scores["accuracy"]
        assert 0 <= score.low <= score.value <= score.high <= 1
        assert score.examples == 359
        assert set(entry.valid) == {"accuracy"}
        assert 0 < entry.latency_ms.low <= entry.latency_ms.value <= entry.latency_ms.high
        assert len(entry.arch) == len(entry.options) == 3
        assert entry.macs > 0
        assert entry.params > 0
        assert entry.relative_error < 1e-3
        assert (finished.folder / entry.file).exists()
        assert (finished.folder / entry.weights).exists()
    model = result.latency_model
    assert (model.training_networks, model.heldout_networks) == (12, 4)
    assert 0 < model.nrmse < 1
    assert result.environment["seed"] == 0
    assert result.environment["command"] == "sartor fit small.toml run"
    assert result.environment["data"]["fingerprint"]
    assert result.verdict == "PASS"
    assert result.task == "digits"
    assert result.metric.goal == "max"
    assert point.winner.latency_ms.high <= point.budget["latency_ms"]


def test_trials_are_in_the_journal_alone(finished):
    result, trace = read(finished.folder)
    assert "trials" not in json.loads((finished.folder / "result.json").read_text())["search"]
    assert len(trace.trials) == result.search.evaluations


def test_the_ledger_adds_up_to_the_wall_time(finished):
    spent = finished.result.spent
    total = sum(stage.seconds for stage in spent.stages)
    assert total == pytest.approx(spent.wall_seconds, rel=0.02)
    stages = {stage.name: stage for stage in spent.stages}
    assert {"reference", "latency_model", "search", "choice", "training", "verification", "test"} <= stages.keys()
    assert stages["latency_model"].networks_measured == 16
    assert stages["training"].networks_trained == 2


def test_everything_lies_in_the_folder_and_loads_without_sartor(finished):
    folder = finished.folder
    x = torch.randn(2, 1, 16, 16)
    expected = finished.network(x)
    script = (
        "import sys, torch\n"
        f"x = torch.load({str(folder / 'x.pt')!r})\n"
        f"y = torch.export.load({str(folder / 'model.pt2')!r}).module()(x[:1])\n"
        "assert not any(m.split('.')[0] == 'sartor' for m in sys.modules)\n"
        f"torch.save(y, {str(folder / 'y.pt')!r})\n"
    )
    torch.save(x, folder / "x.pt")
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
    torch.testing.assert_close(torch.load(folder / "y.pt"), expected[:1].detach())
    state = load_file(folder / "model.safetensors")
    assert state.keys() == finished.network.state_dict().keys()
    words = json.loads((folder / "architecture.json").read_text())
    assert words["options"] == finished.result.points[0].winner.options
    assert (folder / "report.html").stat().st_size > 1e6
    assert (folder / "model.onnx").exists()


def test_the_network_is_plain_pytorch(finished):
    assert all(type(m).__module__.startswith("torch") for m in finished.network.modules())
    assert not finished.network.training


def test_the_same_again_is_finished_and_costs_nothing(finished):
    before = (finished.folder / "journal.jsonl").read_bytes()
    again = fit_config(latency_settings(), finished.folder)
    assert (finished.folder / "journal.jsonl").read_bytes() == before
    assert again.result == finished.result


def test_another_config_is_refused(finished):
    with pytest.raises(StateError, match=r"changed: training\.epochs"):
        fit_config(latency_settings(training={"epochs": 9, "lr": 0.1}), finished.folder)


def test_from_python_with_objects_and_own_loaders(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(192, 1, 8, 8, generator=generator)
    y = (x.mean((1, 2, 3)) > 0).long()
    train, valid, test = (TensorDataset(x[i : i + 64], y[i : i + 64]) for i in (0, 64, 128))
    fit = sartor.fit(
        Tiny(classes=2, widths=(4, 8)),
        [DataLoader(train, 16, shuffle=True), DataLoader(valid, 64), DataLoader(test, 64)],
        budget={"params": "60%"},
        target="torch_cpu",
        strategy="uniform_width",
        folder=tmp_path / "run",
        recipe=settings(),
    )
    assert isinstance(fit.network, torch.nn.Module)
    assert fit.verdict == "PASS"
    assert sum(p.numel() for p in fit.network.parameters()) <= fit.result.points[0].budget["params"]
    assert 0 <= fit.metrics["accuracy"] <= 1


def test_a_network_of_ones_own_is_made_narrower(tmp_path):
    network = random_(nets.digits())
    before = {k: v.clone() for k, v in network.state_dict().items()}

    def fitted(module):
        return sartor.fit(
            module,
            {"name": "digits", "size": 8, "batch": 128},
            budget={"macs": "50%"},
            target="torch_cpu",
            strategy={"name": "ows", "epochs": 1},
            folder=tmp_path / "run",
            recipe=settings(training={"epochs": 1, "lr": 0.05, "distil_weight": 0.5}),
        )

    fit = fitted(network)
    assert type(fit.network) is nets.Residual
    reference, winner = fit.result.reference, fit.result.points[0].winner
    assert winner.macs <= 0.5 * reference.macs
    assert sum(p.numel() for p in fit.network.parameters()) == winner.params < reference.params
    assert macs_params(fit.network, torch.zeros(1, 1, 8, 8)) == (winner.macs, winner.params)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    # the reference was not trained: its channels are the network's own, in another order
    kept = load_file(fit.folder / reference.weights)
    assert kept.keys() == before.keys()
    for name, value in kept.items():
        assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values), name
    again = fitted(network)
    assert again.result == fit.result
    with torch.no_grad():
        network.head.bias[0] += 1
    with pytest.raises(StateError, match="changed: space"):
        fitted(network)
    with pytest.raises(StateError, match="changed: space"):
        fitted(random_(nets.digits(), seed=3))


def test_a_network_without_channels_to_cut_is_refused(tmp_path):
    with pytest.raises(CapabilityError, match="no channels that can be cut"):
        sartor.fit(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)),
            {"name": "digits", "size": 8},
            folder=tmp_path,
            budget={"macs": "50%"},
        )


@torch.library.custom_op("sartor_tests::riddle", mutates_args=())
def riddle(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """What nobody can look into."""
    return x @ w


@riddle.register_fake
def _(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w


def _learn(ctx, gradient):
    x, w = ctx.saved_tensors
    return gradient @ w.T, x.T @ gradient


riddle.register_autograd(_learn, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


class Riddle(torch.nn.Module):
    """Most parameters are those of an operator that sartor does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(1, 16, 1), torch.nn.Conv2d(16, 8, 1)
        self.mixer = torch.nn.Linear(8, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(torch.relu(self.first(x))).mean((2, 3))
        return torch.ops.sartor_tests.riddle(y, self.mixer.weight.T)


def test_a_budget_on_macs_that_nobody_knows_is_refused(tmp_path):
    config = {"task": {"name": "digits", "size": 8}, "target": "torch_cpu", "strategy": "uniform_width"}
    with pytest.raises(BudgetError, match=r"nobody knows those of mixer \(riddle\), which have 80 of 248 parameters"):
        sartor.fit(Riddle(), **config, budget={"macs": "50%"}, folder=tmp_path / "run", recipe=settings())
    assert not list(tmp_path.glob("*/artifacts/*.safetensors"))


class Rows(torch.nn.Module):
    """Reads the rows of a picture one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(8, 24, 2, bidirectional=True, batch_first=True)
        self.lstm = torch.nn.LSTM(48, 20, batch_first=True)
        self.head = torch.nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.gru(x[:, 0])[0])[1][0][-1])


def test_recurrent_layers_are_cut_to_a_budget(tmp_path):
    with global_seed(0):
        network = Rows()
    fit = sartor.fit(
        network,
        {"name": "digits", "size": 8, "batch": 128},
        budget={"macs": "50%"},
        target="onnxruntime",
        strategy={"name": "ows", "epochs": 1},
        folder=tmp_path / "run",
        recipe=settings(training={"epochs": 1, "lr": 0.05}),
    )
    assert type(fit.network) is Rows
    gru, lstm, winner = fit.network.gru, fit.network.lstm, fit.result.points[0].winner
    assert gru.hidden_size < 24 or lstm.hidden_size < 20
    assert lstm.input_size == 2 * gru.hidden_size
    weights = sum(p.numel() for m in (gru, lstm) for p in m.parameters() if p.dim() == 2)
    assert winner.macs == 8 * weights + 10 * lstm.hidden_size <= 0.5 * fit.result.reference.macs
    assert fit.verdict == "PASS"


def test_several_budgets_share_one_search(tmp_path):
    fit = fit_config(settings(budget={"macs": ["80%", "40%"]}), tmp_path / "run")
    assert len(fit.networks) == len(fit.result.points) == 2
    for point in fit.result.points:
        assert point.winner.macs <= point.budget["macs"]
        assert (fit.folder / point.folder / "model.safetensors").exists()
    stages = {s.name: s for s in fit.result.spent.stages}
    assert stages["search"].networks_trained == 1


def test_impossible_and_needless_budgets_are_refused_before_any_training(tmp_path):
    with pytest.raises(BudgetError, match="the smallest one takes"):
        fit_config(settings(budget={"macs": 10}), tmp_path / "a")
    with pytest.raises(BudgetError, match="nothing needs to be done"):
        fit_config(settings(budget={"macs": "100%"}), tmp_path / "b")
    assert not list(tmp_path.glob("*/artifacts/*.safetensors"))


def test_the_search_never_touches_the_test_split(tmp_path):
    """The test split raises until the last stage has begun; a search that peeks stops with an error."""
    task = digits(size=8, batch=128)
    seen = []

    def guarded():
        records = map(json.loads, (tmp_path / "run/journal.jsonl").read_text().splitlines())
        names = [r["name"] for r in records if r["kind"] == "stage"]
        assert any(n.startswith("verification") for n in names), "the test split was read before the verification"
        seen.append(names[-1])
        return task.test()

    fit = fit_config(settings(), tmp_path / "run", objects={"task": replace(task, test=guarded)})
    assert seen
    assert fit.result.points[0].winner.scores["accuracy"].examples == sum(len(y) for _, y in task.test())
    with pytest.raises(LeakError):
        next(iter(task.sealed().test()))


SCRIPT = """
import json, sys
from pathlib import Path
from sartor.jobs.fit.api import fit_config
from sartor.networks import macs_params
from sartor.run.result import read, read_result
fit_config(json.loads(sys.argv[1]), Path(sys.argv[2]), command="same")
"""


def start(config, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(config), str(folder)], env=environment)


def facts(folder: Path):
    """What must be equal: everything but times."""
    result = read_result(folder)
    networks = {role: replace(entry, latency_ms=Estimate(0, 0, 0)) for role, entry in result.networks.items()}
    return networks, result.search, result.verdict, load_file(folder / "model.safetensors")


def test_killed_anywhere_and_resumed_equals_uninterrupted(tmp_path):
    """With a budget in MACs: kill -9 in the middle, then the same weights bit for bit; see `test_kills`, too."""
    config = settings(strategy={"name": "aows", "epochs": 3})
    assert start(config, tmp_path / "whole").wait() == 0
    records = len((tmp_path / "whole/journal.jsonl").read_text().splitlines())
    process, journal = start(config, tmp_path / "killed"), tmp_path / "killed/journal.jsonl"
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= records // 2:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            break
        time.sleep(0.01)
    assert start(config, tmp_path / "killed").wait() == 0
    whole, again = facts(tmp_path / "whole"), facts(tmp_path / "killed")
    assert whole[:3] == again[:3]
    assert whole[3].keys() == again[3].keys()
    assert all(torch.equal(whole[3][k], again[3][k]) for k in whole[3])
    kinds = [json.loads(x) for x in (tmp_path / "killed/journal.jsonl").read_text().splitlines()]
    epochs = [(r["network"], r["epoch"]) for r in kinds if r["kind"] == "epoch"]
    assert len(epochs) == len(set(epochs)), "an epoch that was journaled has been repeated"
