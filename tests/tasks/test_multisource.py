from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from torch import nn

from sartor.core import trees
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import global_seed, torch_rng
from sartor.tasks.multisource import multisource
from sartor.training import Recipe, evaluate, fit, score


def write(path: pathlib.Path, count: int = 80, **changes: object) -> pathlib.Path:
    """Tiles of 8 x 8: a pixel is water where one band is dark and the ground is low; neither tells it alone."""
    rng = np.random.default_rng(0)
    dark, low = rng.random((2, count, 8, 8)) > 0.4
    bands = np.stack([~dark * 900 + rng.integers(0, 100, dark.shape), rng.integers(0, 900, dark.shape)], 1)
    arrays = {
        "bands": bands.astype(np.int16),
        "ground": (~low * 300.0 + 20 * rng.standard_normal(low.shape)).astype(np.float32),
        "label": ((dark & low) ^ (rng.random(low.shape) < 0.03)).astype(np.uint8),  # some of it is wrong
        "test": np.arange(count) % 4 == 0,
        "group": np.arange(count) // 5,
    }
    np.savez(path, **{**arrays, **changes})
    return path


class Two(nn.Module):
    """One encoder per source, then a class per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.bands = nn.Conv2d(2, 6, 1)
        self.ground = nn.Conv2d(1, 4, 1)
        self.mixed = nn.Conv2d(10, 12, 1)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, bands, ground):
        both = torch.cat([self.bands(bands), self.ground(ground)], 1)
        return self.head(torch.relu(self.mixed(torch.relu(both))))


def sample(folder: pathlib.Path) -> tuple[dict[str, object], nn.Module]:
    """A data set that can be learned from both sources, and a network with two inputs."""
    with global_seed(0):
        return {"data": write(folder / "tiles.npz"), "batch": 8}, Two()


def test_a_network_learns_from_both_sources(tmp_path):
    settings, network = sample(tmp_path)
    task = multisource(**settings)
    fit(network, task, Recipe(epochs=8, lr=0.1, warmup=0, device="cpu"), seed=0)
    found = score(network, task.test(), task)
    assert list(found) == ["miou", "pixel_accuracy", "iou_min"]
    assert found["miou"].value > 0.85
    assert found["miou"].low < found["miou"].value <= found["miou"].high
    assert found["iou_min"].value < found["miou"].value
    blind = [((bands, torch.zeros_like(ground)), y) for (bands, ground), y in task.test()]
    assert evaluate(network, blind, task)["miou"] < 0.75


def test_sources_are_apart_named_or_stacked(tmp_path):
    path = write(tmp_path / "a.npz")
    apart, named, stacked = (multisource(data=path, form=form).example for form in ("apart", "named", "stacked"))
    assert trees.shapes(apart) == ((1, 2, 8, 8), (1, 1, 8, 8))
    assert trees.shapes(named) == {"bands": (1, 2, 8, 8), "ground": (1, 1, 8, 8)}
    assert torch.equal(torch.cat(apart, 1), stacked)
    assert torch.equal(named["ground"], apart[1])
    turned = multisource(data=path, inputs=["ground", "bands"]).example
    assert torch.equal(turned[0], apart[1])
    assert multisource(data=path, inputs="ground").example.shape == (1, 1, 8, 8)


def epoch(task):
    (batch,) = [trees.joined(list(task.train(torch_rng(0))))]
    return batch


def test_scaled_by_the_training_split(tmp_path):
    (bands, ground), _ = epoch(multisource(data=write(tmp_path / "a.npz"), batch=4))
    for values in (bands[:, 0], bands[:, 1], ground):
        assert abs(float(values.mean())) < 0.1
        assert abs(float(values.std()) - 1) < 0.1
    (bands, _), _ = epoch(multisource(data=tmp_path / "a.npz", batch=4, scale=False))
    assert torch.equal(bands, bands.round())
    assert float(bands.max()) > 800


def test_groups_and_official_splits(tmp_path):
    path = write(tmp_path / "a.npz")
    task = multisource(data=path)
    assert task.describe["test"] == 20
    assert task.describe["train"] + task.describe["valid"] == 60
    assert multisource(data=path, split="group", test=0.25).describe["test"] == 20
    assert multisource(data=path, split="random", test=0.5).describe["test"] == 40


def test_inputs_and_labels_are_mirrored_in_step(tmp_path):
    ramp = np.arange(64).reshape(1, 8, 8).repeat(80, 0)
    path = write(tmp_path / "a.npz", bands=ramp, ground=ramp, label=ramp % 8 // 4)
    for augment, count in (("", 1), ("flip", 2), ("flips", 4)):
        task = multisource(data=path, scale=False, augment=augment, batch=5)
        (bands, ground), labels = epoch(task)
        assert torch.equal(bands, ground)
        assert torch.equal(labels, bands[:, 0].long() % 8 // 4)
        assert len(bands.flatten(1).unique(dim=0)) == count
        assert len(trees.joined(list(task.valid()))[0][0].flatten(1).unique(dim=0)) == 1


def test_vectors_and_patches_one_class_each(tmp_path):
    rng = np.random.default_rng(0)
    label = np.repeat([3, 7, 9], 30)
    np.savez(tmp_path / "a.npz", hsi=rng.random((90, 10)), lidar=rng.random((90, 18)), label=label)
    task = multisource(data=tmp_path / "a.npz", inputs={"hsi": [], "lidar": [2, 3, 3]}, batch=8)
    assert trees.shapes(task.example) == ((1, 10), (1, 2, 3, 3))
    assert task.describe["classes"] == ["3", "7", "9"]
    assert [m.name for m in task.metrics] == ["accuracy", "balanced_accuracy"]
    assert task.metric.interval == "proportion"
    assert torch.bincount(torch.cat([y for _, y in task.test()])).tolist() == [3, 3, 3]
    known = multisource(data=tmp_path / "a.npz", inputs="hsi", ignore=7)
    assert known.describe["classes"] == ["3", "9"]
    assert sum(known.describe[k] for k in ("train", "valid", "test")) == 60
    marked = {**dict(np.load(tmp_path / "a.npz")), "test": np.arange(90) % 3 == 0}
    np.savez(tmp_path / "b.npz", **marked)
    assert multisource(data=tmp_path / "b.npz", inputs="hsi", ignore=7).describe["test"] == 20
    both = multisource(data=tmp_path / "a.npz", test=tmp_path / "b.npz", inputs="hsi", ignore=7)
    assert [both.describe[k] for k in ("train", "valid", "test")] == [54, 6, 60]
    with pytest.raises(DataError, match=r"18 values per example, which are not \(4, 4\)"):
        multisource(data=tmp_path / "a.npz", inputs={"lidar": [4, 4]})


def scene(path, side=40):
    """Four quarters with a class each, of which the layers tell two bits; a third of the pixels has no label."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((side, side)) // 5 % 2
    label = 1 + rows * 2 + columns
    unknown = rng.random(label.shape) < 0.3
    np.savez(path, rows=rows[..., None] * 5.0, columns=columns, label=np.where(unknown, 0, label))
    return path


