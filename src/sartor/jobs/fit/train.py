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
from sartor.training.doubts import doubts


@dataclass(frozen=True)
class TrainedNetwork:
    """What is known of a network when its weights are final.

    Attributes:
        valid: Metric -> its value on the validation split.
    """

    valid: Mapping[str, float]


def train_network(job: Job, chosen: Chosen, label: str, *, teacher: nn.Module | None = None) -> TrainedNetwork:
    """Train with the job's recipe, resumably, from the weights that the space gives.

    A network that was fitted to a trained original may be worse after the training than before, by the validation
    split: then the weights from before are kept. The weights go to `job.weights(chosen.name)`. Every network of a run
    starts from the same seed and sees the same batches in the same order. The last checkpoint stays: a kill may come
    before the caller has journaled what this gives, and then nothing is trained again; `forget_training` removes it.
    """
    parts = job.parts
    task = parts.task.sealed()
    module = parts.build(chosen.arch, "train")
    checkpoint = _checkpoint(job, chosen)
    journaled = _journaled(job, chosen)
    before = _before(job, chosen) if state.present(checkpoint) else _fitted(job, chosen, module)

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
    after = _judged(job, module)
    if before and task.metric.gain(before[task.metric.name], after[task.metric.name]) > 0:
        job.display.say("  the training has made it worse: the weights from before are kept; try a smaller training.lr")
        module = parts.build(chosen.arch, "train")
        after = _fitted(job, chosen, module)
    weights.save(job.weights(chosen.name), module.state_dict())
    job.ledger.count(trained=1)
    return TrainedNetwork(after)


def _fitted(job: Job, chosen: Chosen, module: nn.Module) -> dict[str, float]:
    """Fit a network to the trained one that it is cut out of; its metrics, none if nothing was changed.

    Done again it gives the same: the data are the same, and nothing is random.
    """
    space = job.parts.space
    if not isinstance(space, Pretrained) or not space.reconstructs:
        return {}
    batches = job.parts.task.sealed().train(torch_rng(job.parts.seed, "reconstruct"))
    if not space.reconstruct(chosen.arch, module, batches):
        return {}
    found = _judged(job, module, "with its layers fitted to the original's")
    if not _before(job, chosen):
        job.folder.journal.append({"kind": "fitted", "network": chosen.name, "valid": found})
    return found


def _before(job: Job, chosen: Chosen) -> dict[str, float]:
    """What the network was before its training, from the journal."""
    records = job.folder.journal.read()
    found = [r["valid"] for r in records if r["kind"] == "fitted" and r["network"] == chosen.name]
    return dict(found[0]) if found else {}


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
    """Keep the trained weights that a network comes with, and say what speaks against trusting them."""
    module = job.parts.build(chosen.arch, "train")
    weights.save(job.weights(chosen.name), module.state_dict())
    found = _judged(job, module)
    task = job.parts.task.sealed()
    for doubt in doubts(module, task, found[task.metric.name], device=job.parts.recipe.device):
        job.display.say(f"  note: {doubt}")
    return TrainedNetwork(found)


def _judged(job: Job, module: nn.Module, how: str = "") -> dict[str, float]:
    """Metrics on the validation split, which the user gets to see."""
    task = job.parts.task.sealed()
    found = training.evaluate(module, task.valid(), task, device=job.parts.recipe.device)
    words = ", ".join(f"{m.name} {m.text(found[m.name])}" for m in task.metrics)
    job.display.say(f"  {words} on the validation split" + (f", {how}" if how else ""))
    return found
