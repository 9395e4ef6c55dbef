"""Published results of all networks of a space, read from a CSV file or from the files of NATS-Bench."""

from __future__ import annotations

import csv
import difflib
import gzip
import importlib
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sartor.core import foreign
from sartor.core.contracts import Space
from sartor.core.errors import ConfigError, DataError, MissingExtraError
from sartor.core.records import Arch

Floats: TypeAlias = NDArray[np.float64]

KEY = "arch_str"
"""The column that names the networks."""
SETTINGS: Mapping[str, Mapping[str, int]] = {
    "cifar10": {"classes": 10, "size": 32},
    "cifar100": {"classes": 100, "size": 32},
    "ImageNet16-120": {"classes": 120, "size": 16},
}
"""What a space must be told for its costs to be those on a data set of NATS-Bench."""

_RESULT = re.compile(r"(?P<dataset>.+)_(?P<split>train|valid|valtest|test|seconds)_(?P<epochs>\d+)")
_COST = re.compile(r"(?P<cost>params_M|flops_M|latency_ms)_(?P<dataset>.+)")
_UNITS = {"macs": ("flops_M", 1e6), "params": ("params_M", 1e6)}
"""Metric -> the column of it in a table, without the data set, and its unit."""
_LARGEST = 2**20
_SHOWN = 3


class Result(NamedTuple):
    """What the name of a column says: `cifar10_test_90` is the accuracy on the test split after 90 epochs."""

    dataset: str
    split: str
    epochs: int

    @classmethod
    def of(cls, column: str) -> Result | None:
        """The parts of the name, or None if it is not that of a result."""
        found = _RESULT.fullmatch(column)
        return None if found is None else cls(found["dataset"], found["split"], int(found["epochs"]))


