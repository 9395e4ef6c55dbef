"""Log-mel spectrograms: how loud every pitch band is in every moment."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sartor.core.errors import ConfigError

FLOOR = 1e-6
"""Added to the power before the logarithm: silence is -13.8, and not minus infinity."""


class LogMel:
    """Waveforms to log-mel spectrograms.

    The power spectrum of frames of `window` seconds, `hop` seconds apart, under a Hann window w, with the waveform
    mirrored at its ends: P = |STFT|^2 / sum(w^2). Then `mels` triangular filters of peak 1, whose corners are evenly
    spaced on the scale mel(f) = 2595 log10(1 + f / 700) from 0 to half the sampling rate (O'Shaughnessy 1987; HTK's
    filters). The result is log(FLOOR + filters @ P), natural logarithm.

    Args:
        rate: Samples per second.
        mels: Number of filters.
        window: Seconds of a frame; the transform's length is the next power of two.
        hop: Seconds between frames.
        samples: Of a waveform.

    Raises:
        ConfigError: A filter would hold no frequency of the transform, or a length is out of range.
    """

    def __init__(self, rate: int, mels: int, window: float, hop: float, samples: int) -> None:
        self.window, self.hop = round(window * rate), round(hop * rate)
        if self.window < 4 or self.hop < 1 or mels < 1:
            raise ConfigError(
                f"needs mels >= 1 and at least 4 samples in window and 1 in hop; got mels = {mels}, {self.window} and "
                f"{self.hop} samples at {rate} Hz"
            )
        self.length = 2 ** math.ceil(math.log2(self.window))
        if samples <= self.length // 2:
            raise ConfigError(
                f"{samples} samples are too short for a transform of {self.length}; set more seconds or a shorter "
                "window"
            )
        self.shape = torch.hann_window(self.window)
        self.filters = filters(mels, self.length // 2 + 1, rate / 2)

    def __call__(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` to `(batch, 1, mels, frames)`, where frames = 1 + samples // hop."""
        spectrum = torch.stft(
            waveforms,
            self.length,
            self.hop,
            self.window,
            self.shape,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.abs().square() / self.shape.square().sum()
        return (self.filters @ power + FLOOR).log()[:, None]


def filters(mels: int, bins: int, top: float) -> Tensor:
    """Triangles over the frequencies 0 to `top` Hz, `(mels, bins)`.

    Raises:
        ConfigError: A triangle falls between two frequencies.
    """
    corners = 700 * (10 ** (torch.linspace(0, 2595 * math.log10(1 + top / 700), mels + 2).double() / 2595) - 1)
    frequencies = torch.linspace(0, top, bins).double()
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequencies - low) / (peak - low), (high - frequencies) / (high - peak)
    found = torch.minimum(rising, falling).clamp(min=0).float()
    empty = int((found.sum(1) == 0).sum())
    if empty:
        raise ConfigError(
            f"{empty} of {mels} mel filters hold none of the {bins} frequencies; set fewer mels or a longer window"
        )
    return found
