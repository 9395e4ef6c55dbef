import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

from cnn import small_cnn
from pictures import write_folder
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import torch_rng
from sartor.data import survey as surveys
from sartor.tasks.image_folder import image_folder


def sample(folder: pathlib.Path) -> tuple[dict[str, object], torch.nn.Module]:
    """Settings of a small learnable task below `folder`, and a network that fits it."""
    settings = {"root": write_folder(folder / "photos", 40), "size": 16, "batch": 8, "valid": 0.2, "test": 0.2}
    return settings, small_cnn(3)


def sizes(task):
    return [task.describe[k] for k in ("train", "valid", "test")]


def test_flat_layout_is_split(tmp_path):
    task = image_folder(root=write_folder(tmp_path / "f", 20), size=16, valid=0.2, test=0.1)
    assert sizes(task) == [28, 8, 4]
    assert task.describe["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("name", ["val", "valid"])
def test_folders_of_splits_are_used(tmp_path, name):
    for part, count in (("train", 10), (name, 3), ("test", 2)):
        write_folder(tmp_path / part, count)
    assert sizes(image_folder(root=tmp_path, size=16)) == [20, 6, 4]


def test_a_missing_test_folder_is_drawn_from_training(tmp_path):
    write_folder(tmp_path / "train", 10)
    write_folder(tmp_path / "val", 3)
    assert sizes(image_folder(root=tmp_path, size=16, test=0.2)) == [16, 6, 4]


def test_batches_do_not_depend_on_workers_or_cache(tmp_path):
    root = write_folder(tmp_path / "f", 12)
    alone, cached, helped = (
        image_folder(root=root, size=16, batch=8, **settings)
        for settings in ({"cache_gb": 0}, {"cache_gb": 1}, {"workers": 2})
    )
    list(cached.train(torch_rng(5)))  # fills the cache
    for batches in zip(*(t.train(torch_rng(0)) for t in (alone, cached, helped)), strict=True):
        assert torch.equal(batches[0][0], batches[1][0])
        assert torch.equal(batches[0][0], batches[2][0])
        assert torch.equal(batches[0][1], batches[2][1])


def test_validation_takes_the_middle(tmp_path):
    folder = write_folder(tmp_path / "f", 10)
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[1:15, 9:23] = 255  # what remains of the middle 16 x 16 after the crop to 14 x 14
    for path in folder.rglob("*.png"):
        Image.fromarray(pixels).save(path)
    task = image_folder(root=folder, size=14)
    white = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(task.example, white.reshape(1, 3, 1, 1).expand(1, 3, 14, 14))


def test_a_corrupt_image_is_named(tmp_path):
    root = write_folder(tmp_path / "f", 10)
    for path in root.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"\d\.png is not a readable image"):
        image_folder(root=root, size=16)


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        image_folder(root=tmp_path / "nothing")
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    (tmp_path / "empty" / "cat" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"no images .*\.jpg, \.jpeg, \.png"):
        image_folder(root=tmp_path / "empty")
    write_folder(tmp_path / "s" / "train", 10)
    write_folder(tmp_path / "s" / "val", 2, classes=("cat", "cow"))
    with pytest.raises(DataError, match="without training images: cow"):
        image_folder(root=tmp_path / "s")
    with pytest.raises(DataError, match="class cat has 1 examples left, class dog has 1 examples left, too few"):
        image_folder(root=write_folder(tmp_path / "tiny", 2))
    with pytest.raises(ConfigError, match="size >= 8"):
        image_folder(root=tmp_path / "tiny", size=1)


def read_all(root, workers):
    task = image_folder(root=root, size=16, workers=workers)
    for batches in (task.valid(), task.test(), task.train(torch_rng(0))):
        list(batches)


