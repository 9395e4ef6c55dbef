"""Files of networks (ONNX, torch.export), and the check that a runtime computes what PyTorch does."""

from sartor.exporting.agreement import drawn, parity, relative_error
from sartor.exporting.onnx_check import check_onnx
from sartor.exporting.onnx_file import export_onnx, onnx_signature, trace_onnx
from sartor.exporting.pt2_file import Program, export_pt2, load_pt2
from sartor.exporting.signature import ENTRY, Port, Signature
from sartor.exporting.template import OnnxTemplate, with_sane_weights
from sartor.exporting.tracing import evaluating

__all__ = [
    "ENTRY",
    "OnnxTemplate",
    "Port",
    "Program",
    "Signature",
    "check_onnx",
    "drawn",
    "evaluating",
    "export_onnx",
    "export_pt2",
    "load_pt2",
    "onnx_signature",
    "parity",
    "relative_error",
    "trace_onnx",
    "with_sane_weights",
]
