"""Every place in the code that reads a file, found in the code itself, and a file that it refuses."""

from __future__ import annotations

import ast
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import sartor
from sartor import tabular
from sartor.core import foreign, weights
from sartor.core.errors import ConfigError, DataError, SartorError, StateError, TargetError
from sartor.data import archives, pictures, sounds
from sartor.exporting import check_onnx, export_pt2, load_pt2, onnx_signature
from sartor.exporting.pt2_check import check_pt2
from sartor.exporting.signature import Signature
from sartor.exporting.weights_file import load_weights
from sartor.jobs import optuna_study
from sartor.latency import samples
from sartor.latency.operator_table import OperatorTable
from sartor.run.folder import RunFolder, read_json
from sartor.run.journal import FileJournal
from sartor.spaces import _pool
from sartor.spaces.tiny import Tiny
from sartor.strategies.esnac import earlier
from sartor.surrogates import embedding
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing import inputs

SOURCE = Path(sartor.__file__).parent
NAMES = {
    *("open", "read_text", "read_bytes", "load_file", "safe_open", "ZipFile", "PyTorchFileReader", "InferenceSession"),
    *("load_model_from_string", "FromString", "ParseFromString", "read_model", "read_table", "read_schema"),
    *("read_metadata", "read_array", "safe_load", "from_file", "fromfile", "memmap", "loadtxt", "genfromtxt"),
    *(
        "decompress",
        "read_csv",
        "read_parquet",
        "read_image",
        "imread",
        "extractall",
        "mmap",
        "Unpickler",
        "DictReader",
    ),
}
"""Functions that open or parse files, whatever they are called on."""

QUALIFIED = (
    *("torch.load", "torch.export.load", "torch.jit.load", "np.load", "numpy.load", "json.load", "json.loads"),
    *("tomllib.load", "tomllib.loads", "onnx.load", "wavfile.read", "wave.open", "pickle.load", "pickle.loads"),
    *("yaml.load", "csv.reader", "ast.literal_eval", "joblib.load"),
)
"""Functions whose last name many have."""

UNPICKLERS = ("torch.load", "np.load", "np.lib.format.read_array")
"""Readers that must be told to run nothing."""

WRITING = ("w", "wb", "x", "xb", "a", "ab")


