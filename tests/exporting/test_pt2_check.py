import contextlib
import io
import json
import os
import pickle  # noqa: TID251 - what the files of this test are made with
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sartor.core import foreign
from sartor.core.errors import TargetError
from sartor.exporting import export_pt2, load_pt2
from sartor.exporting.pt2_check import check_pt2
from sartor.exporting.tracing import quiet

X = torch.zeros(1, 3, 8, 8)


class Payload:
    """Makes a folder when it is unpickled: harmless, and seen afterwards."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def pickled(mark: Path) -> bytes:
    return pickle.dumps(Payload(mark))


def saved(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(mark), buffer)
    return buffer.getvalue()


class Sizes(nn.Module):
    """An open batch whose size is calculated with, a dict in and a tree out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.register_buffer("grid", torch.linspace(0, 1, 5))

    def forward(self, image: Tensor) -> dict[str, object]:
        y = self.norm(self.conv(image))
        return {"flat": y.reshape(2 * y.shape[0], -1), "parts": [y.mean((2, 3)), self.grid[: y.shape[2] // 2]]}


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("honest") / "model.pt2"
    export_pt2(Sizes(), X, path)
    return path


def rewritten(source: Path, path: Path, change: Callable[[str, bytes], bytes | None], **more: bytes) -> Path:
    """The archive with other members; the root folder is kept."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            data = change(name.partition("/")[2], old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in more.items():
            new.writestr(f"{root}/{name}", data)
    return path


def kept(name: str, data: bytes) -> bytes:
    return data


def changed(wanted: str, make: Callable[[bytes], bytes]) -> Callable[[str, bytes], bytes]:
    return lambda name, data: make(data) if name.endswith(wanted) else data


def marked(data: bytes) -> bytes:
    """The first entry of a table is a pickle."""
    return data.replace(b'"use_pickle": false', b'"use_pickle": true', 1)


def objects(kind: str) -> Callable[[bytes], bytes]:
    entry = {"path_name": f"{kind}_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    return lambda _: json.dumps({"config": {"it": entry}}).encode()


def with_target(target: str) -> Callable[[bytes], bytes]:
    def make(data: bytes) -> bytes:
        model = json.loads(data)
        model["graph_module"]["graph"]["nodes"][0]["target"] = target
        return json.dumps(model).encode()

    return make


def with_formula(text: str) -> Callable[[bytes], bytes]:
    def make(data: bytes) -> bytes:
        old = data.index(b'"expr_str": "') + len('"expr_str": ')
        end = data.index(b'", ', old) + 1
        return data[:old] + json.dumps(text).encode() + data[end:]

    return make


def with_guard(text: str) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), "guards_code": [text]}).encode()


def renamed(text: str) -> Callable[[bytes], bytes]:
    """The argument of the network is called otherwise."""

    def make(data: bytes) -> bytes:
        model = json.loads(data)
        model["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [text]
        return json.dumps(model).encode()

    return make


def with_buffer(text: str) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(b'"buffer_name": "grid"', b'"buffer_name": ' + json.dumps(text).encode())


def with_structure(kind: str, context: str) -> Callable[[bytes], bytes]:
    def make(data: bytes) -> bytes:
        model = json.loads(data)
        spec = [1, {"type": kind, "context": context, "children_spec": []}]
        model["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(spec)
        return json.dumps(model).encode()

    return make


ENUM = json.dumps([{"__enum__": True, "fqn": "evil:Kind", "name": "a"}]).replace("_", "\\u005f")
IMPORTED = json.dumps({"default_factory_module": "evil", "default_factory_name": "f", "dict_context": []})


Change = Callable[[str, bytes], bytes | None]


def crafted(mark: Path) -> dict[str, tuple[Change, dict[str, bytes]]]:
    """Changes of a file, and members more, that run code when torch reads it, or when what it gives is called."""
    model, weights, constants = "models/model.json", "model_weights_config.json", "model_constants_config.json"

    def weight(name: str, data: bytes) -> bytes:
        return marked(data) if name.endswith(weights) else saved(mark) if name.endswith("weight_0") else data

    return {
        "weight": (weight, {}),
        "number for true": (changed(weights, lambda d: d.replace(b'"use_pickle": false', b'"use_pickle": 1')), {}),
        "custom": (changed(constants, objects("custom")), {"data/constants/custom_obj_0": pickled(mark)}),
        "opaque": (changed(constants, objects("opaque")), {"data/constants/opaque_obj_0": pickled(mark)}),
        "examples": (changed("sample_inputs/model.pt", lambda _: saved(mark)), {}),
        "bare examples": (changed("sample_inputs/model.pt", lambda _: pickled(mark)), {}),
        "old weights": (kept, {"data/weights/model.pt": saved(mark)}),
        "old constants": (kept, {"data/constants/model.pt": saved(mark)}),
        "old weights that the table calls raw": (
            changed(weights, lambda d: d.replace(b'"weight_0"', b'"model.pt"')),
            {"data/weights/model.pt": saved(mark)},
        ),
        "pickle": (kept, {"extra/data.pkl": pickled(mark)}),
        "pickle by another name": (kept, {"extra/notes.txt": pickled(mark)}),
        "library": (kept, {"data/aotinductor/model/model.so": b"\x7fELF"}),
        "source": (kept, {"extra/setup.py": b"print(1)"}),
        "call": (changed(model, with_target("torch.os.system")), {}),
        "library call": (changed(model, with_target("torch.ops.load_library")), {}),
        "file call": (changed(model, with_target("torch.ops.aten.from_file.default")), {}),
        "getter": (changed(model, with_target("_operator.attrgetter")), {}),
        "formula": (changed(model, with_formula(f"__import__('os').system('touch {mark}')")), {}),
        "formula in a word": (changed(model, with_formula(f'Add(\'open("{mark}", "w")\', Integer(1))')), {}),
        "formula in a setting": (changed(model, with_formula(f"Symbol('s', cls='open(\"{mark}\")')")), {}),
        "formula of attributes": (changed(model, with_formula("Symbol('s').__class__")), {}),
        "guard": (changed(model, with_guard(f"__import__('os').mkdir('{mark}') is None")), {}),
        "guard of an input": (changed(model, with_guard(f"L['image'].apply_(__import__('os').mkdir('{mark}'))")), {}),
        "guard with a remark": (changed(model, with_guard("L['image'].size()[0] > 0 # ")), {}),
        "name of an argument": (changed(model, renamed('image=__import__("os").mkdir("x")')), {}),
        "key with quotes": (changed(model, with_structure("builtins.dict", json.dumps(["a'b"]))), {}),
        "target with quotes": (changed(model, with_buffer('grid", __import__("os").mkdir("x"), "')), {}),
        "enum": (changed(model, with_structure("builtins.dict", ENUM)), {}),
        "factory": (changed(model, with_structure("collections.defaultdict", IMPORTED)), {}),
    }


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


def test_honest_files_are_read_as_before(honest: Path, tmp_path: Path) -> None:
    check_pt2(honest)
    again = rewritten(honest, tmp_path / "again.pt2", kept)
    assert again.read_bytes() != honest.read_bytes()
    x = torch.randn(3, 3, 8, 8)
    for path in (honest, again):
        found = load_pt2(path).run(x)
        assert found["flat"].shape[0] == 6


@pytest.mark.parametrize("name", crafted(Path("mark")))
def test_what_would_run_code_is_refused_unread(name: str, honest: Path, tmp_path: Path, mark: Path) -> None:
    change, more = crafted(mark)[name]
    path = rewritten(honest, tmp_path / "model.pt2", change, **more)
    with pytest.raises(TargetError, match=r"model\.pt2 (holds|is) .* is refused before torch reads it") as caught:
        load_pt2(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["weight", "examples", "formula", "bare examples", "guard", "old weights"])
def test_the_crafted_files_do_run_code_in_torch(name: str, honest: Path, tmp_path: Path, mark: Path) -> None:
    """Else the test above would show nothing."""
    change, more = crafted(mark)[name]
    path = rewritten(honest, tmp_path / "model.pt2", change, **more)
    with contextlib.suppress(Exception), quiet(), path.open("rb") as file:
        torch.export.load(file).module()(X)
    assert mark.exists()


def test_a_member_that_two_readers_see_differently(honest: Path, tmp_path: Path, mark: Path) -> None:
    """Python's reader takes the last of a name, torch's the first, and does not tell capitals apart."""
    for number, name in enumerate(("data/sample_inputs/model.pt", "data/sample_inputs/MODEL.pt")):
        path = tmp_path / f"{number}.pt2"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the name is there twice
            rewritten(honest, path, kept, **{name: saved(mark)})
        with pytest.raises(TargetError, match=r"holds .*model\.pt' twice"):
            load_pt2(path)


def test_a_file_that_fills_the_memory(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def enlarged(data: bytes) -> bytes:
        table = json.loads(data)
        next(iter(table["config"].values()))["tensor_meta"]["sizes"] = [{"as_int": 2**40}]
        return json.dumps(table).encode()

    def change(name: str, data: bytes) -> bytes:
        return b"" if name.endswith("weight_0") else changed("model_weights_config.json", enlarged)(name, data)

    with pytest.raises(TargetError, match=r"holds no values for 'conv\.weight', which claims 1,099,511,627,776"):
        load_pt2(rewritten(honest, tmp_path / "claims.pt2", change))
    bomb = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data/weights/weight_0", bytes(10**6))
    monkeypatch.setattr(foreign, "ROOM", 10**5)
    with pytest.raises(TargetError, match=r"unpacks to 1 MB, more than 100 times as much"):
        load_pt2(bomb)


def test_damaged_members_are_named(honest: Path, tmp_path: Path) -> None:
    data = honest.read_bytes()
    for end in (len(data) // 2, 100, 0):
        (tmp_path / "cut.pt2").write_bytes(data[:end])
        with pytest.raises(TargetError, match=r"cannot read .*cut\.pt2"):
            load_pt2(tmp_path / "cut.pt2")
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(TargetError, match="nested too deep"):
        load_pt2(rewritten(honest, tmp_path / "deep.pt2", changed("models/model.json", lambda _: deep)))
    with pytest.raises(TargetError, match="is no table of tensors"):
        load_pt2(rewritten(honest, tmp_path / "list.pt2", changed("model_weights_config.json", lambda _: b"[]")))
