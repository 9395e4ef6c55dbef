"""A tiny network as an ONNX file, with its input."""

from pathlib import Path

import torch
from torch import Tensor, nn

from sartor.exporting import export_onnx

EXAMPLE = torch.zeros(1, 3, 12, 12)


def file_of(folder: Path, name: str = "tiny", *, width: int = 4, example: Tensor = EXAMPLE) -> Path:
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 4, 3), nn.Flatten())
    export_onnx(net, example, folder / f"{name}.onnx")
    return folder / f"{name}.onnx"
