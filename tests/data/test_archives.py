import gzip
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from sartor.core.errors import DataError, MissingExtraError
from sartor.data import pictures
from sartor.data.archives import categories, finite, joined, open_archive

TABLE = "height,age,name\n1.5,3,ann\n2.5,4,bob\n"


def test_every_kind_of_file_gives_arrays_by_name(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "a.npz", x=values, y=np.arange(2))
    np.save(tmp_path / "b.npy", values)
    (tmp_path / "c.csv").write_text(TABLE)
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(TABLE.encode()))
    folder = tmp_path / "f"
    folder.mkdir()
    np.save(folder / "left.npy", values)
    Image.fromarray(np.arange(6, dtype=np.uint16).reshape(2, 3) * 9000).save(folder / "right.tif")
    assert open_archive(tmp_path / "a.npz").names == ("x", "y")
    assert (open_archive(tmp_path / "b.npy").numbers("b", "data") == values).all()
    for name in ("c.csv", "d.csv.gz"):
        table = open_archive(tmp_path / name)
        assert table.names == ("height", "age", "name")
        kinds = [table.array(n, "data").dtype.kind for n in table.names]
        assert kinds == ["f", "i", "U"]
        assert table.array("age", "data").tolist() == [3, 4]
    found = open_archive(folder)
    assert found.names == ("left", "right")
    assert found.numbers("right", "inputs").max() == 45000  # 16 bits are not cut off


def test_parquet_columns_and_images(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    cells = []
    for image in pixels:
        data = io.BytesIO()
        Image.fromarray(image).save(data, "PNG")
        cells.append(data.getvalue())
    parquet.write_table(pyarrow.table({"png": cells, "y": [1, 2], "name": ["a", "b"]}), tmp_path / "a.parquet")
    archive = open_archive(tmp_path / "a.parquet")
    assert (archive.numbers("png", "inputs") == pixels).all()
    assert archive.array("name", "label").tolist() == ["a", "b"]
    parquet.write_table(pyarrow.table({"png": [cells[0], b"no image"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"row 1 of column 'png' of .*b\.parquet is not a readable image"):
        open_archive(tmp_path / "b.parquet").array("png", "inputs")


def test_pyarrow_is_an_extra(tmp_path, monkeypatch):
    import sys

    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"sartor\[parquet\]"):
        open_archive(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "1.5,2\n3,4\n", "must name every column once"),
        ("a.csv", "x,x\n3,4\n", "must name every column once"),
        ("a.csv", "x,y\n", "a header and at least one row"),
        ("a.csv", "x,y\n1,2\n1,2,3\n", "row 1 of .* has 3 cells, the header has 2"),
        ("a.npz", "hello", r"cannot read .*a\.npz as an archive"),
        ("a.parquet", "hello", "not a readable .parquet"),
        ("a.txt", "hello", r"must be a folder or end in \.npz"),
    ],
)
def test_what_is_no_archive_is_told(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        open_archive(tmp_path / name)


def test_a_folder_without_arrays_and_a_file_of_objects(tmp_path):
    with pytest.raises(DataError, match="holds no arrays"):
        open_archive(tmp_path)
    np.save(tmp_path / "o.npy", np.array([{}, []], dtype=object))
    with pytest.raises(DataError, match=r"o\.npy holds Python objects, pickles that would run code; save it as plain"):
        open_archive(tmp_path / "o.npy").array("o", "data")
    with pytest.raises(DataError, match=r"o\.npy holds Python objects"):
        open_archive(tmp_path)
    np.savez(tmp_path / "o.npz", x=np.arange(3), o=np.array([{}, []], dtype=object))
    with pytest.raises(DataError, match=r"array 'o' of .*o\.npz holds Python objects"):
        open_archive(tmp_path / "o.npz").array("o", "data")
    assert open_archive(tmp_path / "o.npz").array("x", "data").tolist() == [0, 1, 2]


def npy(header: str, data: bytes = b"") -> bytes:
    """A stored array with a header of one's own."""
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


LONG = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(LONG, bytes(80)), "is cut off: it is to hold 8,000,000,000,000 bytes and has 80"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}"), "is cut off"),
        (npy("__import__('os').mkdir('it-ran')"), "is no array of numpy"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': ()}", b"\x80"), "holds Python objects"),
        (b"", "is no array of numpy"),
        (b"\x93NUMPY\x09\x09", "is no array of numpy"),
    ],
    ids=["long", "negative", "code", "objects", "empty", "version"],
)
def test_a_header_is_not_believed(data, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", data)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match=message) as caught:
            open_archive(tmp_path / name).array("a", "data")
        assert str(tmp_path / name) in str(caught.value)
    assert not (tmp_path / "it-ran").exists()


def test_damaged_members_and_doubled_names_are_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "a.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000,)}", bytes(range(250)) * 32)
        )
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    whole[150:170] = bytes(20)
    (tmp_path / "a.npz").write_bytes(whole)
    with pytest.raises(DataError, match=r"array 'a' of .*a\.npz"):
        open_archive(tmp_path / "a.npz").array("a", "data")
    folder = tmp_path / "twice"
    folder.mkdir()
    np.save(folder / "a.npy", np.arange(3))
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / "a.png")
    with pytest.raises(DataError, match=r"a\.npy and .*a\.png are arrays of one name"):
        open_archive(folder)
    (folder / "a.png").unlink()
    (folder / "b.npy").write_bytes(b"")
    (folder / "c.png").write_bytes(b"no")
    (folder / "._d.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"2 of 3 files cannot be used, .*b\.npy, .*c\.png; the first"):
        open_archive(folder)


def test_tables_of_too_many_rows_are_not_read(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1] * 11}), tmp_path / "t.parquet")
    monkeypatch.setattr(pictures, "ROWS", 10)
    with pytest.raises(DataError, match=r"t\.parquet has 11 rows, more than the 10 that are read"):
        open_archive(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet has 11 rows"):
        pictures.columns(tmp_path / "t.parquet", "a")


def test_all_images_of_a_column_are_looked_at(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    whole = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(whole, "PNG")
    cells = [whole.getvalue(), b"no", None, whole.getvalue()[:40]]
    parquet.write_table(pyarrow.table({"a": cells}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"3 of 4 images cannot be used, row 1 of column 'a' of .*t\.parquet, row 2"):
        open_archive(tmp_path / "t.parquet").array("a", "data")


def test_a_missing_name_lists_what_is_there(tmp_path):
    (tmp_path / "c.csv").write_text(TABLE)
    with pytest.raises(DataError, match=r"no column 'hight', only height, age, name; correct the setting 'inputs'"):
        open_archive(tmp_path / "c.csv").array("hight", "inputs")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([1.0, np.nan]), "holds nan at row 1"),
        (np.array([[1.0, 2.0], [np.inf, 0.0]]), r"holds inf at index \(1, 0\)"),
        (np.array(["1", "two"]), "holds 'two' at row 1, which is no number"),
        (np.array(["1", ""]), "holds '' at row 1"),
        (np.array([1j]), "must hold numbers"),
    ],
)
def test_numbers_are_finite(values, words):
    with pytest.raises(DataError, match=words):
        finite(values, "column 'x'")


