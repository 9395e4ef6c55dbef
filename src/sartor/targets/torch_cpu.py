"""PyTorch itself on the CPU; the artifact is a `torch.export` file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sartor.core import trees
from sartor.core.contracts import Session, Target
from sartor.core.errors import TargetError
from sartor.core.records import ExportSettings
from sartor.core.trees import Inputs, Tree
from sartor.exporting import Program, Signature, export_pt2, load_pt2, parity, with_sane_weights

__all__ = ["TorchCpu"]


class TorchCpu(Target):
    """Eager PyTorch in inference mode.

    Args:
        threads: Threads inside an operator, set around calls only.
        compile: Run through `torch.compile`; the first call takes its time and needs a C++ compiler.
        tolerance: Largest error of the artifact's outputs against the module's, relative to their range.
    """

    def __init__(self, *, threads: int = 1, compile: bool = False, tolerance: float = 1e-3) -> None:
        if threads < 1:
            raise TargetError(f"threads must be at least 1, not {threads}")
        self.threads, self.compile, self.tolerance = threads, compile, tolerance

    def prepare(
        self, module: nn.Module, example: Inputs, folder: Path, settings: ExportSettings | None = None
    ) -> Session:
        path = folder / "model.pt2"
        signature = export_pt2(module, example, path, settings)
        session = self._session(load_pt2(path).giving(signature.tree), path)
        parity(session, module, example, tolerance=self.tolerance)
        return session

    def load(self, artifact: Path) -> Session:
        return self._session(load_pt2(artifact), artifact)

    def template(self, module: nn.Module, example: Inputs) -> Callable[[nn.Module], Session]:
        """See `sartor.core.abilities.Templated`; modules on the meta device get random weights."""

        def session(narrow: nn.Module) -> Session:
            ready = with_sane_weights(narrow, example)
            return self._session(Program(ready, Signature.of(ready, example)), None)

        session(module)
        return session

    def describe(self) -> Mapping[str, str]:
        mode = "compiled" if self.compile else "eager"
        return {
            "runtime": f"torch ({mode})",
            "version": torch.__version__,
            "device": "cpu",
            "threads": str(self.threads),
        }

    def _session(self, program: Program, artifact: Path | None) -> Session:
        compiled: Any = torch.compile(program.module) if self.compile else program.module
        return _Session(replace(program, module=compiled), self.threads, artifact)


class _Session:
    def __init__(self, program: Program, threads: int, artifact: Path | None) -> None:
        self._program, self._threads, self.artifact = program, threads, artifact

    def __call__(self, inputs: Inputs) -> Tree:
        ready = self._program.accepted(trees.to(inputs, "cpu"))
        with _threads(self._threads), torch.inference_mode():
            result = self._program.run(ready)
        # copied outside: an inference tensor could not be worked on
        return trees.mapped(torch.clone, self._program.restored(result))

    def bind(self, inputs: Inputs) -> Callable[[], object]:
        run, threads = self._program.module, self._threads
        ready = self._program.accepted(trees.mapped(lambda t: t.cpu().clone(), inputs))
        args, kwargs = trees.arguments(ready)

        def call() -> object:
            with _threads(threads), torch.inference_mode():
                return run(*args, **kwargs)

        return call


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
