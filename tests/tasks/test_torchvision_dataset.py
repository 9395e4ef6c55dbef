import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

from cnn import small_cnn
from pictures import write_mnist
from sartor.core.errors import ConfigError, DataError
from sartor.tasks.torchvision_dataset import torchvision_dataset


def sample(folder: pathlib.Path) -> tuple[dict[str, object], torch.nn.Module]:
    """Settings of a small learnable task below `folder`, and a network that fits it."""
    root = write_mnist(folder, 160, 60)
    return {"dataset": "MNIST", "root": root, "valid": 0.3, "batch": 16, "augment": ""}, small_cnn()


def test_a_data_set_with_train_and_test(tmp_path):
    task = torchvision_dataset(dataset="MNIST", root=write_mnist(tmp_path, 100, 30), augment="shift")
    assert [task.describe[k] for k in ("train", "valid", "test")] == [90, 10, 30]
    assert task.example.shape == (1, 1, 8, 8)
    bigger = torchvision_dataset(dataset="MNIST", root=tmp_path, size=16, subset=40)
    assert [bigger.describe[k] for k in ("train", "valid", "test")] == [36, 4, 30]
    assert bigger.example.shape == (1, 1, 16, 16)
    colour = torchvision_dataset(dataset="MNIST", root=tmp_path, channels=3).example
    assert colour.shape == (1, 3, 8, 8)
    assert torch.equal(colour[:, 0], colour[:, 2])
    with pytest.raises(ConfigError, match="channels must be 3 for colour, 1 for grey, or absent, got 2"):
        torchvision_dataset(dataset="MNIST", root=tmp_path, channels=2)


def test_a_data_set_with_split_and_images_of_all_sizes(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("negative", "positive"):
            folder = tmp_path / "rendered-sst2" / part / name
            folder.mkdir(parents=True)
            for i in range(10):
                pixels = rng.integers(0, 255, (10 + i, 12, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    task = torchvision_dataset(dataset="RenderedSST2", root=tmp_path, size=12)
    assert task.example.shape == (1, 3, 12, 12)
    assert task.describe["test"] == 20
    with pytest.raises(DataError, match="set size"):
        torchvision_dataset(dataset="RenderedSST2", root=tmp_path)


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(ConfigError, match="CIFAR11"):
        torchvision_dataset(dataset="CIFAR11", root=tmp_path)
    with pytest.raises(DataError, match="cannot open the train split of CIFAR10"):
        torchvision_dataset(dataset="CIFAR10", root=tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        torchvision_dataset(root=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no training and test split"):
        torchvision_dataset(dataset="FakeData", root=tmp_path)


def test_a_trained_network_gets_the_normalisation_it_knows(tmp_path):
    root = write_mnist(tmp_path, 100, 30)
    plain = torchvision_dataset(dataset="MNIST", root=root, mean=[0.0], std=[1.0])
    moved = torchvision_dataset(dataset="MNIST", root=root, mean=[0.5], std=[0.25])
    assert 0 <= float(plain.example.min()) < float(plain.example.max()) <= 1
    torch.testing.assert_close(moved.example, (plain.example - 0.5) / 0.25)
    with pytest.raises(ConfigError, match="needs one number per channel"):
        torchvision_dataset(dataset="MNIST", root=root, mean=[0.5] * 3)
