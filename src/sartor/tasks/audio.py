"""Short recordings, one class each: spoken words, sounds, speakers; raw or as log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sartor.core import trees
from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError
from sartor.data.archives import categories
from sartor.data.batches import EVALUATED, Batches, Splits, check_batch, divide, fingerprint
from sartor.data.images import existing
from sartor.data.losses import cross_entropy, imitation
from sartor.data.mel import LogMel
from sartor.data.quality import accuracy
from sartor.data.sounds import Takes, read_takes

__all__ = ["audio"]

SPLITS = ("", "official", "speaker", "random")


def audio(
    *,
    data: str | Path = "",
    label: str = "",
    features: str = "log_mel",
    seconds: float = 1.0,
    rate: int | None = None,
    mels: int = 40,
    window: float = 0.025,
    hop: float = 0.01,
    normalisation: Sequence[float] | None = None,
    split: str = "",
    shift: float = 0.1,
    batch: int = 64,
    valid: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Task:
    """Classification of recordings: the middle `seconds` of each, with silence around shorter ones.

    `data` is a folder with `CLASS/*.wav`, a `.csv` file with the columns `file` and `label` (and `speaker`, `test`), or
    a `.npz` file with the arrays `audio` (all takes one after another), `offsets`, `(n + 1,)`, one of classes, `(n,)`,
    and, if known, `rate`, `speaker` and `test`. The network gets `(batch, 1, samples)` or `(batch, 1, mels, frames)`.

    Args:
        data: The file or folder.
        label: Array or column of the classes; empty takes the first of label, digit, word, class and y.
        features: `"log_mel"` (see `sartor.data.mel`) or `"waveform"`.
        seconds: How much of a recording the network gets.
        rate: Samples per second that recordings are brought to; None leaves them as they are.
        mels: Filters of `log_mel`.
        window: Seconds of a frame of `log_mel`.
        hop: Seconds between frames of `log_mel`.
        normalisation: Mean and standard deviation that features are shifted and scaled by; None takes those of the
            training split. A network that is trained already wants what it was trained with.
        split: `"official"`: the test split is where `test` is true; `"speaker"`: whole speakers are held out, for the
            search and for the report; `"random"`; empty: official if there is such a split, else random.
        shift: Seconds by which training moves what is cut out, to and fro.
        batch: Examples per training batch.
        valid: Share of the training recordings held out for the search.
        test: Share held out for the final report, unless the split is official.
        seed: Of the splits, which do not depend on the seed of a run.

    Raises:
        DataError: A file is missing, damaged or holds something else; the split needs what the data does not say.
        ConfigError: A setting is out of range.
    """
    check_batch(batch)
    if features not in ("log_mel", "waveform") or split not in SPLITS:
        raise ConfigError(
            f"features must be 'log_mel' or 'waveform', split one of {SPLITS}; got {features!r}, {split!r}"
        )
    takes = read_takes(existing(data, "data"), label, rate)
    samples = round(seconds * takes.rate)
    if samples < 1 or shift < 0:
        raise ConfigError(f"needs seconds > 0 and shift >= 0, got {seconds} and {shift}")
    found, names = categories(takes.labels, f"the labels of {data}")
    labels = torch.from_numpy(found)
    splits = _splits(takes, labels, split, valid, test, seed)
    extract = LogMel(takes.rate, mels, window, hop, samples) if features == "log_mel" else _waveform
    raw = _Recordings(takes, labels, samples, round(shift * takes.rate), extract)
    mean, std = _statistics(raw, splits.train) if normalisation is None else _checked(normalisation)
    ready = _Recordings(takes, labels, samples, raw.shift, extract, mean, std)
    described = {"source": str(data), "classes": names, "features": features, "rate_hz": takes.rate, "seconds": seconds}
    return Task(
        train=lambda generator: Batches(splits.train, ready, batch, generator),
        valid=lambda: Batches(splits.valid, ready, EVALUATED),
        test=lambda: Batches(splits.test, ready, EVALUATED),
        loss=cross_entropy,
        distance=imitation,
        metrics=accuracy(len(names)),
        example=ready(splits.valid[:1], None)[0],
        name="audio",
        logits=True,
        classes=len(names),
        fingerprint=fingerprint(splits, takes.audio, takes.offsets, labels),
        describe={**described, "normalisation": [mean, std], **splits.sizes()},
    )


@dataclass(frozen=True)
class _Recordings:
    """Features and classes of takes by their index."""

    takes: Takes
    labels: Tensor
    samples: int
    shift: int
    extract: Callable[[Tensor], Tensor]
    mean: float = 0.0
    std: float = 1.0

    def __call__(self, index: Tensor, generator: torch.Generator | None) -> Batch:
        moved = None
        if generator is not None and self.shift:
            moved = torch.randint(-self.shift, self.shift + 1, (len(index),), generator=generator)
        found = self.extract(self.takes.cut(index, self.samples, moved))
        return (found - self.mean) / self.std, self.labels[index]


def _waveform(samples: Tensor) -> Tensor:
    return samples[:, None]


def _splits(takes: Takes, labels: Tensor, split: str, valid: float, test: float, seed: int) -> Splits:
    draw = partial(divide, len(takes), valid=valid, test=test, seed=seed)
    needs = {"official": ("test", takes.test), "speaker": ("speaker", takes.speakers)}
    name, column = needs.get(split, ("", None))
    if name and column is None:
        raise DataError(f"split = {split!r} needs the array or column {name!r}, which the data has not; use 'random'")
    if split == "speaker":
        return draw(groups=takes.speakers)
    return draw(labels=labels, flags=None if split == "random" else takes.test)


def _statistics(raw: _Recordings, index: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the training features; sums batch by batch, as all might not fit into memory."""
    count, total, squares = 0, 0.0, 0.0
    for inputs, _ in Batches(index, raw, EVALUATED):
        values = torch.cat(trees.leaves(inputs)).double()
        count, total, squares = count + values.numel(), total + float(values.sum()), squares + float((values**2).sum())
    mean = total / count
    return mean, max(squares / count - mean**2, 1e-12) ** 0.5


def _checked(normalisation: Sequence[float]) -> tuple[float, float]:
    if len(normalisation) != 2 or normalisation[1] <= 0:
        raise ConfigError(f"normalisation needs a mean and a positive standard deviation, got {list(normalisation)}")
    return float(normalisation[0]), float(normalisation[1])
