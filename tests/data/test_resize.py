import math

import numpy as np
import pytest
import torch
from PIL import Image

from sartor.core.errors import ConfigError
from sartor.core.rng import numpy_rng
from sartor.data.resize import contributions, cubic, imresize


def kernel(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def slowly(row, factor):
    """MATLAB's formulas (imresize.m, `contributions`), one sample at a time, counted from 1 as there."""
    n, stretch = len(row), min(factor, 1.0)
    width = 4 / stretch
    mirror = list(range(n)) + list(range(n - 1, -1, -1))
    found = []
    for x in range(1, math.ceil(n * factor) + 1):
        u = x / factor + 0.5 * (1 - 1 / factor)
        left = math.floor(u - width / 2)
        taps = [left + i for i in range(math.ceil(width) + 2)]
        weights = [stretch * kernel(stretch * (u - t)) for t in taps]
        values = [row[mirror[(t - 1) % (2 * n)]] for t in taps]
        found.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    return found


@pytest.mark.parametrize("factor", [1 / 2, 1 / 3, 1 / 4, 2, 3, 4, 1.7, 0.61, 1])
@pytest.mark.parametrize("length", [1, 3, 12, 31])
def test_it_is_the_formula(factor, length):
    picture = numpy_rng(0, "picture", length).uniform(0, 255, (length, 5))
    columns = np.stack([slowly(column, factor) for column in picture.T], 1)
    both = np.stack([slowly(row, factor) for row in columns])
    found = imresize(torch.from_numpy(picture), factor)
    assert tuple(found.shape) == (math.ceil(length * factor), math.ceil(5 * factor))
    torch.testing.assert_close(found, torch.from_numpy(both), rtol=0, atol=1e-9)


def test_pillow_agrees_but_for_the_borders():
    smooth = np.add.outer(np.sin(np.arange(48) / 7), np.cos(np.arange(60) / 9)).astype(np.float32)
    pillow = np.asarray(Image.fromarray(smooth, "F").resize((30, 24), Image.Resampling.BICUBIC))
    ours = imresize(torch.from_numpy(smooth), 0.5)
    torch.testing.assert_close(ours[3:-3, 3:-3], torch.tensor(pillow)[3:-3, 3:-3], rtol=0, atol=1e-4)


def test_batches_and_types_are_kept():
    pictures = torch.rand(2, 3, 9, 6)
    found = imresize(pictures, 1 / 3)
    assert (found.shape, found.dtype) == ((2, 3, 3, 2), torch.float32)
    torch.testing.assert_close(found[1, 2], imresize(pictures[1, 2], 1 / 3))


def test_weights_add_up_to_one_and_mirrored_samples_are_inside():
    for factor in (0.25, 0.5, 3):
        indices, weights = contributions(7, factor)
        torch.testing.assert_close(weights.sum(1), torch.ones(math.ceil(7 * factor), dtype=torch.float64))
        assert 0 <= int(indices.min()) <= int(indices.max()) < 7


def test_the_kernel():
    x = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, -0.5], dtype=torch.float64)
    torch.testing.assert_close(cubic(x), torch.tensor([1, 0.5625, 0, -0.0625, 0, 0, 0.5625], dtype=torch.float64))


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="factor above 0"):
        imresize(torch.rand(4, 4), 0)
    with pytest.raises(ConfigError, match="floating-point pictures"):
        imresize(torch.zeros(4, 4, dtype=torch.uint8), 2)
