from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from run.toys import same
from sartor.core import weights
from sartor.core.errors import StateError

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "scalar": torch.tensor(3),
    "none": torch.zeros(0, 4),
    "mask": torch.tensor([True, False]),
}


def test_tensors_and_facts_come_back_and_others_can_read_them(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    weights.save(path, TENSORS, arch=(1, 2))
    tensors, facts = weights.load_with_facts(path, "")
    assert same(tensors, TENSORS)
    assert facts == {"arch": [1, 2]}
    assert same(load_file(path), TENSORS)


def test_the_same_tensors_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        weights.save(tmp_path / name, TENSORS, arch=(1, 2), more={"x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tied_weights_and_views_are_written_whole(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    weights.save(tmp_path / "x", {**network.state_dict(), "view": torch.arange(9).reshape(3, 3).T[1:]})
    found = weights.load(tmp_path / "x")
    assert torch.equal(found["0.weight"], found["1.weight"])
    assert found["view"].tolist() == [[1, 4, 7], [2, 5, 8]]


def test_files_of_others_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x")
    assert same(weights.load(tmp_path / "x"), TENSORS)


@given(st.data())
def test_a_byte_that_is_another_is_seen(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    weights.save(path, TENSORS, arch=(1, 2))
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        found = weights.load_with_facts(path, "remedy")
    except StateError as error:
        message = str(error)
    else:
        message = ""
        assert same(found[0], TENSORS)  # what was hit is the name of the entry, or white space
    assert not message or message.endswith("; remedy")


@pytest.mark.parametrize("size", [None, 0, 5, 200])
def test_what_is_missing_or_cut_short_is_named(tmp_path: Path, size: int | None) -> None:
    path = tmp_path / "x.safetensors"
    weights.save(path, TENSORS)
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        StateError, match=r"cannot read the weights .*x\.safetensors .*; restore it, or run again in a new folder"
    ):
        weights.load(path)
