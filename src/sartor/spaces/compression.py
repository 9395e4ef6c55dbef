"""Everything that can be made of a trained network by taking layers away, narrowing it and adding skip connections.

Source: the space of Cao, Wang and Kitani, "Learnable embedding space for efficient neural architecture compression"
(ESNAC, ICLR 2019). Students inherit the teacher's weights: the first channels, in order of importance.

Deviations: Widths are chosen per group of coupled channels, in `steps` steps, where the source draws one real number
for all layers of as many channels (`coupled = "channels"` is that, in steps). Residual blocks can be skipped whole. A
layer gets at most one further input, which may be any earlier value of the same shape; the source draws every pair of
layers on its own. Channels are kept by importance, not by number.

Shapes: a layer can be removed, and a skip added, where shapes agree in the whole network, as in the source. Either
makes two tensors equal whose channels are cut by different choices; these are tied then, channel by channel: the choice
that most layers share decides for both (the width of a stage of a ResNet for what is inside its blocks, say). So every
arch is a network, and `canonical` shows the widths that it really has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sartor.core.abilities import Accounted, Described, Pretrained, Scalable
from sartor.core.contracts import Space
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.moves import Moves
from sartor.core.records import Arch
from sartor.core.trees import Inputs
from sartor.networks import Shapes, blank, original, shapes, untrained
from sartor.spaces._options import nearest
from sartor.spaces._pool import Pool
from sartor.surgery.analysis.blocks import skippable
from sartor.surgery.analysis.ladders import grouped, ladders
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.checked import analysed
from sartor.surgery.cutting.extraction import as_graph
from sartor.surgery.cutting.importance import Importance, reorder, scores
from sartor.surgery.cutting.slicing import Engine
from sartor.surgery.cutting.uncut import asked, check_uncut
from sartor.surgery.students.choices import Students
from sartor.surgery.students.description import Describer, Encoding
from sartor.surgery.students.rewiring import Wiring, functional
from sartor.surgery.students.tally import Tally

__all__ = ["Compression"]

Change: TypeAlias = Literal["layers", "blocks", "skips"]
"""What a student may differ in beside its widths."""

REMOVED = (0.3, 0.4, 0.5, 0.6, 0.7)
"""A random network loses every layer with one of these probabilities (source, its code)."""
SKIPPED = (0.003, 0.005, 0.01, 0.03, 0.05)
"""A random network has every possible skip with one of these probabilities (source, its code)."""
BLOCKS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""A random network skips every block with one of these probabilities (ours)."""


class Compression(Space, Accounted, Described, Pretrained, Scalable):
    """Students of a trained network.

    Args:
        network: `torchvision:NAME`, `timm:NAME`, `package.module:callable`, or a module: the teacher.
        weights: A file with its trained weights (safetensors, or a state dict of torch, see docs/files.md). Without, a
            network by name is untrained; a module counts as trained.
        input_shape: Shape of one input without the batch, or a list or table of shapes of several; by default
            `(in_channels, size, size)`.
        example: Inputs of one example, each `(1, ...)`, which say more than shapes: types, and which numbers occur.
        size: Height and width of the input.
        in_channels: Channels of the input.
        classes: Number of outputs, for networks by name; None takes the network's own.
        changes: What may change beside the widths: `layers` (single ones are removed), `blocks` (residual ones are
            skipped whole), `skips` (connections are added).
        steps: Widths on offer: 1/steps, 2/steps, ... of each group; 1 leaves all widths as they are.
        coupled: `groups`: one width per group of channels that belong together; `channels`: one for all groups of as
            many channels.
        importance: Which channels are kept: `l1`, `l2`, `bn`, `random`, or `none` for the first, as in the source.
        ignore: Names of modules to leave as they are, with all that enters and leaves them.
        encoding: How `description` describes a network: `log`, or the source's `paper` (at most 128 layers).
        pool: A table (CSV) of students: the space is down to these, and every other arch stands for the one most like
            it. For comparisons of searches on students that have all been trained already.
        seed: Of the initial weights and of `random`.
    """

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
        changes: Sequence[Change] = ("layers", "blocks", "skips"),
        steps: int = 16,
        coupled: Literal["groups", "channels"] = "groups",
        importance: Importance = "l2",
        ignore: Sequence[str] = (),
        encoding: Encoding = "log",
        pool: str = "",
        seed: int = 0,
    ) -> None:
        if isinstance(network, str) and not network:  # of a module, its length would be asked for
            raise ConfigError("the space compression needs a network: network = 'torchvision:resnet18', say")
        _check(changes, steps, coupled, importance, encoding)
        self._spec, self._classes = network, classes
        self.trained = isinstance(network, nn.Module) or bool(weights)
        whole, folded = original(network, weights, seed=seed, classes=classes)
        self.example: Inputs = blank(
            whole, example if example is not None else input_shape or (in_channels, size, size)
        )
        self.input_shape: Any = shapes(self.example)
        checked = analysed(whole, self.example, ignore)
        told = asked(network if isinstance(network, nn.Module) and not weights else whole, self.example)
        coupling = checked.coupling
        functional(coupling.traced.graph)
        constants = reorder(coupling, whole, scores(coupling, whole, importance, seed=seed))
        self.coupling, self._whole = coupling.with_constants(constants), whole
        widths = ladders(coupling.groups, [k / steps for k in range(1, steps + 1)], divisor=1)
        widths = grouped(widths) if coupled == "channels" else widths
        found = skippable(coupling).blocks if "blocks" in changes else ()
        wiring = Wiring(Skeleton(self.coupling), whole, widths, found)
        if "layers" in changes and not wiring.removals and not wiring.blocks:
            raise CapabilityError(
                f"{type(whole).__name__} has no removable layer: none whose output has the shape of its input, and no "
                'residual block; leave "layers" out of changes to choose widths and skips alone'
            )
        self.students = Students(
            wiring, removals="layers" in changes, blocks="blocks" in changes, skips="skips" in changes
        )
        self.choices = self.students.choices
        if not self.choices:
            raise CapabilityError(f"{type(whole).__name__} has nothing to choose from; allow layers, skips or widths")
        self._tally = Tally(self.students, whole)
        self._describe = Describer(self.students, encoding)
        self._pool = Pool(pool, self.choices) if pool else None
        self.moves = _Moves(self.students, self.canonical, self._pool)
        check_uncut(self._built(whole, self.students.reference), told)
        self.notes = (*(f"{word} is folded into a plain weight" for word in folded), *checked.notes)

    @property
    def reference(self) -> Arch:
        return self.canonical(self.students.reference)

    def canonical(self, arch: Arch) -> Arch:
        found = self.students.canonical(arch)
        return found if self._pool is None else self._pool.nearest(found)

    def key(self, arch: Arch) -> str:
        return super().key(self.canonical(arch))

    def build(self, arch: Arch) -> nn.Module:
        return self._built(self._weights(), self._known(arch))

    def scaled(self, factor: float) -> Arch:
        """All layers and no skips, with widths nearest to `factor` times the teacher's."""
        students, arch = self.students, self.reference
        lo, hi = students.at_widths, students.at_skips
        wanted = [factor * float(c.options[-1]) for c in self.choices[lo:hi]]
        return (*arch[:lo], *nearest(self.choices[lo:hi], wanted), *arch[hi:])

    def tally(self, metric: str, archs: Sequence[Arch]) -> Tensor | None:
        return self._tally(metric, [self._known(arch) for arch in archs])

    def description(self, arch: Arch) -> NDArray[np.float32]:
        return self._describe(self._known(arch))

    def edges(self, arch: Arch) -> NDArray[np.int64]:
        return self._describe.edges(self._known(arch))

    def _built(self, whole: nn.Module, arch: Arch) -> nn.Module:
        return as_graph(Engine(self.students.wiring.skeleton, whole), self.students.cut(arch))

    def _known(self, arch: Arch) -> Arch:
        return arch if self._pool is None else self.canonical(arch)

    def _weights(self) -> nn.Module:
        """Trained weights as they are; untrained ones anew, from torch's global generator."""
        if self.trained:
            return self._whole
        assert isinstance(self._spec, str)
        return untrained(self._spec, self._classes, training=self._whole.training)


