"""Image files without labels, brought to one size; decoded when they are needed and kept as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from sartor.data.pictures import decoded


@dataclass
class Photographs:
    """Colour images, scaled so that the shorter side is `size`, and cut to the square in the middle.

    Attributes:
        files: Where they are.
        size: Height and width.
        room: Bytes that decoded images may still take.
        kept: Index -> image.
    """

    files: Sequence[Path]
    size: int
    room: int
    kept: dict[int, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Images at `index`, `(m,)`: `(m, 3, size, size)`, uint8."""
        return torch.stack([self._image(i) for i in index.tolist()])

    def _image(self, index: int) -> Tensor:
        image = self.kept.get(index)
        if image is None:
            image = square(self.files[index], self.size)
            if image.numel() <= self.room:
                self.kept[index] = image
                self.room -= image.numel()
        return image


def square(path: Path, size: int) -> Tensor:
    """The middle of one image file, `(3, size, size)`, uint8.

    Raises:
        DataError: It cannot be decoded, or has no 8 bits per channel.
    """
    image = decoded(path, str(path))
    if min(image.shape[1:]) != size:
        image = v2.functional.resize(image, [size], antialias=True)
    middle: Tensor = v2.functional.center_crop(image, [size, size])
    return middle.contiguous()
