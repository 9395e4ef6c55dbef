"""The widths of any PyTorch network: every group of coupled channels is one choice, the weights are shared.

The groups come from `sartor.surgery.analysis.coupling`. Channels are ordered by importance, so that the first ones are
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sartor.core import copies, trees
from sartor.core.abilities import Accounted, Pretrained, Scalable
from sartor.core.contracts import Batch, Space, Supernet, Task
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.records import Arch, Layer
from sartor.core.rng import global_seed
from sartor.core.tables import Tables
from sartor.core.trees import Inputs
from sartor.networks import Shapes, blank, original, shapes, untrained
from sartor.spaces._options import nearest
from sartor.spaces._plans import plans
from sartor.surgery.analysis.accounting import Accounts, Ladder
from sartor.surgery.analysis.blocks import Skippable, skippable
from sartor.surgery.analysis.coupling import Coupling, Fixed
from sartor.surgery.analysis.ladders import ladders
from sartor.surgery.analysis.operators.shape import fuse_permutations
from sartor.surgery.analysis.recording import Traced
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.streams import streams
from sartor.surgery.analysis.trace import BATCH, retraced
from sartor.surgery.analysis.tracker import operator_name
from sartor.surgery.cutting.agreement import agree, difference
from sartor.surgery.cutting.checked import analysed, drawn
from sartor.surgery.cutting.importance import Importance, Scores, reorder, scores
from sartor.surgery.cutting.ordering import Data, best_order, by_elimination, eliminated, taken
from sartor.surgery.cutting.supernet import CutSupernet
from sartor.surgery.cutting.uncut import Asked, asked, check_uncut
from sartor.training.evaluation import mode

__all__ = ["Widths"]

MULTIPLIERS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
_BATCHES = 16
"""Batches that orders of channels are found from."""
_ORDERED = 256
"""Examples that `obs` looks at, and as many to judge by."""
_BY_DATA = ("auto", "obs", "taylor")
_ENTRIES = 2**24
"""Most numbers of the examples that layers are fitted to: it bounds the memory."""


class Widths(Space, Accounted, Pretrained, Scalable):
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
        multipliers: The widths on offer, as fractions of the network's; a number: so many even steps.
        blocks: Whether residual blocks may be skipped: what is inside one is then a single choice, with an option 0.
        divisor: Widths are rounded to multiples of this, where there are four times as many channels; None: of 8 where
            time counts, as vectors are then filled, else of 2.
        timed: Whether time counts; a job that knows its budget says so.
        importance: Which channels are kept: `obs` (what the layers that read a channel lose without it, see
            `sartor.surgery.cutting.elimination`), `taylor` (first order), `l1`, `l2`, `bn`, `random`, or `none` for the
            first; `auto` tries the first two and `l2` on data. Those that need data go by `l2` until `inform` shows
            some, which every job does, and of an untrained network.
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
        multipliers: Sequence[float] | int = MULTIPLIERS,
        blocks: bool = False,
        divisor: int | None = None,
        timed: bool = True,
        importance: Importance = "l2",
        ignore: Sequence[str] = (),
        reconstruct: int = 512,
        seed: int = 0,
    ) -> None:
        if isinstance(network, str) and not network:  # of a module, its length would be asked for
            raise ConfigError("the space widths needs a network: network = 'torchvision:resnet18', say")
        if reconstruct < 0:
            raise ConfigError(f"reconstruct must be a number of examples, or 0 for none, got {reconstruct}")
        self._spec, self._classes, self._seed = network, classes, seed
        self._examples = reconstruct
        self.trained = isinstance(network, nn.Module) or bool(weights)
        self.reconstructs = self.trained and reconstruct > 0
        whole, folded = original(network, weights, seed=seed, classes=classes)
        self.example: Inputs = blank(
            whole, example if example is not None else input_shape or (in_channels, size, size)
        )
        self.input_shape: Any = shapes(self.example)
        checked = analysed(whole, self.example, ignore)
        self.coupling: Coupling = checked.coupling
        self._ignored = checked.ignored
        found = skippable(self.coupling) if blocks else Skippable(self.coupling.groups, {}, ())
        steps = ladders(found.groups, _fractions(multipliers), divisor or (8 if timed else 2), found.switches)
        if not steps:
            raise CapabilityError(_nothing(whole, self.coupling.fixed))
        self._importance, self._blocks, self._ladders, self._whole = importance, found.blocks, steps, whole
        self.choices = tuple(step.choice for step in steps)
        self._fitting: dict[Arch, bool] = {}
        self._errors: Mapping[int, NDArray[np.float64]] = {}
        self.plain = self._some = True
        told = asked(network if isinstance(network, nn.Module) and not weights else whole, self.example)
        self._order(scores(self.coupling, whole, "l2" if importance in _BY_DATA else importance, seed=seed))
        self.accounts = Accounts(self._skeleton, whole, steps)
        kept = self._try_classes(told)
        self.notes = (*(f"{word} is folded into a plain weight" for word in folded), *checked.notes, *kept)

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
        """Find from the first batches of the training split what cutting costs, and the order of the channels by it.

        Raises:
            CapabilityError: `taylor` or `obs` is wanted of an untrained network, whose weights say nothing yet.
        """
        if not self.trained:
            if self._importance in {"taylor", "obs"}:
                raise CapabilityError(
                    f"importance {self._importance!r} needs a trained network; give weights, or use 'l2'"
                )
            return
        if self._importance not in _BY_DATA:
            return
        data = self._data(task)
        if self._importance == "taylor":
            self._order(scores(self.coupling, self._whole, "taylor", batches=data.batches, loss=task.loss))
            return
        found = eliminated(self._skeleton, self._whole, data, self._seed)
        self._errors = found.errors
        if self._importance == "obs":
            self._order(by_elimination(self._skeleton, self._whole, found))
            return
        best = best_order(self._skeleton, self._whole, self._ladders, self.scaled(0.5), data, found)
        self._order(best.scores)
        tried = ", ".join(f"{name} {value:.3g}" for name, value in best.distances.items())
        self.notes = (
            *self.notes,
            f"channels are kept by {best.name} (distance from the original at half width: {tried})",
        )

    def _data(self, task: Task) -> Data:
        at = next(self._whole.parameters())
        batches = islice(task.train(torch.Generator().manual_seed(self._seed)), _BATCHES)
        entries = sum(x.numel() for x in trees.leaves(self.example))
        most = max(2, min(_ORDERED, _ENTRIES // entries))
        return taken(batches, most, most, lambda tree: _like(tree, at), task)

    def scaled(self, factor: float) -> Arch:
        return nearest(self.choices, [factor * float(c.options[-1]) for c in self.choices])

    def plans(self) -> Mapping[str, Callable[[float], Arch]]:
        sums = streams(self._skeleton)
        streaming = [any(int(u) in sums for f in step.families for u in f) for step in self._ladders]
        known = [self._lost(step) for step in self._ladders]
        if all(line is None for line in known):
            return plans(self.choices, streaming, {})
        own = [None if line is None else line / max(line[0], 1e-30) for line in known]
        return plans(self.choices, streaming, {"own_error": own, "error": known})

    def _lost(self, step: Ladder) -> NDArray[np.float64] | None:
        """What the readers of a choice's channels lose under each option, as a share; None if it is not known."""
        lines = [
            self._errors[int(family[0])][len(family) - step.kept[:, f]]
            for f, family in enumerate(step.families)
            if int(family[0]) in self._errors
        ]
        return np.mean(lines, axis=0) if lines else None

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
        self._fitting.clear()

    def _supernet(self) -> CutSupernet:
        """Trained weights as they are; untrained ones anew, from torch's global generator."""
        if self.trained:
            whole = copies.faithful(self._whole)
        else:
            assert isinstance(self._spec, str)
            whole = untrained(self._spec, self._classes, training=self._whole.training)
        return self._shared(whole)

    def _shared(self, whole: nn.Module) -> CutSupernet:
        """All cuts of `whole`, whose weights are used and not copied."""
        return CutSupernet(self._skeleton, whole, self._ladders, plain=self._some, fits=self._fits)

    def _fits(self, supernet: CutSupernet, arch: Arch, module: nn.Module) -> bool:
        """Whether a network of the original's class computes what the cut computes: by its operators, else by values.

        Found out once per arch: it depends on sizes, not on weights.
        """
        if arch == self.reference and not self.coupling.traced.constants:  # a copy with its weights in another order
            return True
        if arch not in self._fitting:
            with mode(module, training=False), mode(supernet, training=False):
                traced = retraced(module, self.example, self._ignored, BATCH)
                self._fitting[arch] = (
                    traced is not None and difference(supernet.part(arch), traced) is None
                ) or self._same_values(supernet, arch, module)
        return self._fitting[arch]

    def _same_values(self, supernet: CutSupernet, arch: Arch, module: nn.Module) -> bool:
        gates = [torch.eye(len(c.options))[a] for c, a in zip(self.choices, arch, strict=True)]
        inputs, twin = drawn(self.example, BATCH), copies.faithful(module)
        try:
            with global_seed(0), torch.no_grad():
                found = trees.call(twin, inputs)
        except Exception:  # noqa: BLE001 - the network's own code, with numbers it was not written for
            return False
        return agree(partial(supernet, gates=gates), lambda _: found, inputs)

    def _try_classes(self, told: Asked) -> tuple[str, ...]:
        """Find out for a few archs whether they can be of the original's class; what is to be said of it.

        Raises:
            CapabilityError: Uncut, what is built gives something else than the original.
        """
        rng = np.random.default_rng(0)
        random = tuple(int(rng.integers(len(c.options))) for c in self.choices)
        archs = [arch for arch in dict.fromkeys([(0,) * len(self.choices), random]) if arch != self.reference]
        supernet = self._shared(self._whole)
        uncut = supernet.of_its_class(self.reference, borrowed=True)
        check_uncut(supernet.graph(self.reference) if uncut is None else uncut, told)
        kept = [uncut is not None, *(supernet.of_its_class(arch, borrowed=True) is not None for arch in archs)]
        self.plain = all(kept)
        self._some = any(kept)
        if all(kept):
            return ()
        return (_graphs(kept), *_lost(self._whole, self.example, self._ignored, self.coupling))


