"""Weights in files: safetensors with a checksum, so that a file that was damaged is told from one that is whole."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sartor.core.errors import StateError
from sartor.core.files import atomically

ENTRY = "sartor"
"""All that is said beside the tensors is one entry: safetensors writes several in any order."""


def save(path: Path, tensors: Mapping[str, Tensor], **about: Any) -> None:
    """Write tensors, and what else is to be known of them, which JSON must know; whole or not at all.

    Raises:
        StateError: The disk is full or not writable.
    """
    plain = _apart(tensors)
    said = {**about, "checksum": checksum(about, plain)}
    whole = safetensors.torch.save(plain, {ENTRY: json.dumps(said)})
    atomically(path, lambda part: part.write_bytes(whole))


def load(path: Path, remedy: str = "restore it, or run again in a new folder") -> dict[str, Tensor]:
    """The tensors that `save` wrote, on the CPU; of files of others, which have no checksum, what they hold.

    Raises:
        StateError: The file cannot be read, or is not as it was written.
    """
    return load_with_facts(path, remedy)[0]


def load_with_facts(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same, and what was said of them; raises as `load`, and ends its message with the remedy."""
    try:
        whole = path.read_bytes()  # not mapped: a mapped tensor changes, or is gone, with the file
        tensors = safetensors.torch.load(whole)
        header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
        said = json.loads(header.get("__metadata__", {}).get(ENTRY, "{}"))
        known = said.pop("checksum", None)
    except Exception as error:  # what safetensors raises on a foreign file is not documented
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise StateError(f"cannot read the weights {path} ({reason}); {remedy}") from error
    if known is not None and known != checksum(said, tensors):
        raise StateError(f"{path} is not as it was written (its checksum differs); {remedy}")
    return tensors, said


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, in one piece, and each with memory of its own: a file has no views, and tied weights are two."""
    found, taken = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage()
        if memory.data_ptr() in taken or memory.nbytes() != plain.nbytes:
            plain = plain.clone()
        taken.add(memory.data_ptr())
        found[name] = plain
    return found


def checksum(about: Any, tensors: Mapping[str, Tensor]) -> int:
    """A file system may hand back other bytes than were written; a digit in the wrong place would be read as it is."""
    found = zlib.crc32(json.dumps(about).encode())
    for name in sorted(tensors):
        flat = tensors[name].reshape(-1)
        found = zlib.crc32(f"{name} {flat.dtype} {tuple(tensors[name].shape)}".encode(), found)
        found = zlib.crc32(flat.view(torch.uint8).numpy().data, found)
    return found
