from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from run.toys import largest_file, same
from sartor.core import files
from sartor.core.errors import StateError


@pytest.mark.parametrize("size", [0, 1000])
def test_a_full_disk_leaves_old_weights_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "weights.safetensors"
    files.atomically(path, lambda part: save_file({"x": torch.ones(2)}, part))
    with largest_file(size), pytest.raises(StateError, match="cannot write"):
        files.atomically(path, lambda part: save_file({"x": torch.zeros(10000)}, part))
    assert same(load_file(path), {"x": torch.ones(2)})


def test_an_error_of_the_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")

    def write(part: Path) -> None:
        part.write_text("half")
        raise KeyError("bug")

    with pytest.raises(KeyError):
        files.atomically(path, write)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_a_kill_has_left_is_not_added_to(tmp_path):
    path = tmp_path / "a.jsonl"
    path.with_name("a.jsonl.part").write_text("half")

    def more(part):
        with part.open("a") as file:
            file.write("whole")

    files.atomically(path, more)
    assert path.read_text() == "whole"
