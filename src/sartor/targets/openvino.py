"""OpenVINO on the CPU (extra `openvino`); the artifact is an ONNX file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from sartor.core.contracts import Session, Target
from sartor.core.errors import MissingExtraError, TargetError
from sartor.core.records import ExportSettings
from sartor.core.trees import Inputs, Tree
from sartor.exporting import OnnxTemplate, Signature, check_onnx, export_onnx, onnx_signature, parity

__all__ = ["OpenVino"]


@cache
def _core() -> Any:
    """The one of this process, which stays.

    With its last core OpenVINO unloads its plug-in for the CPU, and with that the memory on which the main thread takes
    signals: the next one, of Ctrl-C or of a trial's time limit, would crash Python.
    """
    return importlib.import_module("openvino").Core()


class OpenVino(Target):
    """Export to ONNX, compile with OpenVINO for latency, in float32.

    Args:
        threads: Threads of one inference.
        tolerance: Largest error of the outputs against PyTorch, relative to their range.
    """

    def __init__(self, *, threads: int = 1, tolerance: float = 1e-3) -> None:
        if threads < 1:
            raise TargetError(f"threads must be at least 1, not {threads}")
        try:  # an extra: only who asks for this target needs it
            self._openvino: Any = importlib.import_module("openvino")
        except ImportError as error:
            raise MissingExtraError("target openvino needs OpenVINO: pip install 'sartor[openvino]'") from error
        self.threads, self.tolerance = threads, tolerance
        self._core = _core()

    def prepare(
        self, module: nn.Module, example: Inputs, folder: Path, settings: ExportSettings | None = None
    ) -> Session:
        path = folder / "model.onnx"
        signature = export_onnx(module, example, path, settings)
        session = self._open(path.read_bytes(), path, signature.tree)
        parity(session, module, example, tolerance=self.tolerance)
        return session

    def load(self, artifact: Path) -> Session:
        check_onnx(artifact)
        return self._open(artifact.read_bytes(), artifact)

    def template(self, module: nn.Module, example: Inputs) -> Callable[[nn.Module], Session]:
        """See `sartor.core.abilities.Templated`."""
        return OnnxTemplate(module, example, lambda data: self._open(data, None))

    def describe(self) -> Mapping[str, str]:
        return {
            "runtime": "openvino",
            "version": str(self._openvino.get_version()),
            "device": str(self._core.get_property("CPU", "FULL_DEVICE_NAME")),
            "threads": str(self.threads),
        }

    def _open(self, model: bytes, artifact: Path | None, tree: Tree | None = None) -> Session:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(self.threads),
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
        }
        signature = onnx_signature(model)
        try:
            network = self._core.read_model(model, b"")
        except RuntimeError as error:
            raise TargetError(f"OpenVINO cannot run {artifact or 'the network'}: {_reason(error)}") from error
        known = signature if tree is None else signature.giving(tree)
        return _Session(self._core, network, settings, artifact, known)


_Shapes: TypeAlias = tuple[tuple[int, ...], ...]


class _Session:
    """One network, compiled anew (and kept) for each shape of inputs, as a deployment with fixed shapes would be."""

    def __init__(
        self, core: Any, network: Any, settings: Mapping[str, str], artifact: Path | None, signature: Signature
    ) -> None:
        self._core, self._network, self._settings, self.artifact = core, network, dict(settings), artifact
        self._signature = signature
        self._used = {name for port in network.inputs for name in port.names}  # OpenVINO drops inputs without effect
        self._requests: dict[_Shapes, Any] = {}
        if not any(port.partial_shape.is_dynamic for port in network.inputs):
            places = [port.place for port in signature.inputs if port.place in self._used]
            self._request({place: tuple(network.input(place).shape) for place in places})

    def __call__(self, inputs: Inputs) -> Tree:
        arrays = self._arrays(inputs)
        request = self._request({name: array.shape for name, array in arrays.items()})
        try:
            found = request.infer(arrays)
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise TargetError(f"OpenVINO cannot run inputs of shapes {shapes}: {_reason(error)}") from error
        return self._signature.rebuilt(torch.from_numpy(np.array(found[name])) for name in self._signature.outputs)

    def bind(self, inputs: Inputs) -> Callable[[], object]:
        arrays = self._arrays(inputs)
        request = self._compiled({name: array.shape for name, array in arrays.items()}).create_infer_request()
        for name, array in arrays.items():
            request.get_tensor(name).data[...] = array
        return lambda: request.infer()  # noqa: PLW0108 - the bound method takes inputs, a call must not

    def _arrays(self, inputs: Inputs) -> dict[str, Any]:
        values = self._signature.ordered(inputs)
        ports = self._signature.inputs
        return {
            port.place: value.detach().cpu().contiguous().numpy()
            for port, value in zip(ports, values, strict=True)
            if port.place in self._used
        }

    def _request(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        key = tuple(shapes.values())
        if key not in self._requests:
            self._requests[key] = self._compiled(shapes).create_infer_request()
        return self._requests[key]

    def _compiled(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        network = self._network.clone()
        try:
            if any(port.partial_shape.is_dynamic for port in network.inputs):
                network.reshape({name: list(shape) for name, shape in shapes.items()})
            return self._core.compile_model(network, "CPU", self._settings)
        except RuntimeError as error:
            words = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise TargetError(f"OpenVINO cannot compile for inputs of shapes {words}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
