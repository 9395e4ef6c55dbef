"""The widths of any PyTorch network: every group of coupled channels is one choice, the weights are shared.

The groups come from `sartor.surgery.analysis.coupling`. Channels are ordered by importance, so that the first ones are
kept.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.abilities import Accounted, Pretrained
from sartor.core.contracts import Batch, Space, Supernet, Task
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.records import Arch, Layer
from sartor.core.rng import global_seed
from sartor.core.tables import Tables
from sartor.core.trees import Inputs, Tree
from sartor.networks import Shapes, blank, lively, original, shapes, untrained
from sartor.spaces._options import nearest
from sartor.surgery.analysis.accounting import Accounts
from sartor.surgery.analysis.blocks import Skippable, skippable
from sartor.surgery.analysis.coupling import Coupling, couple
from sartor.surgery.analysis.ladders import ladders
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.importance import Importance, Scores, reorder, scores
from sartor.surgery.cutting.supernet import CutSupernet

__all__ = ["Widths"]

MULTIPLIERS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
_CLOSE = 1e-3
"""Largest difference between a network of the original's class and the cut it was made of, relative to the difference
that another input makes."""
_BATCHES = 16
"""Batches that `taylor` is taken over."""
_ENTRIES = 2**24
"""Most numbers of the examples that layers are fitted to: it bounds the memory."""
_NOISE = 1e-6
"""What rounding adds, relative to the output."""


class Widths(Space, Accounted, Pretrained):
    """Narrower versions of a network.

    Args:
        network: `torchvision:NAME`, `timm:NAME`, `package.module:callable`, or a module.
        weights: A file with its trained weights (safetensors, or a state dict of torch, see docs/files.md). Without, a
            network by name is untrained; a module counts as trained.
        input_shape: Shape of one input without the batch, or a list or table of shapes of several; by default
            `(in_channels, size, size)`.
        example: Inputs of one example, each `(1, ...)`, which say more than shapes: types, and which numbers occur.
        size: Height and width of the input.
        in_channels: Channels of the input.
        classes: Number of outputs, for networks by name; None takes the network's own.
        multipliers: The widths on offer, as fractions of the network's.
        blocks: Whether residual blocks may be skipped: what is inside one is then a single choice, with an option 0.
        divisor: Widths are rounded to multiples of this, where there are four times as many channels.
        importance: Which channels are kept: `l1`, `l2`, `bn`, `taylor` (first order; by `l2` until `inform` shows the
            data, which every job does), `random`, or `none` for the first.
        ignore: Names of modules to leave as they are, with all that enters and leaves them.
        reconstruct: Examples to which the layers of a network cut out of a trained one are fitted before it is trained
            further (fewer where inputs are large); 0 leaves them as they were cut.
        seed: Of the initial weights and of `random`.
    """

    input_shape: tuple[int, ...]

    def __init__(
        self,
        *,
        network: str | nn.Module = "",
        weights: str = "",
        input_shape: Shapes | None = None,
        example: Inputs | None = None,
        size: int = 224,
        in_channels: int = 3,
        classes: int | None = None,
        multipliers: Sequence[float] = MULTIPLIERS,
        blocks: bool = False,
        divisor: int = 8,
        importance: Importance = "l2",
        ignore: Sequence[str] = (),
        reconstruct: int = 512,
        seed: int = 0,
    ) -> None:
        if not network:
            raise ConfigError("the space widths needs a network: network = 'torchvision:resnet18', say")
        if reconstruct < 0:
            raise ConfigError(f"reconstruct must be a number of examples, or 0 for none, got {reconstruct}")
        self._spec, self._classes, self._seed = network, classes, seed
        self._examples = reconstruct
        self.trained = isinstance(network, nn.Module) or bool(weights)
        self.reconstructs = self.trained and reconstruct > 0
        whole = original(network, weights, seed=seed, classes=classes)
        self.example: Inputs = blank(
            whole, example if example is not None else input_shape or (in_channels, size, size)
        )
        self.input_shape: Any = shapes(self.example)
        self.coupling: Coupling = couple(whole, self.example, ignore)
        found = skippable(self.coupling) if blocks else Skippable(self.coupling.groups, {}, ())
        steps = ladders(found.groups, multipliers, divisor, found.switches)
        if not steps:
            why = ", ".join(f"{f.layer or 'it'}: {f.reason}" for f in self.coupling.fixed[:3]) or "no layer has any"
            raise CapabilityError(
                f"{type(whole).__name__} has no channels that can be cut ({why}); take another network"
            )
        self._importance, self._blocks, self._ladders, self._whole = importance, found.blocks, steps, whole
        self._order(scores(self.coupling, whole, "l2" if importance == "taylor" else importance, seed=seed))
        self.choices = tuple(step.choice for step in steps)
        self.accounts = Accounts(self._skeleton, whole, steps)
        self.plain = self._keeps_class()

    @property
    def whole(self) -> nn.Module:
        """The network itself, with its channels in the order of their importance."""
        return self._whole

    def build(self, arch: Arch) -> nn.Module:
        return (self._shared(self._whole) if self.trained else self._supernet()).extract(arch)

    def supernet(self) -> Supernet:
        return self._supernet()

    def reconstruct(self, arch: Arch, module: nn.Module, batches: Iterable[Batch]) -> bool:
        if not self.reconstructs or arch == self.reference:
            return False
        entries = sum(x.numel() for x in trees.leaves(self.example))
        inputs = _examples(batches, min(self._examples, max(1, _ENTRIES // entries)))
        return self._shared(self._whole).reconstruct(arch, module, _like(inputs, next(module.parameters())))

    def inform(self, task: Task) -> None:
        """Order the channels by `taylor`, if that is wanted, over the first batches of the training split.

        Raises:
            CapabilityError: The network is untrained: its gradients say nothing of what it will need.
        """
        if self._importance != "taylor":
            return
        if not self.trained:
            raise CapabilityError("importance 'taylor' needs a trained network; give weights, or use 'l2'")
        batches = islice(task.train(torch.Generator().manual_seed(self._seed)), _BATCHES)
        at = next(self._whole.parameters())
        shown = ((_like(inputs, at), trees.to(target, at.device)) for inputs, target in batches)
        self._order(scores(self.coupling, self._whole, "taylor", batches=shown, loss=task.loss))

    def scaled(self, factor: float) -> Arch:
        return nearest(self.choices, [factor * float(c.options[-1]) for c in self.choices])

    def account(self, metric: str) -> Tables | None:
        return {"macs": self.accounts.macs, "params": self.accounts.params}.get(metric, lambda: None)()

    def steps(self) -> Sequence[Tables]:
        return self.accounts.memory()

    def layers(self) -> Sequence[Layer]:
        return self.accounts.layers()

    def _order(self, importance: Scores) -> None:
        """Put the most important channels first, in the weights and in what is cut out of them."""
        constants = reorder(self.coupling, self._whole, importance)
        self.coupling = self.coupling.with_constants(constants)
        self._skeleton = Skeleton(self.coupling, self._blocks)

    def _supernet(self) -> CutSupernet:
        """Trained weights as they are; untrained ones anew, from torch's global generator."""
        if self.trained:
            whole = copy.deepcopy(self._whole)
        else:
            assert isinstance(self._spec, str)
            whole = untrained(self._spec, self._classes, training=self._whole.training)
        return self._shared(whole)

    def _shared(self, whole: nn.Module) -> CutSupernet:
        """All cuts of `whole`, whose weights are used and not copied."""
        return CutSupernet(self._skeleton, whole, self._ladders, plain=self.plain)

    def _keeps_class(self) -> bool:
        """Whether networks of the original's class compute what the cuts compute: tried on three of them."""
        rng = np.random.default_rng(0)
        random = tuple(int(rng.integers(len(c.options))) for c in self.choices)
        archs = [(0,) * len(self.choices), random, tuple(len(c.options) // 2 for c in self.choices)]
        supernet = CutSupernet(self._skeleton, copy.deepcopy(self._whole).eval(), self._ladders, plain=True)
        with global_seed(0), torch.no_grad():
            inputs = lively(self.example, 2)
            return all(_agree(supernet, arch, inputs) for arch in archs)


def _examples(batches: Iterable[Batch], wanted: int) -> Inputs:
    """The first inputs."""
    found, count = list[Inputs](), 0
    for inputs, _ in batches:
        found.append(inputs)
        count += trees.size(inputs)
        if count >= wanted:
            break
    if not found:
        raise DataError("the training split gave no batches; use more data or a smaller batch")
    first: Inputs = trees.rows(trees.joined(found), slice(wanted))
    return first


def _like(inputs: Inputs, at: Tensor) -> Inputs:
    """On the device of `at`, and what is floating-point of its type."""
    found: Inputs = trees.mapped(lambda t: t.to(at) if t.is_floating_point() else t.to(at.device), inputs)
    return found


def _agree(supernet: CutSupernet, arch: Arch, inputs: Inputs) -> bool:
    """Whether the network of the original's class gives what the cut gives, in the same containers."""
    gates = [torch.eye(len(step.choice.options))[a] for step, a in zip(supernet.ladders, arch, strict=True)]
    wanted = supernet(inputs, gates)
    try:
        found = trees.call(supernet.extract(arch), inputs)
    except Exception:  # noqa: BLE001 - the network's own code, with numbers it was not written for
        return False
    if not _same_kind(found, wanted):
        return False
    return all(_near(a, b) for a, b in zip(trees.leaves(found), trees.leaves(wanted), strict=True))


def _same_kind(found: Tree, wanted: Tree) -> bool:
    """Whether two trees have the same containers, with tensors of the same shapes."""
    if isinstance(found, Tensor) and isinstance(wanted, Tensor):
        return found.shape == wanted.shape and found.dtype == wanted.dtype
    parts, others = trees.children(found), trees.children(wanted)
    if type(found) is not type(wanted) or parts is None or others is None:
        return type(found) is type(wanted) and parts is others
    return [k for k, _ in parts] == [k for k, _ in others] and all(
        _same_kind(a, b) for (_, a), (_, b) in zip(parts, others, strict=True)
    )


def _near(found: Tensor, wanted: Tensor) -> bool:
    """Whether two outputs for two examples are equal but for rounding; classes and the like are not looked at."""
    if not wanted.is_floating_point() or not wanted.numel():
        return True
    each = wanted.dim() > 0 and len(wanted) > 1  # what two inputs have in common hides differences
    signal = (wanted[0] - wanted[1]).abs().max() if each else wanted.abs().max()
    return bool((found - wanted).abs().max() <= _CLOSE * signal + _NOISE * wanted.abs().max().clamp(min=1e-12))
