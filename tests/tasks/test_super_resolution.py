import inspect
import math
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import global_seed, numpy_rng, torch_rng
from sartor.data.fidelity import EXACT
from sartor.data.resize import imresize
from sartor.tasks.super_resolution import super_resolution
from sartor.training import Recipe, check_fits, evaluate, fit, score


def sample(folder: pathlib.Path) -> tuple[dict[str, object], torch.nn.Module]:
    """Settings of a small learnable task below `folder`, and a network that fits it."""
    train, test = write(folder / "train_pictures", 16), write(folder / "test_pictures", 6, seed=1)
    with global_seed(7):
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
        network = nn.Sequential(*layers, nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2))
    return {"train": train, "test": test, "patch": 8, "patches": 4, "batch": 8, "valid": 0.25}, network


def write(folder, count, seed=0, size=(32, 36), mode="RGB"):
    """Waves of chance direction and colour."""
    folder.mkdir(parents=True)
    rng = numpy_rng(seed, "waves")
    rows, cols = np.mgrid[: size[0], : size[1]]
    for i in range(count):
        waves = [np.sin(rng.uniform(-1, 1) * rows + rng.uniform(-1, 1) * cols + rng.uniform(0, 6)) for _ in range(3)]
        pixels = (127 + 100 * np.stack(waves, 2)).astype(np.uint8)
        Image.fromarray(pixels if mode == "RGB" else pixels[..., 0]).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture
def settings(tmp_path):
    return sample(tmp_path)[0]


