"""Exact batch-norm statistics of one network from a few batches, for networks with inherited weights.

A supernet's running statistics mix all widths that were trained; a network cut out of it needs its own (Yu and Huang,
"Universally slimmable networks", ICCV 2019, section 3.2, post-statistics).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from sartor.core import trees
from sartor.core.contracts import Batch
from sartor.core.errors import DataError
from sartor.core.trees import Inputs
from sartor.training.evaluation import mode


def recalibrate(module: nn.Module, batches: Iterable[Batch], run: Callable[[Inputs], object] | None = None) -> None:
    """Replace the running statistics of all batch norms by the mean over `batches`, weighted by their sizes.

    Everything else (dropout, say) works as in evaluation. Modes and momenta are put back.

    Args:
        module: Whose batch norms are meant.
        batches: Inputs and targets, which are ignored.
        run: How to run one input; `module` itself by default. For a supernet: `lambda x: supernet(x, gates)`. Channels
            that do not run end with the statistics of a fresh norm.

    Raises:
        DataError: `batches` is empty.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with mode(module, training=False):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.train()
            _average(norms, batches, run or partial(trees.call, module))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def _average(
    norms: list[nn.modules.batchnorm._BatchNorm],
    batches: Iterable[Batch],
    run: Callable[[Inputs], object],
) -> None:
    seen = 0
    with torch.no_grad():
        for inputs, _ in batches:
            size = trees.size(inputs)
            seen += size
            for norm in norms:
                norm.momentum = size / seen  # a running mean instead of an exponential one
            run(inputs)
    if not seen:
        raise DataError("batch-norm statistics need at least one batch; the iterable was empty")
