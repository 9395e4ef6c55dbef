"""The training loop: plain, resumable after every epoch, the same on one device and on several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sartor.core import copies, trees
from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError, DivergedError, StateError
from sartor.core.rng import derive, global_seed, torch_rng
from sartor.core.state import load, present, save
from sartor.core.trees import Inputs, Tree
from sartor.training.drop_path import Rate, dropping
from sartor.training.engine import Engine, Several, Single
from sartor.training.evaluation import evaluate, mode
from sartor.training.recipe import Average, Recipe

OnEpoch: TypeAlias = Callable[[int, int, Mapping[str, float]], None]

CHECK_EVERY = 50
"""Steps between two looks at the losses: each look makes the CPU wait for the device."""


@dataclass(frozen=True)
class History:
    """What happened in each epoch: `loss` (mean over the training batches), `lr` (at its end), `valid_<metric>`."""

    epochs: tuple[Mapping[str, float], ...]

    @property
    def last(self) -> Mapping[str, float]:
        """The last epoch."""
        return self.epochs[-1]


def batches_of(task: Task) -> int:
    """Batches per epoch; an iterable that does not know is counted once, without training."""
    batches: Iterable[Batch] = task.train(torch_rng(0, "length"))
    try:
        return len(batches)  # type: ignore[arg-type] # a TypeError is the answer for those without a length
    except TypeError:
        return sum(1 for _ in batches)


def fit(
    module: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    fidelity: float = 1.0,
    on_epoch: OnEpoch | None = None,
    fabric: Any = None,
) -> History:
    """Train `module` in place; afterwards it is where it was, in the mode it was in.

    Killed and called again with the same arguments and a `checkpoint`, it ends with the same weights bit for bit (on
    one device; as far as the device's kernels are deterministic). `module` may then start from any weights.

    Args:
        module: The network.
        task: The data and the loss.
        recipe: How to train.
        seed: Of all randomness: order and augmentation of the data, dropout.
        teacher: A network whose outputs are imitated too (see `Recipe.distil_weight`).
        checkpoint: File to go on from, written after every epoch; the folder is the caller's.
        fidelity: Fraction of the epochs, in (0, 1]; the schedule is that of the shorter training.
        on_epoch: Called with epochs done, epochs in all, and the metrics of the last epoch.
        fabric: A launched `lightning_fabric.Fabric` for several processes (`Cluster.fabric`). Every process calls
            `fit` with the same arguments and takes its share of the rows of every batch; `recipe.device` and
            `recipe.amp` give way to Fabric's. The first process writes the checkpoint, which all must be able to read.

    Raises:
        ConfigError: The fidelity is not in (0, 1], or no parameter requires a gradient.
        DataError: The training split has no batches.
        DivergedError: The loss is not finite; the message names epoch and step.
        StateError: The checkpoint is of another training, is torn, or cannot be written.
    """
    if not 0 < fidelity <= 1:
        raise ConfigError(f"fidelity must be in (0, 1], got {fidelity}")
    recipe.check(task)
    home = trees.device_of(module)
    teacher_home = trees.device_of(teacher) if teacher is not None else home
    engine = Single(recipe) if fabric is None else Several(fabric)
    try:
        with mode(module, training=True):
            return _Training(module, task, recipe, engine, teacher, seed, fidelity).run(checkpoint, on_epoch)
    finally:
        module.to(home)
        if teacher is not None:
            teacher.to(teacher_home)


class _Training:
    """The state of one training, and its steps."""

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        recipe: Recipe,
        engine: Engine,
        teacher: nn.Module | None,
        seed: int,
        fidelity: float,
    ) -> None:
        self.task, self.recipe, self.engine, self.seed = task, recipe, engine, seed
        self.module = module.to(engine.device)
        self.teacher = teacher.to(engine.device) if teacher is not None else None
        self.total = recipe.epochs_at(fidelity)
        self.generator = torch_rng(seed, "data")
        self.optimizer = recipe.make_optimizer(self.module)
        batches = batches_of(task)
        self.schedule = recipe.make_schedule(self.optimizer, batches, self.total)
        self.average = Average(self.module, recipe.ema) if recipe.ema else None
        self.dropped, self.steps = Rate(), batches * self.total
        called = dropping(self.module, self.dropped) if recipe.drop_path else self.module
        self.network = engine.setup(called, self.optimizer)
        self.history: list[dict[str, float]] = []

    def run(self, checkpoint: Path | None, on_epoch: OnEpoch | None) -> History:
        if checkpoint is not None and present(checkpoint):
            self._resume(checkpoint)
        while len(self.history) < self.total:
            self.history.append(self._epoch(len(self.history)))
            if checkpoint is not None:
                if self.engine.rank == 0:
                    save(checkpoint, self._state())
                self.engine.barrier()
            if on_epoch is not None:
                on_epoch(len(self.history), self.total, self.history[-1])
        if self.average is not None:
            self.average.write(self.module)
        return History(tuple(self.history))

    def _epoch(self, epoch: int) -> dict[str, float]:
        losses: list[Tensor] = []
        # Dropout draws from the global generator; a stream per epoch needs no state in the checkpoint.
        with global_seed(derive(self.seed, "epoch", epoch, self.engine.rank)):
            for batch in self.task.train(self.generator):
                share = self.engine.share(batch)
                if share is None:
                    continue
                losses.append(self._step(*share, rows=trees.size(batch)))
                if len(losses) % CHECK_EVERY == 0:
                    self._checked(losses, epoch)
        if not losses:
            raise DataError("the training split gave no batches; use more data or a smaller batch")
        metrics = {"loss": float(self._checked(losses, epoch).mean()), "lr": float(self.schedule.get_last_lr()[0])}
        return metrics | self._validate(epoch)

    def _step(self, inputs: Inputs, target: Tree, rows: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        self.dropped.value = self.recipe.drop_path * min(1.0, self.schedule.last_epoch / max(1, self.steps - 1))
        with self.engine.autocast():
            output = trees.call(self.network, inputs)
            losses = self.recipe.loss(self.task, output, target, self._taught(inputs))
            # Processes average their gradients; this weight makes that the mean over all rows of the batch.
            loss = losses.mean() if self.engine.world == 1 else losses.sum() * (self.engine.world / rows)
        self.engine.backward(loss)
        self.engine.step(self.optimizer, self.module, self.recipe.clip)
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.module)
        return loss.detach()

    def _checked(self, losses: list[Tensor], epoch: int) -> Tensor:
        """The losses of the steps, over all processes, `(steps,)`: so all processes stop at the same step."""
        values = self.engine.mean(torch.stack(losses))
        bad = (~values.isfinite()).nonzero().flatten()
        if len(bad):
            step = int(bad[0])
            raise DivergedError(
                f"the loss is {float(values[step])} at epoch {epoch + 1}, step {step + 1}; "
                "lower lr, or set clip = 1 or a longer warmup"
            )
        return values

    def _taught(self, inputs: Inputs) -> Tree | None:
        if self.teacher is None or not self.recipe.distil_weight:
            return None
        with mode(self.teacher, training=False), torch.no_grad():
            return trees.call(self.teacher, inputs)

    def _validate(self, epoch: int) -> dict[str, float]:
        every = self.recipe.validate
        if not every or ((epoch + 1) % every and epoch + 1 < self.total):
            return {}
        if self.average is None:
            found = evaluate(self.module, self.task.valid(), self.task)
        else:
            with self.average.inside(self.module):
                found = evaluate(self.module, self.task.valid(), self.task)
        return {f"valid_{name}": value for name, value in found.items()}

    def _identity(self) -> dict[str, Any]:
        """What must not change between two calls with one checkpoint; where it runs may."""
        settings = {k: v for k, v in asdict(self.recipe).items() if k not in ("device", "epochs")}
        return settings | {"epochs": self.total, "seed": self.seed, "data": self.task.fingerprint}

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._identity(),
            "history": self.history,
            "generator": self.generator.get_state(),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"},
            "average": self.average.state_dict() if self.average is not None else {},
            "engine": self.engine.state_dict(),
        }

    def _resume(self, checkpoint: Path) -> None:
        state = load(checkpoint)
        before, now = state.get("identity", {}), self._identity()
        changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if changed:
            was = ", ".join(f"{k} = {before.get(k)!r}, now {now.get(k)!r}" for k in changed)
            raise StateError(f"{checkpoint} is of another training ({was}); restore the settings or delete the file")
        try:
            copies.load(self.module, state["module"])
        except RuntimeError as error:
            raise StateError(f"{checkpoint} is of another network; delete the file to train this one") from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"] | {"lr_lambdas": [None] * len(self.optimizer.param_groups)})
        self.generator.set_state(state["generator"])
        self.engine.load_state_dict(state["engine"])
        self.history = list(state["history"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
