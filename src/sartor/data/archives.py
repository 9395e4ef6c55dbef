"""Arrays by name: of a .npz or .npy file, columns of a .csv or .parquet file, or a folder of .npy files and rasters.

Nothing is unpickled. A name that is not there, a cell that is no number, NaN and infinity are refused with their place.
"""

from __future__ import annotations

import csv
import importlib
import io
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sartor.core.errors import DataError, MissingExtraError, SartorError
from sartor.core.foreign import ROOM, first_line, members, text
from sartor.data.folders import is_hidden
from sartor.data.pictures import check_rows, opened
from sartor.data.survey import early, survey

Array: TypeAlias = NDArray[Any]

RASTERS = (".tif", ".tiff", ".png")


@dataclass(frozen=True)
class Archive:
    """A file or folder of arrays.

    Attributes:
        path: Where it is.
        names: Of the arrays, in the file's order.
        word: What one is called in messages: `array`, `column`, `file`.
        read: The array of a name.
    """

    path: Path
    names: tuple[str, ...]
    word: str
    read: Callable[[str], Array]

    def array(self, name: str, setting: str) -> Array:
        """The array called `name`.

        Raises:
            DataError: There is none, or it cannot be read; the message names the setting that asked for it.
        """
        if name not in self.names:
            known = ", ".join(self.names)
            raise DataError(f"{self.path} has no {self.word} {name!r}, only {known}; correct the setting {setting!r}")
        try:
            return self.read(name)
        except SartorError:
            raise
        except Exception as error:  # what readers raise on damaged files is not documented
            raise DataError(
                f"{self.where(name)} cannot be read ({first_line(error)}); write it again as plain numbers"
            ) from error

    def numbers(self, name: str, setting: str) -> Array:
        """The same, of numbers; NaN and infinity are refused."""
        return finite(self.array(name, setting), self.where(name))

    def where(self, name: str) -> str:
        """For messages: `array 'x' of FILE`."""
        return f"{self.word} {name!r} of {self.path}"


def open_archive(path: Path) -> Archive:
    """What is in a file, or a folder, by name. A `.npy` file, and every file of a folder, is one array: its stem.

    A `.csv` or `.csv.gz` file has a header. A column is of whole numbers, numbers or strings, the first that all its
    cells are. In a `.parquet` file, a column of bytes holds images, all of one shape: `(n, H, W)` or `(n, H, W, C)`.

    Raises:
        DataError: It is none of those, or cannot be read.
        MissingExtraError: It needs a package that is not installed.
    """
    if path.is_dir():
        return _folder(path)
    openers: Mapping[str, Callable[[Path], Archive]] = {
        ".npz": _npz,
        ".npy": lambda p: Archive(p, (p.stem,), "array", lambda _: _npy(p)),
        ".csv": _csv,  # also .csv.gz
        ".parquet": _parquet,
    }
    opener = openers.get(path.with_suffix("").suffix.lower() if path.suffix == ".gz" else path.suffix.lower())
    if opener is None:
        raise DataError(f"{path} must be a folder or end in {', '.join(openers)}; convert it")
    return opener(path)


def finite(values: Array, where: str) -> Array:
    """`values`, if they are numbers and none is NaN or infinite.

    Raises:
        DataError: One is not; the message has its index.
    """
    if values.dtype.kind in "US":
        place = _first(np.array([_number(str(v)) is None for v in values.flat]).reshape(values.shape))
        raise DataError(f"{where} holds {str(values[place])!r} at {_at(place)}, which is no number; correct the value")
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where} is of type {values.dtype}; it must hold numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        place = _first(~np.isfinite(values))
        raise DataError(f"{where} holds {values[place]} at {_at(place)}; fill the value, or remove the example")
    return values


def categories(values: Array, where: str, ignore: float | str | None = None) -> tuple[Array, list[str]]:
    """Classes from 0 in the order of the values, -100 where a value is `ignore`, and what the classes stand for.

    Whole numbers that fill 0 to k-1 keep their meaning: class 3 is 3.

    Args:
        values: `(...)`, whole numbers or strings.
        where: For messages.
        ignore: A value that is no class.

    Raises:
        DataError: The values are neither whole numbers nor strings, or there are fewer than two classes.
    """
    if values.dtype.kind == "f":
        finite(values, where)
    if values.dtype.kind not in "biuUSf" or (values.dtype.kind == "f" and (values != np.round(values)).any()):
        raise DataError(f"{where} is of type {values.dtype}; labels must be whole numbers or strings")
    if values.dtype.kind in "bf":
        values = values.astype(np.int64)
    known = np.unique(values)
    if ignore is not None:
        known = known[known != (str(ignore) if known.dtype.kind in "US" else ignore)]
    if len(known) < 2:
        raise DataError(f"{where} holds {len(known)} classes ({', '.join(map(str, known))}); two or more are needed")
    found = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[found] == values, found, -100), [str(k) for k in known.tolist()]


def _first(wrong: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))


def _at(place: tuple[int, ...]) -> str:
    return f"row {place[0]}" if len(place) == 1 else f"index {place}"


def _npz(path: Path) -> Archive:
    listed = {name.removesuffix(".npy"): entry for name, entry in members(path, DataError).items()}

    def read(name: str) -> Array:
        entry = listed[name]
        with zipfile.ZipFile(path) as archive:
            with archive.open(entry) as file:
                _check_header(file, entry.file_size, f"array {name!r} of {path}")
            with archive.open(entry) as file:
                found: Array = np.lib.format.read_array(file, allow_pickle=False)
        return found

    return Archive(path, tuple(listed), "array", read)


def _npy(path: Path) -> Array:
    with path.open("rb") as file:
        _check_header(file, path.stat().st_size, str(path))
    found: Array = np.load(path, allow_pickle=False)
    return found