def test_all_bad_images_are_named_at_once_and_at_first(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "f", 20)
    bad = [root / "cat" / "3.png", root / "dog" / "7.png", root / "dog" / "9.png"]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(bad[1].read_bytes()[:200])
    bad[2].unlink()
    bad[2].symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"^3 of 40 images cannot be used, .*; the first: ") as caught:
        image_folder(root=root, size=16)
    assert all(str(path) in str(caught.value) for path in bad)
    monkeypatch.setattr(surveys, "LOOKED", 0)  # as if they were many
    with pytest.raises(DataError, match="2 of 40 files cannot be used"):
        image_folder(root=root, size=16)
    bad[0].write_bytes(b"no picture")
    write_folder(tmp_path / "new", 20)
    bad[2].unlink()
    bad[2].write_bytes((tmp_path / "new" / "dog" / "9.png").read_bytes()[:200])
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"^3 of 40 images cannot be used") as caught:
            read_all(root, workers)
        assert "Traceback" not in str(caught.value)


def test_classes_are_folders_with_images_and_names_of_their_own(tmp_path):
    root = write_folder(tmp_path / "f", 20, classes=("cat", "dög", "猫"))
    assert image_folder(root=root, size=16).describe["classes"] == ["cat", "dög", "猫"]
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        write_folder(root / name, 1, classes=("x",))
    assert image_folder(root=root, size=16).describe["classes"] == ["cat", "dög", "猫"]
    for name in ("bird", "cow"):
        (root / name).mkdir()
    (root / "bird" / "Thumbs.db").write_bytes(b"x")
    with pytest.raises(DataError, match="has classes without images: bird, cow; add some, or remove the folders"):
        image_folder(root=root, size=16)
    for one, other in (("cat", "Cat"), ("dög", "do\u0308g")):
        twice = write_folder(tmp_path / f"with {one}", 20, classes=(one, other))
        with pytest.raises(DataError, match=rf"has one class twice, as '{other}' and '{one}'|as '{one}' and '{other}'"):
            image_folder(root=twice, size=16)
    with pytest.raises(DataError, match=r"0\.png must be a folder with one folder of images per class; it is a file"):
        image_folder(root=root / "cat" / "0.png", size=16)


def test_one_class_is_none(tmp_path):
    with pytest.raises(DataError, match=r"f has one class alone, cat; add the folder of another, or correct the path"):
        image_folder(root=write_folder(tmp_path / "f", 20, classes=("cat",)))


def test_loops_of_links_end(tmp_path):
    root = write_folder(tmp_path / "f", 20)
    (root / "cat" / "again").symlink_to(root / "cat")
    (root / "cat" / "all").symlink_to(root)
    (root / "cat" / "all.png").symlink_to(root / "cat" / "all")
    task = image_folder(root=root, size=16)
    assert len(task.describe["classes"]) == 2


def test_images_turned_by_a_camera_are_said_and_turned_on_demand(tmp_path, caplog):
    root = write_folder(tmp_path / "f", 10)
    exif = Image.Exif()
    exif[0x0112] = 3
    for i, path in enumerate(root.rglob("*.png")):  # of a size that is cut alike at both ends
        pixels = np.random.default_rng(i).integers(0, 256, (18, 18, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, exif=exif)
    plain, turned = image_folder(root=root, size=16), image_folder(root=root, size=16, upright=True)
    assert caplog.text.count("set task.upright = true") == 1
    assert torch.equal(plain.example.flip(2, 3), turned.example)


def test_colour_or_grey_as_the_network_wants_it(tmp_path):
    root = write_folder(tmp_path / "f", 10)
    task = image_folder(root=root, size=16, channels=1)
    inputs, _ = next(iter(task.valid()))
    assert tuple(task.example.shape) == (1, 1, 16, 16)
    assert inputs.shape[1] == 1
    colour, _ = next(iter(image_folder(root=root, size=16).valid()))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = colour * std.reshape(3, 1, 1) + mean.reshape(3, 1, 1)
    weights = torch.tensor([0.299, 0.587, 0.114])
    grey = (torch.einsum("c,bchw->bhw", weights, pixels) - weights @ mean) / (weights @ std)
    assert float((inputs[:, 0] - grey).abs().max()) < 2 / 255 / 0.22  # both round to whole numbers, one after resizing
    with pytest.raises(ConfigError, match="channels must be 3 for colour or 1 for grey, got 4"):
        image_folder(root=root, size=16, channels=4)