@dataclass(frozen=True)
class Table:
    """Published results of all networks of a space: one row per network.

    Attributes:
        path: The file or folder that it was read from.
        columns: Name in the file -> numbers, `(rows,)`; accuracies in per cent, as the file has them.
        rows: The name of a network (see `Space.key`) -> its row.
        dataset: Read off the names of the columns: `cifar10`.
    """

    path: Path
    columns: Mapping[str, Floats]
    rows: Mapping[str, int]
    dataset: str

    @classmethod
    def read(cls, path: str | Path, space: Space, dataset: str = "") -> Table:
        """The table of a space.

        Args:
            path: A CSV file, also with gzip; or the folder (or the one large file) of NATS-Bench, which its own package
                `nats_bench` reads: slowly, so `write` the table as CSV for the next time, and by unpickling, so only
                from somebody you trust.
            space: Every network of it needs one row, and there may be no others.
            dataset: Which one, if there are columns of several.

        Raises:
            ConfigError: There is no such data set, or the space has too many networks for any table.
            DataError: The file cannot be read; a row is missing, there twice, or of no network; a number is none.
            MissingExtraError: The files of NATS-Bench are given and its package is not installed.
        """
        path = Path(path).expanduser()
        if path.is_dir() or path.suffix == ".pbz2":
            return _of_nats_bench(path, space, dataset)
        sheet = _Sheet.read(path)
        dataset = _dataset(sheet.header, path, dataset)
        skipped = {KEY, "idx", *(c.name for c in space.choices)}
        columns = {n: sheet.numbers(n) for n in sheet.header if n not in skipped and _wanted(n, sheet, dataset)}
        return cls(path, columns, _rows(sheet, space), dataset)

    def signals(self) -> tuple[str, ...]:
        """The columns of accuracies, shortest training first."""
        order = ("train", "valid", "valtest", "test")
        found = [(r.epochs, order.index(r.split), name) for name, r in self._results() if r.split in order]
        return tuple(name for *_, name in sorted(found))

    def best_signal(self) -> str:
        """What is reported: accuracy on the test split (else another) after the longest training."""
        return self.signal("test") or self.signals()[-1]

    def signal(self, split: str) -> str:
        """The accuracies on a split after the longest training; "" if there are none."""
        found = [(r.epochs, name) for name, r in self._results() if r.split == split]
        return max(found)[1] if found else ""

    def column(self, name: str) -> Floats:
        """The numbers of a column, `(rows,)`.

        Raises:
            ConfigError: There is none of this name.
        """
        if name not in self.columns:
            near = difflib.get_close_matches(name, self.columns, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.columns)}"
            raise ConfigError(f"{self.path} has no column {name!r}; {hint}")
        return self.columns[name]

    def costs(self) -> dict[str, str]:
        """Metric -> column, of all that is no result: `latency_ms` is in `latency_ms_digits`."""
        ending = f"_{self.dataset}"
        return {name.removesuffix(ending): name for name in self.columns if Result.of(name) is None}

    def cost(self, metric: str) -> Floats | None:
        """A cost of every row, `(rows,)`, in its own unit: `macs` are 1e6 times `flops_M`; None if it is not listed."""
        name, factor = self.costs().get(metric), 1.0
        if name is None and metric in _UNITS:
            own, factor = _UNITS[metric]
            name = self.costs().get(own)
        return None if name is None else self.column(name) * factor

    def line(self, space: Space, arch: Arch) -> int:
        """The row of a network."""
        return self.rows[space.key(arch)]

    def write(self, path: str | Path) -> None:
        """The same as CSV, compressed if the name ends in `.gz`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([KEY, *self.columns])
        for name, row in self.rows.items():
            writer.writerow([name, *(repr(float(c[row])) for c in self.columns.values())])
        data = text.getvalue().encode()
        Path(path).write_bytes(gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)

    def _results(self) -> list[tuple[str, Result]]:
        return [(name, found) for name in self.columns if (found := Result.of(name)) is not None]


def dataset_of(path: str | Path, dataset: str = "") -> str:
    """The data set of a table, from the first line of the file; `SETTINGS` says what its space needs to know.

    Args:
        path: See `Table.read`. The files of NATS-Bench hold several data sets: CIFAR-10 unless another is named.
        dataset: Which one, if there are several.

    Raises:
        ConfigError: There is no such data set, or there are several and none is named.
        DataError: The file cannot be read, or has no results.
    """
    path = Path(path).expanduser()
    if path.is_dir() or path.suffix == ".pbz2":
        return _of_folder(path, dataset)
    return _dataset(_header(path), path, dataset)


def networks_of(space: Space) -> list[Arch]:
    """All networks that a table has rows of, those that canonical ones stand for as well; or the list of the space.

    Raises:
        ConfigError: They are too many for any table.
    """
    if space.moves.members:
        return list(space.moves.members)
    count = prod(len(c.options) for c in space.choices)
    if count > _LARGEST:
        raise ConfigError(
            f"{type(space).__name__} has {count:.3g} networks, and a table needs a row for each; at most {_LARGEST}"
        )
    return list(product(*(range(len(c.options)) for c in space.choices)))


def shipped() -> dict[str, Path]:
    """The tables that come with sartor, by the space whose networks they list."""
    folder = Path(__file__).parent / "tables"
    return {path.name.removesuffix(".csv.gz"): path for path in sorted(folder.glob("*.csv.gz"))}


class _Sheet(NamedTuple):
    """A CSV file of words.

    Attributes:
        lines: The line of the file that each row ends on.
        values: Column -> words, `(rows,)`.
    """

    path: Path
    lines: Sequence[int]
    values: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, path: Path) -> _Sheet:
        reader = csv.reader(io.StringIO(_text(path)), strict=True)
        lines, rows = list[int](), list[list[str]]()
        try:
            header = next(reader, [])
            for row in reader:
                if row:
                    lines.append(reader.line_num)
                    rows.append(row)
        except csv.Error as error:
            raise DataError(f"line {reader.line_num} of {path} is no CSV ({error}); correct it") from error
        _check_header(header, path)
        for line, row in zip(lines, rows, strict=True):
            if len(row) != len(header):
                raise DataError(f"line {line} of {path} has {len(row)} fields, its header {len(header)}; correct it")
        return cls(path, lines, dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True)))

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(self.values)

    def numbers(self, name: str) -> Floats:
        """A column, `(rows,)`; accuracies must be per cent."""
        words = self.values[name]
        try:
            found = np.array(words, dtype=np.float64)
        except ValueError:
            found = np.array([_number(word) for word in words])
        result = Result.of(name)
        top = 100 if result is not None and result.split != "seconds" else np.inf
        bad = ~(np.isfinite(found) & (found >= 0) & (found <= top))
        if bad.any():
            row = int(np.argmax(bad))
            need = "a number of per cent" if top == 100 else "a number that is not negative"
            raise DataError(
                f"line {self.lines[row]} of {self.path}, column {name!r}: {words[row]!r} is not {need}; correct it"
            )
        return found


def _text(path: Path) -> str:
    if not path.exists():
        raise DataError(f"there is no table {path} (from {Path.cwd()}); correct the path")
    try:
        return foreign.text(path, DataError, most=max(foreign.ROOM, path.stat().st_size))
    except DataError as error:
        raise DataError(f"{path} is no CSV file, plain or with gzip: {error}") from error


def _header(path: Path) -> list[str]:
    """The names of the columns, without the rows."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8-sig") if zipped else path.open(encoding="utf-8-sig") as lines:
            header = next(csv.reader([lines.readline(foreign.SETTINGS)]), [])  # a line may have no end
    except FileNotFoundError as error:
        raise DataError(f"there is no table {path} (from {Path.cwd()}); correct the path") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV file, plain or with gzip ({error}); fetch it again") from error
    _check_header(header, path)
    return header


