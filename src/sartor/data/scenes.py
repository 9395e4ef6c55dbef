"""Squares cut from a scene: one large raster with several layers, in which some pixels have a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sartor.core.errors import DataError
from sartor.data.archives import Array
from sartor.data.sources import tensor_of


@dataclass(frozen=True)
class Scene:
    """Layers of one place, and where squares of it are.

    Attributes:
        layers: Name -> `(channels, H + patch - 1, W + patch - 1)`: mirrored at the borders, so that a square around any
            pixel is inside.
        corners: Row and column of each square's first pixel in the layers, `(n, 2)`, int64.
        patch: Side of the squares, in pixels.
    """

    layers: Mapping[str, Tensor]
    corners: Tensor
    patch: int

    def __len__(self) -> int:
        return len(self.corners)

    def cut(self, name: str, index: Tensor) -> Tensor:
        """The squares of a layer, `(m, channels, patch, patch)`."""
        layer, side = self.layers[name], torch.arange(self.patch)
        rows, columns = (self.corners[index, axis, None] + side for axis in (0, 1))
        return layer[:, rows[:, :, None], columns[:, None, :]].movedim(0, 1)


def layer_of(array: Array, size: tuple[int, int], where: str) -> Tensor:
    """A layer of a scene, `(H, W)`, `(H, W, C)` or `(C, H, W)`, as `(C, H, W)`.

    Raises:
        DataError: It has another height and width than `size`.
    """
    values = tensor_of(array)
    if values.dim() == 2:
        values = values[None]
    elif values.dim() == 3 and tuple(values.shape[1:]) != size:
        values = values.movedim(2, 0)
    if values.dim() != 3 or tuple(values.shape[1:]) != size:
        raise DataError(f"{where} has the shape {array.shape}, the labels have {size}; one place, one height and width")
    return values.contiguous()


def around(layers: Mapping[str, Tensor], labels: Tensor, patch: int) -> tuple[Scene, Tensor]:
    """A square around every labelled pixel, and the labels, `(n,)`.

    Args:
        layers: Name -> `(C, H, W)`.
        labels: `(H, W)`, int64; below 0 where there is none.
        patch: Side; of an even one, the pixel is the first after the middle.

    Raises:
        DataError: A square is larger than the scene.
    """
    before, after = patch // 2, patch - 1 - patch // 2
    if patch > min(labels.shape):
        raise DataError(f"patch = {patch} is larger than the scene, {tuple(labels.shape)}; set a smaller one")
    padded = {name: _mirrored(layer, before, after) for name, layer in layers.items()}
    corners = (labels >= 0).nonzero()
    return Scene(padded, corners, patch), labels[labels >= 0]


def tiles(layers: Mapping[str, Tensor], labels: Tensor, patch: int) -> tuple[Scene, Tensor]:
    """Squares side by side, those with a label in them, and all their labels, `(n, patch, patch)`; -100: none.

    Args:
        layers: Name -> `(C, H, W)`.
        labels: `(H, W)`, int64; below 0 where there is none.
        patch: Side; what is left at the lower and right border is covered by squares that overlap.
    """
    height, width = labels.shape
    if patch > min(height, width):
        raise DataError(f"patch = {patch} is larger than the scene, {(height, width)}; set a smaller one")
    rows, columns = (sorted({*range(0, side - patch + 1, patch), side - patch}) for side in (height, width))
    corners = torch.cartesian_prod(torch.tensor(rows), torch.tensor(columns))
    truth = Scene({"": labels[None]}, corners, patch).cut("", torch.arange(len(corners)))[:, 0]
    known = (truth >= 0).flatten(1).any(1)
    return Scene(layers, corners[known], patch), truth[known]


def _mirrored(layer: Tensor, before: int, after: int) -> Tensor:
    if not before and not after:
        return layer
    full = layer if layer.is_floating_point() else layer.double()  # exact for the integers of rasters
    return functional.pad(full[None], (before, after, before, after), mode="reflect")[0].to(layer.dtype)


def blocks(corners: Tensor, side: int) -> Array:
    """Which block of `side` by `side` pixels a square's first pixel is in, `(n,)`: groups for an honest split.

    Neighbours look alike: drawn pixel by pixel, a test pixel nearly always has a twin in the training split.
    """
    found: Array = ((corners[:, 0] // side) * (1 << 20) + corners[:, 1] // side).numpy()
    return found


def apart_from(corners: Tensor, train: Tensor, held: Tensor, patch: int) -> Tensor:
    """Those of the training squares that share no pixel with the held-out ones.

    Args:
        corners: `(n, 2)`.
        train: Indices, `(m,)`.
        held: Indices, `(k,)`.
        patch: Side of the squares.
    """
    size = (corners.amax(0) + patch).tolist()
    covered = torch.zeros(size, dtype=torch.bool)
    side = torch.arange(patch)
    for row, column in corners[held].tolist():
        covered[row : row + patch, column : column + patch] = True
    rows, columns = (corners[train, axis, None] + side for axis in (0, 1))
    free = ~covered[rows[:, :, None], columns[:, None, :]].flatten(1).any(1)
    return train[free]
