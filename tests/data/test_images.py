import numpy as np
import pytest
import torch

from cnn import bright_images, small_task
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import torch_rng
from sartor.data.images import Batches, Images, augmenter, draw_subset, image_task, normalise, split

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_split_is_a_stratified_partition(fraction):
    rest, part = split(LABELS, fraction, 0, "valid")
    assert sorted(rest.tolist() + part.tolist()) == list(range(100))
    counts = LABELS[part].bincount().tolist()
    assert counts == [round(50 * fraction), round(30 * fraction), round(20 * fraction)]


def test_split_is_decided_by_seed_and_name():
    assert torch.equal(split(LABELS, 0.2, 0, "valid")[1], split(LABELS, 0.2, 0, "valid")[1])
    assert not torch.equal(split(LABELS, 0.2, 0, "valid")[1], split(LABELS, 0.2, 1, "valid")[1])
    assert not torch.equal(split(LABELS, 0.2, 0, "valid")[1], split(LABELS, 0.2, 0, "test")[1])


def test_split_holds_out_at_least_one_of_each_class():
    assert LABELS[split(LABELS, 0.001, 0, "valid")[1]].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="class 1 has 1 examples left"):
        split(torch.tensor([0, 0, 1]), 0.1, 0, "valid")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_split_refuses_nonsense(fraction):
    with pytest.raises(ConfigError, match="valid must be in"):
        split(LABELS, fraction, 0, "valid")


@pytest.mark.parametrize("size", [3, 10, 33, 99, 100])
def test_subset_keeps_the_shares(size):
    chosen = draw_subset(LABELS, size, 0)
    assert len(set(chosen.tolist())) == size
    exact = torch.tensor([0.5, 0.3, 0.2]) * size
    assert (LABELS[chosen].bincount(minlength=3) - exact).abs().max() < 1


@pytest.mark.parametrize("size", [0, 2, 101])
def test_subset_refuses_nonsense(size):
    with pytest.raises(ConfigError, match=r"3\.\.100"):
        draw_subset(LABELS, size, 0)


def test_statistics_are_those_of_the_pixels():
    images = bright_images(30, 0)
    scaled = images.pixels.double() / 255
    assert images.statistics()[0] == pytest.approx([float(scaled.mean())])
    assert images.statistics()[1] == pytest.approx([float(scaled.std(correction=0))])
    normal = normalise(images.pixels, *images.statistics())
    assert float(normal.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normal.std(correction=0)) == pytest.approx(1, abs=1e-5)
    constant = Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    assert normalise(constant.pixels, *constant.statistics()).isfinite().all()


def test_an_epoch_is_a_shuffle():
    images = Images(torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1).expand(40, 1, 8, 8), torch.arange(40))
    labels = [y for _, y in Batches(images, 16, (0.0,), (1.0,), torch_rng(0))]
    assert [len(y) for y in labels] == [16, 16]
    assert len(set(torch.cat(labels).tolist())) == 32
    for x, y in Batches(images, 16, (0.0,), (1.0,), torch_rng(0)):
        assert torch.equal(x[:, 0, 0, 0] * 255, y.float())
    assert [len(y) for _, y in Batches(images, 16, (0.0,), (1.0,))] == [16, 16, 8]
    assert torch.equal(torch.cat([y for _, y in Batches(images, 16, (0.0,), (1.0,))]), images.labels)
    assert [len(y) for _, y in Batches(images, 64, (0.0,), (1.0,), torch_rng(0))] == [40]


def test_augmentation_shifts_and_flips_each_image_on_its_own():
    pixels = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(200, 1, 8, 8)
    padded = np.pad(pixels[0, 0].numpy(), 1)
    windows = {padded[i : i + 8, j : j + 8].tobytes(): (i, j, False) for i in range(3) for j in range(3)}
    windows |= {padded[i : i + 8, j : j + 8][:, ::-1].tobytes(): (i, j, True) for i in range(3) for j in range(3)}
    images = Images(pixels, torch.zeros(200, dtype=torch.int64))
    batches = Batches(images, 50, (0.0,), (1.0,), torch_rng(0), augmenter("shift_flip", 8))
    found = [windows[(x * 255).round().to(torch.uint8).numpy().tobytes()] for b, _ in batches for x in b[:, 0]]
    assert set(found) == set(windows.values())
    assert 60 < sum(flipped for _, _, flipped in found) < 140


def test_augmentations_have_names():
    assert augmenter("", 8) is None
    assert augmenter(None, 8) is None
    with pytest.raises(ConfigError, match="augment must be one of"):
        augmenter("cutmix", 8)


def test_labels_out_of_range_and_empty_splits_are_refused():
    parts = [bright_images(10, s) for s in range(3)]
    with pytest.raises(DataError, match=r"0\.\.0, found 0\.\.1"):
        image_task(*parts, classes=1, batch=4, augment=None, source="noise")
    parts[1] = bright_images(0, 0)
    with pytest.raises(DataError, match="valid split of noise has no examples"):
        image_task(*parts, classes=2, batch=4, augment=None, source="noise")
    with pytest.raises(ConfigError, match="batch"):
        small_task(batch=0)


def test_fingerprint_is_of_the_data():
    parts = [bright_images(10, s) for s in range(3)]
    make = lambda: image_task(*parts, classes=2, batch=4, augment=None, source="noise").fingerprint  # noqa: E731
    before = make()
    assert before == make()
    parts[2].pixels[0, 0, 0, 0] ^= 1
    after = make()
    assert after != before
    parts[0].labels[3] ^= 1
    assert make() != after
