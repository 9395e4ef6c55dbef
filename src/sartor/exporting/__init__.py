"""Files of networks (ONNX, torch.export), and the check that a runtime computes what PyTorch does."""

from sartor.exporting.onnx_file import evaluating, export_onnx, parity, relative_error, trace_onnx
from sartor.exporting.pt2_file import export_pt2, load_pt2
from sartor.exporting.template import OnnxTemplate, with_sane_weights

__all__ = [
    "OnnxTemplate",
    "evaluating",
    "export_onnx",
    "export_pt2",
    "load_pt2",
    "parity",
    "relative_error",
    "trace_onnx",
    "with_sane_weights",
]
