"""Measured networks on disk: JSON lines that only grow, and a CSV to be filled in on another device.

The first line of a samples file is a header (which space, timed where); every further line is one measured network.
A line that a crash has torn is skipped when it is the last one, and cut off before the next is appended.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from torch import nn

from sartor.core import foreign
from sartor.core.contracts import Space
from sartor.core.errors import DataError
from sartor.core.records import Arch

Split: TypeAlias = Literal["train", "heldout"]

FLOOR = 0.015
"""Relative standard deviation of a sample beyond its interval: no sum over layers is exact."""


@dataclass(frozen=True)
class Sample:
    """One measured network.

    Attributes:
        arch: What was measured.
        latency_ms: Milliseconds per call.
        low: Lower end of the interval of `latency_ms`; equal to it if the spread is unknown.
        high: Upper end of the interval.
        ratio: `latency_ms` over the latency of the space's reference timed side by side; 0 if there was none.
        split: `train`, or `heldout` for the networks that only judge the fit.
    """

    arch: Arch
    latency_ms: float
    low: float
    high: float
    ratio: float = 0.0
    split: Split = "train"

    def __post_init__(self) -> None:
        for name in ("latency_ms", "low", "high", "ratio"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (value == 0 and name == "latency_ms"):
                raise DataError(f"{name} of a sample must be a positive number, got {value!r}; measure it again")
        if not self.low <= self.latency_ms <= self.high:
            raise DataError(f"latency {self.latency_ms} of {self.arch} must lie in [{self.low}, {self.high}]")
        if self.split not in get_args(Split):
            raise DataError(f"split of a sample must be one of {get_args(Split)}, got {self.split!r}")

    @property
    def noise(self) -> float:
        """Relative standard deviation: the interval is taken as 95 % of a log-normal law, never below `FLOOR`."""
        spread = math.log(self.high / self.low) / 3.92 if self.low > 0 else 0.0
        return math.hypot(FLOOR, spread)


@dataclass(frozen=True)
class Header:
    """What a samples file is about.

    Attributes:
        space: Name of the space's class.
        options: Number of options of each choice; samples of another space are refused.
        target: `Target.describe()` of where the samples were timed.
        machine: Free words: the device.
    """

    space: str
    options: tuple[int, ...]
    target: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""

    @classmethod
    def of(cls, space: Space, target: Mapping[str, str] | None = None, machine: str = "") -> Header:
        """The header of samples of `space`."""
        return cls(type(space).__name__, tuple(len(c.options) for c in space.choices), dict(target or {}), machine)


def append(path: Path, header: Header, samples: Iterable[Sample]) -> None:
    """Write `samples` behind those already in `path`; a new file begins with `header`.

    Raises:
        DataError: The file holds samples of another space or target.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
        lines = [json.dumps(_plain(s)) for s in samples]
        if whole == 0:
            lines.insert(0, json.dumps({"sartor_samples": 1, **asdict(header)}))
        else:
            known = _header(path, content[:whole].splitlines()[0])
            _same(path, known.options == header.options and known.target == header.target, known, header)
        file.write("".join(line + "\n" for line in lines).encode())


def read(path: Path, space: Space | None = None) -> tuple[Header, list[Sample]]:
    """The header and the samples of `path`.

    Args:
        path: Of the samples file.
        space: If given, the samples must be archs of this space.

    Raises:
        DataError: The file is missing, damaged before its last line, or of another space; the message names the line.
    """
    if not path.is_file():
        raise DataError(f"no samples file {path}; measure some networks into it first")
    content = foreign.content(path, DataError)
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    if not lines:
        raise DataError(f"samples file {path} is empty; delete it and measure again")
    header = _header(path, lines[0])
    if space is not None:
        own = Header.of(space)
        _same(path, header.options == own.options, header, own)
    return header, [_sample(path, number, line, header.options) for number, line in enumerate(lines[1:], start=2)]


def merged(samples: Iterable[Sample]) -> list[Sample]:
    """One sample per arch, in order of first appearance.

    Repeated measurements become their geometric mean, or median from four on (a disturbed one does not count then),
    with the interval of that mean. An arch that was ever held out stays held out: it must not be trained on.
    """
    groups: dict[Arch, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.arch, []).append(sample)
    return [group[0] if len(group) == 1 else _merge(group) for group in groups.values()]


def _merge(group: Sequence[Sample]) -> Sample:
    centre = statistics.median if len(group) >= 4 else statistics.fmean
    logs = [math.log(s.latency_ms) for s in group]
    value, ratios = centre(logs), [s.ratio for s in group]
    own = statistics.fmean(math.log(s.high / max(s.low, 1e-12)) / 2 for s in group)
    half = max(own, 1.96 * statistics.stdev(logs)) / math.sqrt(len(group))
    split: Split = "heldout" if any(s.split == "heldout" for s in group) else "train"
    low, mid, high = (math.exp(v) for v in (value - half, value, value + half))
    return Sample(group[0].arch, mid, low, high, centre(ratios), split)