def _fractions(multipliers: Sequence[float] | int) -> Sequence[float]:
    """The fractions; `n` even steps where a number is given.

    Raises:
        ConfigError: It is below 1.
    """
    if not isinstance(multipliers, int):
        return multipliers
    if multipliers < 1:
        raise ConfigError(f"multipliers are fractions, or a number of even steps of at least 1; got {multipliers}")
    return [step / multipliers for step in range(1, multipliers + 1)]


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


def _nothing(network: nn.Module, fixed: Sequence[Fixed]) -> str:
    """Why nothing can be cut: the most frequent reasons, each with a layer."""
    layers: dict[str, list[str]] = {}
    for entry in fixed:
        layers.setdefault(entry.reason, []).append(entry.layer)
    frequent = sorted(layers.items(), key=lambda item: -len(item[1]))[:3]
    words = [f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {why}" for why, names in frequent]
    why = "; ".join(words) or "it has no convolution and no linear layer whose outputs pass to another"
    return f"{type(network).__name__} has no channels that can be cut ({why})"


def _graphs(kept: Sequence[bool]) -> str:
    """In words, which networks are graphs."""
    tried, graphs = len(kept), len(kept) - sum(kept)
    which = "narrower networks are" if graphs == tried else f"{graphs} of {tried} networks that were tried are"
    return f"{which} graphs of the original's layers: its code holds numbers of channels that do not suit them"


def _lost(network: nn.Module, example: Inputs, ignored: Sequence[str], coupling: Coupling) -> tuple[str, ...]:
    """What a graph does not have: what a network does in training only."""
    with mode(network, training=True):
        traced = retraced(network, example, ignored, BATCH)
    same = coupling.further is None if traced is None else _names(traced) == _names(coupling.traced)
    if same:
        return ()
    return (
        "a graph does in training what the original does in evaluation: what is for training only (auxiliary heads, "
        "random depth, losses) is lost in it",
    )


def _names(traced: Traced) -> list[str]:
    fuse_permutations(traced.graph)
    found = [operator_name(node) for node in traced.graph.nodes if node.op == "call_function"]
    return [name for name in found if "dropout" not in name and name not in ("add", "lift_fresh_copy")]
