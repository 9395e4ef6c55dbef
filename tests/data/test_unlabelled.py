import numpy as np
import pytest
import torch

from pictures import write_folder, write_parquet
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import torch_rng
from sartor.data.unlabelled import MEAN, STD, Look, read


def found(data, inputs=(), test=0.2, **look):
    return read(data, test, inputs, Look(**look), valid=0.2, seed=0)


def first(examples, generator=None, count=4):
    return examples(torch.arange(count), generator)[0]


def test_images_anywhere_below_a_folder(tmp_path):
    write_folder(tmp_path / "a" / "b", 6)
    write_folder(tmp_path / "c", 5, ("bird",))
    examples, splits = found(tmp_path, size=16)
    assert splits.sizes() == {"train": 11, "valid": 3, "test": 3}
    assert first(examples).shape == (4, 3, 16, 16)
    pixels = first(examples) * torch.tensor(STD).reshape(1, 3, 1, 1) + torch.tensor(MEAN).reshape(1, 3, 1, 1)
    assert float(pixels.min()) >= 0
    assert float(pixels.max()) <= 1
    _, given = found(tmp_path / "a", test=tmp_path / "c", size=16)
    assert given.test.tolist() == list(range(12, 17))


def test_arrays_of_images_reach_the_network_normalised(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "last.npy", pixels)
    np.save(tmp_path / "first.npy", pixels.transpose(0, 3, 1, 2))
    np.save(tmp_path / "grey.npy", pixels[..., 0])
    last, front, grey = (found(tmp_path / f"{n}.npy")[0] for n in ("last", "first", "grey"))
    assert torch.equal(first(last), first(front))
    assert first(grey).shape == (4, 1, 8, 8)
    torch.testing.assert_close(first(grey) * 255, torch.from_numpy(pixels[:4, None, ..., 0]).float())
    own = found(tmp_path / "last.npy", mean=[0.5] * 3, std=[0.25] * 3)[0]
    torch.testing.assert_close(
        first(own) / 4 + 0.5,
        first(grey).expand(4, 3, 8, 8) * 0 + torch.from_numpy(pixels[:4] / 255).movedim(3, 1).float(),
    )


def test_numbers_keep_their_meaning(tmp_path):
    np.savez(tmp_path / "a.npz", tokens=np.arange(40).reshape(20, 2), level=np.linspace(0, 1, 20), extra=np.zeros(20))
    examples, _ = found(tmp_path / "a.npz", ["tokens", "level"], form="named")
    inputs = first(examples)
    assert list(inputs) == ["tokens", "level"]
    assert inputs["tokens"].dtype == torch.int64
    assert inputs["tokens"][3].tolist() == [6, 7]
    assert (inputs["level"].dtype, inputs["level"].shape) == (torch.float32, (4, 1))


def test_only_training_images_are_augmented_and_by_the_generator(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8))
    examples, _ = found(tmp_path / "x.npy", augment="shift_flip")
    before = torch.get_rng_state()
    moved = first(examples, torch_rng(0))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(moved, first(examples))
    assert torch.equal(moved, first(examples, torch_rng(0)))
    assert not torch.equal(moved, first(examples, torch_rng(1)))
    plain, _ = found(tmp_path / "x.npy", augment="")
    assert torch.equal(first(plain, torch_rng(0)), first(plain))
    assert torch.equal(first(examples), first(plain))


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(DataError, match="give the setting 'data' a path"):
        found("")
    with pytest.raises(DataError, match="no images in"):
        found(tmp_path)
    np.savez(tmp_path / "a.npz", a=np.zeros((20, 2)), b=np.zeros((19, 2)))
    with pytest.raises(DataError, match=r"holds a, b; give the setting 'inputs'"):
        found(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"'b' of .* has 19 examples, 'a' has 20"):
        found(tmp_path / "a.npz", ["a", "b"])
    write_folder(tmp_path / "f", 5)
    with pytest.raises(DataError, match="must be a folder of images"):
        found(tmp_path / "f", test=tmp_path / "a.npz")
    with pytest.raises(ConfigError, match="one number for each of 3 channels"):
        found(tmp_path / "f", mean=[0.5])
    np.savez(tmp_path / "w.npz", x=np.zeros((20, 8, 9, 3), np.uint8))
    with pytest.raises(ConfigError, match="needs square images"):
        found(tmp_path / "w.npz", augment="shift")
    assert found(tmp_path / "w.npz", augment="flip")


def test_fingerprints_see_the_content(tmp_path):
    pytest.importorskip("pyarrow")
    a, _ = found(write_parquet(tmp_path / "a.parquet", 20), "png")
    b, _ = found(write_parquet(tmp_path / "b.parquet", 20, seed=1), "png")
    assert not torch.equal(a.identity()[0], b.identity()[0])