def _check_header(header: Sequence[str], path: Path) -> None:
    if KEY not in header:
        shown = ", ".join(header[:8]) or "nothing"
        raise DataError(f"line 1 of {path} must name the columns, {KEY!r} among them; it has {shown}")
    if len(set(header)) < len(header):
        twice = next(name for i, name in enumerate(header) if name in header[:i])
        raise DataError(f"line 1 of {path} names the column {twice!r} twice; rename one")


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _dataset(header: Sequence[str], path: Path, wanted: str) -> str:
    """The data set of the columns of accuracies."""
    results = [found for name in header if (found := Result.of(name)) is not None and found.split != "seconds"]
    known = sorted({found.dataset for found in results})
    if not known:
        shown = ", ".join(header)
        raise DataError(
            f"line 1 of {path} names no column of accuracies, such as cifar10_test_90 (DATASET_SPLIT_EPOCHS, the split "
            f"being train, valid or test); it has {shown}"
        )
    if wanted and wanted not in known:
        raise ConfigError(
            f"{path} has no results on {wanted!r}, only on {', '.join(known)}; name one of these as dataset"
        )
    if not wanted and len(known) > 1:
        raise ConfigError(f"{path} has results on several data sets, {', '.join(known)}; name one as dataset")
    return wanted or known[0]


def _wanted(name: str, sheet: _Sheet, dataset: str) -> bool:
    """Whether a column is read: results and costs on the data set, and whatever else is numbers throughout."""
    found = Result.of(name)
    if found is not None:
        return found.dataset == dataset
    cost = _COST.fullmatch(name)
    if cost is not None:
        return cost["dataset"] == dataset
    values = sheet.values[name]
    return bool(values) and all(np.isfinite(_number(w)) and _number(w) >= 0 for w in (values[0], values[-1]))


