"""Fit a neural network to a budget: measured latency, MACs, parameters or memory."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sartor.core.contracts import Task as Task
    from sartor.core.errors import SartorError as SartorError
    from sartor.core.metrics import Metric as Metric
    from sartor.jobs.fit.api import Fit as Fit
    from sartor.jobs.fit.api import fit as fit
    from sartor.tasks.imitate import imitate as imitate
    from sartor.tasks.loaders import loaders as loaders

__version__ = "0.1.0"

_PUBLIC = {
    "Fit": "sartor.jobs.fit.api",
    "Metric": "sartor.core.metrics",
    "fit": "sartor.jobs.fit.api",
    "imitate": "sartor.tasks.imitate",
    "loaders": "sartor.tasks.loaders",
    "SartorError": "sartor.core.errors",
    "Task": "sartor.core.contracts",
}

__all__ = ["Fit", "Metric", "SartorError", "Task", "__version__", "fit", "imitate", "loaders"]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are used: `sartor --help` needs no torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sartor' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
