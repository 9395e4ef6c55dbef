"""Write a PyTorch module as a `torch.export` file, which loads without the module's code and without pickle."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from sartor.core.errors import TargetError
from sartor.exporting.onnx_file import evaluating, quiet, reason, several


def export_pt2(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write `module`, in eval mode, to `path`; the batch dimension stays open where the module allows it.

    Args:
        module: Takes one tensor and returns one; its training flags are left as they were.
        example: One input, `(batch, ...)`, on the module's device.
        path: A `.pt2` file.

    Raises:
        TargetError: the module cannot be traced.
    """
    with evaluating(module), quiet():
        program = _traced(module, example)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, path)


def _traced(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    with suppress(Exception):  # whatever stops an open batch is found again, or gone, below
        open_batch = ({0: torch.export.Dim("batch")},)
        return torch.export.export(module, (several(example),), dynamic_shapes=open_batch, strict=False)
    try:
        return torch.export.export(module, (example,), strict=False)
    except Exception as error:
        raise TargetError(f"cannot trace {type(module).__name__}: {reason(error)}") from error


def load_pt2(path: Path, device: str = "cpu") -> Callable[[Tensor], Tensor]:
    """The network in a `.pt2` file, on `device`.

    Raises:
        TargetError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise TargetError(f"no file {path}; prepare the network first, or give the path of a .pt2 file")
    with quiet():
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise TargetError(f"cannot read {path} as a torch.export file: {reason(error)}") from error
        return program.module().to(device)
