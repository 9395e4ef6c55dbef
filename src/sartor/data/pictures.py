"""Picture files: which there are, and what is in them, as the numbers that were meant."""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from sartor.core.errors import ConfigError, DataError, MissingExtraError
from sartor.core.foreign import first_line
from sartor.core.rng import numpy_rng
from sartor.data.folders import files_below
from sartor.data.survey import size_of

log = logging.getLogger(__name__)

T = TypeVar("T")

Source: TypeAlias = Path | bytes | None
"""A file, or the content of one; None is an empty cell of a table."""

SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")
DEEP = ("I", "F", *SIXTEEN)
"""Modes of Pillow whose numbers do not fit into 8 bits: its `convert` cuts them off at 255, silently."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read, whatever a file is called; Pillow would start other programs for some."""

ORIENTATION = 0x0112
"""The tag of EXIF data that says how a camera was held."""

ROWS = 2**28
"""Rows of a table."""

GLANCED = 1000
"""Pictures of a large data set whose headers are looked at."""


def picture_files(folder: Path) -> list[Path]:
    """All picture files below `folder`, sorted.

    Raises:
        DataError: There are none, or `folder` is a file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of images; it is a file")
    found = sorted(pictures_below(folder))
    if not found:
        raise DataError(f"no images in {folder}; it needs files that end in {endings()}")
    return found


def pictures_below(folder: Path) -> Iterator[Path]:
    """Files below a folder that are called like pictures: see `sartor.data.folders.files_below`."""
    return filter(is_picture, files_below(folder))


def is_picture(path: Path) -> bool:
    """Whether it is a file, or a link that leads nowhere, that is called like a picture."""
    return path.suffix.lower() in IMG_EXTENSIONS and (path.is_file() or (path.is_symlink() and not path.is_dir()))


def endings() -> str:
    """What names of picture files end in, for messages."""
    return ", ".join(IMG_EXTENSIONS)


def decoded(source: Source, where: str, channels: int | None = 3, *, upright: bool = False) -> Tensor:
    """A picture of 8 bits per channel, `(channels, H, W)`, uint8.

    16 bits are scaled to 8, and a palette becomes its colours; how much of a pixel is seen (alpha) is left out.

    Args:
        source: A file, or its content.
        where: What to call it in a message.
        channels: 3 for colour, 1 for grey, None for what the picture has (colour unless it is grey).
        upright: Whether to turn it as its EXIF data says; without, it is as it is stored.

    Raises:
        DataError: It cannot be decoded; it holds 32-bit or floating-point numbers, which have no agreed way to 0..255;
            or it has several values of 16 bits that all become one of 8.
    """
    image = opened(source, where)
    sixteen = image.mode in SIXTEEN or (image.mode == "I" and image.format == "PPM")
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode in DEEP and not sixteen:
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise DataError(
            f"{where} holds {kind} numbers (mode {image.mode}), a picture needs 8 or 16 bits per channel; scale it to "
            "0..255 and save it so"
        )
    grey = channels == 1 or (channels is None and (sixteen or image.mode in ("1", "L", "LA")))
    if sixteen:
        pixels = torch.from_numpy(_eight_bits(np.array(image), where))[None]
        return pixels if grey else pixels.expand(3, -1, -1).contiguous()
    try:
        flat = torch.from_numpy(np.array(_plain(image).convert("L" if grey else "RGB")))
    except ValueError as error:
        raise DataError(f"{where} holds colours of the mode {image.mode} ({error}); save it as RGB") from error
    return flat[None] if grey else flat.permute(2, 0, 1).contiguous()


def _plain(image: Image.Image) -> Image.Image:
    """Of a mode that Pillow turns into grey and colours without a loss on the way."""
    if image.mode == "PA" or (image.mode == "P" and "transparency" in image.info):
        return image.convert("RGBA")
    return image.convert(image.mode.upper()) if image.mode in ("RGBa", "La") else image


def _eight_bits(values: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """0..65535 to 0..255, rounded."""
    found = ((values.astype(np.int64).clip(0, 65535) + 128) // 257).astype(np.uint8)
    if values.size and found.min() == found.max() and values.min() != values.max():
        raise DataError(
            f"{where} holds {values.min()}..{values.max()} in 16 bits, which all become {found.flat[0]} in 8 bits; "
            "scale it to 0..65535, or to 0..255 and save it in 8 bits"
        )
    return found


def numbers(source: Source, where: str) -> Tensor:
    """The numbers of a one-channel picture as they are (labels, depths), `(H, W)`.

    Of a picture of 8 bits uint8, of more int32, of floating point float32; of a palette, the indices.

    Raises:
        DataError: It cannot be decoded, or has several channels.
    """
    image = opened(source, where)
    if image.mode not in ("1", "L", "P", *DEEP):
        raise DataError(
            f"{where} holds colours (mode {image.mode}), it needs one channel of numbers; save the numbers themselves "
            "as a PNG of 8 or 16 bits"
        )
    values = np.array(image)
    kind = np.float32 if image.mode == "F" else np.int32 if image.mode in DEEP else np.uint8
    return torch.from_numpy(values.astype(kind))


def say_turned(files: Sequence[Source], names: Sequence[str], setting: str) -> None:
    """Say in the log that pictures lie on their sides, as cameras store them, if a look at their headers shows some.

    Args:
        files: All, or the contents of all.
        names: Of them.
        setting: What turns them.
    """
    step = max(1, len(files) // GLANCED)
    turned = [name for file, name in zip(files[::step], names[::step], strict=True) if _orientation(file) > 1]
    if turned:
        log.warning(
            "%s and %d more pictures are stored turned, as their EXIF data says; they are taken as stored: set "
            "%s = true to turn them upright",
            *(turned[0], len(turned) - 1, setting),
        )


def _orientation(source: Source) -> int:
    try:
        with warnings.catch_warnings(), Image.open(_stream(source), formats=FORMATS) as image:
            warnings.simplefilter("ignore")
            return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - what cannot be read is told where it is decoded
        return 1


def _stream(source: Source) -> Path | io.BytesIO:
    return source if isinstance(source, Path) else io.BytesIO(source or b"")


def opened(source: Source, where: str) -> Image.Image:
    """A picture with its pixels; of several in one file, the first.

    Raises:
        DataError: It cannot be decoded: it is damaged, empty, too large, or of a format that is not read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on headers; what matters is an error
            with Image.open(_stream(source), formats=FORMATS) as image:
                image.load()
    except Exception as error:  # what decoders raise on damaged files is not documented
        raise DataError(f"{where} is not a readable image ({_reason(source, error)}); remove or replace it") from error
    return image


