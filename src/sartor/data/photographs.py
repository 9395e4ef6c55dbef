"""Image files without labels, brought to one size; decoded when they are needed and kept as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from sartor.core.errors import DataError
from sartor.data.pictures import decoded, say_turned
from sartor.data.survey import early, survey


@dataclass
class Photographs:
    """Colour images, scaled so that the shorter side is `size`, and cut to the square in the middle.

    Attributes:
        files: Where they are.
        size: Height and width.
        room: Bytes that decoded images may still take.
        upright: Whether they are turned as their EXIF data says.
        kept: Index -> image.
    """

    files: Sequence[Path]
    size: int
    room: int
    upright: bool = False
    kept: dict[int, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Images at `index`, `(m,)`: `(m, 3, size, size)`, uint8."""
        return torch.stack([self._image(i) for i in index.tolist()])

    def _image(self, index: int) -> Tensor:
        image = self.kept.get(index)
        if image is None:
            try:
                image = square(self.files[index], self.size, upright=self.upright)
            except DataError:
                self.check_all()
                raise
            if image.numel() <= self.room:
                self.kept[index] = image
                self.room -= image.numel()
        return image

    def check(self) -> None:
        """Decode all of a small data set, and say if images are stored turned.

        Raises:
            DataError: Some cannot be; the message names them.
        """
        names = list(map(str, self.files))
        early(self.files, self.check_all, names)
        if not self.upright:
            say_turned(self.files, names, "task.upright")

    def check_all(self) -> None:
        """Decode all.

        Raises:
            DataError: Some cannot be; the message names them.
        """
        survey(list(map(str, self.files)), self._whole, "images", self._whole)

    def _whole(self, index: int) -> Tensor:
        return decoded(self.files[index], str(self.files[index]), upright=self.upright)


def square(path: Path, size: int, *, upright: bool = False) -> Tensor:
    """The middle of one image file, `(3, size, size)`, uint8.

    Raises:
        DataError: It cannot be decoded (see `sartor.data.pictures.decoded`).
    """
    image = decoded(path, str(path), upright=upright)
    if min(image.shape[1:]) != size:
        image = v2.functional.resize(image, [size], antialias=True)
    middle: Tensor = v2.functional.center_crop(image, [size, size])
    return middle.contiguous()
