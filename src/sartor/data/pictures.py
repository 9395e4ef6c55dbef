"""Picture files: which there are, and what is in them, as the numbers that were meant."""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from sartor.core.errors import ConfigError, DataError, MissingExtraError
from sartor.core.rng import numpy_rng

T = TypeVar("T")

Source: TypeAlias = Path | bytes | None
"""A file, or the content of one; None is an empty cell of a table."""

# Modes of Pillow whose numbers do not fit into 8 bits: its `convert` cuts them off at 255, silently.
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def picture_files(folder: Path) -> list[Path]:
    """All picture files below `folder`, sorted.

    Raises:
        DataError: There are none.
    """
    found = sorted(filter(is_picture, folder.rglob("*")))
    if not found:
        raise DataError(f"no images in {folder}; it needs files that end in {endings()}")
    return found


def is_picture(path: Path) -> bool:
    """Whether it is a file that is called like a picture."""
    return path.suffix.lower() in IMG_EXTENSIONS and path.is_file()


def endings() -> str:
    """What names of picture files end in, for messages."""
    return ", ".join(IMG_EXTENSIONS)


def decoded(source: Source, where: str, channels: int | None = 3) -> Tensor:
    """A picture of 8 bits per channel, `(channels, H, W)`, uint8.

    Args:
        source: A file, or its content.
        where: What to call it in a message.
        channels: 3 for colour, 1 for grey, None for what the picture has (colour unless it is grey).

    Raises:
        DataError: It cannot be decoded, or holds 16-bit or floating-point numbers, which have no agreed way to 0..255.
    """
    image = _opened(source, where)
    if image.mode in DEEP:
        kind = "floating-point" if image.mode == "F" else "16-bit or 32-bit"
        raise DataError(
            f"{where} holds {kind} numbers (mode {image.mode}), a picture needs 8 bits per channel; scale it to 0..255 "
            "and save it so"
        )
    grey = channels == 1 or (channels is None and image.mode in ("1", "L"))
    pixels = torch.from_numpy(np.array(image.convert("L" if grey else "RGB")))
    return pixels[None] if grey else pixels.permute(2, 0, 1).contiguous()


def numbers(source: Source, where: str) -> Tensor:
    """The numbers of a one-channel picture as they are (labels, depths), `(H, W)`.

    Of a picture of 8 bits uint8, of more int32, of floating point float32; of a palette, the indices.

    Raises:
        DataError: It cannot be decoded, or has several channels.
    """
    image = _opened(source, where)
    if image.mode not in ("1", "L", "P", *DEEP):
        raise DataError(
            f"{where} holds colours (mode {image.mode}), it needs one channel of numbers; save the numbers themselves "
            "as a PNG of 8 or 16 bits"
        )
    values = np.array(image)
    kind = np.float32 if image.mode == "F" else np.int32 if image.mode in DEEP else np.uint8
    return torch.from_numpy(values.astype(kind))


def _opened(source: Source, where: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:  # type: ignore[arg-type]
            image.load()
    except (OSError, SyntaxError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is not a readable image ({error}); remove or replace it") from error
    return image


def columns(path: Path, *names: str) -> list[list[Any]]:
    """Columns of a Parquet file, each a list with one entry per row.

    Raises:
        DataError: The file is no Parquet file, lacks one of the columns, or has no rows.
        MissingExtraError: pyarrow is not installed.
    """
    wanted = " and ".join(names)
    try:
        # Lazy: an extra, which only this function needs.
        parquet, arrow = map(importlib.import_module, ("pyarrow.parquet", "pyarrow"))
    except ImportError as error:
        raise MissingExtraError(f"reading {path} needs pyarrow; pip install 'sartor[parquet]'") from error
    try:
        table = parquet.read_table(path, columns=list(names))
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path} must be a Parquet file with the columns {wanted} ({error})") from error
    if table.num_columns < len(names) or not table.num_rows:
        raise DataError(f"{path} must have the columns {wanted} and at least one row")
    return [table[name].to_pylist() for name in names]


def drawn(items: Sequence[T], fraction: float, seed: int, name: str, source: str) -> tuple[list[T], list[T]]:
    """The rest, and a random part of `items`, `fraction` of them but at least one; both in their order.

    Args:
        items: What to divide.
        fraction: Size of the part, in (0, 1).
        seed: Where the draw comes from.
        name: Of the part; names the random stream too, and is the setting that an error points to.
        source: Of the items, for messages.

    Raises:
        ConfigError: The fraction is not in (0, 1).
        DataError: Nothing would be left.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"{name} must be in (0, 1), got {fraction}; 0.1 holds out a tenth")
    cut = max(1, round(fraction * len(items)))
    if cut >= len(items):
        raise DataError(
            f"{source} has {len(items)} examples left, too few to hold out {name} = {fraction}; add some, or hold out "
            "less"
        )
    chosen = set(numpy_rng(seed, "drawn", name).permutation(len(items))[:cut].tolist())
    return [x for i, x in enumerate(items) if i not in chosen], [x for i, x in enumerate(items) if i in chosen]
