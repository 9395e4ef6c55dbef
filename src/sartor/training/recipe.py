"""How to train: every setting, and the optimiser, schedule, loss and moving average that they make.

Sources: cosine schedule (Loshchilov & Hutter 2017) after a linear warm-up, stepped per batch (Goyal et al. 2017); label
smoothing (Szegedy et al. 2016); distillation (Hinton et al. 2015); no weight decay on biases and normalisation (He et
al. 2019, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from sartor.core.contracts import Task
from sartor.core.errors import ConfigError
from sartor.core.trees import Tree
from sartor.data.losses import counted_mean

_KNOWN = {"optimizer": ("sgd", "adamw"), "amp": ("", "bfloat16", "float16")}

_RULES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "epochs": ("at least 1", lambda v: v >= 1),
    "lr": ("positive", lambda v: v > 0),
    "momentum": ("in [0, 1)", lambda v: 0 <= v < 1),
    "weight_decay": ("at least 0", lambda v: v >= 0),
    "warmup": ("at least 0", lambda v: v >= 0),
    "label_smoothing": ("in [0, 1)", lambda v: 0 <= v < 1),
    "distil_weight": ("in [0, 1]", lambda v: 0 <= v <= 1),
    "temperature": ("positive", lambda v: v > 0),
    "ema": ("in [0, 1)", lambda v: 0 <= v < 1),
    "drop_path": ("in [0, 1)", lambda v: 0 <= v < 1),
    "clip": ("at least 0", lambda v: v >= 0),
    "validate": ("at least 0", lambda v: v >= 0),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training.

    Attributes:
        epochs: Passes over the training data at fidelity 1.
        optimizer: `sgd` or `adamw`.
        lr: Peak learning rate, as the optimiser gets it: it is not scaled by the batch size.
        momentum: Of `sgd`.
        nesterov: Whether the momentum of `sgd` is Nesterov's.
        weight_decay: On weights of two dimensions or more; never on biases and normalisation.
        warmup: Epochs in which the learning rate rises linearly, at most half of the training.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        distil_weight: Share of the teacher's part of the loss, in [0, 1]; only if there is a teacher.
        temperature: Softens teacher and student.
        ema: Decay of the moving average of the weights that is returned, in [0, 1); 0 returns the last weights.
        amp: Type for autocast, `bfloat16` or `float16` (with gradient scaling); empty for float32.
        device: `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`.
        clip: Largest norm of the gradient; 0 does not clip.
        drop_path: Probability that a path of a sum (a branch of a cell or of a residual block) is left out for an
            image; it grows from 0 to this over the training, in [0, 1).
        validate: Epochs between two looks at the validation split; 0 never looks.
    """

    epochs: int = 30
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    warmup: float = 1.0
    label_smoothing: float = 0.0
    distil_weight: float = 0.5
    temperature: float = 4.0
    ema: float = 0.0
    amp: Literal["", "bfloat16", "float16"] = ""
    device: str = "auto"
    clip: float = 0.0
    drop_path: float = 0.0
    validate: int = 0

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(map(repr, known))}, got {getattr(self, name)!r}")
        for name, (rule, holds) in _RULES.items():
            if not holds(getattr(self, name)):
                raise ConfigError(f"{name} must be {rule}, got {getattr(self, name)}")
        if self.optimizer == "sgd" and self.nesterov and not self.momentum:
            raise ConfigError("nesterov needs a momentum; set momentum = 0.9 or nesterov = false")

    @classmethod
    def of(cls, settings: Recipe | Mapping[str, Any] | None) -> Recipe:
        """A recipe from a table of settings, as a config has it; None takes the defaults.

        Raises:
            ConfigError: A setting does not exist or is out of range.
        """
        if isinstance(settings, Recipe):
            return settings
        known = [f.name for f in fields(cls)]
        for name in settings or {}:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise ConfigError(f"a recipe has no setting {name!r}; {hint}")
        return cls(**(settings or {}))

    def epochs_at(self, fidelity: float) -> int:
        """Epochs at this fraction of the full training, at least one."""
        return max(1, round(self.epochs * fidelity))

    def make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of the parameters that require a gradient."""
        trained = [p for p in module.parameters() if p.requires_grad]
        if not trained:
            who = type(module).__name__
            raise ConfigError(f"{who} has no parameter that requires a gradient: nothing to train; thaw some of them")
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=self.lr)
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)

    def make_schedule(self, optimizer: torch.optim.Optimizer, steps: int, epochs: int) -> LambdaLR:
        """Linear warm-up, then a half cosine down to zero; `steps` batches per epoch, stepped per batch."""
        total = steps * epochs
        warm = min(round(self.warmup * steps), total // 2)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / (warm + 1)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))

        return LambdaLR(optimizer, factor)

    def check(self, task: Task) -> None:
        """Refuse what has no meaning for a task.

        Raises:
            ConfigError: Labels are to be smoothed, and the task's outputs are no logits of classes.
        """
        if self.label_smoothing and not task.logits:
            raise ConfigError(
                f"label_smoothing = {self.label_smoothing} spreads a label over classes, and the task {task.name} has "
                "no logits of classes; set it to 0"
            )

    def loss(self, task: Task, output: Tree, target: Tree, teacher: Tree | None) -> Tensor:
        """Losses of the examples, `(batch,)`.

        Args:
            task: Its loss, and its distance from a teacher.
            output: `(batch, classes, ...)` for a task with logits; whatever its loss takes for others.
            target: Whatever the task's loss takes.
            teacher: The teacher's output, or None.
        """
        losses = task.loss(output, target)
        if self.label_smoothing:
            # (1 - e) CE(target) + e CE(uniform) is cross-entropy with the smoothed target (Szegedy et al. 2016, eq. 7).
            uniform = counted_mean(-functional.log_softmax(output, dim=1).mean(1), target, task.ignore)
            losses = (1 - self.label_smoothing) * losses + self.label_smoothing * uniform
        if teacher is not None and self.distil_weight:
            # a temperature softens logits; T^2 keeps the gradient's size independent of it (Hinton et al. 2015, section
            # 2). Outputs that are no logits have no temperature.
            heat = self.temperature if task.logits else 1.0
            apart = task.distance(output / heat, teacher / heat) if task.logits else task.distance(output, teacher)
            losses = (1 - self.distil_weight) * losses + self.distil_weight * heat**2 * apart
        return losses


class Average:
    """Exponential moving average of a network's floating-point parameters; the buffers are the latest.

    The decay rises with the number of updates, `min(decay, (1 + n) / (10 + n))`, so that a short training does not
    return its initialisation.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {n: p.detach().clone() for n, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights of `module`."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, parameter in module.named_parameters():
            self.weights[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def write(self, module: nn.Module) -> None:
        """Set the parameters of `module` to the average."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])

    @contextmanager
    def inside(self, module: nn.Module) -> Iterator[None]:
        """`module` with the averaged weights, inside the block only."""
        latest = {n: p.detach().clone() for n, p in module.named_parameters()}
        self.write(module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(latest[name])

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` took."""
        self.updates = state["updates"]
        for name, weight in self.weights.items():
            weight.copy_(state["weights"][name])
