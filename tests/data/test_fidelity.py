import math

import numpy as np
import pytest
import torch

from sartor.core.rng import torch_rng
from sartor.data.fidelity import EXACT, eight_bit, luminance, psnr, ssim, without_border


def noise(*shape, seed=0):
    return 255 * torch.rand(*shape, generator=torch_rng(seed), dtype=torch.float64)


def test_luminance_is_that_of_bt601():
    # white, black, red, green, blue: the table of MATLAB's rgb2ycbcr
    colours = torch.tensor([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.float64)
    y = luminance(colours[:, :, None, None]).flatten()
    torch.testing.assert_close(y, torch.tensor([235.0, 16.0, 81.481, 144.553, 40.966], dtype=torch.float64))


def test_eight_bits_and_borders():
    assert eight_bit(torch.tensor([-3.0, 0.4, 0.6, 254.7, 300.0])).tolist() == [0, 0, 1, 255, 255]
    assert without_border(torch.arange(36).reshape(1, 1, 6, 6), 2).flatten().tolist() == [14, 15, 20, 21]


def test_psnr_is_the_formula():
    a, b = noise(3, 1, 9, 7), noise(3, 1, 9, 7, seed=1)
    for i, value in enumerate(psnr(a, b).tolist()):
        mse = np.mean((a[i].numpy() - b[i].numpy()) ** 2)
        assert value == pytest.approx(20 * math.log10(255) - 10 * math.log10(mse))
    assert psnr(a, a).tolist() == [EXACT] * 3
    # off by one everywhere: the number that everybody knows
    assert float(psnr(a, a + 1)[0]) == pytest.approx(48.1308, abs=1e-4)


def ssim_slowly(a, b):
    """Wang et al. 2004, equations 13 to 16, one window at a time."""
    grid = np.arange(11) - 5
    window = np.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            found.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(found)


def test_ssim_is_the_formula():
    a = noise(2, 1, 15, 14)
    b = 0.7 * a + 0.3 * noise(2, 1, 15, 14, seed=1)
    wanted = [ssim_slowly(x[0].numpy(), y[0].numpy()) for x, y in zip(a, b, strict=True)]
    assert ssim(a, b).tolist() == pytest.approx(wanted, abs=1e-9)
    assert ssim(a, a).tolist() == pytest.approx([1.0, 1.0])
    assert ssim(a[..., :4, :], b[..., :4, :]).isfinite().all()
