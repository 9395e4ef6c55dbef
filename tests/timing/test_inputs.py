import pytest
import torch
from safetensors.torch import save_file

from sartor.core.errors import DataError
from sartor.timing.inputs import read, write

X, Y = torch.arange(6.0).reshape(1, 2, 3), torch.tensor([[3, 4]])


@pytest.mark.parametrize("inputs", [X, (X,), (X, Y), {"image": X, "0": Y}], ids=["tensor", "one", "tuple", "dict"])
def test_every_form_survives(inputs, tmp_path) -> None:
    write(inputs, tmp_path / "i.safetensors")
    found = read(tmp_path / "i.safetensors")
    assert type(found) is type(inputs)
    pairs = [(found, inputs)]
    if isinstance(inputs, tuple):
        pairs = list(zip(found, inputs, strict=True))
    elif isinstance(inputs, dict):
        assert found.keys() == inputs.keys()
        pairs = [(found[k], inputs[k]) for k in inputs]
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_more_than_ten_stay_in_order(tmp_path) -> None:
    write(tuple(torch.tensor([i]) for i in range(12)), tmp_path / "i.safetensors")
    assert [int(x) for x in read(tmp_path / "i.safetensors")] == list(range(12))


def test_tensors_may_share_memory_and_be_views(tmp_path) -> None:
    write((X, X, X.transpose(1, 2)), tmp_path / "i.safetensors")
    assert torch.equal(read(tmp_path / "i.safetensors")[2], X.transpose(1, 2))


def test_what_is_no_input_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="a tensor, a tuple or a dict of tensors, got <class 'list'>"):
        write([X], tmp_path / "i.safetensors")
    save_file({"x": X}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match=r"weights.safetensors says that it holds nothing, not inputs"):
        read(tmp_path / "weights.safetensors")
