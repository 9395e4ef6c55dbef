"""A network on a target, checked: its file takes any batch and the sizes that were asked for, or says why not."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from sartor.core.contracts import Session, Target
from sartor.core.errors import CapabilityError
from sartor.core.records import ExportSettings
from sartor.core.trees import Inputs
from sartor.exporting.agreement import parity
from sartor.exporting.onnx_file import check_opset
from sartor.exporting.reach import written


@dataclass(frozen=True)
class Prepared:
    """A network on a target.

    Attributes:
        session: Of it.
        relative_error: Largest difference between its outputs and PyTorch's.
        note: In what its file takes less than it might, and why; "" if in nothing.
    """

    session: Session
    relative_error: float
    note: str = ""


def check_target(target: Target, settings: ExportSettings) -> None:
    """Whether a target can write files as these settings ask.

    Raises:
        ConfigError: There is no such opset.
        CapabilityError: It writes them in a way of its own.
    """
    check_opset(settings.opset)
    if settings != ExportSettings() and not _takes_settings(target):
        raise CapabilityError(
            f"{type(target).__name__}.prepare takes no `settings`, so its files cannot be as [export] asks; leave the "
            "table out, or take another target"
        )


def prepare(
    target: Target,
    module: nn.Module,
    example: Inputs,
    folder: Path,
    settings: ExportSettings | None = None,
    *,
    tolerance: float,
) -> Prepared:
    """Write the file of a network for a target, and try it.

    Args:
        target: Where it will run.
        module: The network.
        example: What it is called with, each `(batch, ...)`.
        folder: For the file.
        settings: What is wished of the file.
        tolerance: Largest relative error, see `parity`.

    Raises:
        NarrowError: It cannot take other sizes, and a file of fixed ones is not wished for.
        TargetError: The target cannot run the network, or runs it with other results.
    """
    settings = settings or ExportSettings()
    check_target(target, settings)
    if not _takes_settings(target):
        session = target.prepare(module, example, folder)
        return Prepared(session, parity(session, module, example, tolerance=tolerance))
    found = written(
        lambda wish: target.prepare(module, example, folder, wish),
        module,
        example,
        settings,
        tolerance=tolerance,
        file="the exported file",
    )
    alone = parity(found.run, module, example, tolerance=tolerance)
    return Prepared(found.run, max(alone, found.error), found.note)


def _takes_settings(target: Target) -> bool:
    """A target of a user's own may know nothing of forms."""
    return "settings" in inspect.signature(target.prepare).parameters