def _reason(source: Source, error: Exception) -> str:
    if isinstance(source, Path) and not source.exists():
        return "a link that leads nowhere" if source.is_symlink() else "there is no such file"
    if not size_of(source):
        return "it is empty"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    return f"it is none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else first_line(error)


def columns(path: Path, *names: str) -> list[list[Any]]:
    """Columns of a Parquet file, each a list with one entry per row.

    Raises:
        DataError: The file is no Parquet file, lacks one of the columns, or has no rows.
        MissingExtraError: pyarrow is not installed.
    """
    wanted = " and ".join(names)
    try:
        # Lazy: an extra, which only this function needs.
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError(f"reading {path} needs pyarrow; pip install 'sartor[parquet]'") from error
    try:
        check_rows(parquet.read_metadata(path).num_rows, path)
        table = parquet.read_table(path, columns=list(names))
    except Exception as error:  # pyarrow's own, and whatever a damaged file makes it raise
        raise DataError(f"{path} must be a Parquet file with the columns {wanted} ({first_line(error)})") from error
    if table.num_columns < len(names) or not table.num_rows:
        raise DataError(f"{path} must have the columns {wanted} and at least one row")
    return [table[name].to_pylist() for name in names]


def check_rows(rows: int, path: Path) -> None:
    """Refuse a table that no memory holds: a column of one value takes nothing in a file.

    Raises:
        DataError: It has that many rows.
    """
    if rows > ROWS:
        raise DataError(f"{path} has {rows:,} rows, more than the {ROWS:,} that are read; split the file")


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
