"""Files of networks (ONNX, torch.export), and the check that a runtime computes what PyTorch does."""

from sartor.exporting.agreement import drawn, parity, relative_error
from sartor.exporting.onnx_check import check_onnx
from sartor.exporting.onnx_file import check_opset, export_onnx, onnx_signature, trace_onnx
from sartor.exporting.prepared import Prepared, check_target, prepare
from sartor.exporting.pt2_file import Program, export_pt2, load_pt2
from sartor.exporting.reach import Written, check_export, written
from sartor.exporting.signature import ENTRY, Port, Signature
from sartor.exporting.sizes import NarrowError
from sartor.exporting.template import OnnxTemplate, with_sane_weights
from sartor.exporting.tracing import evaluating

__all__ = [
    "ENTRY",
    "NarrowError",
    "OnnxTemplate",
    "Port",
    "Prepared",
    "Program",
    "Signature",
    "Written",
    "check_export",
    "check_onnx",
    "check_opset",
    "check_target",
    "drawn",
    "evaluating",
    "export_onnx",
    "export_pt2",
    "load_pt2",
    "onnx_signature",
    "parity",
    "prepare",
    "relative_error",
    "trace_onnx",
    "with_sane_weights",
    "written",
]
