"""Recordings in memory: takes one after another, with their labels; from a .npz file, or from wav files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import Tensor

from sartor.core.errors import DataError
from sartor.core.foreign import first_line
from sartor.data.archives import Archive, finite, open_archive
from sartor.data.folders import class_names, is_hidden
from sartor.data.survey import survey

LABELS = ("label", "digit", "word", "class", "y")
"""What the column of the classes may be called if nobody says."""


@dataclass(frozen=True)
class Takes:
    """Recordings of one sampling rate.

    Attributes:
        audio: All of them one after another, `(total,)`, int16 or float32 in [-1, 1].
        offsets: Where each begins, and where the last one ends, `(n + 1,)`, int64.
        rate: Samples per second.
        labels: `(n,)`, whole numbers or strings.
        speakers: Who speaks, `(n,)`; None if unknown.
        test: True for the takes of the official test split, `(n,)`; None if there is none.
    """

    audio: Tensor
    offsets: Tensor
    rate: int
    labels: NDArray[Any]
    speakers: NDArray[Any] | None = None
    test: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def cut(self, index: Tensor, samples: int, shift: Tensor | None = None) -> Tensor:
        """The middle of takes; a shorter one has silence at both ends.

        Args:
            index: Which takes, `(m,)`.
            samples: How much of each.
            shift: By how many samples later than the middle, `(m,)`; never so far that more of the take is lost.

        Returns:
            `(m, samples)`, float32, full scale is 1.
        """
        begin, end = self.offsets[index], self.offsets[index + 1]
        slack = end - begin - samples  # negative: what is to be filled up with silence
        start = slack.div(2, rounding_mode="floor") + (0 if shift is None else shift)
        start = begin + start.maximum(slack.clamp(max=0)).minimum(slack.clamp(min=0))
        place = start[:, None] + torch.arange(samples)
        inside = (place >= begin[:, None]) & (place < end[:, None])
        found = self.audio[place.clamp(0, len(self.audio) - 1)]
        scale = 32768 if found.dtype == torch.int16 else 1
        return (found.float() / scale).where(inside, 0.0)


def read_takes(path: Path, label: str = "", rate: int | None = None) -> Takes:
    """The takes of a `.npz` file, of a folder, or of a list of files.

    A `.npz` file holds `audio`, all takes one after another, int16 or floating point in [-1, 1]; `offsets`, `(n + 1,)`;
    one array `(n,)` of classes; and, if they are known, `speaker` and `test`, `(n,)`, and `rate`. A folder holds
    `CLASS/*.wav`. A `.csv` file has the columns `file` (a path, relative to the csv's folder) and those arrays of one
    value per take. Several channels are averaged.

    Args:
        path: The file or folder.
        label: Name of the array or column with the classes; empty takes the first of `LABELS`.
        rate: Samples per second that the takes are brought to; None leaves them as they are.

    Raises:
        DataError: Something is missing or does not fit; rates differ and `rate` is None.
    """
    if path.is_dir():
        return _of_folder(path, label, rate)
    archive = open_archive(path)
    if path.suffix.lower() == ".csv":
        files = [path.parent / str(f) for f in archive.array("file", "data")]
        audio, offsets, found = _of_files(files, rate)
    else:
        audio, offsets, found = _of_arrays(archive, rate)
    count = len(offsets) - 1
    chosen = label or next((name for name in LABELS if name in archive.names), LABELS[0])
    return Takes(
        audio,
        offsets,
        found,
        _column(archive, chosen, count, "label"),
        *(_column(archive, name, count, "split") if name in archive.names else None for name in ("speaker", "test")),
    )


def _column(archive: Archive, name: str, count: int, setting: str) -> NDArray[Any]:
    found = archive.array(name, setting)
    if found.shape != (count,):
        raise DataError(f"{archive.where(name)} must have one value for each of {count} takes, got {found.shape}")
    return found


def _of_folder(path: Path, label: str, rate: int | None) -> Takes:
    if label:
        raise DataError(
            f"{path} is a folder: the class of a take is its folder's name; leave the setting 'label' empty"
        )
    classes = class_names(
        path,
        lambda place: any(_waves(place)),
        "wav files",
        f"{path} holds no CLASS/*.wav; it needs one folder per class",
    )
    files = [file for name in classes for file in _waves(path / name)]
    audio, offsets, found = _of_files(files, rate)
    return Takes(audio, offsets, found, np.array([p.parent.name for p in files]))


def _waves(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ".wav" and not is_hidden(p.name))


def _of_arrays(archive: Archive, rate: int | None) -> tuple[Tensor, Tensor, int]:
    audio, offsets = archive.numbers("audio", "data"), archive.array("offsets", "data")
    whole = offsets.dtype.kind in "iu" and offsets.ndim == 1 and len(offsets) > 1
    if not whole or offsets[0] != 0 or offsets[-1] != len(audio) or (np.diff(offsets.astype(np.int64)) < 1).any():
        raise DataError(
            f"{archive.where('offsets')} must rise from 0 to {len(audio)}, the length of audio: where each take "
            "begins, and where the last one ends"
        )
    given = int(archive.numbers("rate", "rate")) if "rate" in archive.names else rate
    if given is None:
        raise DataError(f"{archive.path} has no array 'rate'; give the setting 'rate', in samples per second")
    takes = [_scaled(t, archive.where("audio")) for t in np.split(audio, offsets[1:-1])]
    return _packed(takes, [given] * len(takes), rate, [archive.where("audio")] * len(takes))


def _of_files(files: Sequence[Path], rate: int | None) -> tuple[Tensor, Tensor, int]:
    names, read = [str(file) for file in files], list[tuple[int, NDArray[Any]]]()
    survey(names, lambda i: read.append(_wav(files[i])), "recordings")
    return _packed([audio for _, audio in read], [found for found, _ in read], rate, names)


def _packed(
    takes: Sequence[NDArray[Any]], rates: Sequence[int], rate: int | None, where: Sequence[str]
) -> tuple[Tensor, Tensor, int]:
    wanted = rates[0] if rate is None else rate
    for name, found in zip(where, rates, strict=True):
        if rate is None and found != wanted:
            raise DataError(f"{name} has {found} samples per second, {where[0]} has {wanted}; give the setting 'rate'")
    takes = [_resampled(take, found, wanted) for take, found in zip(takes, rates, strict=True)]
    if any(take.dtype != np.int16 for take in takes):
        takes = [take / np.float32(32768) if take.dtype == np.int16 else take for take in takes]
    offsets = np.concatenate([[0], np.cumsum([len(take) for take in takes])])
    return torch.from_numpy(np.concatenate(takes)), torch.from_numpy(offsets.astype(np.int64)), wanted


def _resampled(take: NDArray[Any], rate: int, wanted: int) -> NDArray[Any]:
    if rate == wanted:
        return take
    divisor = math.gcd(rate, wanted)
    full = take / np.float32(32768) if take.dtype == np.int16 else take
    found: NDArray[Any] = resample_poly(full, wanted // divisor, rate // divisor).astype(np.float32)
    return found


def _wav(path: Path) -> tuple[int, NDArray[Any]]:
    try:
        with warnings.catch_warnings():
            # SciPy warns of a file that ends too early, and of remarks that it does not know, which are harmless.
            warnings.simplefilter("error", wavfile.WavFileWarning)
            warnings.filterwarnings("ignore", message="Chunk", category=wavfile.WavFileWarning)
            rate, audio = wavfile.read(path)
    except Exception as error:  # what SciPy raises on damaged files is not documented
        reason = "it is empty" if path.is_file() and not path.stat().st_size else first_line(error)
        raise DataError(f"{path} is not a readable wav file ({reason}); remove or convert it") from error
    if rate < 1:
        raise DataError(f"{path} has {rate} samples per second; remove or convert it")
    if not audio.size:
        raise DataError(f"{path} holds no samples; remove it")
    return int(rate), _scaled(audio, str(path))


def _scaled(audio: NDArray[Any], where: str) -> NDArray[Any]:
    """One channel, int16 or float32 of full scale 1."""
    if audio.dtype.kind == "f":
        audio = finite(audio, where).astype(np.float32)
    elif audio.dtype == np.uint8:
        audio = (audio.astype(np.float32) - 128) / 128
    elif audio.dtype == np.int32:
        audio = (audio / 2.0**31).astype(np.float32)
    elif audio.dtype != np.int16:
        raise DataError(f"{where} holds samples of type {audio.dtype}; they must be int16, int32, uint8 or float")
    if audio.ndim == 1:
        return audio
    full = audio / np.float32(32768) if audio.dtype == np.int16 else audio
    mixed: NDArray[Any] = full.mean(1).astype(np.float32)
    return mixed
