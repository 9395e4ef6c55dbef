from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from torch import nn

from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import global_seed, torch_rng
from sartor.tasks.audio import audio
from sartor.training import Recipe, evaluate, fit

RATE = 2000
TONES = (150, 400, 800)


def tones(count: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Takes of differing length, one of three tones each under noise; their classes and speakers."""
    rng = np.random.default_rng(seed)
    labels, speakers = np.arange(count) % len(TONES), np.arange(count) // len(TONES) % 5
    takes = []
    for label in labels:
        time = np.arange(rng.integers(300, 900)) / RATE
        wave = 0.3 * np.sin(2 * np.pi * (TONES[label] * time + rng.random())) + 0.1 * rng.standard_normal(len(time))
        takes.append((wave * 32767).astype(np.int16))
    return takes, labels, speakers


def write(path: pathlib.Path, count: int = 120, *, flagged: bool = True) -> pathlib.Path:
    takes, labels, speakers = tones(count)
    arrays = {"digit": labels + 4, "speaker": speakers, "rate": RATE}
    if flagged:
        arrays["test"] = np.arange(count) % 8 == 3
    np.savez(path, audio=np.concatenate(takes), offsets=np.cumsum([0, *map(len, takes)]), **arrays)
    return path


def sample(folder: pathlib.Path) -> tuple[dict[str, object], nn.Module]:
    """A data set that can be learned, and a network for it."""
    settings = {"data": write(folder / "takes.npz"), "seconds": 0.4, "mels": 12, "batch": 16, "shift": 0.02}
    with global_seed(0):
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, 2, 1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((3, 1)),
            nn.Flatten(),
            nn.Linear(36, 3),
        )
    return settings, network


def test_a_network_learns_it(tmp_path):
    settings, network = sample(tmp_path)
    task = audio(**settings)
    before = evaluate(network, task.test(), task)["accuracy"]
    fit(network, task, Recipe(epochs=6, lr=0.05, warmup=0, device="cpu"), seed=0)
    assert before < 0.6
    assert evaluate(network, task.test(), task)["accuracy"] > 0.9


def rows(batches):
    return torch.cat([x for x, _ in batches])


def test_features(tmp_path):
    path = write(tmp_path / "a.npz")
    mel = audio(data=path, seconds=0.4, mels=12)
    assert mel.example.shape == (1, 1, 12, 41)
    raw = audio(data=path, seconds=0.4, features="waveform")
    assert raw.example.shape == (1, 1, 800)
    for task in (mel, raw):
        seen = rows(task.train(torch_rng(0)))
        assert abs(float(seen.mean())) < 0.1
        assert abs(float(seen.std()) - 1) < 0.1
        mean, std = task.describe["normalisation"]
        again = audio(
            data=path, seconds=0.4, mels=12, features=task.describe["features"], normalisation=[mean + std, std]
        )
        torch.testing.assert_close(rows(again.valid()), rows(task.valid()) - 1, rtol=0, atol=1e-4)
    assert mel.describe["classes"] == ["4", "5", "6"]


def test_splits_are_official_by_speaker_or_random(tmp_path):
    path = write(tmp_path / "a.npz")
    _, labels, _ = tones(120)
    official = audio(data=path, seconds=0.4, features="waveform")
    assert official.describe["test"] == 15
    assert torch.cat([y for _, y in official.test()]).tolist() == labels[np.arange(120) % 8 == 3].tolist()
    # five speakers of 24 takes: whole ones are held out
    by_speaker = audio(data=path, seconds=0.4, split="speaker", features="waveform")
    assert [by_speaker.describe[k] for k in ("train", "valid", "test")] == [72, 24, 24]
    drawn = audio(data=path, seconds=0.4, split="random", test=0.25, features="waveform")
    assert drawn.describe["test"] == 30
    bare = write(tmp_path / "b.npz", flagged=False)
    assert audio(data=bare, seconds=0.4, features="waveform").describe["test"] == 12
    with pytest.raises(DataError, match="needs the array or column 'test'"):
        audio(data=bare, seconds=0.4, split="official")


def test_training_moves_what_is_cut_out_and_the_rest_stays(tmp_path):
    task = audio(data=write(tmp_path / "a.npz"), seconds=0.1, features="waveform", shift=0.05)
    still = audio(data=tmp_path / "a.npz", seconds=0.1, features="waveform", shift=0)
    a, b, c = (rows(t.train(torch_rng(s))) for t, s in ((task, 0), (task, 0), (still, 0)))
    assert torch.equal(a, b)
    assert not any(torch.equal(x, y) for x, y in zip(a[:5], c[:5], strict=True))
    assert torch.equal(rows(task.valid()), rows(task.valid()))


def test_folders_of_wav_files(tmp_path):
    takes, labels, _ = tones(30)
    for i, (take, label) in enumerate(zip(takes, labels, strict=True)):
        place = tmp_path / "wav" / f"tone{TONES[label]}"
        place.mkdir(parents=True, exist_ok=True)
        wavfile.write(place / f"{i:02d}.wav", RATE, take)
    task = audio(data=tmp_path / "wav", seconds=0.4, mels=12)
    assert task.describe["classes"] == ["tone150", "tone400", "tone800"]
    assert audio(data=tmp_path / "wav", seconds=0.4, mels=12, rate=1000).example.shape == (1, 1, 12, 41)
    assert task.fingerprint != audio(data=tmp_path / "wav", seconds=0.4, mels=12, seed=1).fingerprint


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"features": "mfcc"}, "features must be"),
        ({"split": "odd"}, "split one of"),
        ({"seconds": 0.0}, "seconds > 0"),
        ({"seconds": 0.005}, "too short"),
        ({"shift": -1.0}, "shift >= 0"),
        ({"mels": 300}, "mel filters hold none"),
        ({"normalisation": [0.0, 0.0]}, "positive standard deviation"),
        ({"batch": 0}, "batch must be"),
    ],
)
def test_settings_out_of_range_are_told(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        audio(data=write(tmp_path / "a.npz", 60), **{"seconds": 0.4, "mels": 12, **settings})
