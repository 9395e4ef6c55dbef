"""The exact minimum of a loss under additive upper bounds, with a certificate.

Label setting over the frontier of the path decomposition: a label is a partial arch with its loss and costs, dominated
labels of the same state are dropped (Joksch 1966; Desrochers and Soumis 1988), and so are labels whose completion bound
from the Lagrangian relaxation cannot beat the incumbent (Handler and Zang 1980; Carlyle, Royset and Wood 2008).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sartor.core.errors import BudgetError
from sartor.core.records import Arch
from sartor.core.tables import Tables
from sartor.solvers.frontier import Floats, Ints, Plan, completions
from sartor.solvers.relaxation import Bound, Dual, Model, Point, dual
from sartor.solvers.solution import Solution

BEAMS = (256, 1 << 13, 1 << 18)
"""Labels kept per step, pass by pass; the last bounds the memory."""
WINDOW = 48
"""With several constraints, each label is compared with so many before it."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Partial archs after a step.

    Attributes:
        state: `(n,)` joint option of the frontier.
        loss: `(n,)`.
        cost: `(m, n)`.
        parent: `(n,)` index of the label extended.
        option: `(n,)` option of the choice that entered.
    """

    state: Ints
    loss: Floats
    cost: Floats
    parent: Ints
    option: Ints

    def take(self, keep: Ints) -> Labels:
        """The labels `keep`, in that order."""
        return Labels(self.state[keep], self.loss[keep], self.cost[:, keep], self.parent[keep], self.option[keep])


@dataclass(frozen=True, eq=False)
class Guide:
    """Completion bounds of one vector of multipliers.

    Attributes:
        weight: 1 for bounds of the loss, 0 for bounds of the costs alone.
        multipliers: `(m,)`.
        rest: Per step the least weighed sum to come, `(S_t,)`.
    """

    weight: float
    multipliers: Floats
    rest: list[Floats]

    def weigh(self, labels: Labels) -> Floats:
        """`(n,)` weighed sums so far."""
        return self.weight * labels.loss + self.multipliers @ labels.cost

    def bounds(self, t: int, labels: Labels) -> Floats:
        """`(n,)` least weighed sum of a whole arch that continues each label, after `t` steps."""
        return self.weigh(labels) + self.rest[t][labels.state]

    def end(self, loss: float, room: Floats) -> float:
        """Weighed sum that no arch with less than `loss` and within `room` exceeds."""
        return (loss if self.weight else 0.0) + float(self.multipliers @ room)


@dataclass(frozen=True, eq=False)
class Sweep:
    """What one pass over the labels found.

    Attributes:
        last: Whole archs within the threshold and the relaxed limits.
        trail: `(parent, option)` of the labels kept, per step.
        labels: Labels extended.
        dropped: Least completion bound among labels dropped to keep the beam narrow, +inf if none was.
    """

    plan: Plan
    last: Labels
    trail: Sequence[tuple[Ints, Ints]]
    labels: int
    dropped: float

    def archs(self) -> Iterator[Arch]:
        """The whole archs, by loss."""
        for label in np.argsort(self.last.loss, kind="stable").tolist():
            arch, at = [0] * len(self.plan.sizes), label
            for step, (parent, option) in zip(reversed(self.plan.steps), reversed(self.trail), strict=True):
                arch[step.choice], at = int(option[at]), int(parent[at])
            yield tuple(arch)


def optimum(loss: Tables, constraints: Sequence[Bound], *, peaks: Sequence[Bound] = (), gap: float = 0.0) -> Solution:
    """The arch with the least loss among those with `tables.cost(arch) <= limit` for every constraint and peak.

    Args:
        loss: What to minimise; +inf entries are forbidden.
        constraints: Tables and their largest value.
        peaks: Tables (one per layer) and the largest value of each; each depends on at most two choices, so that the
            limit forbids single entries. A cost of several `Terms` is within a limit if all its tables are.
        gap: The answer's loss may exceed the optimum by this much (same unit); saves time.

    Raises:
        BudgetError: No arch meets the limits.
        CapabilityError: A peak depends on more than two choices, or the couplings are too wide.
    """
    model = Model.of(loss, constraints, peaks)
    if not constraints:
        _, point = model.relaxed(np.zeros(0))
        return Solution(point.arch, point.loss, (), point.loss, True, None, 1)
    start = dual(model)
    return _close(model, start, gap)


def _close(model: Model, start: Dual, gap: float) -> Solution:
    """Close the gap between the relaxation and its best feasible arch, with wider and wider beams."""
    best, bound, labels = start.best, start.bound, start.decoded
    tolerance = 2 * model.loss.rounding + gap
    guides = _guides(model, start) if _loss_of(best) - bound > tolerance else []
    for beam in BEAMS if guides else ():
        best, lower, more = _pass(model, guides, best, tolerance, beam)
        bound, labels = max(bound, min(lower, _loss_of(best) - tolerance)), labels + more
        if lower >= _loss_of(best) - tolerance:
            break
    if best is None:
        raise BudgetError(model.impossible() if bound == np.inf else "search ended early: " + model.impossible())
    if best.loss - bound <= 3 * model.loss.rounding:
        bound = best.loss
    multiplier = float(start.multipliers[0]) if len(start.multipliers) == 1 else None
    return Solution(best.arch, best.loss, best.costs, min(bound, best.loss), bound >= best.loss, multiplier, labels)


def _pass(
    model: Model, guides: Sequence[Guide], best: Point | None, tolerance: float, beam: int
) -> tuple[Point | None, float, int]:
    """The best point after a sweep, the least loss of what the sweep may have missed, and the labels it took."""
    threshold = _loss_of(best) - tolerance
    swept = _sweep(model, guides, threshold, beam)
    first, found = next(swept.archs(), None), _better(model, swept, best)
    if first is None or (found is not None and found.arch == first):
        return found, swept.dropped, swept.labels
    # The first arch exceeds a limit by rounding: it may have dominated one that does not.
    again = _sweep(model, guides, threshold, beam, margin=True)
    return _better(model, again, found), again.dropped, swept.labels + again.labels


def _loss_of(point: Point | None) -> float:
    return np.inf if point is None else point.loss


def _better(model: Model, swept: Sweep, best: Point | None) -> Point | None:
    """The first arch within the true limits, if its loss is less than that of `best`."""
    points = (model.point(arch) for arch in swept.archs())
    found = next((p for p in points if model.feasible(p.costs)), None)
    return found if found is not None and found.loss < _loss_of(best) else best


def _guides(model: Model, start: Dual) -> list[Guide]:
    """The best multipliers first, others around them, then each cost alone."""
    guides = []
    for factor in (1.0, 0.7, 1.4, 0.4, 2.5):
        flat = model.weighed(start.multipliers * factor)
        guides.append(Guide(1.0, start.multipliers * factor, completions(model.steps, flat)))
    for k in range(len(model.costs)):
        rest = completions(model.steps, model.cost_flat[k] + model.forbidden)
        guides.append(Guide(0.0, np.eye(len(model.costs))[k], rest))
    return guides


def _sweep(model: Model, guides: Sequence[Guide], threshold: float, beam: int, margin: bool = False) -> Sweep:
    """Extend all labels choice by choice; keep those that may end below `threshold` within the limits."""
    ends = [g.end(threshold - model.loss.constant, model.room) for g in guides]
    lead, led = guides[0], model.steps.split(model.weighed(guides[0].multipliers))
    local_loss, local_cost = model.steps.split(model.loss_flat), model.steps.split(model.cost_flat)
    none = np.zeros(1, dtype=np.intp)
    labels = Labels(none, np.zeros(1), np.zeros((len(model.costs), 1)), none, none)
    trail, work, dropped = list[tuple[Ints, Ints]](), 0, np.inf
    for t, step in enumerate(model.steps.steps):
        reach = (led[t] + lead.rest[t + 1][step.target])[labels.state] + lead.weigh(labels)[:, None]
        parent, option = np.nonzero(reach < ends[0])
        at = labels.state[parent], option
        loss, cost = labels.loss[parent] + local_loss[t][at], labels.cost[:, parent] + local_cost[t][:, *at]
        labels = Labels(step.target[at], loss, cost, parent, option)
        work += len(parent)
        for guide, end in zip(guides[1:], ends[1:], strict=True):
            keep = np.flatnonzero(guide.bounds(t + 1, labels) <= end)
            labels = labels if len(keep) == len(labels.state) else labels.take(keep)
        labels = labels.take(_undominated(labels.state, labels.loss, labels.cost, 2 * model.slack if margin else None))
        if len(labels.state) > beam:
            bounds = lead.bounds(t + 1, labels)
            order = np.argpartition(bounds, beam)
            dropped, labels = min(dropped, float(bounds[order[beam]])), labels.take(order[:beam])
        trail.append((labels.parent, labels.option))
    offset = model.loss.constant - float(lead.multipliers @ model.room)
    return Sweep(model.steps, labels, trail, work, dropped + offset)


def _undominated(state: Ints, loss: Floats, cost: Floats, margin: Floats | None) -> Ints:
    """Labels to keep."""
    if len(state) < 2:
        return np.arange(len(state))
    if len(cost) == 1 and margin is None:
        return _front(state, loss, cost[0])
    return _windowed(state, loss, cost, np.zeros(len(cost)) if margin is None else margin)


def _front(state: Ints, loss: Floats, cost: Floats) -> Ints:
    """Exact Pareto front of (loss, cost) per state."""
    order = np.lexsort((loss, cost, state))
    rank = np.empty(len(loss), dtype=np.intp)
    rank[np.argsort(loss, kind="stable")] = np.arange(len(loss))
    # Later states get smaller keys, so that the running minimum starts afresh with each state.
    key = rank[order] - state[order] * len(loss)
    lowest = np.minimum.accumulate(key)
    keep = np.r_[True, key[1:] < lowest[:-1]]
    return np.asarray(order[keep])


def _windowed(state: Ints, loss: Floats, cost: Floats, margin: Floats) -> Ints:
    """Drops labels that one of the preceding ones (by state and loss) dominates; may keep some dominated ones."""
    order = np.lexsort((*cost, loss, state))
    state, loss, cost = state[order], loss[order], cost[:, order]
    keep = np.ones(len(order), dtype=bool)
    for shift in range(1, min(WINDOW, len(order) - 1) + 1):
        same = state[shift:] == state[:-shift]
        keep[shift:] &= ~(same & (cost[:, :-shift] + margin[:, None] <= cost[:, shift:]).all(axis=0))
    return np.asarray(order[keep])
