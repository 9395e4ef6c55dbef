from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pictures import write_folder
from sartor.core import trees
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import global_seed, torch_rng
from sartor.tasks.imitate import imitate
from sartor.training import Recipe, check_fits, evaluate, fit, score


class Heads(nn.Module):
    """Features and logits, as a backbone gives them."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, 2, 1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 6, 3, 2, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        features = self.second(torch.relu(self.norm(self.first(x))))
        return {"features": features, "logits": self.head(torch.relu(features).mean((2, 3)))}


def write(folder: pathlib.Path, count: int = 120) -> pathlib.Path:
    """Images `(n, 8, 8, 3)` of smooth noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)).repeat(2, 1).repeat(2, 2)
    np.savez(folder / "images.npz", x=coarse.astype(np.uint8))
    return folder / "images.npz"


def sample(folder: pathlib.Path) -> tuple[dict[str, object], nn.Module]:
    """Images without labels, and a network with two outputs that is its own teacher."""
    with global_seed(0):
        return {"data": write(folder), "batch": 16, "device": "cpu"}, Heads()


def test_a_smaller_network_learns_what_the_teacher_does(tmp_path):
    settings, teacher = sample(tmp_path)
    task = imitate(**settings).informed(teacher)
    with global_seed(1):
        student = Heads(6)
    check_fits(task, student)
    before = evaluate(student, task.test(), task)["relative_error"]
    fit(student, task, Recipe(epochs=15, lr=0.05, warmup=0, device="cpu"), seed=0)
    found = score(student, task.test(), task)["relative_error"]
    assert before > 0.9
    assert found.value < 0.6
    assert found.low < found.value < found.high
    assert evaluate(teacher, task.test(), task)["relative_error"] == 0


def test_until_it_has_seen_a_network_it_says_what_is_missing(tmp_path):
    settings, teacher = sample(tmp_path)
    task = imitate(**settings)
    assert task.example.shape == (1, 3, 8, 8)
    assert (task.metric.name, task.metric.goal) == ("relative_error", "min")
    for act in (
        lambda: check_fits(task, teacher),
        lambda: fit(teacher, task, Recipe(epochs=1, device="cpu"), seed=0),
        lambda: evaluate(teacher, task.valid(), task),
    ):
        with pytest.raises(DataError, match=r"task\.informed\(network\)"):
            act()
    assert task.informed(teacher).informed is None


def test_the_targets_are_the_teachers_outputs_as_it_was(tmp_path):
    settings, teacher = sample(tmp_path)
    with global_seed(3):
        teacher.train()(torch.randn(64, 3, 8, 8))  # statistics of its own
    task = imitate(**settings).informed(teacher)
    frozen = {k: v.clone() for k, v in teacher.state_dict().items()}
    with torch.no_grad():
        teacher.first.weight.zero_()
    fresh = Heads()
    fresh.load_state_dict(frozen)
    fresh.eval()
    for batches in (task.train(torch_rng(0)), task.valid(), task.valid(), task.test()):
        for x, target in batches:
            with torch.no_grad():
                output = fresh(x)
            assert torch.equal(target["features"], output["features"])
            assert torch.equal(target["logits"], output["logits"])
            assert not target["logits"].requires_grad
    assert teacher.training


def test_fingerprints_see_data_and_teacher(tmp_path):
    settings, teacher = sample(tmp_path)
    task = imitate(**settings)
    with global_seed(5):
        other = Heads()
    assert task.informed(teacher).fingerprint == task.informed(teacher).fingerprint
    assert task.informed(teacher).fingerprint != task.informed(other).fingerprint
    assert task.fingerprint != imitate(**settings, seed=1).fingerprint


def test_agreement_where_there_is_one_tensor_of_logits(tmp_path):
    settings, _ = sample(tmp_path)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    one = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    task = imitate(**settings)
    assert [m.name for m in task.informed(flat).metrics] == ["relative_error", "agreement"]
    assert [m.name for m in task.informed(one).metrics] == ["relative_error"]
    assert [m.name for m in imitate(**settings, logits=False).informed(flat).metrics] == ["relative_error"]
    maps = nn.Conv2d(3, 4, 1)
    assert [m.name for m in task.informed(maps).metrics] == ["relative_error"]
    dense = imitate(**settings, logits=True).informed(maps)
    assert dense.metrics[1].interval == "per_example"
    assert evaluate(maps, dense.test(), dense) == {"relative_error": 0, "agreement": 1}
    with pytest.raises(ConfigError, match="logits = true needs one output"):
        imitate(**settings, logits=True).informed(Heads())


def test_folders_of_images(tmp_path):
    write_folder(tmp_path / "f", 15)
    task = imitate(data=tmp_path / "f", size=16, device="cpu", valid=0.2)
    assert task.example.shape == (1, 3, 16, 16)
    assert [task.describe[k] for k in ("train", "valid", "test")] == [22, 5, 3]
    informed = task.informed(Heads())
    assert evaluate(Heads(), informed.valid(), informed)["relative_error"] > 0


def inputs(count=40):
    return torch.randn(count, 4, generator=torch_rng(0)), torch.randn(count, 2, generator=torch_rng(1))


class Sum(nn.Module):
    """Two inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, a, b):
        return self.a(a) + self.b(b)


A, B = inputs()
BATCHES = {
    "alone": [(A[:20], None)[0], A[20:]],
    "labelled": DataLoader(TensorDataset(A, torch.arange(40)), 20),
    "list of one": DataLoader(TensorDataset(A), 20),
    "pair of inputs": [((A[:20], B[:20]), None), ((A[20:], B[20:]), None)],
    "by name": [{"a": A[:20], "b": B[:20]}, {"a": A[20:], "b": B[20:]}],
}


@pytest.mark.parametrize("kind", BATCHES)
def test_loaders_of_inputs_alone_or_with_anything(kind):
    batches = BATCHES[kind]
    network = Sum() if kind in ("pair of inputs", "by name") else nn.Linear(4, 3)
    task = imitate(train=batches, valid=batches, test=batches, device="cpu").informed(network)
    assert trees.size(task.example) == 1
    check_fits(task, network)
    assert evaluate(network, task.test(), task)["relative_error"] == 0
    seen = trees.joined([x for x, _ in task.valid()])
    assert torch.equal(trees.leaves(seen)[0], A)


def test_a_shuffling_loader_follows_the_generator():
    loader = DataLoader(TensorDataset(A), 8, shuffle=True)
    task = imitate(train=loader, valid=[A], test=[A], device="cpu").informed(nn.Linear(4, 3))
    first, again, other = (torch.cat([x for x, _ in task.train(torch_rng(s))]) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(task.train(torch_rng(0))) == 5


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(DataError, match="give the setting 'data' a path"):
        imitate()
    with pytest.raises(DataError, match="valid must be a loader, too"):
        imitate(train=[A])
    with pytest.raises(DataError, match="give all three"):
        imitate(data=write(tmp_path), valid=[A])
    with pytest.raises(DataError, match="no batches"):
        imitate(train=[A], valid=[], test=[A])
    with pytest.raises(DataError, match="a loader must give inputs"):
        imitate(train=[A], valid=["text"], test=[A])
    with pytest.raises(ConfigError, match="size >= 1"):
        imitate(data=tmp_path, size=0)
    with pytest.raises(ConfigError, match="augment must be"):
        imitate(data=write(tmp_path), augment="turn")
