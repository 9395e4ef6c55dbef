"""PyTorch on an NVIDIA GPU; the artifact is a `torch.export` file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from sartor.core import trees
from sartor.core.contracts import Session, Target
from sartor.core.copies import faithful
from sartor.core.errors import TargetError
from sartor.core.records import ExportSettings
from sartor.core.trees import Inputs, Tree
from sartor.exporting import Program, Signature, export_pt2, load_pt2, parity, with_sane_weights

__all__ = ["TorchCuda"]


class TorchCuda(Target):
    """Eager PyTorch on one GPU; every timed call ends with a synchronisation.

    Args:
        device: Index of the GPU.
        half: Run in float16.
        tolerance: Largest error of the outputs against the module's on the CPU, relative to their range; 0 stands for
            1e-3, and 2e-2 with `half`.
    """

    def __init__(self, *, device: int = 0, half: bool = False, tolerance: float = 0.0) -> None:
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not 0 <= device < found:
            raise TargetError(f"there is no GPU {device} (PyTorch sees {found}); use target torch_cpu or onnxruntime")
        self.device, self.half, self._place = device, half, f"cuda:{device}"
        self.tolerance = tolerance or (2e-2 if half else 1e-3)

    def prepare(
        self, module: nn.Module, example: Inputs, folder: Path, settings: ExportSettings | None = None
    ) -> Session:
        path = folder / "model.pt2"
        copy = faithful(module).to(self._place, self._type)
        signature = export_pt2(copy, moved(example, self._place, self._type), path, settings)
        session = self._session(load_pt2(path, self._place).giving(signature.tree), path)
        parity(session, module, example, tolerance=self.tolerance)
        return session

    def load(self, artifact: Path) -> Session:
        return self._session(load_pt2(artifact, self._place), artifact)

    def template(self, module: nn.Module, example: Inputs) -> Callable[[nn.Module], Session]:
        """See `sartor.core.abilities.Templated`; modules on the meta device get random weights."""

        def session(narrow: nn.Module) -> Session:
            ready = with_sane_weights(narrow, example).to(self._place, self._type)
            signature = Signature.of(ready, moved(example, self._place, self._type))
            return self._session(Program(ready, signature), None)

        session(module)
        return session

    def describe(self) -> Mapping[str, str]:
        return {
            "runtime": "torch (eager)",
            "version": torch.__version__,
            "device": torch.cuda.get_device_name(self.device),
            "precision": "float16" if self.half else "float32",
        }

    def _session(self, program: Program, artifact: Path | None) -> Session:
        return _Session(program, self._place, self._type, artifact)

    @property
    def _type(self) -> torch.dtype:
        return torch.float16 if self.half else torch.float32


class _Session:
    def __init__(self, program: Program, device: str, dtype: torch.dtype, artifact: Path | None) -> None:
        self._program, self._device, self._type, self.artifact = program, device, dtype, artifact

    def __call__(self, inputs: Inputs) -> Tree:
        ready = self._program.accepted(moved(inputs, self._device, self._type))
        with torch.inference_mode():
            result = self._program.run(ready)
        # copied outside: an inference tensor could not be worked on
        return trees.mapped(torch.clone, moved(self._program.restored(result), "cpu", torch.float32))

    def bind(self, inputs: Inputs) -> Callable[[], object]:
        run, device = self._program.module, torch.device(self._device)
        args, kwargs = trees.arguments(self._program.accepted(moved(inputs, self._device, self._type)))

        def call() -> None:
            with torch.inference_mode():
                run(*args, **kwargs)
            torch.cuda.synchronize(device)

        return call


def moved(tree: Tree, device: str, dtype: torch.dtype) -> Tree:
    """The tree on a device; floats become `dtype`, whole numbers and booleans stay what they are."""
    return trees.mapped(lambda t: t.to(device, dtype if t.is_floating_point() else t.dtype), tree)
