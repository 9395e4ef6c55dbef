"""Folders of files: what lies in them, each folder once, and one folder per class."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sartor.core.errors import DataError

SHOWN = 10
"""Names in a message."""


def files_below(folder: Path) -> Iterator[Path]:
    """Files in a folder and those below, in folders behind links, too, each folder once; hidden ones are left out."""
    seen: set[Path] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        folders[:] = sorted(name for name in folders if not is_hidden(name)) if real not in seen else []
        if real not in seen:
            yield from (Path(place, name) for name in sorted(files) if not is_hidden(name))
        seen.add(real)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that programs leave behind: `.cache`, `._photo.jpg`, `__MACOSX`, `Thumbs.db`."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def class_names(folder: Path, holds: Callable[[Path], bool], what: str, needs: str) -> list[str]:
    """The folders in it, in order of their names, each one class.

    Args:
        folder: Where the folders of the classes are.
        holds: Whether a folder has what a class is made of.
        what: That is, such as `images`.
        needs: What to do where there is none at all.

    Raises:
        DataError: One has none; two have one name but for capitals or the way that letters are written; it is a file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder with one folder of {what} per class; it is a file")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))
    empty = [name for name in names if not holds(folder / name)]
    if len(empty) == len(names):
        raise DataError(f"no {what} in the subfolders of {folder}; {needs}")
    if empty:
        raise DataError(f"{folder} has classes without {what}: {shown(empty)}; add some, or remove the folders")
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise DataError(f"{folder} has one class twice, as {other!r} and {name!r}; put them into one folder")
    return names


def shown(names: Sequence[str]) -> str:
    """Up to ten names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
