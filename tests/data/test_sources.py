import numpy as np
import pytest
import torch

from sartor.core.errors import ConfigError, DataError
from sartor.data.sources import NONE, Scaling, Sources, arranged, channels_first, check_form, tensor_of


def write(path, count=20, **changes):
    arrays = {
        "x": np.arange(count),
        "y": np.arange(count),
        "test": np.arange(count) % 5 == 0,
        "group": np.arange(count) // 4,
    }
    np.savez(path, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
    return path


def test_inputs_are_all_but_the_target_and_the_marks(tmp_path):
    sources = Sources.open(write(tmp_path / "a.npz"), 0.1)
    assert sources.inputs((), ["y"]) == ["x"]
    assert sources.inputs("group", ["y"]) == ["group"]
    with pytest.raises(DataError, match="needs inputs, each once"):
        sources.inputs((), ["x", "y"])
    with pytest.raises(DataError, match="needs inputs, each once"):
        sources.inputs(["x", "x"], ["y"])


def test_splits_respect_what_the_data_says(tmp_path):
    sources = Sources.open(write(tmp_path / "a.npz"), 0.2)
    told = sources.splits("", 20, valid=0.3, seed=0)
    assert told.test.tolist() == [0, 5, 10, 15]
    assert not {i // 4 for i in told.train.tolist()} & {i // 4 for i in told.valid.tolist()}
    by_group = sources.splits("group", 20, valid=0.3, seed=0)
    assert len({i // 4 for i in by_group.test.tolist()}) == 1
    drawn = sources.splits("random", 20, valid=0.3, seed=0)
    assert drawn.test.tolist() not in (told.test.tolist(), by_group.test.tolist())
    assert {i // 4 for i in drawn.train.tolist()} & {i // 4 for i in drawn.valid.tolist()}


def test_a_test_file_is_the_test_split(tmp_path):
    sources = Sources.open(write(tmp_path / "a.npz"), write(tmp_path / "b.npz", 7, x=np.arange(7) + 100))
    assert sources.array("x", "inputs").tolist() == [*range(20), *range(100, 107)]
    splits = sources.splits("", 27, valid=0.3, seed=0)
    assert splits.test.tolist() == list(range(20, 27))
    with pytest.raises(ConfigError, match="there is a test file; leave one out"):
        sources.splits("random", 27, valid=0.3, seed=0)


def test_what_a_split_needs_is_told(tmp_path):
    bare = Sources.open(write(tmp_path / "a.npz", test=None, group=None), 0.2)
    for split, name in (("official", "test"), ("group", "group")):
        with pytest.raises(DataError, match=f"needs an array '{name}'"):
            bare.splits(split, 20, valid=0.3, seed=0)
    with pytest.raises(ConfigError, match="split must be one of"):
        bare.splits("odd", 20, valid=0.3, seed=0)
    short = Sources.open(write(tmp_path / "b.npz", test=np.zeros(3)), 0.2)
    with pytest.raises(DataError, match=r"'test' of .* one value per example, \(20,\)"):
        short.splits("", 20, valid=0.3, seed=0)
    with pytest.raises(DataError, match="does not exist"):
        Sources.open(tmp_path / "a.npz", tmp_path / "nothing.npz")


def test_scaling_is_that_of_the_training_examples_only():
    values = (
        torch.randn(2000, 3, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10, 0])[:, None] + 1e4
    )
    index = torch.arange(0, 1500)
    values[1500:] = 9e9
    scaling = Scaling.of(values.__getitem__, index)
    found = scaling(values[index])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, :2].mean((0, 2)), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[:, :2].std((0, 2), correction=0), torch.ones(2), atol=1e-3, rtol=0)
    assert (found[:, 2] == 0).all()  # a constant stays one, and is not blown up
    torch.testing.assert_close(NONE(values[:3]), values[:3].float())


def test_axes():
    assert channels_first(np.zeros(5)).shape == (5, 1)
    assert channels_first(np.zeros((5, 7))).shape == (5, 7)
    assert channels_first(np.zeros((5, 8, 9))).shape == (5, 1, 8, 9)
    assert channels_first(np.zeros((5, 8, 9, 3))).shape == (5, 3, 8, 9)
    assert channels_first(np.zeros((5, 3, 8, 9))).shape == (5, 3, 8, 9)
    assert tensor_of(np.array([65535], np.uint16))[torch.tensor([0])].item() == 65535
    assert tensor_of(np.array([1.5], ">f4")).item() == 1.5


def test_forms():
    a, b = torch.zeros(2, 1, 4, 4), torch.ones(2, 3, 4, 4)
    assert arranged({"a": a}, "apart") is a
    assert [t.shape[1] for t in arranged({"a": a, "b": b}, "apart")] == [1, 3]
    assert list(arranged({"a": a, "b": b}, "named")) == ["a", "b"]
    assert arranged({"a": a, "b": b}, "stacked").sum(1).unique().tolist() == [3]
    with pytest.raises(DataError, match=r"cannot be stacked \(a \(1, 4, 4\), c \(2, 5, 4\)\)"):
        arranged({"a": a, "c": torch.zeros(2, 2, 5, 4)}, "stacked")
    with pytest.raises(ConfigError, match="form must be one of"):
        check_form("heap")
