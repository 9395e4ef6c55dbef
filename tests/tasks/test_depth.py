import inspect
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import global_seed, numpy_rng, torch_rng
from sartor.tasks.depth import depth
from sartor.training import Recipe, check_fits, evaluate, fit, score


def sample(folder: pathlib.Path) -> tuple[dict[str, object], torch.nn.Module]:
    """Settings of a small learnable task below `folder`, and a network that fits it."""
    write(folder / "rooms", 48)
    with global_seed(7):
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
        network = nn.Sequential(*layers, nn.Conv2d(16, 1, 3, padding=1))
    return {"root": folder / "rooms", "batch": 4, "valid": 0.25, "test": 0.25, "augment": "flip"}, network


def write(root, count, seed=0, size=(16, 20)):
    """Darker is farther; millimetres of 16 bits, a corner is not known."""
    rng = numpy_rng(seed, "rooms")
    rows, cols = np.mgrid[: size[0], : size[1]]
    for kind in ("images", "depths"):
        (root / kind).mkdir(parents=True)
    for i in range(count):
        slopes = rng.uniform(-0.08, 0.08, 2)
        metres = np.clip(2.5 + slopes[0] * (rows - 8) + slopes[1] * (cols - 10), 0.5, 5)
        pixels = (255 - 45 * metres)[..., None] + rng.normal(0, 5, (*size, 3))
        values = (1000 * metres).astype(np.uint16)
        values[:3, :4] = 0
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{i:02}.png")
        Image.fromarray(values).save(root / "depths" / f"{i:02}.png")
    return root


@pytest.fixture
def settings(tmp_path):
    return sample(tmp_path)[0]


def test_shapes_and_units(settings):
    task = depth(**settings)
    assert [task.describe[k] for k in ("train", "valid", "test")] == [27, 9, 12]
    assert task.example.shape == (1, 3, 16, 20)
    assert [(m.name, m.goal, m.unit, m.interval) for m in task.metrics] == [
        ("rmse", "min", "m", "per_example"),
        ("abs_rel", "min", "", "per_example"),
        ("delta1", "max", "share", "per_example"),
    ]
    for x, y in [*task.train(torch_rng(0)), *task.valid(), *task.test()]:
        assert (x.shape[1:], y.shape[1:]) == ((3, 16, 20), (1, 16, 20))
        assert y.dtype == torch.float32
        assert 0.5 <= float(y[y > 0].min()) <= float(y.max()) <= 5
        assert (y == 0).flatten(1).sum(1).tolist() == [12] * len(y)


@pytest.mark.parametrize(
    ("dtype", "ending", "unit"),
    [(np.uint8, "png", 25.5), (np.uint16, "png", 1000), (np.int32, "tiff", 1000), (np.float32, "tiff", 1)],
)
def test_the_unit_follows_the_format_unless_given(tmp_path, dtype, ending, unit):
    for kind in ("images", "depths"):
        (tmp_path / kind).mkdir()
    values = (np.arange(12).reshape(3, 4) * (20.5 if dtype == np.float32 else 20)).astype(dtype)
    for i in range(8):
        Image.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(values).save(tmp_path / "depths" / f"{i}.{ending}")
    for settings, wanted in (({}, unit), ({"per_metre": 7}, 7)):
        _, y = next(iter(depth(root=tmp_path, **settings).test()))
        torch.testing.assert_close(y[0, 0], torch.from_numpy(values.astype(np.float32)) / wanted)


def test_quality_by_hand(settings):
    task = depth(**settings)
    targets = torch.cat([y for _, y in task.test()])

    class Same(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 1, 16, 20), 2.0)

    found = score(Same(), task.test(), task)
    each = {"rmse": [], "abs_rel": [], "delta1": []}
    for y in targets:
        known = y[y > 0].double()
        each["rmse"].append(float((known - 2).square().mean().sqrt()))
        each["abs_rel"].append(float(((known - 2).abs() / known).mean()))
        each["delta1"].append(float((torch.maximum(known / 2, 2 / known) < 1.25).double().mean()))
    for name, values in each.items():
        assert found[name].value == pytest.approx(np.mean(values), rel=1e-5)
        assert found[name].low < found[name].value < found[name].high


@pytest.mark.parametrize("loss", ["l1", "silog"])
def test_a_network_learns_it(tmp_path, loss):
    settings, network = sample(tmp_path)
    task = depth(**settings, loss=loss)
    check_fits(task, network)
    before = evaluate(network, task.valid(), task)
    fit(network, task, Recipe(epochs=8, optimizer="adamw", lr=1e-2, device="cpu"), seed=0)
    after = evaluate(network, task.valid(), task)
    assert after["rmse"] < 0.5 * before["rmse"]
    assert after["delta1"] > before["delta1"]


