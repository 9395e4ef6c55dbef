"""Files that are whole at any time, whatever kills the process or fills the disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from sartor.core.errors import StateError


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    Raises:
        StateError: The disk is full or not writable; `path` is as it was before.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # what a kill has left would be appended to
        write(part)
        _sync(part)
        part.replace(path)
        _sync(path.parent)  # else a power cut could take the rename back after later writes have reached the disk
    except (OSError, RuntimeError, SafetensorError) as error:  # how torch and safetensors report a full disk
        raise StateError(
            f"cannot write {path}: {error}; the file there is as before: free some space and go on"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