def test_classes_are_numbered_in_the_order_of_their_values():
    found, names = categories(np.array([5, 2, 9, 2]), "labels")
    assert (found.tolist(), names) == ([1, 0, 2, 0], ["2", "5", "9"])
    found, names = categories(np.array([[0, 255], [2, 1]]), "labels", ignore=255)
    assert (found.tolist(), names) == ([[0, -100], [2, 1]], ["0", "1", "2"])
    found, names = categories(np.array(["dog", "?", "cat"]), "labels", ignore="?")
    assert (found.tolist(), names) == ([1, -100, 0], ["cat", "dog"])
    found, _ = categories(np.array([255, 0, 1], np.uint8), "labels", ignore=255)  # the ignored one is the largest
    assert found.tolist() == [-100, 0, 1]
    with pytest.raises(DataError, match="holds 1 classes"):
        categories(np.array([3, 3]), "labels")
    with pytest.raises(DataError, match="whole numbers or strings"):
        categories(np.array([0.5, 1.0]), "labels")


def test_files_that_go_together_must_be_alike(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)))
    np.savez(tmp_path / "b.npz", x=np.ones((2, 2)))
    np.savez(tmp_path / "c.npz", x=np.ones((2, 3)))
    a, b, c = (open_archive(tmp_path / f"{n}.npz") for n in "abc")
    assert joined([a, b], "x", "inputs").sum(1).tolist() == [0, 0, 0, 2, 2]
    with pytest.raises(DataError, match=r"c\.npz holds examples of shape \(3,\)"):
        joined([a, c], "x", "inputs")
