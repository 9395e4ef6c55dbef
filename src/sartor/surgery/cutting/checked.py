"""An analysis that holds for any batch: parts that do otherwise than the traced graph says are left as they are.

A network is traced with two examples; which numbers of the graph count examples is told by labels. Where that is wrong
(code that asks how many there are, tables with a row per example), the graph does something else than the network for
another number. So the two are compared at other sizes before anything is made of the graph.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import fx, nn

from sartor.core import copies, trees
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.rng import global_seed
from sartor.core.trees import Inputs
from sartor.networks import lively
from sartor.surgery.analysis.coupling import Coupling, couple, without
from sartor.surgery.analysis.opaque import opaque
from sartor.surgery.analysis.recording import Traced, valueless
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.trace import BATCH, around, line, place, retraced, trace
from sartor.surgery.analysis.tracker import operator_name
from sartor.surgery.cutting.agreement import agree, counted, difference
from sartor.surgery.cutting.extraction import OTHERS
from sartor.surgery.cutting.slicing import Cut, Engine
from sartor.training.evaluation import mode

_log = logging.getLogger(__name__)


class Checked(NamedTuple):
    """What the analysis of a network has found.

    Attributes:
        coupling: It computes what the network computes.
        ignored: Modules that are left as they are.
        notes: Which of them were added here, and why.
    """

    coupling: Coupling
    ignored: tuple[str, ...]
    notes: tuple[str, ...]


class _Otherwise(NamedTuple):
    """Where a graph does something else than its network.

    Attributes:
        examples: For how many.
        nodes: The operator of the graph, and that of the network; of neither if only values tell.
    """

    examples: int
    nodes: tuple[fx.Node, fx.Node] | None

    def words(self) -> str:
        """What the network does, and where, as far as it is known."""
        if self.nodes is None:
            return "something that only its values show"
        own = next((n for n in reversed(self.nodes) if n.target is not opaque), self.nodes[1])
        if own.op == "output":
            return "what it returns"
        where = line(own)
        return f"{operator_name(own)} at {where}" if where else operator_name(own)

    def places(self) -> list[str]:
        """The modules in which it may be, the network's own first, and those around them."""
        found = [place(node) for node in reversed(self.nodes or ())]
        return list(dict.fromkeys(part for name in found for part in around(name)))

    def elsewhere(self, other: _Otherwise | None) -> bool:
        """Whether `other` is not the same trouble, or none."""
        if other is None or self.nodes is None or other.nodes is None:
            return other is None
        marks = [[(place(n), operator_name(n), line(n)) for n in nodes] for nodes in (self.nodes, other.nodes)]
        return all(a != b for a, b in zip(*marks, strict=True))


def analysed(network: nn.Module, example: Inputs, ignore: Sequence[str] = ()) -> Checked:
    """Analyse a network, and leave alone what depends on the number of examples in a way that the graph does not have.

    Args:
        network: Left as it is.
        example: One example, each input `(1, ...)`; only shapes and types count, unless something is left alone.
        ignore: Names of modules to leave as they are.

    Raises:
        CapabilityError: It cannot be traced, or does something with the batch outside of any module that could be left
            alone; the message names operator and module.
        ConfigError: It does not run on such inputs, or `ignore` names something that it does not have.
    """
    left, notes = list(ignore), list[str]()
    coupling, wrong = _followed(network, example, left)
    while wrong is not None:
        for name in wrong.places():
            tried = without(left, name)
            try:
                coupling, further = _followed(network, example, tried)
            except (CapabilityError, ConfigError):  # it takes numbers, or is called twice: the module around it, then
                continue
            if wrong.elsewhere(further):
                break
        else:
            raise CapabilityError(_refusal(network, wrong))
        notes.append(f"{name} is left as it is: {wrong.words()} depends on how many examples there are")
        _log.warning("%s: %s", type(network).__name__, notes[-1])
        left, wrong = tried, further
    return Checked(coupling, tuple(left), tuple(notes))


def _followed(network: nn.Module, example: Inputs, ignored: Sequence[str]) -> tuple[Coupling, _Otherwise | None]:
    """The analysis, with numbers that count examples found out, and where it is wrong nonetheless."""
    fakes = valueless()
    coupling = couple(network, example, ignored, fakes=fakes)
    with mode(network, training=False):
        traced = {n: retraced(network, example, ignored, n, fakes) for n in OTHERS}
    wrong = _otherwise(network, coupling, example, ignored, traced)
    if wrong is None:
        return coupling, None
    cuts = {n: _whole(coupling, n) for n in (BATCH, *OTHERS)}
    found = counted(cuts, {n: t for n, t in traced.items() if t is not None})
    if not found or None in traced.values():
        return coupling, wrong
    coupling = couple(network, example, ignored, found)
    return coupling, _otherwise(network, coupling, example, ignored, traced)


def _whole(coupling: Coupling, examples: int) -> Cut:
    skeleton = Skeleton(coupling)
    return Cut(skeleton, np.ones(len(skeleton.units) + 1, dtype=bool), examples)


def _otherwise(
    network: nn.Module,
    coupling: Coupling,
    example: Inputs,
    ignored: Sequence[str],
    traced: Mapping[int, Traced | None],
) -> _Otherwise | None:
    """The first size of the batch at which the graph does something else, and the operator."""
    for examples, recorded in traced.items():
        cut = _whole(coupling, examples)
        nodes = None if recorded is None else difference(cut, recorded)
        if recorded is not None and nodes is None:
            continue
        with mode(network, training=False):
            original, engine = copies.faithful(network), Engine(cut.skeleton, copies.faithful(network))
            kept = np.ones(len(cut.skeleton.units) + 1, dtype=bool)
            try:
                right = agree(partial(engine, kept=kept), partial(trees.call, original), drawn(example, examples))
            except Exception:  # noqa: BLE001 - the network itself does not take such a batch
                continue
            if not right:
                return _Otherwise(examples, nodes or _located(network, cut, example, ignored))
    return None


def drawn(example: Inputs, examples: int) -> Inputs:
    """The same random inputs whenever they are asked for."""
    with global_seed(0):
        return lively(example, examples)


def _located(network: nn.Module, cut: Cut, example: Inputs, ignored: Sequence[str]) -> tuple[fx.Node, fx.Node] | None:
    """The operators, the slow way."""
    try:
        return difference(cut, trace(network, example, ignored, examples=cut.examples))
    except (CapabilityError, ConfigError):
        return None


def _refusal(network: nn.Module, wrong: _Otherwise) -> str:
    where = wrong.places()
    return (
        f"{type(network).__name__} treats a batch of {wrong.examples} otherwise than one of two: {wrong.words()}, in "
        f"{where[0] if where else 'its own forward'}; sartor follows networks that do the same whatever the size of "
        "the batch: put that line into a module of its own, which is then left as it is"
    )
