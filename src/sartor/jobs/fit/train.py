"""Training of the networks that a job has chosen, resumably; or keeping the weights that one comes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from sartor import training
from sartor.core import state, weights
from sartor.core.abilities import Pretrained
from sartor.core.rng import derive, torch_rng
from sartor.jobs.fit.stage import Chosen, Job
from sartor.run.folder import CHECKPOINT


@dataclass(frozen=True)
class TrainedNetwork:
    """What is known of a network when its weights are final.

    Attributes:
        valid: Metric -> its value on the validation split.
    """

    valid: Mapping[str, float]


def train_network(job: Job, chosen: Chosen, label: str, *, teacher: nn.Module | None = None) -> TrainedNetwork:
    """Train with the job's recipe, resumably, from the weights that the space gives.

    The trained weights go to `job.weights(chosen.name)`. Every network of a run starts from the same seed and sees
    the same batches in the same order. The last checkpoint stays: a kill may come before the caller has journaled what
    this gives, and then nothing is trained again; `forget_training` removes it.
    """
    parts = job.parts
    task = parts.task.sealed()
    module = parts.build(chosen.arch, "train")
    checkpoint = _checkpoint(job, chosen)
    journaled = _journaled(job, chosen)
    if isinstance(parts.space, Pretrained) and parts.space.reconstructs and not state.present(checkpoint):
        batches = task.train(torch_rng(parts.seed, "reconstruct"))
        if parts.space.reconstruct(chosen.arch, module, batches):
            _judged(job, module, "with its layers fitted to the original's")

    def on_epoch(done: int, total: int, metrics: Mapping[str, float]) -> None:
        job.display.bar(done, total, label)
        journaled.add(done)
        job.folder.journal.append({"kind": "epoch", "network": chosen.name, "epoch": done, **metrics})
        job.ledger.book()

    seed = derive(parts.seed, "train")
    history = training.fit(
        module, task, parts.recipe, seed=seed, teacher=teacher, checkpoint=checkpoint, on_epoch=on_epoch
    )
    for done, metrics in enumerate(history.epochs, 1):  # a kill may have come between a checkpoint and its record
        if done not in journaled:
            on_epoch(done, len(history.epochs), metrics)
    weights.save(job.weights(chosen.name), module.state_dict())
    job.ledger.count(trained=1)
    return TrainedNetwork(_judged(job, module))


def forget_training(job: Job, chosen: Chosen) -> None:
    """Remove what the training would have gone on from: only once its result is in the journal."""
    _checkpoint(job, chosen).unlink(missing_ok=True)


def _checkpoint(job: Job, chosen: Chosen) -> Path:
    return job.folder.artifacts / f"{chosen.name}{CHECKPOINT}"


def _journaled(job: Job, chosen: Chosen) -> set[int]:
    """The epochs of a network that are in the journal."""
    records = job.folder.journal.read()
    return {r["epoch"] for r in records if r["kind"] == "epoch" and r["network"] == chosen.name}


def keep_network(job: Job, chosen: Chosen) -> TrainedNetwork:
    """Keep the trained weights that a network comes with."""
    module = job.parts.build(chosen.arch, "train")
    weights.save(job.weights(chosen.name), module.state_dict())
    return TrainedNetwork(_judged(job, module))


def _judged(job: Job, module: nn.Module, how: str = "") -> dict[str, float]:
    """Metrics on the validation split, which the user gets to see."""
    task = job.parts.task.sealed()
    found = training.evaluate(module, task.valid(), task, device=job.parts.recipe.device)
    words = ", ".join(f"{m.name} {m.text(found[m.name])}" for m in task.metrics)
    job.display.say(f"  {words} on the validation split" + (f", {how}" if how else ""))
    return found
