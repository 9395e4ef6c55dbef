from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score
from torch import nn

from sartor.core import trees
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import global_seed, torch_rng
from sartor.tasks.regression import regression
from sartor.training import Recipe, check_fits, evaluate, fit, score


def table(path: pathlib.Path, count: int = 200, **columns: object) -> pathlib.Path:
    """Metres from two columns of very different size, and a mark of the test rows."""
    rng = np.random.default_rng(0)
    a, b = rng.random(count) * 1000, rng.random(count)
    values = {"a": a, "b": b, "test": np.arange(count) % 10 == 7, "metres": 500 + a / 10 - 80 * b**2}
    values |= columns
    lines = [",".join(values), *(",".join(str(float(v)) for v in row) for row in zip(*values.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def mlp(inputs: int = 2, outputs: int = 1) -> nn.Module:
    with global_seed(0):
        return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, outputs))


def sample(folder: pathlib.Path) -> tuple[dict[str, object], nn.Module]:
    """A table that can be learned, and a network for it."""
    return {"data": table(folder / "table.csv"), "unit": "m", "batch": 16}, mlp()


def test_a_network_learns_it_and_errors_are_in_metres(tmp_path):
    settings, network = sample(tmp_path)
    task = regression(**settings)
    before = evaluate(network, task.test(), task)
    fit(network, task, Recipe(epochs=20, lr=0.05, warmup=0, device="cpu"), seed=0)
    found = score(network, task.test(), task)
    assert list(found) == ["rmse", "mae", "r2"]
    assert (task.metric.goal, task.metric.unit) == ("min", "m")
    assert before["rmse"] > 20
    assert found["rmse"].value < 8
    assert found["rmse"].low < found["rmse"].value < found["rmse"].high
    mean, std = task.describe["target_mean"][0], task.describe["target_std"][0]
    x, y = next(iter(task.test()))
    network.eval()
    ours, wanted = (t.detach().double() * std + mean for t in (network(x), y))
    assert float((ours - wanted).square().mean().sqrt()) == pytest.approx(found["rmse"].value, rel=1e-5)
    assert mean_absolute_error(wanted, ours) == pytest.approx(found["mae"].value, rel=1e-5)
    assert r2_score(wanted, ours) == pytest.approx(found["r2"].value, rel=1e-5)
    assert 500 < float(wanted.mean()) < 560


def test_scaling_is_that_of_the_training_rows(tmp_path):
    path = table(tmp_path / "a.csv")
    task = regression(data=path, batch=10)
    x, y = trees.joined(list(task.train(torch_rng(0))))
    assert x.shape[1:] == (2,)
    assert float(x.mean(0).abs().max()) < 0.05
    assert float(y.std()) == pytest.approx(1, abs=0.02)
    plain = regression(data=path, scale_inputs=False, scale_target=False)
    x, y = next(iter(plain.test()))
    assert float(x[:, 0].max()) > 500
    assert float(y.min()) > 400
    assert (plain.describe["target_mean"], plain.describe["target_std"]) == ([0], [1])


def test_columns_and_arrays(tmp_path):
    assert regression(data=table(tmp_path / "a.csv"), inputs="b").example.shape == (1, 1)
    two = regression(data=tmp_path / "a.csv", inputs=["b"], target=["a", "metres"])
    _, y = next(iter(two.test()))
    assert y.shape == (20, 2)
    assert evaluate(mlp(1, 2), two.test(), two)["rmse"] > 0
    g = np.random.default_rng(0)
    arrays = {"image": g.random((50, 8, 8)), "level": g.random(50), "y": g.random(50)}
    np.savez(tmp_path / "b.npz", **arrays)
    apart = regression(data=tmp_path / "b.npz")
    assert trees.shapes(apart.example) == ((1, 1, 8, 8), (1, 1))
    named = regression(data=tmp_path / "b.npz", form="named")
    assert trees.shapes(named.example) == {"image": (1, 1, 8, 8), "level": (1, 1)}
    dense = regression(data=tmp_path / "b.npz", inputs="level", target="image")
    assert next(iter(dense.test()))[1].shape[1:] == (8, 8)
    check_fits(dense, nn.Sequential(nn.Linear(1, 64), nn.Unflatten(1, (1, 8, 8))))


@pytest.mark.parametrize(("loss", "value"), [("l2", 4.0), ("l1", 2.0), ("huber", 0.5 * (2 - 0.25))])
def test_losses(tmp_path, loss, value):
    task = regression(data=table(tmp_path / "a.csv"), loss=loss, delta=0.5)
    y = torch.zeros(3, 1)
    assert task.loss(y + 2, y).tolist() == pytest.approx([value] * 3)
    assert task.distance(y + 2, y).tolist() == pytest.approx([value] * 3)
    assert task.loss(torch.tensor([2.0, 0, 0]), y).tolist() == pytest.approx([value, 0, 0])  # (batch,) is no matrix


def test_a_network_of_another_shape_is_told_before_training(tmp_path):
    task = regression(data=table(tmp_path / "a.csv"))
    check_fits(task, mlp())
    check_fits(task, nn.Sequential(mlp(), nn.Flatten(0)))
    with pytest.raises(DataError, match=r"gives \(8, 3\), the target is \(8, 1\)"):
        check_fits(task, mlp(2, 3))


def test_marks_are_no_inputs_and_decide_the_splits(tmp_path):
    path = table(tmp_path / "a.csv", group=np.arange(200) // 20)
    task = regression(data=path)
    assert task.describe["inputs"] == ["a", "b", "metres"]  # the last column is the target now
    task = regression(data=path, target="metres")
    assert task.describe["inputs"] == ["a", "b"]
    assert task.describe["test"] == 20
    other = regression(data=table(tmp_path / "c.csv", 60), test=table(tmp_path / "b.csv", 30))
    assert other.describe["test"] == 30


@pytest.mark.parametrize(
    ("settings", "columns", "error", "words"),
    [
        ({"target": "meters"}, {}, DataError, "no column 'meters'"),
        ({}, {"b": [float("nan")] * 200}, DataError, r"column 'b' of .*a\.csv holds nan at row 0"),
        ({"target": "a"}, {"a": [1.0] * 200}, DataError, "'a' of .* is 1.0 in all of the training split"),
        ({"loss": "l3"}, {}, ConfigError, "needs loss one of"),
        ({"delta": 0.0}, {}, ConfigError, "delta > 0"),
        ({"form": "heap"}, {}, ConfigError, "form must be"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, settings, columns, error, words):
    with pytest.raises(error, match=words):
        regression(data=table(tmp_path / "a.csv", **columns), **settings)


def test_arrays_that_do_not_fit_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 2)), z=np.zeros(19))
    with pytest.raises(DataError, match="no array y or target, only x, z; give the setting 'target'"):
        regression(data=tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"'x' of .* has 20 examples, the target z has 19"):
        regression(data=tmp_path / "a.npz", target="z")


def test_the_fingerprint_sees_values_and_splits(tmp_path):
    path = table(tmp_path / "a.csv")
    prints = {regression(data=path, **s).fingerprint for s in ({}, {"seed": 1}, {"inputs": "a"}, {"batch": 3})}
    assert len(prints) == 3