@pytest.mark.parametrize("loss", ["l1", "silog"])
def test_unknown_depths_count_nowhere(settings, loss):
    task = depth(**settings, loss=loss)
    _, y = next(iter(task.valid()))
    output = (1 + torch.rand(y.shape, generator=torch_rng(0))).requires_grad_()
    task.loss(output, y).sum().backward()
    assert (output.grad[y == 0] == 0).all()
    assert (output.grad[y > 0] != 0).all()
    other = torch.where(y == 0, torch.tensor(99.0), output.detach())
    for metric in task.metrics:
        values = []
        for out in (output.detach(), other):
            made = metric.make()
            made.update(out, y)
            values.append(float(made.compute()))
        assert values[0] == values[1]


def test_enlarged_is_nearer_and_stays_in_step(tmp_path):
    """The picture shows the depth at every pixel; what is enlarged is nearer by the same factor everywhere."""
    for kind in ("images", "depths"):
        (tmp_path / kind).mkdir()
    blocks = np.kron(np.array([[40, 80], [120, 160]]), np.ones((12, 12))).astype(np.uint8)
    for i in range(10):
        Image.fromarray(np.stack([blocks] * 3, 2)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(blocks).save(tmp_path / "depths" / f"{i}.png")
    task = depth(root=tmp_path, per_metre=255, mean=[0] * 3, std=[1] * 3, augment="zoom_flip", zoom=2.0, batch=4)
    factors = []
    for seed in range(5):
        for x, y in task.train(torch_rng(seed)):
            ratio = (x[:, :1] / y).flatten(1)
            factor = ratio.median(1, keepdim=True).values
            assert ((ratio - factor).abs() < 0.02).float().mean() > 0.85
            factors += factor.flatten().tolist()
    assert 1 <= min(factors) < 1.3
    assert 1.7 < max(factors) <= 2.01
    for x, y in task.test():
        torch.testing.assert_close(x[:, :1], y)


def test_epochs_are_decided_by_the_generator(settings):
    task = depth(**settings | {"augment": "zoom_flip"})
    epochs = [list(task.train(torch_rng(s))) for s in (0, 0, 1)]
    assert all(torch.equal(a, b) and torch.equal(p, q) for (a, p), (b, q) in zip(*epochs[:2], strict=True))
    assert not any(torch.equal(p, q) for (_, p), (_, q) in zip(epochs[0], epochs[2], strict=True))


def test_sizes_are_made_equal(settings):
    task = depth(**settings, size=8)
    assert {tuple(x.shape[1:]) + tuple(y.shape[1:]) for x, y in task.train(torch_rng(0))} == {(3, 8, 8, 1, 8, 8)}
    values = {round(1000 * v) for _, y in task.test() for v in y.flatten().tolist()}
    there = {int(v) for p in (settings["root"] / "depths").iterdir() for v in np.array(Image.open(p)).flatten()}
    assert values <= there  # no mixture of known and unknown, nor of near and far


def test_what_is_wrong_is_told(settings):
    assert next(iter(inspect.signature(depth).parameters)) == "root"
    with pytest.raises(DataError, match="give the setting 'root' a path"):
        depth()
    for wrong in ({"loss": "l3"}, {"batch": 0}, {"per_metre": 0}, {"augment": "shift"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            depth(**settings | wrong)
    for path in (settings["root"] / "depths").iterdir():
        values = np.array(Image.open(path)).astype(np.float32)
        values[5, 5] = np.inf
        Image.fromarray(values).save(path.with_suffix(".tiff"))
        path.unlink()
    with pytest.raises(DataError, match=r"\d\d\.tiff has negative or infinite depths; write 0"):
        depth(**settings)


def test_grey_pictures_for_a_network_of_one_channel(settings):
    task = depth(**settings, channels=1)
    inputs, _ = next(iter(task.train(torch_rng(0))))
    assert inputs.shape[1] == task.example.shape[1] == 1
    colour, _ = next(iter(depth(**settings).valid()))
    assert colour.shape[1] == 3
    with pytest.raises(ConfigError, match=r"mean needs one number per channel \(1\)"):
        depth(**settings, channels=1, mean=[0.5, 0.5, 0.5])


def test_maps_that_know_no_depth_are_named(settings):
    for name in range(48):
        Image.fromarray(np.zeros((16, 20), np.uint16)).save(settings["root"] / "depths" / f"{name:02}.png")
    with pytest.raises(DataError, match=r"\d\d\.png knows no depth, as all is 0 there; remove it and its picture") as e:
        depth(**settings)
    assert str(e.value).startswith("48 of 48 pairs cannot be used")
