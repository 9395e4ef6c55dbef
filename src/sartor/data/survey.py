"""Many files of one data set: all that cannot be used are named at once, and early where that takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from sartor.core.errors import DataError
from sartor.data.folders import shown

LOOKED = 2**26
"""Bytes of files up to which all of a data set are read before anything else; a larger one is read as it is needed."""

Read: TypeAlias = Callable[[int], object]
"""Reads an example by its index."""


Name: TypeAlias = str | tuple[str, ...]
"""Of an example, or of its parts; that which a message begins with is meant."""


def survey(names: Sequence[Name], read: Read, what: str, picture: Callable[[int], Tensor | None] | None = None) -> None:
    """Read all, and name those that cannot be.

    Args:
        names: Of the examples, for messages.
        read: Raises a DataError for what cannot be used; unused where `picture` is given.
        what: Such as `pictures`.
        picture: Reads an example as a picture, `(..., H, W)`; None for one that is none.

    Raises:
        DataError: Some cannot be used: what is wrong with the first, and up to ten names. Or all pictures are of one
            colour each.
    """
    wrong: list[tuple[str, DataError]] = []
    flat = picture is not None and len(names) > 1
    for index, name in enumerate(names):
        try:
            found = read(index) if picture is None else picture(index)
        except DataError as error:
            wrong.append((_part(name, error), error))
            continue
        flat = flat and (not isinstance(found, Tensor) or is_flat(found))
    if wrong:
        raise together(wrong, len(names), what) from wrong[0][1]
    if flat:
        raise DataError(
            f"all {len(names)} {what} are of one colour each, as {_part(names[0])} is; give others, or save them with "
            "numbers in 0..255"
        )


def early(sources: Sequence[Path | bytes | None], survey_all: Callable[[], None], names: Sequence[str]) -> None:
    """Survey a small data set; of a large one, name the files without content.

    Args:
        sources: Files, or contents of files.
        survey_all: Of all.
        names: Of the sources.
    """
    sizes = [size_of(source) for source in sources]
    if sum(sizes) <= LOOKED:
        survey_all()
        return
    empty = [name for name, size in zip(names, sizes, strict=True) if not size]
    if empty:
        wrong = [(name, DataError(f"{name} has no content; remove or replace it")) for name in empty]
        raise together(wrong, len(names), "files")


def size_of(source: Path | bytes | None) -> int:
    """Bytes of a file, or of the content of one; 0 where there is none."""
    if isinstance(source, Path):
        try:
            return source.stat().st_size
        except OSError:  # a link that leads nowhere
            return 0
    return len(source or b"")


def together(wrong: Sequence[tuple[str, DataError]], count: int, what: str) -> DataError:
    """One error for all.

    Args:
        wrong: Names, and what is wrong with each.
        count: How many there are in all.
        what: They are.
    """
    if len(wrong) == 1:
        return wrong[0][1]
    names = shown([name for name, _ in wrong])
    return DataError(f"{len(wrong)} of {count} {what} cannot be used, {names}; the first: {wrong[0][1]}")


def _part(name: Name, error: DataError | None = None) -> str:
    parts = (name,) if isinstance(name, str) else name
    return next((part for part in parts if error is not None and str(error).startswith(part)), parts[0])


def is_flat(picture: Tensor) -> bool:
    """Whether every channel of a picture, `(..., H, W)`, has one value everywhere."""
    return picture.numel() == 0 or bool((picture == picture[..., :1, :1]).all())
