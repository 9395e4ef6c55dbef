"""OpenVINO on the CPU (extra `openvino`); the artifact is an ONNX file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core.contracts import Session, Target
from sartor.core.errors import MissingExtraError, TargetError
from sartor.exporting import OnnxTemplate, export_onnx, parity

__all__ = ["OpenVino"]


class OpenVino(Target):
    """Export to ONNX, compile with OpenVINO for latency, in float32.

    Args:
        threads: Threads of one inference.
        tolerance: Largest error of the outputs against PyTorch, relative to their range.
    """

    def __init__(self, *, threads: int = 1, tolerance: float = 1e-3) -> None:
        if threads < 1:
            raise TargetError(f"threads must be at least 1, not {threads}")
        try:
            self._openvino: Any = importlib.import_module(
                "openvino"
            )  # an extra: only who asks for this target needs it
        except ImportError as error:
            raise MissingExtraError("target openvino needs OpenVINO: pip install 'sartor[openvino]'") from error
        self.threads, self.tolerance = threads, tolerance
        self._core = self._openvino.Core()

    def prepare(self, module: nn.Module, example: Tensor, folder: Path) -> Session:
        path = folder / "model.onnx"
        export_onnx(module, example, path)
        session = self.load(path)
        parity(session, module, example, tolerance=self.tolerance)
        return session

    def load(self, artifact: Path) -> Session:
        if not artifact.is_file():
            raise TargetError(f"no file {artifact}; prepare the network first, or give the path of an .onnx file")
        return self._open(artifact.read_bytes(), artifact)

    def template(self, module: nn.Module, example: Tensor) -> Callable[[nn.Module], Session]:
        """See `sartor.core.abilities.Templated`."""
        return OnnxTemplate(module, example, lambda data: self._open(data, None))

    def describe(self) -> Mapping[str, str]:
        return {
            "runtime": "openvino",
            "version": str(self._openvino.get_version()),
            "device": str(self._core.get_property("CPU", "FULL_DEVICE_NAME")),
            "threads": str(self.threads),
        }

    def _open(self, model: bytes, artifact: Path | None) -> Session:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(self.threads),
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            network = self._core.read_model(model, b"")
            return _Session(self._core, network, settings, artifact)
        except RuntimeError as error:
            raise TargetError(f"OpenVINO cannot run {artifact or 'the network'}: {_reason(error)}") from error


class _Session:
    """One network, compiled anew (and kept) for each shape of input, as a deployment with fixed shapes would be."""

    def __init__(self, core: Any, network: Any, settings: Mapping[str, str], artifact: Path | None) -> None:
        self._core, self._network, self._settings, self.artifact = core, network, dict(settings), artifact
        self._requests: dict[tuple[int, ...], Any] = {}
        if not network.input(0).partial_shape.is_dynamic:
            self._request(tuple(network.input(0).shape))

    def __call__(self, x: Tensor) -> Tensor:
        request = self._request(tuple(x.shape))
        try:
            (result,) = request.infer({0: x.detach().cpu().contiguous().numpy()}).values()
        except RuntimeError as error:
            raise TargetError(f"OpenVINO cannot run an input of shape {tuple(x.shape)}: {_reason(error)}") from error
        return torch.from_numpy(np.array(result))

    def bind(self, x: Tensor) -> Callable[[], object]:
        request = self._compiled(tuple(x.shape)).create_infer_request()
        request.get_input_tensor(0).data[...] = x.detach().cpu().numpy()
        return lambda: request.infer()  # noqa: PLW0108 - the bound method takes inputs, a call must not

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            self._requests[shape] = self._compiled(shape).create_infer_request()
        return self._requests[shape]

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        network = self._network.clone()
        try:
            if network.input(0).partial_shape.is_dynamic:
                network.reshape(list(shape))
            return self._core.compile_model(network, "CPU", self._settings)
        except RuntimeError as error:
            raise TargetError(f"OpenVINO cannot compile for an input of shape {shape}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