class _Moves(Moves):
    """Random students as the source draws them, and small changes of each kind; or the networks of a pool."""

    def __init__(self, students: Students, canonical: Callable[[Arch], Arch], pool: Pool | None) -> None:
        super().__init__(students.choices, canonical)
        self._students, self._pool = students, pool
        ends = (0, students.at_blocks, students.at_widths, students.at_skips, len(self.choices))
        movable = ([i for i in range(*span) if len(self.choices[i].options) > 1] for span in pairwise(ends))
        self._kinds = [kind for kind in movable if kind]

    @property
    def members(self) -> Sequence[Arch]:
        return self._pool.archs if self._pool is not None else ()

    def draw(self, rng: np.random.Generator) -> Arch:
        """A random network as the source draws them: see `REMOVED`, `SKIPPED`, `BLOCKS`; widths are uniform.

        Of a pool, all networks are as likely.
        """
        if self._pool is not None:
            return self.members[int(rng.integers(len(self.members)))]
        students, options = self._students, np.array([len(c.options) for c in self.choices])
        removed, skipped, blocks = (float(rng.choice(p)) for p in (REMOVED, SKIPPED, BLOCKS))
        arch = rng.integers(options)
        coins = rng.random(len(options))
        lo, hi = students.at_widths, students.at_skips
        arch[: students.at_blocks] = coins[: students.at_blocks] >= removed
        arch[students.at_blocks : lo] = coins[students.at_blocks : lo] >= blocks
        arch[hi:] = np.where(coins[hi:] < (1 - skipped) ** (options[hi:] - 1), 0, 1 + rng.integers(options[hi:] - 1))
        return self.canonical(tuple(arch.tolist()))

    def vary(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """`arch` with one layer, block, width or skip changed, each kind as likely; a width by a quarter at most.

        Most choices are about single layers and skips, of which a good student changes few.
        """
        kind = self._kinds[int(rng.integers(len(self._kinds)))]
        i = kind[int(rng.integers(len(kind)))]
        size = len(self.choices[i].options)
        reach = max(1, size // 4) if self.choices[i].ordered else size
        others = [k for k in range(size) if 0 < abs(k - arch[i]) <= reach]
        return self.canonical((*arch[:i], others[int(rng.integers(len(others)))], *arch[i + 1 :]))


def _check(changes: Sequence[str], steps: int, coupled: str, importance: str, encoding: str) -> None:
    if isinstance(changes, str) or not set(changes) <= set(get_args(Change)):
        raise ConfigError(f"changes is a list of some of {', '.join(get_args(Change))}; got {changes!r}")
    if steps < 1:
        raise ConfigError(f"steps must be at least 1, got {steps}")
    if coupled not in ("groups", "channels"):
        raise ConfigError(f"coupled must be 'groups' or 'channels', got {coupled!r}")
    if importance == "taylor":
        raise ConfigError("importance 'taylor' needs data, which this space does not ask for; use 'l2'")
    if encoding not in get_args(Encoding):
        raise ConfigError(f"encoding must be one of {', '.join(get_args(Encoding))}, got {encoding!r}")
