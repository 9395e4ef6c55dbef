"""ONNX Runtime on the CPU, or on another of its execution providers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

from sartor.core.contracts import Session, Target
from sartor.core.errors import TargetError
from sartor.exporting import OnnxTemplate, export_onnx, parity

__all__ = ["OnnxRuntime"]


class OnnxRuntime(Target):
    """Export to ONNX, run with ONNX Runtime: sequential execution, all graph optimisations, no spinning threads.

    Args:
        threads: Threads inside an operator. Waiting threads sleep instead of spinning, so that a shared machine is not
            slowed down (and timings of others in the same rounds are not, either).
        provider: Execution provider; what it cannot run falls to the CPU.
        tolerance: Largest error of the outputs against PyTorch, relative to their range.
    """

    def __init__(self, *, threads: int = 1, provider: str = "CPUExecutionProvider", tolerance: float = 1e-3) -> None:
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise TargetError(f"this ONNX Runtime has no provider {provider!r}; available: {', '.join(available)}")
        if threads < 1:
            raise TargetError(f"threads must be at least 1, not {threads}")
        self.threads, self.provider, self.tolerance = threads, provider, tolerance

    def prepare(self, module: nn.Module, example: Tensor, folder: Path) -> Session:
        path = folder / "model.onnx"
        export_onnx(module, example, path)
        session = self.load(path)
        parity(session, module, example, tolerance=self.tolerance)
        return session

    def load(self, artifact: Path) -> Session:
        if not artifact.is_file():
            raise TargetError(f"no file {artifact}; prepare the network first, or give the path of an .onnx file")
        return self._open(str(artifact), artifact)

    def template(self, module: nn.Module, example: Tensor) -> Callable[[nn.Module], Session]:
        """See `sartor.core.abilities.Templated`."""
        return OnnxTemplate(module, example, lambda data: self._open(data, None))

    def describe(self) -> Mapping[str, str]:
        return {
            "runtime": "onnxruntime",
            "version": onnxruntime.__version__,
            "device": self.provider,
            "threads": str(self.threads),
        }

    def _open(self, model: str | bytes, artifact: Path | None) -> Session:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4  # errors come as exceptions
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = list(dict.fromkeys([self.provider, "CPUExecutionProvider"]))
        try:
            return _Session(onnxruntime.InferenceSession(model, options, providers=providers), artifact)
        except Exception as error:
            raise TargetError(f"ONNX Runtime cannot run {artifact or 'the network'}: {_reason(error)}") from error


class _Session:
    """One loaded network."""

    def __init__(self, session: Any, artifact: Path | None) -> None:
        if len(session.get_inputs()) != 1 or len(session.get_outputs()) != 1:
            raise TargetError(f"{artifact} must have one input and one output")
        self._session, self.artifact = session, artifact
        self._input, self._output = session.get_inputs()[0].name, session.get_outputs()[0].name
        gpu = any(name in session.get_providers()[0] for name in ("CUDA", "Tensorrt"))
        self._device = "cuda" if gpu else "cpu"

    def __call__(self, x: Tensor) -> Tensor:
        try:
            (result,) = self._session.run([self._output], {self._input: x.detach().cpu().numpy()})
        except Exception as error:
            raise TargetError(
                f"ONNX Runtime cannot run an input of shape {tuple(x.shape)}: {_reason(error)}"
            ) from error
        return torch.from_numpy(result)

    def bind(self, x: Tensor) -> Callable[[], object]:
        output = self(x).numpy()
        binding, run = self._session.io_binding(), self._session.run_with_iobinding
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        binding.bind_ortvalue_input(self._input, value(x.detach().cpu().contiguous().numpy(), self._device, 0))
        binding.bind_ortvalue_output(self._output, value(output, self._device, 0))
        if self._device == "cpu":
            return lambda: run(binding)

        def call() -> None:
            run(binding)
            binding.synchronize_outputs()

        return call


_OPERATOR = re.compile(
    r"(?:implementation for|no op registered for|op type:?)\s*([\w.:]+)|([\w.:]+)\(-?\d+\) is not a reg", re.I
)


def _reason(error: Exception) -> str:
    """The operator that ONNX Runtime names in its message, else the message."""
    text = " ".join(str(error).split())
    found = _OPERATOR.search(text)
    return f"operator {found[1] or found[2]} ({text[:200]})" if found else text[:300]