def _rows(sheet: _Sheet, space: Space) -> dict[str, int]:
    """Every network of the space has exactly one row."""
    names = sheet.values[KEY]
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) < len(names):
        first: dict[str, int] = {}
        for line, name in zip(sheet.lines, names, strict=True):
            if name in first:
                raise DataError(f"lines {first[name]} and {line} of {sheet.path} are both of {name!r}; remove one")
            first[name] = line
    known = dict.fromkeys(_every_key(space))
    for line, name in zip(sheet.lines, names, strict=True):
        if name not in known:
            one = next(iter(known))
            raise DataError(
                f"line {line} of {sheet.path}, column {KEY!r}: {name!r} is no network of {type(space).__name__}, whose "
                f"names are like {one!r}; remove the row, or take the space that the table is of"
            )
    _check_complete([name for name in known if name not in rows], sheet.path, len(known))
    return rows


def _check_complete(missing: Sequence[str], path: Path, total: int) -> None:
    if missing:
        shown = ", ".join(map(repr, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
        raise DataError(f"{path} has no row for {len(missing)} of the {total} networks of its space: {shown}; add them")


def _every_key(space: Space) -> list[str]:
    """The names of all networks, those that canonical ones stand for as well."""
    return list(map(space.key, networks_of(space)))


def _of_folder(path: Path, dataset: str) -> str:
    if dataset and dataset not in SETTINGS:
        raise ConfigError(f"{path} has no results on {dataset!r}, only on {', '.join(SETTINGS)}; name one of these")
    return dataset or "cifar10"


def _of_nats_bench(path: Path, space: Space, dataset: str) -> Table:
    """Averages over the seeds, as the benchmark's authors report them; what a search sees is on the split `valid`."""
    dataset, keys = _of_folder(path, dataset), _every_key(space)
    sizes = "~" not in keys[0]  # names of cells hold the nodes that operations start from
    try:
        package = importlib.import_module("nats_bench")  # an extra, which only this function needs
    except ImportError as error:
        raise MissingExtraError(f"reading {path} needs nats_bench: pip install 'sartor[nats]'") from error
    try:
        api = package.create(str(path), "size" if sizes else "topology", fast_mode=path.is_dir(), verbose=False)
    except (OSError, EOFError, ValueError, AssertionError, KeyError) as error:
        raise DataError(f"{path} does not hold the files of NATS-Bench ({error}); fetch them again") from error
    _check_complete([key for key in keys if api.query_index_by_arch(key) < 0], path, len(keys))
    found = [_looked_up(api, key, dataset, ("01", "12", "90") if sizes else ("12", "200"), path) for key in keys]
    columns = {
        name: np.array([row[name] for row in found], dtype=np.float64)
        for name in found[0]
        if all(row.get(name) is not None for row in found)  # times are not known of all
    }
    return Table(path, columns, {key: row for row, key in enumerate(keys)}, dataset)


def _looked_up(api: Any, key: str, dataset: str, epochs: Sequence[str], path: Path) -> dict[str, float | None]:
    """One row. On CIFAR-10, what a search may see comes from trainings without the validation examples."""
    index, row = api.query_index_by_arch(key), dict[str, float | None]()
    try:
        cost = api.get_cost_info(index, dataset, hp=epochs[0])
        row |= {f"params_M_{dataset}": cost["params"], f"flops_M_{dataset}": cost["flops"]}
        for hp in epochs:
            search = api.get_more_info(
                index, "cifar10-valid" if dataset == "cifar10" else dataset, hp=hp, is_random=False
            )
            whole = api.get_more_info(index, dataset, hp=hp, is_random=False)
            row[f"{dataset}_valid_{int(hp)}"] = search["valid-accuracy"]
            row[f"{dataset}_test_{int(hp)}"] = whole["test-accuracy"]
            times = search["train-all-time"], search["valid-per-time"]
            row[f"{dataset}_seconds_{int(hp)}"] = None if None in times else sum(times)
    except (OSError, EOFError, ValueError, AssertionError, KeyError) as error:
        raise DataError(f"{path} has no results of {key!r} on {dataset} ({error}); fetch the files again") from error
    if api.fast_mode:
        api.arch2infos_dict.pop(index, None)  # else all of them stay in memory
    return row