def test_patches_of_a_scene(tmp_path):
    task = multisource(data=scene(tmp_path / "a.npz"), patch=3, ignore=0, valid=0.2, test=0.2, scale=False)
    assert trees.shapes(task.example) == ((1, 1, 3, 3), (1, 1, 3, 3))
    assert task.classes == 4
    for batches in (task.train(torch_rng(0)), task.valid(), task.test()):
        (rows, columns), labels = trees.joined(list(batches))
        assert torch.equal(labels.float(), rows[:, 0, 1, 1] / 5 * 2 + columns[:, 0, 1, 1])
    drawn = multisource(data=tmp_path / "a.npz", patch=3, ignore=0, split="random", valid=0.2, test=0.2)
    assert sum(drawn.describe[k] for k in ("train", "valid", "test")) > task.describe["train"] * 1.5


def test_tiles_of_a_scene(tmp_path):
    task = multisource(data=scene(tmp_path / "a.npz"), patch=8, dense=True, ignore=0, form="stacked", scale=False)
    x, labels = next(iter(task.valid()))
    assert labels.shape[1:] == (8, 8)
    known = labels >= 0
    assert 0 < int(known.sum()) < labels.numel()
    assert torch.equal((x[:, 0] / 5 * 2 + x[:, 1])[known], labels[known].float())
    assert task.metric.name == "miou"


@pytest.mark.parametrize(
    ("settings", "changes", "error", "words"),
    [
        ({"label": "truth"}, {}, DataError, "no array 'truth'"),
        ({"inputs": ["sar"]}, {}, DataError, "no array 'sar'"),
        (
            {},
            {"bands": np.zeros((7, 8, 8))},
            DataError,
            r"'bands' of .* has the shape \(7, 8, 8\), there are 80 labels",
        ),
        ({}, {"ground": np.zeros((80, 4, 4))}, DataError, "height and width must agree"),
        ({}, {"ground": np.full((80, 8, 8), np.nan)}, DataError, r"'ground' of .* holds nan at index \(0, 0, 0\)"),
        ({}, {"label": np.zeros((8, 8), int) + np.eye(8, dtype=int)}, DataError, "are of one scene; set patch"),
        ({"patch": 4}, {}, DataError, "patch and dense are for a scene"),
        ({"ignore": 1}, {}, DataError, "holds 1 classes"),
        (
            {},
            {"label": np.where(np.arange(80)[:, None, None] % 4, 0, np.eye(8, dtype=int))},
            DataError,
            "no training example has class 1",
        ),
        ({"form": "heap"}, {}, ConfigError, "form must be"),
        ({"augment": "turn"}, {}, ConfigError, "augment one of"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, settings, changes, error, words):
    with pytest.raises(error, match=words):
        multisource(data=write(tmp_path / "a.npz", **changes), **settings)


def test_the_fingerprint_sees_values_and_splits(tmp_path):
    path = write(tmp_path / "a.npz")
    prints = {multisource(data=path, **s).fingerprint for s in ({}, {"seed": 1}, {"inputs": "bands"})}
    assert len(prints) == 3
    assert multisource(data=path, batch=3, augment="").fingerprint in prints
