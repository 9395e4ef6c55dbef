from __future__ import annotations

from pathlib import Path

import pytest

from disk import FaultyDisk
from run.toys import largest_file
from sartor.run.scalars import Scalars


def test_nothing_to_write_opens_nothing(tmp_path: Path) -> None:
    with Scalars(tmp_path) as scalars:
        scalars.write(1, [])
        scalars.write(2, [{"step": 2}])
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Scalars(tmp_path) as scalars:
        scalars.write(1, [{"step": 1, "loss": 0.5}, {"step": 1, "accuracy": 0.25}])
        scalars.write(2, [{"step": 2, "loss": 0.125}])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["accuracy", "loss"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.125)]
    assert [(e.step, e.value) for e in events.Scalars("accuracy")] == [(1, 0.25)]


def test_without_tensorboard_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)  # as if it were missing
    with Scalars(tmp_path) as scalars:
        scalars.write(1, [{"step": 1, "loss": 0.5}])
        scalars.write(2, [{"step": 2, "loss": 0.5}])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_points_ends_the_points_and_not_the_search(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with FaultyDisk(tmp_path, "folder", 1, "readonly") as disk, Scalars(tmp_path / "run") as scalars:
        for step in range(1, 4):
            scalars.write(step, [{"step": step, "loss": 0.5}])
    assert disk.struck


def test_a_disk_that_becomes_full_ends_the_points_and_not_the_search(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with Scalars(tmp_path) as scalars:
        scalars.write(1, [{"step": 1, "loss": 0.5}])
        with largest_file(10):
            for step in range(2, 50):
                scalars.write(step, [{"step": step, "loss": 0.5}])
            scalars.__exit__(None, None, None)