def _check_header(file: IO[bytes], size: int, where: str) -> None:
    """Refuse a stored array of Python objects, or one that claims more than there is, which numpy makes room for."""
    try:
        major, _ = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, kind = header(file)
    except Exception as error:  # numpy parses it as Python's literals, which may be anything
        raise DataError(f"{where} is no array of numpy ({first_line(error)}); write it again") from error
    if kind.hasobject:
        raise DataError(
            f"{where} holds Python objects, pickles that would run code; save it as plain numbers or strings, as in "
            "x.astype(float)"
        )
    claimed = math.prod(shape) * kind.itemsize
    if min(shape, default=0) < 0 or claimed > size - file.tell():
        raise DataError(f"{where} is cut off: it is to hold {claimed:,} bytes and has {size - file.tell():,}")


def _folder(path: Path) -> Archive:
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in (".npy", *RASTERS) and not is_hidden(file.name):
            other = files.setdefault(file.stem, file)
            if other != file:
                raise DataError(f"{other} and {file} are arrays of one name; rename one")
    if not files:
        raise DataError(f"{path} holds no arrays; it needs files that end in .npy, {', '.join(RASTERS)}")

    def read(name: str) -> Array:
        file = files[name]
        return _npy(file) if file.suffix.lower() == ".npy" else decoded(file, str(file))

    archive = Archive(path, tuple(files), "file", read)
    names = list(map(str, files.values()))
    early(list(files.values()), lambda: survey(names, lambda i: archive.array(list(files)[i], "data"), "files"), names)
    return archive


def decoded(file: Path | bytes, where: str) -> Array:
    """The pixels of an image as they are stored, `(H, W)` or `(H, W, C)`; of a palette, the indices.

    Raises:
        DataError: It is no image that Pillow can read.
    """
    pixels: Array = np.array(opened(file, where))  # a copy: torch warns of arrays that it must not write to
    return pixels


def _csv(path: Path) -> Archive:
    found = text(path, DataError, most=max(ROOM, path.stat().st_size))
    try:
        lines = [line for line in csv.reader(io.StringIO(found, newline="")) if line]
    except csv.Error as error:
        raise DataError(f"{path} is not a readable .csv file ({error}); write it again") from error
    if len(lines) < 2:
        raise DataError(f"{path} has {len(lines)} lines; it needs a header and at least one row")
    header = [name.strip() for name in lines[0]]
    if len(set(header)) < len(header) or any(_number(name) is not None for name in header):
        raise DataError(f"the first line of {path} must name every column once, got {', '.join(header)}")
    for i, line in enumerate(lines[1:]):
        if len(line) != len(header):
            raise DataError(f"row {i} of {path} has {len(line)} cells, the header has {len(header)}; correct the row")
    columns = dict(zip(header, zip(*lines[1:], strict=True), strict=True))
    return Archive(path, tuple(header), "column", lambda name: _typed([cell.strip() for cell in columns[name]]))


def _typed(cells: Sequence[str]) -> Array:
    numbers = [_number(cell) for cell in cells]
    if any(n is None for n in numbers):
        return np.array(cells)
    return np.array(numbers, dtype=np.int64 if all(isinstance(n, int) for n in numbers) else np.float64)


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return None if "_" in text else kind(text)
        except ValueError:
            continue
    return None


def _parquet(path: Path) -> Archive:
    try:
        # Lazy: an extra, which only this kind of file needs.
        arrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    except ImportError as error:
        raise MissingExtraError(f"reading {path} needs pyarrow; pip install 'sartor[parquet]'") from error
    try:
        names, rows = tuple(parquet.read_schema(path).names), parquet.read_metadata(path).num_rows
    except Exception as error:  # pyarrow's own, and whatever a damaged file makes it raise
        raise DataError(f"{path} is not a readable .parquet file ({first_line(error)}); write it again") from error
    check_rows(rows, path)

    def read(name: str) -> Array:
        column = parquet.read_table(path, columns=[name])[name]
        if not (arrow.types.is_binary(column.type) or arrow.types.is_large_binary(column.type)):
            values: Array = np.array(column.to_numpy())  # a copy, as above
            return values.astype(str) if values.dtype.kind == "O" else values
        where, cells = [f"row {i} of column {name!r} of {path}" for i in range(len(column))], column.to_pylist()
        images: list[Array] = []
        survey(where, lambda i: images.append(decoded(cells[i] or b"", where[i])), "images")
        return _stacked(images, path)

    return Archive(path, names, "column", read)


def _stacked(images: Sequence[Array], path: Path) -> Array:
    for i, image in enumerate(images):
        if image.shape != images[0].shape:
            raise DataError(
                f"row {i} of {path}: all images must have one shape, got {images[0].shape} and {image.shape}"
            )
    return np.stack(images)


def joined(archives: Sequence[Archive], name: str, setting: str, *, numeric: bool = True) -> Array:
    """The arrays called `name` of several archives, one after another, `(n_1 + n_2 + ..., ...)`.

    Args:
        archives: Of one data set.
        name: Of the array.
        setting: That asked for it, for messages.
        numeric: Whether it must be of finite numbers; labels may be strings.

    Raises:
        DataError: The arrays differ in shape, or one cannot be read.
    """
    found = [a.numbers(name, setting) if numeric else a.array(name, setting) for a in archives]
    for archive, values in zip(archives, found, strict=True):
        if values.shape[1:] != found[0].shape[1:]:
            raise DataError(
                f"{archive.where(name)} holds examples of shape {values.shape[1:]}, the one of {archives[0].path} of "
                f"{found[0].shape[1:]}; both must be alike"
            )
    return np.concatenate(found) if len(found) > 1 else found[0]
