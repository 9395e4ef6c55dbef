import pathlib
import sys

import numpy as np
import pytest
import torch

from cnn import small_cnn
from pictures import arrays_of, write_npz, write_parquet
from sartor.core.errors import ConfigError, DataError, MissingExtraError
from sartor.tasks.arrays import arrays


def sample(folder: pathlib.Path) -> tuple[dict[str, object], torch.nn.Module]:
    """Settings of a small learnable task below `folder`, and a network that fits it."""
    settings = {"train": write_npz(folder / "train.npz", 160), "test": write_npz(folder / "test.npz", 60, 1)}
    return {**settings, "valid": 0.3, "batch": 16, "augment": ""}, small_cnn(3)


def sizes(task):
    return [task.describe[k] for k in ("train", "valid", "test")]


def test_npz_with_and_without_a_test_file(tmp_path):
    train, test = write_npz(tmp_path / "a.npz", 100), write_npz(tmp_path / "b.npz", 30, 1)
    assert sizes(arrays(train=train, test=test)) == [90, 10, 30]
    assert sizes(arrays(train=str(train), valid=0.2)) == [64, 16, 20]
    assert sizes(arrays(train=train, test=test, subset=40)) == [36, 4, 30]


def test_layouts_of_images_agree(tmp_path):
    pixels, labels = arrays_of(40, channels=3)
    np.savez(tmp_path / "last.npz", x=pixels, y=labels)
    np.savez(tmp_path / "first.npz", images=pixels.transpose(0, 3, 1, 2), labels=labels.astype(np.uint8))
    np.savez(tmp_path / "grey.npz", x=pixels[..., 0], y=labels)
    a, b, grey = (arrays(train=tmp_path / f"{n}.npz") for n in ("last", "first", "grey"))
    assert a.fingerprint == b.fingerprint
    assert a.example.shape == (1, 3, 8, 8)
    assert grey.example.shape == (1, 1, 8, 8)


def test_parquet_is_read_and_shuffled(tmp_path):
    pytest.importorskip("pyarrow")
    path = write_parquet(tmp_path / "a.parquet", 60)
    pixels, labels = arrays_of(60)
    order = np.argsort(labels, kind="stable")
    np.savez(tmp_path / "a.npz", x=pixels[order], y=labels[order])
    task = arrays(train=path, batch=20, augment=None)
    assert task.fingerprint == arrays(train=tmp_path / "a.npz").fingerprint
    assert all(0 < int(y.sum()) < 20 for _, y in task.train(torch.Generator()))
    assert arrays(train=path, channels=1).example.shape == (1, 1, 8, 8)
    grey = write_parquet(tmp_path / "g.parquet", 60, channels=1)
    assert arrays(train=grey).example.shape == (1, 1, 8, 8)
    assert arrays(train=grey, channels=3).example.shape == (1, 3, 8, 8)


def test_a_corrupt_image_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = parquet.read_table(write_parquet(tmp_path / "a.parquet", 20))
    images = table["png"].to_pylist()
    for broken in (images[7][:60], b"not an image", None):
        parquet.write_table(
            pyarrow.table({"png": [*images[:7], broken, *images[8:]], "label": table["label"]}), tmp_path / "b.parquet"
        )
        with pytest.raises(DataError, match=r"row 7 of .*b\.parquet is not a readable image"):
            arrays(train=tmp_path / "b.parquet")


def test_pyarrow_is_an_extra(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"sartor\[parquet\]"):
        arrays(train=tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"x": np.zeros((4, 8, 8), np.uint8)}, "needs an array y or labels, and has only x"),
        ({"x": np.zeros((4, 8, 8)), "y": np.zeros(4, int)}, "must be uint8"),
        ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.zeros(3, int)}, "must be 4 integers"),
        ({"x": np.zeros((4, 8, 8, 5), np.uint8), "y": np.zeros(4, int)}, "must be 1 or 3"),
        ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.array([0, 1, -1, 0])}, r"found -1\.\.1"),
        ({"x": np.zeros((0, 8, 8), np.uint8), "y": np.zeros(0, int)}, "no examples"),
        ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.array([0, 0, 0, 1])}, "class 1 has 1 examples left"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, content, words):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match=words):
        arrays(train=tmp_path / "a.npz")


