import pathlib

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from cnn import bright_images, small_cnn
from sartor.core.errors import DataError
from sartor.core.rng import torch_rng
from sartor.tasks.loaders import loaders
from sartor.training import Recipe, evaluate, fit


def sample(folder: pathlib.Path) -> tuple[dict[str, object], torch.nn.Module]:
    """Settings of a small learnable task, and a network that fits it; nothing is read from `folder`."""
    settings: dict[str, object] = {}
    for seed, (name, count) in enumerate((("train", 120), ("valid", 60), ("test", 60))):
        images = bright_images(count, seed)
        data = TensorDataset((images.pixels.float() - 120) / 60, images.labels)
        settings[name] = DataLoader(data, 16, shuffle=name == "train", drop_last=name == "train")
    return settings, small_cnn()


X, Y = torch.randn(40, 1, 8, 8, generator=torch_rng(0)), torch.arange(40) % 2
DATA = TensorDataset(X, Y)


class Noisy(TensorDataset):
    """Draws from torch's global generator, as transforms do."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + torch.randn(()), y


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


def seen(task, seed):
    return torch.cat([x for x, _ in task.train(torch_rng(seed))])


@pytest.mark.parametrize("own", [False, True])
def test_order_and_transforms_follow_the_generator(own):
    generator = torch.Generator() if own else None
    train = DataLoader(Noisy(X, Y), batch_size=8, shuffle=True, generator=generator)
    task = loaders(train=train, valid=DataLoader(DATA, 8), test=DataLoader(DATA, 8))
    assert torch.equal(seen(task, 0), seen(task, 0))
    assert not torch.equal(seen(task, 0), seen(task, 1))


def test_classes_are_found_or_left_open():
    valid = DataLoader(DATA, 8)
    assert loaders(train=valid, valid=valid, test=valid).classes == 2
    metrics = {"macro": lambda: MulticlassAccuracy(3, average="macro")}
    task = loaders(train=valid, valid=valid, test=valid, metrics=metrics)
    assert task.classes is None
    assert set(evaluate(small_cnn(classes=3), task.valid(), task)) == {"macro"}


def test_streams_without_a_length_can_be_trained_on():
    stream = DataLoader(Stream(), 8)
    task = loaders(train=stream, valid=stream, test=stream)
    with pytest.raises(TypeError):
        len(task.train(torch_rng(0)))
    assert len(fit(small_cnn(), task, Recipe(epochs=1, device="cpu"), seed=0).epochs) == 1


def test_what_is_wrong_is_told():
    valid = DataLoader(DATA, 8)
    with pytest.raises(DataError, match="needs train, valid and test"):
        loaders(train=valid, valid=valid)
    with pytest.raises(DataError, match="no batches"):
        loaders(train=valid, valid=[], test=valid)
    with pytest.raises(DataError, match="got dict"):
        loaders(train=valid, valid=[{"x": X}], test=valid)
