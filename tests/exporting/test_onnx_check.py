import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sartor.core.errors import TargetError
from sartor.exporting.onnx_check import check_onnx


def tensor(name: str, location: str = "") -> TensorProto:
    found = numpy_helper.from_array(np.ones((2, 2), np.float32), name)
    if location:
        found.ClearField("raw_data")
        found.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "16")):
            found.external_data.add(key=key, value=value)
    return found


def with_initializer(outer: TensorProto) -> onnx.ModelProto:
    y, x = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 2]) for n in "yx")
    return helper.make_model(
        helper.make_graph([helper.make_node("Add", ["x", outer.name], ["y"])], "g", [x], [y], [outer])
    )


def with_constant(outer: TensorProto) -> onnx.ModelProto:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])
    return helper.make_model(helper.make_graph([helper.make_node("Constant", [], ["y"], value=outer)], "g", [], [y]))


def with_branches(outer: TensorProto) -> onnx.ModelProto:
    y, c = (
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    )
    branch = with_constant(outer).graph
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=with_constant(tensor("w")).graph)
    return helper.make_model(helper.make_graph([node], "g", [c], [y]))


def with_function(outer: TensorProto) -> onnx.ModelProto:
    model = with_initializer(tensor("w"))
    node = helper.make_node("Constant", [], ["o"], value=outer)
    model.functions.append(helper.make_function("own", "f", [], ["o"], [node], model.opset_import))
    return model


def with_sparse(outer: TensorProto) -> onnx.ModelProto:
    model = with_initializer(tensor("w"))
    model.graph.sparse_initializer.add(values=outer, indices=tensor("i"), dims=[4])
    return model


MAKERS = (with_initializer, with_constant, with_branches, with_function, with_sparse)
OUTSIDE = {
    "/etc/hostname": "an absolute path",
    "C:\\secret": "an absolute path",
    "\\\\host\\secret": "an absolute path",
    "../weights": "outside of its folder",
    "a/../../weights": "outside of its folder",
    "..\\weights": "outside of its folder",
    "link": "a link that leads out of its folder",
    "linked/weights": "a link that leads out of its folder",
    "*/_ORT_MEM_ADDR_/*": "where there is no file",
    "nothing": "where there is no file",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder, and weights outside of it."""
    found = tmp_path / "model"
    (found / "part").mkdir(parents=True)
    for place in (tmp_path / "weights", found / "weights", found / "part" / "weights"):
        place.write_bytes(bytes(16))
    (found / "link").symlink_to(tmp_path / "weights")
    (found / "linked").symlink_to(tmp_path)
    return found


@pytest.mark.parametrize("make", MAKERS)
def test_weights_may_lie_in_the_file_or_beside_it(make: Callable[[TensorProto], onnx.ModelProto], folder: Path) -> None:
    for location in ("", "weights", "part/weights", "./weights"):
        path = folder / "m.onnx"
        path.write_bytes(make(tensor("z", location)).SerializeToString())
        check_onnx(path)


@pytest.mark.parametrize("make", MAKERS)
def test_weights_elsewhere_are_refused_wherever_they_are_named(make, folder: Path) -> None:
    for location, reason in OUTSIDE.items():
        path = folder / "m.onnx"
        path.write_bytes(make(tensor("z", location)).SerializeToString())
        with pytest.raises(
            TargetError, match=r"m\.onnx wants weights in .*; it is refused before it is opened"
        ) as caught:
            check_onnx(path)
        assert f", {reason};" in str(caught.value), location


def test_files_that_are_none(folder: Path) -> None:
    whole = with_initializer(tensor("z")).SerializeToString()
    files = {
        "text.onnx": b"hello there, this is text",
        "cut.onnx": whole[: len(whole) - 9],
        "endless.onnx": b"\xff" * 20,
        "long.onnx": b"\x3a\xff\xff\xff\xff\x0f",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
        with pytest.raises(TargetError, match=rf"{name} is no ONNX model"):
            check_onnx(folder / name)
    for path in (folder / "none.onnx", folder):
        with pytest.raises(TargetError, match="no file"):
            check_onnx(path)


def test_graphs_in_graphs_have_a_bottom(folder: Path) -> None:
    # longer than protobuf itself writes: field 1 of a graph is a node, its field 5 an attribute, whose 6 is a graph
    data = b""
    for _ in range(100):
        for key in (6, 5, 1):
            data = bytes([key << 3 | 2]) + varint(len(data)) + data
    (folder / "deep.onnx").write_bytes(b"\x3a" + varint(len(data)) + data)
    with pytest.raises(TargetError, match="nested too deep"):
        check_onnx(folder / "deep.onnx")


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def test_a_look_takes_no_memory(folder: Path) -> None:
    large = numpy_helper.from_array(np.zeros(2**22, np.float32), "z")
    path = folder / "large.onnx"
    path.write_bytes(with_initializer(large).SerializeToString())
    assert path.stat().st_size > 2**24
    tracemalloc.start()
    check_onnx(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
