"""From many short visits to many networks to one latency each.

A busy machine drifts by more than the networks differ, and differently from minute to minute. So networks are visited
briefly and often, in sweeps over all of them; what slowed down a whole block of visits is taken out by median polish
(Tukey 1977), on logarithms, and a network's latency is the mean of what remains, outliers pulled in.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from sartor.core.errors import DataError
from sartor.core.records import Arch
from sartor.latency.design import Floats
from sartor.latency.samples import Sample

POLISHES = 10
"""Rounds of median polish; it settles within a few."""
OUTLIER = 2.0
"""Robust standard deviations beyond which a visit counts as if it were just there (Winsor's mean)."""


class Visit(NamedTuple):
    """One short timing of one network.

    Attributes:
        block: Which visits it shares its conditions with, e.g. the round.
        ms: Milliseconds of a call.
    """

    arch: Arch
    block: Hashable
    ms: float


def combine(visits: Sequence[Visit], reference: Arch, heldout: Collection[Arch] = ()) -> list[Sample]:
    """One sample per network, in order of first visit, with the 95 % interval of its location.

    The milliseconds are those of the median conditions over blocks.

    Args:
        visits: Each block should hold several networks; only then can its conditions be told from its networks.
        reference: What `ratio` is relative to; must have been visited.
        heldout: The networks whose samples only judge the fit.

    Raises:
        DataError: The reference was never visited.
    """
    archs = {arch: i for i, arch in enumerate(dict.fromkeys(v.arch for v in visits))}
    if reference not in archs:
        raise DataError(f"the reference {reference} was never visited; time it in every block")
    blocks = {block: i for i, block in enumerate(dict.fromkeys(v.block for v in visits))}
    network = np.array([archs[v.arch] for v in visits])
    block = np.array([blocks[v.block] for v in visits])
    logs = np.log([v.ms for v in visits])
    drift = np.zeros(len(blocks))
    level = _by(network, logs, len(archs))
    for _ in range(POLISHES):
        drift = _by(block, logs - level[network], len(blocks))
        drift -= np.median(drift)
        level = _by(network, logs - drift[block], len(archs))
    rest = logs - drift[block] - level[network]
    limit = OUTLIER * 1.4826 * np.median(np.abs(rest))
    rest, counts = np.clip(rest, -limit, limit), np.bincount(network)
    level += np.bincount(network, rest) / counts
    variance = (np.bincount(network, rest**2) + np.mean(rest**2)) / (counts + 1)  # shrunk: some have few visits
    spread = 1.96 * np.sqrt(variance / counts)
    ms, low, high = (np.exp(level + sign * spread).tolist() for sign in (0, -1, 1))
    ratio = np.exp(level - level[archs[reference]]).tolist()
    return [
        Sample(arch, ms[i], low[i], high[i], ratio[i], "heldout" if arch in heldout else "train")
        for arch, i in archs.items()
    ]


def _by(group: np.ndarray[tuple[int], np.dtype[np.int64]], values: Floats, n: int) -> Floats:
    """Median of the values of each of `n` groups."""
    order = np.argsort(group, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(group, minlength=n))[:-1])
    return np.array([np.median(part) for part in parts])