def readers(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Functions that call a reader, by their dotted names, and what they call."""

    def visit(node: ast.AST, place: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
            inside = (*place, child.name) if named else place
            if isinstance(child, ast.Call) and (found := reader(child)):
                yield ".".join(inside), found
            yield from visit(child, inside)

    yield from visit(tree, ())


def reader(call: ast.Call) -> str:
    """What is called, if it reads files."""
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    given = [a.value for a in call.args[:2] if isinstance(a, ast.Constant)]
    if name in ("eval", "exec", "__import__"):
        return name
    if last == "open" and any(mode in WRITING for mode in given):
        return ""
    return name if last in NAMES or any(name == q or name.endswith(f".{q}") for q in QUALIFIED) else ""


def found() -> dict[str, set[str]]:
    """All of sartor's, by `module.py:function`."""
    places: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for place, what in readers(ast.parse(path.read_text(encoding="utf-8"))):
            places.setdefault(f"{path.relative_to(SOURCE).as_posix()}:{place}", set()).add(what)
    return places


class Marks:
    """A pickle of this makes a folder when it is read: harmless, and seen afterwards."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("it-ran",)


class Case(NamedTuple):
    """A file, how the reader gets it, and what it says."""

    name: str
    data: bytes | Callable[[], bytes]
    read: Callable[[Path], object]
    error: type[SartorError]
    says: str


DEEP = b"[" * 100_000
BOMB = gzip.compress(bytes(10**7))


def marked() -> bytes:
    data = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "x": Marks()}, data)
    return data.getvalue()


def zipped(*members: tuple[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return data.getvalue()


def program(change: Callable[[str, bytes], bytes]) -> bytes:
    """A .pt2 file with other members."""
    export_pt2(nn.Linear(2, 2), torch.zeros(1, 2), Path("honest.pt2"))
    with zipfile.ZipFile("honest.pt2") as old:
        return zipped(*((name, change(name, old.read(name))) for name in old.namelist()))


def pickled_weight(name: str, data: bytes) -> bytes:
    if name.endswith("weights_config.json"):
        return data.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
    return marked() if name.endswith("weight_0") else data


def pickled_example(name: str, data: bytes) -> bytes:
    return marked() if name.endswith("sample_inputs/model.pt") else data


def structure(name: str, data: bytes) -> bytes:
    if not name.endswith("models/model.json"):
        return data
    model = json.loads(data)
    spec = [1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]
    model["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(spec)
    return json.dumps(model).encode()


def objects() -> bytes:
    data = io.BytesIO()
    np.save(data, np.array([Marks()], dtype=object))
    return data.getvalue()


def external() -> bytes:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Relu(x)}'
    )
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[2], data_location=1)
    tensor.external_data.add(key="location", value="/etc/hostname")
    return model.SerializeToString()


def csv_of(rows: int) -> bytes:
    return b"a,b\n" + b"1,2\n" * rows


def column(path: Path) -> object:
    return archives.open_archive(path).array("a", "data")


def as_text(read: Callable[[Any, str, type[SartorError]], object]) -> Callable[[Path], object]:
    return lambda path: read(path.read_bytes(), str(path), DataError)


def run_folder(path: Path) -> object:
    with RunFolder(path.parent, {}) as run:
        return run


WEIGHTS = nn.Linear(2, 2)
TABLE: dict[str, Case] = {
    "core/foreign.py:content": Case(
        "a.json", b"x" * 200, lambda p: foreign.content(p, DataError, most=100), DataError, "more than"
    ),
    "core/foreign.py:_unpacked": Case(
        "a.gz", BOMB, lambda p: foreign.content(p, DataError, most=100), DataError, "unpacks to"
    ),
    "core/foreign.py:from_json": Case("a.json", DEEP, as_text(foreign.from_json), DataError, "nested too deep"),
    "core/foreign.py:from_toml": Case(
        "a.toml", b"a = " + DEEP, as_text(foreign.from_toml), DataError, "nested too deep"
    ),
    "core/foreign.py:members": Case(
        "a.zip",
        zipped(("a", b"1"), ("A", b"2")),
        lambda p: foreign.members(p, DataError, fold=True),
        DataError,
        "'[aA]' twice",
    ),
    "core/weights.py:load_with_facts": Case(
        "s.safetensors", marked, weights.load, StateError, "cannot read the weights"
    ),
    "data/archives.py:_npz.read": Case(
        "a.npz", lambda: zipped(("a.npy", objects())), column, DataError, "Python objects"
    ),
    "data/archives.py:_npy": Case("a.npy", objects, column, DataError, "Python objects"),
    "data/archives.py:_csv": Case("a.csv", b"a,b\n1\n", column, DataError, "row 0 of .* has 1 cells"),
    "data/archives.py:_parquet": Case("a.parquet", b"PAR1" * 9, column, DataError, "is not a readable .parquet file"),
    "data/archives.py:_parquet.read": Case(
        "a.parquet", lambda: cells(b"no"), column, DataError, "is not a readable image"
    ),
    "data/pictures.py:_orientation": Case(
        "a.png", b"", lambda p: pictures.decoded(p, str(p), upright=True), DataError, "it is empty"
    ),
    "data/pictures.py:opened": Case(
        "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n", lambda p: pictures.decoded(p, str(p)), DataError, "none of BMP"
    ),
    "data/pictures.py:columns": Case(
        "a.parquet", b"PAR1" * 9, lambda p: pictures.columns(p, "a"), DataError, "must be a Parquet file"
    ),
    "data/sounds.py:_wav": Case(
        "c/a.wav", b"RIFF" * 9, lambda p: sounds.read_takes(p.parent.parent), DataError, "not a readable wav"
    ),
    "exporting/onnx_check.py:check_onnx": Case("m.onnx", b"no network", check_onnx, TargetError, "is no ONNX model"),
    "exporting/onnx_check.py:_location": Case("m.onnx", external, check_onnx, TargetError, "an absolute path"),
    "exporting/onnx_file.py:onnx_signature": Case(
        "m.onnx", b"\xff", lambda p: onnx_signature(p.read_bytes()), TargetError, "no ONNX model"
    ),
    "exporting/pt2_check.py:check_pt2": Case(
        "m.pt2", lambda: program(pickled_weight), check_pt2, TargetError, "as a pickle"
    ),
    "exporting/pt2_check.py:_refuse_two_readings": Case(
        "m.pt2", zipped(("m/a", b"1"), ("m/A", b"2")), check_pt2, TargetError, "twice"
    ),
    "exporting/pt2_check.py:_check_plain": Case(
        "m.pt2", lambda: program(pickled_example), check_pt2, TargetError, "more than tensors"
    ),
    "exporting/pt2_source.py:is_structure": Case(
        "m.pt2", lambda: program(structure), check_pt2, TargetError, "imports a module"
    ),
    "exporting/pt2_file.py:load_pt2": Case(
        "m.pt2", lambda: program(pickled_weight), load_pt2, TargetError, "as a pickle"
    ),
    "exporting/signature.py:_parsed": Case(
        "s.json", b"{}", lambda p: Signature.read(p.read_text(), [], []), TargetError, "its form is unknown"
    ),
    "exporting/weights_file.py:_content": Case(
        "w.pth", b"<html>", lambda p: load_weights(WEIGHTS, p), ConfigError, "a page of the web"
    ),
    "exporting/weights_file.py:_safetensors": Case(
        "w.safetensors",
        b"\x09" + bytes(7) + b"{",
        lambda p: load_weights(WEIGHTS, p),
        ConfigError,
        "cannot read weights",
    ),
    "exporting/weights_file.py:_pickled": Case(
        "w.pth", marked, lambda p: load_weights(WEIGHTS, p), ConfigError, "whose code would run"
    ),
    "jobs/optuna_study.py:_check_storage": Case(
        "o.db",
        b"no data base",
        optuna_study._check_storage,
        StateError,
        "no storage of Optuna",
    ),
    "latency/operator_table.py:_parsed": Case("t.json", DEEP, OperatorTable.read, DataError, "is not JSON"),
    "latency/samples.py:append": Case(
        "s.jsonl", DEEP + b"\n", lambda p: samples.append(p, samples.Header.of(Tiny()), []), DataError, "header"
    ),
    "latency/samples.py:read_manifest": Case(
        "m.csv", b"a,b\n", lambda p: samples.read_manifest(p, Tiny()), DataError, "lacks the columns"
    ),
    "latency/samples.py:_header": Case(
        "s.jsonl", DEEP + b"\n", samples.read, DataError, "does not begin with the header"
    ),
    "latency/samples.py:_sample": Case(
        "s.jsonl",
        b'{"sartor_samples": 1, "space": "x", "options": [2], "target": {}, "machine": ""}\n' + DEEP + b"\n",
        samples.read,
        DataError,
        "line 2 is not a sample",
    ),
    "run/folder.py:read_config": Case("config.toml", b"a = " + DEEP, run_folder, StateError, "nested too deep"),
    "run/folder.py:read_json": Case("result.json", DEEP, read_json, StateError, "is not JSON"),
    "run/journal.py:FileJournal.read": Case(
        "j.jsonl", DEEP + b"\n", lambda p: list(FileJournal(p).read()), StateError, "is not JSON"
    ),
    "run/journal.py:FileJournal._parse": Case(
        "j.jsonl", b"[]\n", lambda p: list(FileJournal(p).read()), StateError, "is not a record"
    ),
    "spaces/_pool.py:_names": Case("pool.csv.gz", b"no gzip", _pool._names, DataError, "cannot read the pool"),
    "strategies/esnac/earlier.py:_told": Case(
        "result.json", DEEP, lambda p: earlier._told(p.parent), ConfigError, "is no result of a search"
    ),
    "strategies/esnac/earlier.py:_trials": Case(
        "j.jsonl", DEEP, earlier._trials, ConfigError, "is no journal of a search"
    ),
    "surrogates/embedding.py:load": Case(
        "e.safetensors", marked, lambda p: embedding.load(p, 3, embedding.Recipe()), ConfigError, "is not an embedding"
    ),
    "tabular.py:_Sheet.read": Case("t.csv", b'a,b\n"1,2\n', tabular._Sheet.read, DataError, "is no CSV"),
    "tabular.py:_header": Case("t.csv", b"\x1f\x8bno", tabular._header, DataError, "is no CSV file"),
    "targets/onnxruntime.py:OnnxRuntime._open": Case(
        "m.onnx", external, lambda p: OnnxRuntime().load(p), TargetError, "an absolute path"
    ),
    "targets/openvino.py:OpenVino.load": Case(
        "m.onnx", external, lambda p: openvino().load(p), TargetError, "an absolute path"
    ),
    "targets/openvino.py:OpenVino._open": Case(
        "m.onnx", b"no", lambda p: openvino()._open(p.read_bytes(), p), TargetError, "no ONNX model"
    ),
    "timing/inputs.py:read": Case("x.safetensors", marked, inputs.read, DataError, "cannot read inputs"),
}
"""A reader, and a file that it must refuse: one that would run code, fill the memory, or be read wrong."""

NO_FILE_OF_OTHERS = {
    "cli/fit.py:run": "result.json as sartor has just written it, to be shown",
    "cli/list.py:_recipes": "recipes in the package",
    "cli/report.py:run": "result.json, shown as it is",
    "config.py:_value": "what the user has typed",
    "core/files.py:_sync": "a file is forced to the disk",
    "core/files.py:sha256": "bytes, of which only the digest is taken",
    "core/plugins.py:purpose": "modules of the package",
    "data/unlabelled.py:read": "opens archives, which are in the table",
    "jobs/fit/meter.py:Meter._file_maker.make": "a session of a target",
    "jobs/verify.py:verify": "a session of a target",
    "report/compare.py:_section": "plotly's own words",
    "report/compare.py:page": "a script in the package",
    "report/page.py:_plot": "plotly's own words",
    "report/page.py:document": "a style in the package",
    "report/page.py:render": "a script in the package",
    "run/folder.py:_lock": "who has the folder, to be shown",
    "run/journal.py:MemoryJournal.append": "what is in memory",
    "run/journal.py:_cut_torn_line": "a journal, whose lines are in the table",
    "run/journal.py:_sync_folder": "a folder is forced to the disk",
    "run/ledger.py:process_age": "the kernel's files",
    "run/pool.py:Pool._feed": "no file: workers are opened",
    "run/work.py:check_sees": "a file of the run folder, which is compared with what it must say",
    "run/worker.py:Worker.read": "what a process says that this one has started",
    "run/worker_process.py:main": "what the process says that has started this one",
    "run/workers/ray.py:Ray._answer": "what a task of the cluster gives back",
    "run/workers/ray.py:one": "what the driver asks of a task",
    "run/workers/ray.py:_worker": "what the driver tells a task",
    "timing/quiet.py:_held": "an empty file that is locked",
    "run/result.py:_own": "bytes, of which only the digest is taken",
    "run/result.py:_narrowing": "artifacts of a run folder",
    "targets/onnxruntime.py:_remedy": "what it has just written",
    "targets/openvino.py:OpenVino.prepare": "what it has just written",
    "tasks/multisource.py:multisource": "opens archives, which are in the table",
    "tasks/regression.py:regression": "opens archives, which are in the table",
    "timing/machine.py:_text": "the kernel's files",
    "timing/meter.py:_opened": "a session of a target",
    "timing/processes.py:_read": "a pipe between sartor's own processes",
    "timing/worker.py:_status": "the kernel's files",
    "timing/worker.py:main": "a pipe between sartor's own processes",
}
"""Readers of what nobody else has written."""


def cells(data: bytes) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [data]}), "cells.parquet")
    return Path("cells.parquet").read_bytes()


def openvino() -> Any:
    pytest.importorskip("openvino")
    from sartor.targets.openvino import OpenVino

    return OpenVino()


def test_every_reader_is_known() -> None:
    places = found()
    assert len(places) > 60
    assert not TABLE.keys() & NO_FILE_OF_OTHERS.keys()
    unknown = {place: what for place, what in places.items() if place not in {*TABLE, *NO_FILE_OF_OTHERS}}
    assert not unknown, f"give each a file that it refuses, in this test's table: {unknown}"
    gone = {*TABLE, *NO_FILE_OF_OTHERS} - places.keys()
    assert not gone, f"no longer there: {gone}"


@pytest.mark.parametrize("place", TABLE)
def test_it_refuses_a_crafted_file(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = TABLE[place]
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "files"
    path = folder / case.name
    path.parent.mkdir(parents=True)
    path.write_bytes(case.data if isinstance(case.data, bytes) else case.data())
    with pytest.raises(case.error, match=case.says) as caught:
        case.read(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "it-ran").exists()


def test_nothing_unpickles_and_nothing_is_evaluated() -> None:
    called = {what for names in found().values() for what in names}
    assert not {what for what in called if what.startswith(("pickle.", "joblib.")) or what in ("eval", "exec")}
    loads = [
        call
        for path in SOURCE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in UNPICKLERS
    ]
    assert len(loads) >= 4
    for call in loads:
        safe = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert safe.get("weights_only") == "True" or safe.get("allow_pickle") == "False", ast.unparse(call)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(p): return open(p)", {("f", "open")}),
        ("class A:\n    def f(self, p):\n        return p.read_text()", {("A.f", "p.read_text")}),
        ("def f(p):\n    def g(): return torch.load(p)\n    return g", {("f.g", "torch.load")}),
        ("x = json.loads(s)", {("", "json.loads")}),
        ("def f(p): p.open('w'); p.open('rb')", {("f", "p.open")}),
        ("def f(m): m.eval(); m.load(x); eval(s)", {("f", "eval")}),
        ("def f(p): p.open('w')", set()),
    ],
)
def test_the_search_finds(source: str, expected: set[tuple[str, str]]) -> None:
    assert set(readers(ast.parse(source))) == expected
