import warnings
import wave

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from sartor.core.errors import DataError
from sartor.data.sounds import Takes, read_takes


def takes(*lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    audio = torch.arange(1, int(offsets[-1]) + 1, dtype=torch.int16)
    return Takes(audio, torch.from_numpy(offsets), 8000, np.arange(len(lengths)))


def cut(found, samples, shift=None):
    return (found.cut(torch.arange(len(found)), samples, shift) * 32768).int().tolist()


def test_the_middle_of_a_take_with_silence_around_a_short_one():
    assert cut(takes(6, 2), 4) == [[2, 3, 4, 5], [0, 7, 8, 0]]
    assert cut(takes(4), 4) == [[1, 2, 3, 4]]


def test_a_shift_never_loses_more_of_a_take():
    both = torch.tensor([5, 5])
    assert cut(takes(6, 2), 4, both) == [[3, 4, 5, 6], [7, 8, 0, 0]]
    assert cut(takes(6, 2), 4, -both) == [[1, 2, 3, 4], [0, 0, 7, 8]]


def write(path, audio, rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, audio)


def test_wav_files_of_all_kinds(tmp_path):
    wave = np.sin(np.arange(80))
    write(tmp_path / "a" / "1.wav", (wave * 32767).astype(np.int16))
    write(tmp_path / "a" / "2.wav", wave.astype(np.float32))
    write(tmp_path / "b" / "3.wav", (wave * 2**31 * 0.999).astype(np.int32))
    write(tmp_path / "b" / "4.WAV", ((wave + 1) * 127.5).astype(np.uint8))
    write(tmp_path / "b" / "5.wav", np.stack([wave, wave], 1).astype(np.float32))
    found = read_takes(tmp_path)
    assert found.labels.tolist() == ["a", "a", "b", "b", "b"]
    assert (found.rate, len(found)) == (8000, 5)
    for row in found.cut(torch.arange(5), 80):
        torch.testing.assert_close(row, torch.from_numpy(wave).float(), atol=0.02, rtol=0)


def test_a_list_of_files_has_speakers_and_a_test_split(tmp_path):
    for i in range(3):
        write(tmp_path / "wav" / f"{i}.wav", np.full(10, i, np.int16))
    (tmp_path / "list.csv").write_text(
        "file,word,speaker,test\nwav/2.wav,yes,ann,0\nwav/0.wav,no,bob,1\nwav/1.wav,yes,bob,0\n"
    )
    found = read_takes(tmp_path / "list.csv")
    assert found.labels.tolist() == ["yes", "no", "yes"]
    assert found.speakers.tolist() == ["ann", "bob", "bob"]
    assert found.test.tolist() == [0, 1, 0]
    assert found.audio.tolist() == [2] * 10 + [0] * 10 + [1] * 10


def test_rates_must_agree_or_are_brought_together(tmp_path):
    second = np.sin(2 * np.pi * 200 * np.arange(16000) / 16000)
    write(tmp_path / "a" / "1.wav", second[::2].astype(np.float32), 8000)
    write(tmp_path / "a" / "2.wav", second.astype(np.float32), 16000)
    with pytest.raises(DataError, match=r"2\.wav has 16000 samples per second.*8000; give the setting 'rate'"):
        read_takes(tmp_path)
    found = read_takes(tmp_path, rate=8000)
    assert found.offsets.tolist() == [0, 8000, 16000]
    first, other = found.cut(torch.arange(2), 4000)
    torch.testing.assert_close(first, other, atol=0.01, rtol=0)


def archive(path, **changes):
    arrays = {"audio": np.arange(10, dtype=np.int16), "offsets": [0, 4, 10], "digit": [3, 5], "rate": 8000}
    np.savez(path, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
    return path


def test_an_archive_of_takes(tmp_path):
    found = read_takes(archive(tmp_path / "a.npz", speaker=[0, 1]))
    assert found.labels.tolist() == [3, 5]
    assert found.speakers.tolist() == [0, 1]
    assert found.test is None
    assert read_takes(tmp_path / "a.npz", "speaker").labels.tolist() == [0, 1]
    assert read_takes(archive(tmp_path / "b.npz", rate=None), rate=16000).rate == 16000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offsets": [0, 4, 9]}, "'offsets' of .* must rise from 0 to 10"),
        ({"offsets": [0, 10, 10]}, "must rise"),
        ({"digit": [1]}, "'digit' of .* one value for each of 2 takes"),
        ({"digit": None}, "no array 'label'"),
        ({"rate": None}, "give the setting 'rate'"),
        ({"audio": np.array([0.0] * 9 + [np.nan])}, "'audio' of .* holds nan at row 9"),
        ({"audio": np.zeros(10, np.int64)}, "samples of type int64"),
    ],
)
def test_an_archive_that_does_not_fit_is_told(tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        read_takes(archive(tmp_path / "a.npz", **changes))


def test_files_that_are_no_sound(tmp_path):
    with pytest.raises(DataError, match=r"holds no CLASS/\*\.wav"):
        read_takes(tmp_path)
    write(tmp_path / "a" / "1.wav", np.zeros(100, np.int16))
    content = (tmp_path / "a" / "1.wav").read_bytes()
    for broken in (b"hello", content[:100]):  # no sound at all, and one that ends too early
        (tmp_path / "a" / "1.wav").write_bytes(broken)
        with pytest.raises(DataError, match=r"1\.wav is not a readable wav file"):
            read_takes(tmp_path)
    remark = content + b"note\x04\x00\x00\x00abcd"
    (tmp_path / "a" / "1.wav").write_bytes(remark[:4] + (len(remark) - 8).to_bytes(4, "little") + remark[8:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_takes(tmp_path)) == 1  # a remark in the file does no harm
    with pytest.raises(DataError, match="leave the setting 'label' empty"):
        read_takes(tmp_path, "word")


def test_24_bits_and_stereo_and_resampling_give_the_sound(tmp_path):
    tone = np.sin(np.arange(800) / 9)
    samples = (np.stack([tone, tone], 1) * (2**23 - 1)).astype("<i4")
    (tmp_path / "a").mkdir()
    with wave.open(str(tmp_path / "a" / "1.wav"), "wb") as file:
        file.setparams((2, 3, 16000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
    write(tmp_path / "b" / "1.wav", tone.astype(np.float32), 16000)
    found = read_takes(tmp_path)
    left, right = found.cut(torch.arange(2), 800)
    torch.testing.assert_close(left, right, atol=1e-4, rtol=0)
    torch.testing.assert_close(left, torch.from_numpy(tone).float(), atol=1e-4, rtol=0)
    half = read_takes(tmp_path, rate=8000)
    assert half.rate == 8000
    assert half.offsets.tolist() == [0, 400, 800]


def test_all_recordings_that_cannot_be_read_are_named(tmp_path):
    for name in ("a/1", "a/2", "b/1", "b/2", "b/3"):
        write(tmp_path / f"{name}.wav", np.arange(100, dtype=np.int16))
    (tmp_path / "b" / "._1.wav").write_bytes(b"left behind")
    (tmp_path / "__MACOSX").mkdir()
    assert len(read_takes(tmp_path)) == 5
    whole = (tmp_path / "a" / "1.wav").read_bytes()
    broken = {"a/2": b"", "b/1": whole[:60], "b/2": b"no sound", "b/3": whole[:24] + bytes(4) + whole[28:]}
    for name, data in broken.items():
        (tmp_path / f"{name}.wav").write_bytes(data)
    with pytest.raises(
        DataError, match=r"4 of 5 recordings cannot be used, .*a/2\.wav.*; the first: .*\(it is empty\)"
    ):
        read_takes(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="has classes without wav files: c"):
        read_takes(tmp_path)
