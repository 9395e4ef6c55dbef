import pathlib

import pytest
import torch
from sklearn.datasets import load_digits

from cnn import small_cnn
from sartor.core.errors import ConfigError
from sartor.tasks.digits import digits


def sample(folder: pathlib.Path) -> tuple[dict[str, object], torch.nn.Module]:
    """Settings of a small learnable task below `folder`, and a network that fits it."""
    return {"size": 8, "augment": ""}, small_cnn(classes=10)


def test_all_digits_are_in_exactly_one_split():
    task = digits(size=8, augment=None, batch=1)
    parts = {name: sum(len(y) for _, y in getattr(task, name)()) for name in ("valid", "test")}
    parts["train"] = sum(len(y) for _, y in task.train(torch.Generator()))
    assert parts == {k: task.describe[k] for k in parts}
    assert sum(parts.values()) == 1797
    assert parts["valid"] == pytest.approx(0.2 * 1797, abs=10)
    assert parts["test"] == pytest.approx(0.2 * 1797, abs=10)
    bunch = load_digits()
    known = sorted((tuple(i.flatten().astype(int)), t) for i, t in zip(bunch.images, bunch.target, strict=True))
    seen = []
    low, scale = task.example.min(), None
    for x, y in [*task.train(torch.Generator()), *task.valid(), *task.test()]:
        scale = scale or 16 / float(x.max() - low)
        seen += [
            (tuple(((i.flatten() - low) * scale).round().int().tolist()), int(t)) for i, t in zip(x, y, strict=True)
        ]
    assert sorted(seen) == known


def test_size_and_channels():
    task = digits(size=20, channels=3)
    assert task.example.shape == (1, 3, 20, 20)
    assert torch.equal(task.example[:, 0], task.example[:, 2])


def test_the_split_does_not_depend_on_anything_but_its_seed():
    assert digits().fingerprint == digits(batch=7, augment=None).fingerprint
    assert digits().fingerprint != digits(seed=1).fingerprint


@pytest.mark.parametrize(
    "bad", [{"channels": 2}, {"size": 4}, {"valid": 0.6, "test": 0.4}, {"valid": 0.0}, {"batch": 0}]
)
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        digits(**bad)
