"""PyTorch itself on the CPU; the artifact is a `torch.export` file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sartor.core.contracts import Session, Target
from sartor.core.errors import TargetError
from sartor.exporting import export_pt2, load_pt2, parity, with_sane_weights

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

    def prepare(self, module: nn.Module, example: Tensor, folder: Path) -> Session:
        path = folder / "model.pt2"
        export_pt2(module, example, path)
        session = self.load(path)
        parity(session, module, example, tolerance=self.tolerance)
        return session

    def load(self, artifact: Path) -> Session:
        return _Session(self._ready(load_pt2(artifact)), self.threads, artifact)

    def template(self, module: nn.Module, example: Tensor) -> Callable[[nn.Module], Session]:
        """See `sartor.core.abilities.Templated`; modules on the meta device get random weights."""
        with_sane_weights(module, example)(example)
        return lambda narrow: _Session(self._ready(with_sane_weights(narrow, example)), self.threads, None)

    def describe(self) -> Mapping[str, str]:
        mode = "compiled" if self.compile else "eager"
        return {
            "runtime": f"torch ({mode})",
            "version": torch.__version__,
            "device": "cpu",
            "threads": str(self.threads),
        }

    def _ready(self, module: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        compiled: Any = torch.compile(module) if self.compile else module
        return compiled  # type: ignore[no-any-return]  # torch.compile keeps the signature


class _Session:
    def __init__(self, run: Callable[[Tensor], Tensor], threads: int, artifact: Path | None) -> None:
        self._run, self._threads, self.artifact = run, threads, artifact

    def __call__(self, x: Tensor) -> Tensor:
        with _threads(self._threads), torch.inference_mode():
            result = self._run(x.cpu())
        return result.clone()  # outside: an inference tensor could not be worked on

    def bind(self, x: Tensor) -> Callable[[], object]:
        run, threads, x = self._run, self._threads, x.cpu().clone()

        def call() -> object:
            with _threads(threads), torch.inference_mode():
                return run(x)

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