def test_files_that_are_no_data(tmp_path):
    for name in ("a.npz", "a.csv", "a.parquet"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(DataError, match=name):
            arrays(train=tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        arrays(train=tmp_path / "nothing.npz")


def test_labels_must_be_below_classes_and_shapes_agree(tmp_path):
    path = write_npz(tmp_path / "a.npz", 40)
    with pytest.raises(DataError, match=r"0\.\.0, found 0\.\.1"):
        arrays(train=path, classes=1)
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 9, 9), np.uint8), y=np.arange(4) % 2)
    with pytest.raises(DataError, match="one shape"):
        arrays(train=path, test=tmp_path / "b.npz")
    with pytest.raises(ConfigError, match="channels"):
        arrays(train=path, channels=4)


def test_a_trained_network_gets_the_normalisation_it_knows(tmp_path):
    path = write_npz(tmp_path / "a.npz", 60)
    own, given = arrays(train=path, augment=""), arrays(train=path, augment="", mean=[0.25] * 3, std=[0.5] * 3)
    scaled = [task.example for task in (own, given)]
    # the same pixels, in [0, 1] again
    pixels = scaled[1] * 0.5 + 0.25
    assert float(pixels.min()) >= 0
    assert float(pixels.max()) <= 1
    torch.testing.assert_close(pixels * 255, (pixels * 255).round(), rtol=0, atol=1e-3)
    for c in range(3):  # by default a channel's own mean and deviation: another line through the same pixels
        moved = torch.corrcoef(torch.stack([scaled[0][0, c].flatten(), pixels[0, c].flatten()]))[0, 1]
        torch.testing.assert_close(moved, torch.tensor(1.0))
    for part in ("valid", "test"):
        (x, _), *_ = getattr(given, part)()
        back = (x * 0.5 + 0.25) * 255
        torch.testing.assert_close(back, back.round(), rtol=0, atol=1e-3)
    (x, _), *_ = given.train(torch.Generator())
    back = (x * 0.5 + 0.25) * 255
    torch.testing.assert_close(back, back.round(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("wrong", [{"mean": [0.1]}, {"std": [1.0, 0.0, 1.0]}, {"std": [1.0, 1.0]}])
def test_normalisation_has_one_number_per_channel(tmp_path, wrong):
    with pytest.raises(ConfigError, match="needs one number per channel"):
        arrays(train=write_npz(tmp_path / "a.npz", 60), **wrong)


def test_one_class_is_none(tmp_path):
    np.savez(tmp_path / "one.npz", x=np.zeros((9, 8, 8), np.uint8), y=np.zeros(9, int))
    with pytest.raises(DataError, match=r"all labels of .*one\.npz are 0: a classification needs two classes"):
        arrays(train=tmp_path / "one.npz")


def test_arrays_whose_names_differ_in_capitals_are_two(tmp_path):
    write_npz(tmp_path / "a.npz", 40)
    with np.load(tmp_path / "a.npz") as found:
        np.savez(tmp_path / "b.npz", x=found["x"], y=found["y"], X=np.zeros(3), Y=np.zeros(3))
    assert arrays(train=tmp_path / "b.npz").classes == 2


def test_classes_without_examples_are_said(tmp_path, caplog):
    write_npz(tmp_path / "a.npz", 40)
    arrays(train=tmp_path / "a.npz")
    assert not caplog.records
    assert arrays(train=tmp_path / "a.npz", classes=4).classes == 4
    assert "has no example of class 2, 3; of 4 classes" in caplog.text
