"""What every stage of a job works with, and how a stage is done once and never again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sartor import archs, networks, training
from sartor.core import state
from sartor.core.abilities import Pretrained
from sartor.core.records import Arch
from sartor.core.rng import derive, torch_rng
from sartor.jobs.parts import Parts, analytic_costs
from sartor.run.folder import RunFolder
from sartor.run.ledger import Ledger
from sartor.run.progress import Display


@dataclass(frozen=True)
class Chosen:
    """A network that is to be trained and verified.

    Attributes:
        name: Of its files in `artifacts/`.
        arch: What it is.
    """

    name: str
    arch: Arch


@dataclass(frozen=True)
class Job:
    """The parts of a run, its folder, its ledger and its display."""

    parts: Parts
    folder: RunFolder
    ledger: Ledger
    display: Display

    def stage(self, name: str, title: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of a stage: from the journal if it has been done, else by doing it.

        Args:
            name: Unique in the run; the ledger books it under the part before the first dot.
            title: For the user.
            work: Gives JSON-able data; whatever it writes must be on disk when it returns.
        """
        done = self.folder.stage_result(name)
        if done is not None:
            return dict(done)
        self.display.stage(title)
        with self.ledger.stage(name.partition(".")[0]):
            result = work()
        self.folder.end_stage(name, result)
        return result

    def bar(self, label: str) -> Callable[[float, float], None]:
        """A progress bar with this label, to be told (done, total)."""
        return lambda done, total: self.display.bar(done, total, label)

    def weights(self, name: str) -> Path:
        """Where the trained weights of the network called `name` are."""
        return self.folder.artifacts / f"{name}.safetensors"

    def load(self, chosen: Chosen) -> nn.Module:
        """A trained network, in eval mode."""
        module = self.parts.build(chosen.arch, "train")
        module.load_state_dict(load_file(self.weights(chosen.name)))
        return module.eval()


def costs_of(job: Job, arch: Arch) -> dict[str, Any]:
    """The network entry of a report, without what is measured: counted on the network that is really built."""
    module = job.parts.build(arch, "count")
    macs, params = networks.macs_params(module, job.parts.task.example)
    memory = analytic_costs(job.parts.space)["memory_bytes"]
    return {
        "macs": macs,
        "params": params,
        "memory_bytes": int(memory([arch])[0]),
        "arch": list(arch),
        "widths": archs.describe(job.parts.space, arch),
    }


def train_network(job: Job, chosen: Chosen, label: str, *, teacher: nn.Module | None = None) -> dict[str, Any]:
    """Train with the job's recipe, resumably, from the weights that the space gives.

    The trained weights go to `job.weights(chosen.name)`. Every network of a run starts from the same seed and sees
    the same batches in the same order.

    Returns:
        Metrics on the validation split.
    """
    parts = job.parts
    task = parts.task.sealed()
    module = parts.build(chosen.arch, "train")
    checkpoint = job.folder.artifacts / f"{chosen.name}.checkpoint.pt"
    if isinstance(parts.space, Pretrained) and parts.space.reconstructs and not checkpoint.exists():
        batches = task.train(torch_rng(parts.seed, "reconstruct"))
        if parts.space.reconstruct(chosen.arch, module, batches):
            _judged(job, module, "with its layers fitted to the original's")

    def on_epoch(done: int, total: int, metrics: Mapping[str, float]) -> None:
        job.display.bar(done, total, label)
        job.folder.journal.append({"kind": "epoch", "network": chosen.name, "epoch": done, **metrics})
        job.ledger.book()

    seed = derive(parts.seed, "train")
    training.fit(module, task, parts.recipe, seed=seed, teacher=teacher, checkpoint=checkpoint, on_epoch=on_epoch)
    save_weights(module, job.weights(chosen.name))
    metrics = _judged(job, module)
    checkpoint.unlink(missing_ok=True)
    job.ledger.count(trained=1)
    return {"valid": metrics}


def keep_network(job: Job, chosen: Chosen) -> dict[str, Any]:
    """Keep the trained weights that a network comes with.

    Returns:
        Metrics on the validation split.
    """
    module = job.parts.build(chosen.arch, "train")
    save_weights(module, job.weights(chosen.name))
    return {"valid": _judged(job, module)}


def _judged(job: Job, module: nn.Module, how: str = "") -> dict[str, float]:
    """Metrics on the validation split, which the user gets to see."""
    task = job.parts.task.sealed()
    metrics = dict(training.evaluate(module, task.valid(), task, device=job.parts.recipe.device))
    found = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    job.display.say(f"  {found} on the validation split" + (f", {how}" if how else ""))
    return metrics


def save_weights(module: nn.Module, path: Path) -> None:
    """The state dict as safetensors, atomically."""
    tensors: dict[str, Tensor] = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    state.atomically(path, lambda part: save_file(tensors, part))