def write_manifest(
    folder: Path, space: Space, plan: Sequence[tuple[Arch, Split]], export: Callable[[nn.Module, Path], object]
) -> Path:
    """Write the planned networks as `0000.onnx`, ... and `manifest.csv`, whose last column is to be filled in.

    Args:
        folder: Where to; made if missing.
        space: Builds the networks.
        plan: Archs with the split that each belongs to.
        export: Writes one module to a file, e.g. ONNX.

    Returns:
        The path of the manifest: columns file, split, one per choice (the chosen option), `latency_ms`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split", *(c.name for c in space.choices), "latency_ms"])
        for index, (arch, split) in enumerate(plan):
            name = f"{index:04d}.onnx"
            export(space.build(arch).eval(), folder / name)
            writer.writerow([name, split, *(c.options[a] for c, a in zip(space.choices, arch, strict=True)), ""])
    return manifest


def read_manifest(path: Path, space: Space) -> list[Sample]:
    """The samples of a filled-in `manifest.csv`; columns `low`, `high` (ms) and `split` are optional.

    Raises:
        DataError: A column or value is missing, not a positive number, or not an option of `space`; names the row.
    """
    if not path.is_file():
        raise DataError(f"no manifest {path}; write one with a plan, time its networks, fill in latency_ms")
    reader = csv.DictReader(io.StringIO(foreign.text(path, DataError), newline=""))
    needed = [*(c.name for c in space.choices), "latency_ms"]
    try:
        if missing := [n for n in needed if n not in (reader.fieldnames or ())]:
            raise DataError(f"{path} lacks the columns {missing}; keep the header that the plan wrote")
        samples = [_row(path, number, row, space) for number, row in enumerate(reader, start=2)]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file ({error}); keep the form that the plan wrote") from error
    if not samples:
        raise DataError(f"{path} has no rows; time the planned networks and fill in latency_ms")
    return samples


def _row(path: Path, number: int, row: Mapping[str, str], space: Space) -> Sample:
    where = f"{path}, row {number}"
    arch = []
    for choice in space.choices:
        known = [str(o) for o in choice.options]
        if row[choice.name] not in known:
            raise DataError(f"{where}: {row[choice.name]!r} is no option of {choice.name}; one of {', '.join(known)}")
        arch.append(known.index(row[choice.name]))
    latency = _number(where, "latency_ms", row["latency_ms"])
    low, high = (_number(where, name, row.get(name) or str(latency)) for name in ("low", "high"))
    split: Any = row.get("split") or "train"
    try:
        return Sample(tuple(arch), latency, low, high, split=split)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _number(where: str, column: str, text: str | None) -> float:
    remedy = "fill in the milliseconds per call, or delete the row"
    if not (text or "").strip():
        raise DataError(f"{where}: {column} is empty; {remedy}")
    try:
        value = float(text or "")
    except ValueError as error:
        raise DataError(f"{where}: {column} {text!r} is not a number; {remedy}") from error
    if not math.isfinite(value) or value <= 0:
        raise DataError(f"{where}: {column} must be positive and finite, got {text}; {remedy}")
    return value


def _plain(sample: Sample) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(sample).items()}


def _header(path: Path, line: bytes) -> Header:
    try:
        fields = json.loads(line)
        version = fields.pop("sartor_samples")
        header = Header(**{**fields, "options": tuple(fields["options"])})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} does not begin with the header of a samples file; give another path") from error
    if version != 1:
        raise DataError(f"{path} is of format {version!r}, this version reads 1; upgrade sartor")
    return header


def _same(path: Path, same: bool, known: Header, asked: Header) -> None:
    if not same:
        theirs, ours = (f"{h.space} {h.options} {dict(h.target)}" for h in (known, asked))
        raise DataError(f"{path} holds samples of {theirs}, not of {ours}; use another file")


def _sample(path: Path, number: int, line: bytes, options: tuple[int, ...]) -> Sample:
    where = f"{path}, line {number}"
    try:
        fields = json.loads(line)
        sample = Sample(**{**fields, "arch": tuple(int(a) for a in fields["arch"])})
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{where} is not a sample; delete the line") from error
    if len(sample.arch) != len(options) or any(not 0 <= a < k for a, k in zip(sample.arch, options, strict=True)):
        raise DataError(f"{where}: {sample.arch} is no arch of choices with {options} options; delete the line")
    return sample
