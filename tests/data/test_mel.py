import math

import pytest
import torch

from sartor.core.errors import ConfigError
from sartor.data.mel import FLOOR, LogMel, filters

RATE = 8000


def peak_hz(mels):
    corners = 700 * (10 ** (torch.linspace(0, 2595 * math.log10(1 + RATE / 2 / 700), mels + 2) / 2595) - 1)
    return corners[1:-1]


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 2500.0])
def test_a_tone_is_loudest_in_its_own_band(hertz):
    tone = torch.sin(2 * math.pi * hertz * torch.arange(RATE) / RATE)[None]
    found = LogMel(RATE, 40, 0.025, 0.01, RATE)(tone)
    assert found.shape == (1, 1, 40, 101)
    nearest = int((peak_hz(40) - hertz).abs().argmin())
    assert abs(int(found[0, 0, :, 50].argmax()) - nearest) <= 1


def test_the_level_is_the_logarithm_of_the_power():
    make = LogMel(RATE, 20, 0.032, 0.016, RATE)
    quiet = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    torch.testing.assert_close(
        make(10 * quiet) - make(quiet), torch.full((1, 1, 20, 63), math.log(100)), atol=0.02, rtol=0
    )
    assert float(make(torch.zeros(1, RATE)).max()) == pytest.approx(math.log(FLOOR))
    longer = LogMel(RATE, 20, 0.064, 0.016, RATE)(quiet).mean()  # power does not grow with the window
    assert abs(float(longer - make(quiet).mean())) < 1.2


def test_the_filters_are_triangles_that_meet():
    bank = filters(10, 513, 4000)
    assert float(bank.max()) <= 1
    inside = bank.sum(0)[
        (torch.linspace(0, 4000, 513) > peak_hz(10)[0]) & (torch.linspace(0, 4000, 513) < peak_hz(10)[-1])
    ]
    torch.testing.assert_close(inside, torch.ones_like(inside))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((200, 0.01, 0.005, RATE), "hold none of the"),
        ((20, 0.0001, 0.005, RATE), "at least 4 samples"),
        ((20, 0.025, 0.01, 100), "too short for a transform of 256"),
    ],
)
def test_settings_out_of_range_are_told(given, words):
    with pytest.raises(ConfigError, match=words):
        LogMel(RATE, *given)
