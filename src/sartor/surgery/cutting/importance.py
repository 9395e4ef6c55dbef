"""How much each unit of a network matters, and the weights reordered so that the first ones matter most.

Sources: magnitude of filters, Li et al., "Pruning filters for efficient ConvNets" (ICLR 2017); scales of batch norms,
Liu et al., "Network slimming" (ICCV 2017); first-order Taylor, Molchanov et al., "Importance estimation for neural
network pruning" (CVPR 2019), equation 8, summed over all weights of a coupled unit as in Fang et al., "DepGraph" (CVPR
2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from sartor.core import copies, trees
from sartor.core.contracts import Batch
from sartor.core.errors import ConfigError
from sartor.core.rng import derive
from sartor.core.trees import Tree
from sartor.surgery.analysis.coupling import Coupling
from sartor.surgery.analysis.units import Units
from sartor.training.evaluation import mode

Importance: TypeAlias = Literal["auto", "obs", "taylor", "l1", "l2", "bn", "random", "none"]
Scores = NDArray[np.float64]


def scores(
    coupling: Coupling,
    network: nn.Module,
    how: Importance,
    *,
    batches: Iterable[Batch] = (),
    loss: Callable[[Tree, Tree], Tensor] | None = None,
    seed: int = 0,
) -> Scores:
    """One number per unit, `(units,)`; only those of one family compare.

    Args:
        coupling: Of the network.
        network: With the weights to judge.
        how: `l1` or `l2`: mean norms of the weights that read or write the unit; `bn`: scales of the norms behind it;
            `taylor`: squared sums of weight times gradient over `batches`; `random`; `none`: as they are. `obs` and
            `auto` are for `sartor.surgery.cutting.ordering`.
        batches: For `taylor`: inputs and targets.
        loss: For `taylor`: `(output, target) -> (batch,)`.
        seed: For `random`.
    """
    known = get_args(Importance)
    if how not in known:
        raise ConfigError(f"there is no importance {how!r}; use one of {', '.join(known)}")
    if how in {"auto", "obs"}:
        raise ConfigError(f"importance {how!r} looks at what layers read, not at weights alone; see `ordering.ordered`")
    units = coupling.tracker.units
    if how == "none":
        return -np.arange(len(units), dtype=float)
    if how == "random":
        return np.random.default_rng(derive(seed, "importance")).random(len(units))
    weights = dict(network.named_parameters(remove_duplicate=False))
    if how == "bn":
        norms = {
            f"{n}.weight" for n, m in network.named_modules() if isinstance(m, (_NormBase, nn.LayerNorm, nn.GroupNorm))
        }
        values = {n: w.detach().abs() for n, w in weights.items() if n in norms}
        found = _gather(coupling, values, lambda v: v, lambda sums: sums)
        return found if (found > 0).any() else scores(coupling, network, "l2")
    if how == "taylor":
        slopes = _gradients(network, batches, loss)
        values = {n: (w.detach() * slopes[n]) for n, w in weights.items() if n in slopes}
        return _gather(coupling, values, lambda v: v, Tensor.square, normalise=False)
    values = {n: w.detach() for n, w in weights.items() if w.dim() > 1}
    if how == "l1":
        return _gather(coupling, values, Tensor.abs, lambda sums: sums)
    return _gather(coupling, values, Tensor.square, Tensor.sqrt)


def _gather(
    coupling: Coupling,
    values: dict[str, Tensor],
    each: Callable[[Tensor], Tensor],
    score: Callable[[Tensor], Tensor],
    *,
    normalise: bool = True,
) -> Scores:
    """Sums over all weights of a unit; each weight's scores are divided by their mean, so that none rules.

    Args:
        coupling: Of the network.
        values: By the name of the weight.
        each: What is summed up of every value, float64.
        score: What is made of the sums.
        normalise: Whether the mean of a weight's scores does not matter.
    """
    units = coupling.tracker.units
    total = np.zeros(len(units))
    for name, dims in coupling.weights():
        labels = [units.resolve(dim) if name in values else None for dim in dims]
        if all(roots is None for roots in labels):
            continue
        value = each(values[name].double())
        for d, roots in enumerate(labels):
            if roots is None:
                continue
            others = [i for i in range(value.dim()) if i != d]
            line = score(value.sum(others) if others else value).cpu().numpy()
            if normalise:
                line = line / max(float(line.mean()), 1e-30)
            for column in roots.T:
                inside = column >= 0
                np.add.at(total, column[inside], line[inside])
    return total


def _gradients(
    network: nn.Module, batches: Iterable[Batch], loss: Callable[[Tree, Tree], Tensor] | None
) -> dict[str, Tensor]:
    if loss is None:
        raise ConfigError("importance 'taylor' needs a task's loss and batches; use 'l2' without data")
    total: dict[str, Tensor] = {}
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError("importance 'taylor' needs weights to train, and all are frozen; use 'obs' or 'l2'")
    with copies.undisturbed(network), mode(network, training=False), torch.enable_grad():
        for inputs, target in batches:
            free = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
            names, weights = tuple(free), tuple(free.values())
            slopes = torch.autograd.grad(loss(trees.call(network, inputs), target).sum(), weights, allow_unused=True)
            for name, slope in zip(names, slopes, strict=True):
                if slope is not None:
                    total[name] = total[name] + slope if name in total else slope
    if not total:
        raise ConfigError("importance 'taylor' needs at least one batch; there was none")
    return total


def reorder(coupling: Coupling, network: nn.Module, importance: Scores) -> dict[str, Tensor]:
    """Permute the network's weights in place so that in every family the first units are the most important ones.

    The network computes the same: all that reads a channel is permuted like what writes it.

    Returns:
        Constants of the graph that have channels, permuted alike, by the name of their placeholder.
    """
    place = _places(coupling, importance)
    state: dict[str, Tensor] = dict(network.named_parameters(remove_duplicate=False))
    state |= dict(network.named_buffers(remove_duplicate=False))
    constants = dict(coupling.traced.constants)
    with torch.no_grad():
        for name, dims in coupling.weights():
            value = state[name] if name in state else constants.get(name)
            if value is None:
                continue
            for d, order in _orders(coupling.tracker.units, dims, place):
                index = torch.from_numpy(order).to(value.device)
                if name in state:
                    value.copy_(value.index_select(d, index))
                else:
                    value = constants[name] = value.index_select(d, index)
    return constants


def _places(coupling: Coupling, importance: Scores) -> NDArray[np.int64]:
    """Unit -> the unit whose weights come to its place."""
    place = np.arange(len(importance) + 1)
    for group in coupling.groups:
        for family in group.families:
            place[family] = family[np.argsort(-importance[family], kind="stable")]
    return place


def _orders(
    units: Units, dims: list[NDArray[np.int64] | None], place: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For every dimension that changes: which old index comes to each place."""
    for d, dim in enumerate(dims):
        roots = units.resolve(dim)
        if roots is None:
            continue
        order = np.arange(len(roots))
        for column in roots.T:
            moved = np.flatnonzero((column >= 0) & (place[column] != column))
            if not len(moved):
                continue
            ranks = _occurrence(column)
            where = {(u, r): i for i, (u, r) in enumerate(zip(column.tolist(), ranks.tolist(), strict=True))}
            order[moved] = [where[int(place[column[i]]), int(ranks[i])] for i in moved]
        if not np.array_equal(order, np.arange(len(order))):
            yield d, order


def _occurrence(column: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every entry, how many equal ones come before it."""
    order = np.argsort(column, kind="stable")
    line = column[order]
    starts = np.r_[0, np.flatnonzero(line[1:] != line[:-1]) + 1]
    ranks: NDArray[np.int64] = np.arange(len(line)) - np.repeat(starts, np.diff(np.r_[starts, len(line)]))
    found: NDArray[np.int64] = np.empty_like(ranks)
    found[order] = ranks
    return found
