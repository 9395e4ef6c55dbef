from pathlib import Path

import pytest
from torch import nn

from latency.toy import Toy, samples
from sartor.core.errors import DataError
from sartor.latency.samples import Header, Sample, append, merged, read, read_manifest, write_manifest

SPACE = Toy()
HEADER = Header.of(SPACE, {"runtime": "made up"}, "a desk")
SOME = samples(SPACE, [(0, 1, 2, 3), (5, 5, 5, 5), (1, 1, 1, 1)], noise=0.1)


def test_samples_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "samples.jsonl"
    append(path, HEADER, SOME[:1])
    append(path, HEADER, SOME[1:])
    header, found = read(path, SPACE)
    assert header == HEADER
    assert [s.arch for s in found] == [s.arch for s in SOME]
    assert [s.latency_ms for s in found] == pytest.approx([s.latency_ms for s in SOME], rel=1e-5)


def test_a_torn_last_line_is_skipped_and_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    append(path, HEADER, SOME[:2])
    whole = path.read_bytes()
    for cut in (1, 5, 30):
        path.write_bytes(whole[:-cut])
        assert [s.arch for s in read(path)[1]] == [SOME[0].arch]
    append(path, HEADER, SOME[1:])
    assert [s.arch for s in read(path)[1]] == [s.arch for s in SOME]


def test_a_torn_header_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b'{"sartor_sam')
    with pytest.raises(DataError, match="empty"):
        read(path)
    append(path, HEADER, SOME)
    assert len(read(path, SPACE)[1]) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"arch": [5, 5, 5, 5]', '"arch": [5, 5, 5, 6]', "line 3.*no arch"),
        ('"arch": [5, 5, 5, 5]', '"arch": [5, 5, 5]', "line 3.*no arch"),
        ('"split": "train"', '"split": "test"', "line 2.*split"),
        ('"latency_ms": ', '"latency_ms": -', "line 2.*latency_ms"),
        ('"latency_ms": ', '"latency": ', "line 2.*not a sample"),
        ('{"arch"', '"arch"', "line 2.*not a sample"),
        ("sartor_samples", "other_samples", "header"),
        ('"sartor_samples": 1', '"sartor_samples": 2', "upgrade"),
    ],
)
def test_a_damaged_file_names_the_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "samples.jsonl"
    append(path, HEADER, SOME)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message):
        read(path, SPACE)


def test_samples_of_another_space_or_target_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    append(path, HEADER, SOME)
    other = Toy((8, 16))
    with pytest.raises(DataError, match="use another file"):
        append(path, Header.of(other, HEADER.target), [])
    with pytest.raises(DataError, match="use another file"):
        append(path, Header.of(SPACE, {"runtime": "another"}), [])
    with pytest.raises(DataError, match="use another file"):
        read(path, other)
    with pytest.raises(DataError, match="no samples file"):
        read(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    "values",
    [(-1.0, -1.0, -1.0), (float("nan"), 1.0, 1.0), (1.0, 1.1, 1.2), (0.0, 0.0, 0.0), (1.0, 1.0, float("inf"))],
)
def test_impossible_samples_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(DataError):
        Sample((0,), *values)


def test_repeated_measurements_become_one_and_heldout_wins() -> None:
    a = [Sample((0,), v, v, v, ratio=v / 2) for v in (1.0, 1.02, 0.98, 5.0, 1.0)]
    (found,) = merged([*a, Sample((0,), 1.0, 1.0, 1.0, 0.5, "heldout")])
    assert found.latency_ms == pytest.approx(1.0, abs=0.02)  # the disturbed one does not count
    assert found.low < found.latency_ms < found.high
    assert found.split == "heldout"
    assert merged(SOME) == SOME


def test_the_interval_shrinks_with_repetitions_and_sets_the_noise() -> None:
    one = [Sample((0,), v, 0.9 * v, 1.1 * v) for v in (1.0, 1.01)]
    few, many = merged(one)[0], merged(one * 8)[0]
    assert many.noise < few.noise < one[0].noise


def test_a_manifest_is_written_filled_in_and_read_back(tmp_path: Path) -> None:
    written: list[int] = []

    def export(module: nn.Module, path: Path) -> None:
        assert not module.training
        written.append(len(list(module)))  # type: ignore[call-overload]
        path.write_text("network")

    plan = [((0, 1, 2, 3), "train"), ((5, 5, 5, 5), "heldout")]
    manifest = write_manifest(tmp_path / "plan", SPACE, plan, export)  # type: ignore[arg-type]
    assert written == [4, 4]
    assert (tmp_path / "plan" / "0001.onnx").is_file()
    rows = manifest.read_text().splitlines()
    assert rows == [
        "file,split,layer0,layer1,layer2,layer3,latency_ms",
        "0000.onnx,train,8,16,24,32,",
        "0001.onnx,heldout,64,64,64,64,",
    ]
    with pytest.raises(DataError, match="row 2: latency_ms is empty; fill in"):
        read_manifest(manifest, SPACE)
    manifest.write_text("\n".join([rows[0], rows[1] + "1.5", rows[2] + "2.5"]))
    found = read_manifest(manifest, SPACE)
    assert [(s.arch, s.latency_ms, s.split) for s in found] == [
        ((0, 1, 2, 3), 1.5, "train"),
        ((5, 5, 5, 5), 2.5, "heldout"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("8,16,24,33,1.5", "row 2.*'33' is no option of layer3"),
        ("8,16,24,32,-1", "row 2.*positive"),
        ("8,16,24,32,nan", "row 2.*positive"),
        ("8,16,24,32,inf", "row 2.*positive"),
        ("8,16,24,32,fast", "row 2.*not a number"),
        ("8,16,24,32", "row 2.*empty"),
        ("8,16", "row 2.*layer2"),
    ],
)
def test_a_wrong_row_of_a_manifest_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(f"layer0,layer1,layer2,layer3,latency_ms\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_manifest(path, SPACE)


def test_a_manifest_without_its_columns_or_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("layer0,layer1,latency_ms\n8,8,1\n")
    with pytest.raises(DataError, match="lacks the columns"):
        read_manifest(path, SPACE)
    path.write_text("layer0,layer1,layer2,layer3,latency_ms\n")
    with pytest.raises(DataError, match="no rows"):
        read_manifest(path, SPACE)
    with pytest.raises(DataError, match="no manifest"):
        read_manifest(tmp_path / "other.csv", SPACE)
