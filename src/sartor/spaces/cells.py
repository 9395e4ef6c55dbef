"""Networks of equal cells, each a graph with a choice of operation for every edge.

Sources: Liu, Simonyan and Yang, "DARTS" (ICLR 2019): preset `darts`; Dong and Yang, "NAS-Bench-201" (ICLR 2020): preset
`nats`. Deviations from DARTS: every edge may run any operation or none, of which its cells (two edges per node) are a
part that `moves.derive` finds; the network that is searched is the one that is built (norms have scales and shifts, no
norms behind pools); no auxiliary head; drop-path is a setting of trainings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from sartor.core import trees
from sartor.core.abilities import Accounted
from sartor.core.contracts import Space, Supernet
from sartor.core.errors import ConfigError
from sartor.core.moves import Moves
from sartor.core.records import Arch, Choice, Operators
from sartor.core.tables import Tables
from sartor.core.trees import Inputs
from sartor.spaces._cells import NONE, PRESETS, SKIP, Edge, Network, Place, around, constants, operators, steps
from sartor.spaces._graph import Nothing
from sartor.spaces._operators import Catalogue, Catalogued
from sartor.supernet.mixed import Mixed, inherit_path

__all__ = ["Cells"]

_USUAL = ("conv3", "sep3")


class Cells(Catalogued, Space, Accounted):
    """A 3x3 convolution, stages of equal cells with a reduction to half the size in between, pooling, a classifier.

    A cell has one or two inputs (the outputs of the cells before it), then nodes, each the sum of one operation on all
    inputs and nodes before it. Every edge is one choice, the same in all cells of a kind. The reference adds to each
    node a convolution of the one before it and the first input as it is.

    `none` adds nothing, `skip` the value itself, `avg3` and `max3` its 3x3 pooling, `conv1` and `conv3` a ReLU, a
    convolution and a norm; `sep3` and `sep5` do that twice with a depthwise and a 1x1 convolution, `dil3` and `dil5`
    once with a dilated one. Where a reduction cell starts from its inputs, all have stride 2.

    `canonical` replaces by `none` what starts at a node without anything (as the benchmark counts, though a norm shifts
    zeros) and what ends at a node that nobody reads. Cells whose nodes are only numbered differently stay different.

    Args:
        preset: `nats`, the cells of NATS-Bench; `darts`, those of DARTS. The other settings go before the preset's.
        nodes: After the inputs.
        operations: On offer for every edge, cheapest first.
        stem: Channels after the first convolution.
        cells: Per stage, without the reductions.
        widths: Channels of a node, per stage.
        inputs: 1, the cell before, or 2, the two cells before.
        concat: Whether a cell gives all its nodes, concatenated; else the last one, and norm and ReLU come after all.
        separate: Whether reductions are cells with choices of their own; else they are residual blocks.
        keep: Edges that `moves.derive` keeps per node, the most preferred ones, with any operation but `none`; 0 takes
            the most preferred operation of every edge, whatever it is.
        size: Height and width of the input.
        classes: Number of outputs.
        in_channels: Channels of the input.

    Raises:
        ConfigError: A setting is out of range, or settings contradict each other.
    """

    def __init__(
        self,
        *,
        preset: Literal["nats", "darts"] = "nats",
        nodes: int | None = None,
        operations: Sequence[str] | None = None,
        stem: int | None = None,
        cells: Sequence[int] | None = None,
        widths: Sequence[int] | None = None,
        inputs: int | None = None,
        concat: bool | None = None,
        separate: bool | None = None,
        keep: int | None = None,
        size: int = 32,
        classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        if preset not in PRESETS:
            raise ConfigError(f"preset is one of {', '.join(PRESETS)}; got {preset!r}")
        given: dict[str, Any] = {"nodes": nodes, "stem": stem, "inputs": inputs, "concat": concat}
        given |= {"separate": separate, "keep": keep, "size": size, "classes": classes, "in_channels": in_channels}
        given |= {k: v and tuple(v) for k, v in (("operations", operations), ("cells", cells), ("widths", widths))}
        self.plan = plan = replace(PRESETS[preset], **{k: v for k, v in given.items() if v is not None})
        self.input_shape, self.classes = (in_channels, size, size), classes
        self.choices = tuple(
            Choice(f"{f'{kind}.' if plan.separate else ''}node{node}<{source}", plan.operations)
            for kind in plan.kinds
            for source, node in plan.edges
        )
        self.moves = _Moves(self)

    @property
    def reference(self) -> Arch:
        plan = self.plan
        usual = next((o for o in _USUAL if o in plan.operations), plan.operations[-1])
        found = []
        for source, node in plan.edges:
            wanted = usual if source == node - 1 else SKIP if source == 0 else NONE
            found.append(plan.operations.index(wanted if wanted in plan.operations else usual))
        return self.canonical(tuple(found) * len(plan.kinds))

    def canonical(self, arch: Arch) -> Arch:
        if NONE not in self.plan.operations:
            return arch
        return tuple(a for kind in range(len(self.plan.kinds)) for a in self._pruned(list(self._part(arch, kind))))

    def build(self, arch: Arch) -> nn.Module:
        plan = self.plan

        def layers(place: Place) -> list[nn.Module | None]:
            names = [plan.operations[a] for a in self._part(arch, plan.kinds.index(place.kind))]
            return [place.edge(s).module(name) for name, (s, _) in zip(names, plan.edges, strict=True)]

        return fx.symbolic_trace(Network(plan, layers))  # a graph of torch's own modules only

    def supernet(self) -> Supernet:
        return _CellsSupernet(self).to(memory_format=torch.channels_last)  # on a CPU 1.4 to 1.8 times as fast

    def account(self, metric: str) -> Tables | None:
        """Every operation costs what it costs, also one whose result is not used: the network runs it."""
        if metric not in ("macs", "params"):
            return None
        values = {
            "macs": lambda e, name: e.weights(name)[0] * e.y.size**2,
            "params": lambda e, name: sum(e.weights(name)),
        }
        return self._tables(values[metric], constants(self.plan)[metric == "params"])

    def steps(self) -> Sequence[Tables]:
        plan, found = self.plan, [Tables(Tables.zeros(self.choices).unary, {}, float(around(self.plan)))]
        for place in plan.places():
            start = 0 if place.kind == "normal" else len(plan.edges)
            for step in steps(plan, place) if place.kind != "residual" else ():
                for terms in step.terms(plan.operations):
                    unary = list(Tables.zeros(self.choices).unary)
                    for edge, values in terms:
                        unary[start + edge] = unary[start + edge] + values
                    found.append(Tables(tuple(unary)))
        return tuple(found)

    @cached_property
    def _operators(self) -> tuple[Operators, Catalogue]:
        return operators(self.plan)

    def _part(self, arch: Arch, kind: int) -> Arch:
        count = len(self.plan.edges)
        return arch[kind * count : (kind + 1) * count]

    def _pruned(self, cell: list[int]) -> list[int]:
        """A cell without what starts at nothing, and without what nobody reads."""
        plan, none = self.plan, self.plan.operations.index(NONE)
        some = {*range(plan.inputs)}
        for e, (source, node) in enumerate(plan.edges):
            cell[e] = cell[e] if source in some else none
            some |= {node} if cell[e] != none else set()
        read = {n for _, n in plan.edges} if plan.concat else {plan.edges[-1][1]}
        for e, (source, node) in reversed([*enumerate(plan.edges)]):
            cell[e] = cell[e] if node in read else none
            read |= {source} if cell[e] != none else set()
        return cell

    def _tables(self, value: Callable[[Edge, str], int], constant: int) -> Tables:
        """The sum over all cells of the values of what their edges run."""
        plan, places = self.plan, list(self.plan.places())
        unary = []
        for kind in plan.kinds:
            own = [p for p in places if p.kind == kind]
            for source, _ in plan.edges:
                sums = [sum(value(p.edge(source), name) for p in own) for name in plan.operations]
                unary.append(torch.tensor(sums, dtype=torch.float64))
        return Tables(tuple(unary), {}, float(constant))


class _Moves(Moves):
    """Preferences mean the cells that the rule of DARTS makes of them."""

    def __init__(self, space: Cells) -> None:
        super().__init__(space.choices, space.canonical)
        self._plan = space.plan

    def derive(self, preferences: Sequence[Tensor]) -> Arch:
        """By `keep`; the first of equals."""
        plan = self._plan
        if not plan.keep:
            return super().derive(preferences)
        none = plan.operations.index(NONE)
        best = [max((float(v), -k) for k, v in enumerate(row) if k != none) for row in preferences]
        found = [none] * len(best)
        for start in range(0, len(best), len(plan.edges)):
            for node in {n: None for _, n in plan.edges}:
                into = [start + e for e, (_, n) in enumerate(plan.edges) if n == node]
                for e in sorted(into, key=lambda e: (-best[e][0], e))[: plan.keep]:
                    found[e] = -best[e][1]
        return self.canonical(tuple(found))


class _CellsSupernet(Supernet):
    def __init__(self, space: Cells) -> None:
        super().__init__()
        self.space, plan = space, space.plan

        def mixed(place: Place) -> list[nn.Module | None]:
            return [Mixed([_option(place.edge(s), name) for name in plan.operations]) for s, _ in plan.edges]

        self.network = Network(plan, mixed)

    def forward(self, x: Inputs, gates: Sequence[Tensor]) -> Tensor:
        y = trees.single(x, self)
        kinds, count = self.space.plan.kinds, len(self.space.plan.edges)
        own = {kind: gates[i * count : (i + 1) * count] for i, kind in enumerate(kinds)}
        return self.network.run(y, lambda kind, cell, recent: cell(*recent, gates=own[kind]))

    def extract(self, arch: Arch) -> nn.Module:
        with torch.device("meta"):
            plain = self.space.build(arch)
        count = len(self.space.plan.edges)
        starts = {kind: i * count for i, kind in enumerate(self.space.plan.kinds)}
        cells = [arch[starts[kind] : starts[kind] + count] for kind in self.network.kinds if kind in starts]
        return inherit_path(plain, self.network, [a for cell in cells for a in cell])


def _option(edge: Edge, name: str) -> nn.Module | None:
    module = edge.module(name)
    return Nothing(edge.stride) if module is None and edge.stride > 1 else module