class Bicubic(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return imresize(x.double(), self.scale).float()


def pixels_of(path, scale):
    large = torch.from_numpy(np.array(Image.open(path))).double()
    large = large[..., None] if large.dim() == 2 else large
    rows, cols = (side // scale * scale for side in large.shape[:2])
    return large[:rows, :cols].permute(2, 0, 1)[None]


def luma(x):
    return 16 + (65.481 * x[:, 0] + 128.553 * x[:, 1] + 24.966 * x[:, 2]) / 255


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_has_the_psnr_of_the_formula(settings, scale):
    task = super_resolution(**settings | {"scale": scale, "patch": 4})
    wanted = []
    for path in sorted(settings["test"].glob("*.png")):
        large = pixels_of(path, scale)
        small = imresize(large, 1 / scale).round().clamp(0, 255)
        shown = imresize(small, scale).round().clamp(0, 255)
        error = (luma(large) - luma(shown))[..., scale:-scale, scale:-scale]
        wanted.append(10 * math.log10(255**2 / float(error.square().mean())))
    found = score(Bicubic(scale), task.test(), task)
    assert found["psnr"].value == pytest.approx(np.mean(wanted), abs=2e-3)
    assert found["psnr"].low < found["psnr"].value < found["psnr"].high
    assert 0 < found["ssim"].value < 1
    assert found["psnr"].examples == 6


def test_held_out_pictures_come_whole_and_one_by_one(settings, tmp_path):
    write(tmp_path / "large", 3, size=(41, 50))
    task = super_resolution(**settings | {"test": tmp_path / "large"})
    batches = list(task.test())
    assert [(x.shape, y.shape) for x, y in batches] == [((1, 3, 20, 25), (1, 3, 40, 50))] * 3
    for path, (x, y) in zip(sorted((tmp_path / "large").glob("*")), batches, strict=True):
        large = pixels_of(path, 2)
        torch.testing.assert_close(y * 255, large.float(), rtol=0, atol=1e-3)
        torch.testing.assert_close(x * 255, imresize(large, 0.5).round().clamp(0, 255).float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("augment", [False, True])
def test_patches_belong_together(settings, augment):
    task = super_resolution(**settings | {"augment": augment, "patch": 12, "batch": 4})
    count = 0
    for x, y in task.train(torch_rng(0)):
        assert (x.shape, y.shape) == ((4, 3, 12, 12), (4, 3, 24, 24))
        # turned or not: a small patch is its large one shrunk, but where the kernel reaches beyond the patch
        shrunk = imresize(y.double(), 0.5).float()
        torch.testing.assert_close(x[..., 3:-3, 3:-3], shrunk[..., 3:-3, 3:-3], rtol=0, atol=0.6 / 255)
        count += len(x)
    assert count == 12 * 4


def test_augmentation_turns_and_mirrors_in_all_eight_ways(settings, tmp_path):
    ramp = np.add.outer(np.arange(32) * 5, np.arange(32) * 2).astype(np.uint8)
    for i in range(4):
        (tmp_path / "ramp").mkdir(exist_ok=True)
        Image.fromarray(np.stack([ramp] * 3, 2)).save(tmp_path / "ramp" / f"{i}.png")
    task = super_resolution(**settings | {"train": tmp_path / "ramp", "patches": 40, "patch": 8})
    ways = set()
    for x, _ in task.train(torch_rng(0)):
        down = (x[:, 0, 4, 4] - x[:, 0, 3, 4]).mul(255).round().int().tolist()
        right = (x[:, 0, 4, 4] - x[:, 0, 4, 3]).mul(255).round().int().tolist()
        ways |= set(zip(down, right, strict=True))
    assert ways == {(a * i, b * j) for i, j in ((10, 4), (4, 10)) for a in (1, -1) for b in (1, -1)}


def test_quality_is_of_what_a_file_would_hold(settings):
    task = super_resolution(**settings)
    _, y = next(iter(task.test()))
    psnr = task.named("psnr").make

    def measured(output):
        made = psnr()
        made.update(output, y)
        return float(made.compute())

    assert measured(y + 0.4 / 255) == EXACT  # rounded away
    assert measured(torch.where(y > 0.999, y + 5, y)) == EXACT  # clamped
    border = y.clone()
    border[..., :2, :] = border[..., -2:, :] = border[..., :, :2] = border[..., :, -2:] = 0
    assert measured(border) == EXACT  # cut off
    border[..., 2, 5] = 0
    assert measured(border) < 60
    assert measured(y + 1 / 255) == pytest.approx(48.1308 - 20 * math.log10(219 / 255), abs=0.5)


def test_normalisation_is_of_inputs_and_outputs(settings):
    plain, moved = (super_resolution(**settings, **more) for more in ({}, {"mean": [0.4] * 3, "std": [1 / 255] * 3}))
    torch.testing.assert_close(moved.example, (plain.example - 0.4) * 255, rtol=0, atol=1e-3)
    found = [evaluate(Bicubic(2), task.test(), task) for task in (plain, moved)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    with pytest.raises(ConfigError, match="std needs one number per channel"):
        super_resolution(**settings, std=[1.0])


def test_one_channel_is_the_luminance_and_grey_files_are_as_they_are(settings, tmp_path):
    task = super_resolution(**settings, channels=1)
    path = sorted(settings["test"].glob("*.png"))[0]
    _, y = next(iter(task.test()))
    torch.testing.assert_close(y[0] * 255, luma(pixels_of(path, 2)).round().float(), rtol=0, atol=1e-3)
    grey = write(tmp_path / "grey", 2, mode="L")
    _, y = next(iter(super_resolution(**settings | {"test": grey}, channels=1).test()))
    torch.testing.assert_close(y[0] * 255, pixels_of(grey / "00.png", 2)[0].float(), rtol=0, atol=1e-3)
    assert super_resolution(**settings | {"test": grey}).test().__iter__().__next__()[0].shape[1] == 3


def test_folders_of_splits_and_drawn_ones(tmp_path):
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        write(tmp_path / "a" / part, count)
    sizes = lambda task: [task.describe[k] for k in ("train", "valid", "test")]  # noqa: E731
    assert sizes(super_resolution(train=tmp_path / "a", patch=8)) == [6, 2, 3]
    flat = write(tmp_path / "b", 20)
    assert sizes(super_resolution(train=flat, patch=8, valid=0.2, held=0.1)) == [14, 4, 2]
    assert sizes(super_resolution(train=flat, patch=8, valid=0.5, held=0.1, most=3)) == [9, 3, 2]
    one, two = (super_resolution(train=flat, patch=8, seed=s).fingerprint for s in (0, 1))
    assert one != two
    assert one == super_resolution(train=str(flat), patch=8, seed=0, batch=3).fingerprint
    assert one != super_resolution(train=flat, patch=8, scale=4).fingerprint


def test_an_epoch_is_decided_by_its_generator(settings):
    task = super_resolution(**settings)
    epochs = [[x for x, _ in task.train(torch_rng(s))] for s in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(*epochs[:2], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(epochs[0], epochs[2], strict=True))
    uncached = super_resolution(**settings, cache_gb=0)
    assert all(torch.equal(a, b) for a, (b, _) in zip(epochs[0], uncached.train(torch_rng(0)), strict=True))


def test_a_network_learns_it(tmp_path):
    settings, network = sample(tmp_path)
    task = super_resolution(**settings)
    check_fits(task, network)
    before = evaluate(network, task.valid(), task)
    fit(network, task, Recipe(epochs=8, optimizer="adamw", lr=5e-3, weight_decay=0.0, device="cpu"), seed=0)
    after = evaluate(network, task.valid(), task)
    assert after["psnr"] > before["psnr"] + 3
    assert after["ssim"] > before["ssim"]


def test_what_is_wrong_is_told(settings, tmp_path):
    assert list(inspect.signature(super_resolution).parameters)[:2] == ["train", "test"]
    with pytest.raises(DataError, match="give the setting 'train' a path"):
        super_resolution()
    with pytest.raises(DataError, match=r"test = .* does not exist"):
        super_resolution(**settings | {"test": tmp_path / "nothing"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        super_resolution(train=tmp_path / "empty")
    with pytest.raises(DataError, match=r"\d\d\.png has \(32, 36\) pixels, .* patch of 17; lower patch"):
        super_resolution(**settings | {"patch": 17})
    for wrong in ({"scale": 5}, {"channels": 2}, {"patch": 0}, {"batch": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            super_resolution(**settings | wrong)
    Image.fromarray(np.zeros((32, 36), np.float32)).save(settings["test"] / "float.tiff")
    (settings["test"] / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of \d+ pictures cannot be used, .*empty\.png, .*float\.tiff; the first"):
        super_resolution(**settings)
