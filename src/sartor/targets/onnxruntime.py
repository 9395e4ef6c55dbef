"""ONNX Runtime on the CPU, or on another of its execution providers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from sartor.core.contracts import Session, Target
from sartor.core.errors import TargetError
from sartor.core.records import ExportSettings
from sartor.core.trees import Inputs, Tree
from sartor.exporting import ENTRY, OnnxTemplate, Port, Signature, check_onnx, export_onnx, parity

__all__ = ["OnnxRuntime"]

COMMON = 20
"""The opset that the exporter takes by itself; a newer one may be newer than the runtime."""


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

    def prepare(
        self, module: nn.Module, example: Inputs, folder: Path, settings: ExportSettings | None = None
    ) -> Session:
        path = folder / "model.onnx"
        signature = export_onnx(module, example, path, settings)
        try:
            session = self._open(str(path), path, signature.tree)
        except TargetError as error:
            raise TargetError(f"{error}{_remedy(module, path)}") from error
        parity(session, module, example, tolerance=self.tolerance)
        return session

    def load(self, artifact: Path) -> Session:
        check_onnx(artifact)
        return self._open(str(artifact), artifact)

    def template(self, module: nn.Module, example: Inputs) -> Callable[[nn.Module], Session]:
        """See `sartor.core.abilities.Templated`."""
        return OnnxTemplate(module, example, lambda data: self._open(data, None))

    def describe(self) -> Mapping[str, str]:
        return {
            "runtime": "onnxruntime",
            "version": onnxruntime.__version__,
            "device": self.provider,
            "threads": str(self.threads),
        }

    def _open(self, model: str | bytes, artifact: Path | None, tree: Tree | None = None) -> Session:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4  # errors come as exceptions
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = list(dict.fromkeys([self.provider, "CPUExecutionProvider"]))
        try:
            session = onnxruntime.InferenceSession(model, options, providers=providers)
        except Exception as error:
            raise TargetError(f"ONNX Runtime cannot run {artifact or 'the network'}: {_reason(error)}") from error
        return _Session(session, artifact, tree)


class _Session:
    """One loaded network."""

    def __init__(self, session: Any, artifact: Path | None, tree: Tree | None) -> None:
        self._session, self.artifact = session, artifact
        text = session.get_modelmeta().custom_metadata_map.get(ENTRY)
        outputs = [_tensor(value, "output").name for value in session.get_outputs()]
        signature = Signature.read(text, [_port(value) for value in session.get_inputs()], outputs)
        self._signature = signature if tree is None else signature.giving(tree)
        gpu = any(name in session.get_providers()[0] for name in ("CUDA", "Tensorrt"))
        self._device = "cuda" if gpu else "cpu"

    def __call__(self, inputs: Inputs) -> Tree:
        return self._signature.rebuilt(torch.from_numpy(value) for value in self._run(self._arrays(inputs)))

    def bind(self, inputs: Inputs) -> Callable[[], object]:
        arrays = self._arrays(inputs)
        outputs = zip(self._signature.outputs, self._run(arrays), strict=True)
        binding, run = self._session.io_binding(), self._session.run_with_iobinding
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        for name, array in arrays.items():
            binding.bind_ortvalue_input(name, value(array, self._device, 0))
        for name, array in outputs:
            binding.bind_ortvalue_output(name, value(array, self._device, 0))
        if self._device == "cpu":
            return lambda: run(binding)

        def call() -> None:
            run(binding)
            binding.synchronize_outputs()

        return call

    def _arrays(self, inputs: Inputs) -> dict[str, Any]:
        values = self._signature.ordered(inputs)
        ports = self._signature.inputs
        odd = [p.name for p, v in zip(ports, values, strict=True) if v.dtype == torch.bfloat16]
        if odd:
            raise TargetError(f"input {odd[0]!r} is bfloat16, which numpy has not; cast the network to float32")
        return {p.place: v.detach().cpu().contiguous().numpy() for p, v in zip(ports, values, strict=True)}

    def _run(self, arrays: Mapping[str, Any]) -> list[Any]:
        try:
            found = self._session.run(list(self._signature.outputs), dict(arrays))
        except Exception as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise TargetError(f"ONNX Runtime cannot run inputs of shapes {shapes}: {_reason(error)}") from error
        return [np.asarray(value) for value in found]


_TYPES = {"float": "float32", "double": "float64"}
"""Types of elements that ONNX Runtime calls otherwise than PyTorch does."""


def _tensor(value: Any, what: str) -> Any:
    if not value.type.startswith("tensor("):
        raise TargetError(f"{what} {value.name!r} is a {value.type}; it must be a tensor")
    return value


def _port(value: Any) -> Port:
    kind = _tensor(value, "input").type.removeprefix("tensor(").removesuffix(")")
    dtype = getattr(torch, _TYPES.get(kind, kind), None)
    return Port(value.name, value.name, tuple(value.shape), dtype if isinstance(dtype, torch.dtype) else None)


def _remedy(module: nn.Module, path: Path) -> str:
    """What may help where a network cannot be opened."""
    opset = next(entry.version for entry in onnx.load(path, load_external_data=False).opset_import if not entry.domain)
    kinds = {p.dtype for p in module.parameters()} & {torch.float64, torch.bfloat16}
    names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    if kinds:
        return (
            f"; the network is in {names}, for which it has few operators: cast it to float32, or take target torch_cpu"
        )
    return f"; the file is of opset {opset}: an older one may be known (export.opset)" if opset > COMMON else ""


_OPERATOR = re.compile(
    r"(?:implementation for|no op registered for|op type:?)\s*([\w.:]+)|([\w.:]+)\(-?\d+\) is not a reg", re.I
)


def _reason(error: Exception) -> str:
    """The operator that ONNX Runtime names in its message, else the message."""
    text = " ".join(str(error).split())
    found = _OPERATOR.search(text)
    return f"operator {found[1] or found[2]} ({text[:200]})" if found else text[:300]
