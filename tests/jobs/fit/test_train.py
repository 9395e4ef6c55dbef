from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sartor import training
from sartor.jobs.fit.assemble import assemble
from sartor.jobs.fit.stage import Chosen, Job
from sartor.jobs.fit.train import forget_training, keep_network, train_network
from sartor.run.folder import RunFolder
from sartor.run.ledger import Ledger
from sartor.run.progress import Silent
from sartor.training.loop import History
from small import settings


@pytest.fixture
def job(tmp_path):
    config = settings(training={"epochs": 1, "lr": 0.1})
    with RunFolder(tmp_path / "run", config) as folder:
        yield Job(assemble(config), folder, Ledger(folder.journal), Silent())


def test_training_keeps_weights_and_a_checkpoint_until_it_is_forgotten(job):
    chosen = Chosen("some", (1, 0, 2))
    result = train_network(job, chosen, "training")
    assert 0 <= result.valid["accuracy"] <= 1
    assert job.weights("some").exists()
    before, records = job.weights("some").read_bytes(), list(job.folder.journal.read())
    assert train_network(job, chosen, "again") == result, "a complete checkpoint gives the network at once"
    assert job.weights("some").read_bytes() == before
    assert list(job.folder.journal.read()) == records
    forget_training(job, chosen)
    forget_training(job, chosen)
    assert [p.name for p in job.folder.artifacts.iterdir()] == ["some.safetensors"]
    network = job.load(chosen)
    assert not network.training
    assert all(torch.equal(network.state_dict()[k], v) for k, v in load_file(job.weights("some")).items())


def test_a_teacher_changes_the_student(job):
    train_network(job, Chosen("reference", job.parts.space.reference), "training")
    train_network(job, Chosen("alone", (0, 0, 0)), "training")
    teacher = job.load(Chosen("reference", job.parts.space.reference))
    train_network(job, Chosen("taught", (0, 0, 0)), "training", teacher=teacher)
    alone, taught = load_file(job.weights("alone")), load_file(job.weights("taught"))
    assert any(not torch.equal(alone[k], taught[k]) for k in alone)


def test_layers_are_fitted_to_the_original_before_training_and_not_on_resuming(job, monkeypatch):
    seen = []
    space = job.parts.space

    def reconstruct(arch, module, batches):
        seen.append((arch, next(iter(batches))[0].shape[1:]))
        return True

    for name, value in {"trained": True, "reconstructs": True, "inform": print, "reconstruct": reconstruct}.items():
        monkeypatch.setattr(space, name, value, raising=False)
    monkeypatch.setattr(job.display, "say", seen.append)
    train_network(job, Chosen("some", (1, 0, 2)), "training")
    assert seen[0] == ((1, 0, 2), (1, 8, 8))
    assert "on the validation split, with its layers fitted" in seen[1]
    checkpoint = job.folder.artifacts / "other.checkpoint.safetensors"
    monkeypatch.setattr("sartor.training.fit", lambda *_, **__: History(()))
    checkpoint.touch()
    seen.clear()
    train_network(job, Chosen("other", (1, 0, 2)), "training")
    assert not [s for s in seen if isinstance(s, tuple)]


@pytest.mark.parametrize("kill", [False, True])
def test_what_a_training_makes_worse_stays_as_it_was(job, monkeypatch, kill):
    space, said = job.parts.space, []
    best = job.parts.build((1, 0, 2), "train")
    training.fit(best, job.parts.task, replace(job.parts.recipe, epochs=4), seed=0)

    def reconstruct(arch, module, batches):
        module.load_state_dict(best.state_dict())
        return True

    for name, value in {"trained": True, "reconstructs": True, "inform": print, "reconstruct": reconstruct}.items():
        monkeypatch.setattr(space, name, value, raising=False)
    monkeypatch.setattr(job.display, "say", said.append)
    worse = replace(job, parts=replace(job.parts, recipe=replace(job.parts.recipe, lr=20.0, clip=1.0)))
    result = train_network(worse, Chosen("some", (1, 0, 2)), "training")
    if kill:  # before the result was journaled: the checkpoint is whole
        said.clear()
        assert train_network(worse, Chosen("some", (1, 0, 2)), "training") == result
    assert any("has made it worse" in line for line in said)
    kept = load_file(job.weights("some"))
    assert all(torch.equal(kept[name], value) for name, value in best.state_dict().items())
    assert result.valid["accuracy"] == training.evaluate(best, job.parts.task.valid(), job.parts.task)["accuracy"]


def test_a_network_that_comes_trained_and_knows_nothing_is_doubted(job, monkeypatch):
    said = []
    monkeypatch.setattr(job.display, "say", said.append)
    space = job.parts.space
    blind = job.parts.build(space.reference, "train")
    for parameter in blind.parameters():
        parameter.data.zero_()
    monkeypatch.setattr(space, "build", lambda _: blind)
    keep_network(job, Chosen("reference", space.reference))
    assert any("no better than chance" in line for line in said)
