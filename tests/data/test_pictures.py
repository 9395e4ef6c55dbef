import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sartor.core.errors import ConfigError, DataError, MissingExtraError
from sartor.data.pictures import columns, decoded, drawn, is_picture, numbers, picture_files

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def saved(path, array, mode=None):
    Image.fromarray(array, mode).save(path)
    return path


def test_colours_greys_and_what_is_there(tmp_path):
    colour = np.stack([GREY, GREY + 1, GREY + 2], 2)
    path = saved(tmp_path / "c.png", colour)
    assert torch.equal(decoded(path, "c"), torch.from_numpy(colour).permute(2, 0, 1))
    assert decoded(path, "c", None).shape == (3, 3, 4)
    assert decoded(path, "c", 1).shape == (1, 3, 4)
    grey = saved(tmp_path / "g.png", GREY)
    assert torch.equal(decoded(grey, "g", None), torch.from_numpy(GREY)[None])
    assert torch.equal(decoded(grey, "g", 3), torch.from_numpy(GREY)[None].expand(3, 3, 4))
    assert torch.equal(decoded(grey.read_bytes(), "g", 1), torch.from_numpy(GREY)[None])


@pytest.mark.parametrize(
    ("array", "ending"),
    [
        ((GREY.astype(np.uint16) * 300), "png"),
        (GREY.astype(np.float32) / 255, "tiff"),
        (GREY.astype(np.int32) * 300, "tiff"),
    ],
)
def test_deep_pictures_are_refused_and_deep_numbers_read(tmp_path, array, ending):
    path = saved(tmp_path / f"deep.{ending}", array)
    # the trap: Pillow cuts these off at 255 (or at 0 and 1) without a word
    assert not np.array_equal(np.asarray(Image.open(path).convert("L")).astype(array.dtype), array)
    with pytest.raises(DataError, match=r"deep\.\w+ holds (16|floating).*save it so"):
        decoded(path, str(path))
    assert np.array_equal(numbers(path, "deep").numpy(), array)
    assert numbers(path, "deep").dtype == (torch.float32 if array.dtype == np.float32 else torch.int32)


def test_numbers_of_palettes_are_their_indices(tmp_path):
    image = Image.fromarray(GREY % 3, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "p.png")
    assert np.array_equal(numbers(tmp_path / "p.png", "p").numpy(), GREY % 3)
    assert numbers(tmp_path / "p.png", "p").dtype == torch.uint8


def test_colours_are_no_numbers(tmp_path):
    path = saved(tmp_path / "c.png", np.stack([GREY] * 3, 2))
    with pytest.raises(DataError, match=r"row 3 holds colours \(mode RGB\)"):
        numbers(path, "row 3")


@pytest.mark.parametrize("read", [decoded, numbers])
def test_what_is_no_picture_is_named(tmp_path, read):
    whole = io.BytesIO()
    Image.fromarray(GREY).save(whole, "PNG")
    (tmp_path / "a.png").write_bytes(whole.getvalue()[:50])
    for source in (tmp_path / "a.png", tmp_path / "none.png", b"hello", whole.getvalue()[:50], None):
        with pytest.raises(DataError, match="the third is not a readable image"):
            read(source, "the third")


def test_files_are_found_below_the_folder_in_order(tmp_path):
    (tmp_path / "x").mkdir()
    paths = [saved(tmp_path / name, GREY) for name in ("b.png", "a.JPG", "x/c.bmp")]
    (tmp_path / "notes.txt").write_text("no picture")
    assert picture_files(tmp_path) == sorted(paths)
    assert [is_picture(p) for p in (paths[1], tmp_path / "notes.txt", tmp_path / "x")] == [True, False, False]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images in .*empty; .*\.png"):
        picture_files(tmp_path / "empty")


def test_columns_of_a_table(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [b"x", None]}), tmp_path / "t.parquet")
    assert columns(tmp_path / "t.parquet", "b", "a") == [[b"x", None], [1, 2]]
    with pytest.raises(DataError, match=r"t\.parquet .*columns a and c"):
        columns(tmp_path / "t.parquet", "a", "c")
    parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.int64())}), tmp_path / "e.parquet")
    with pytest.raises(DataError, match="at least one row"):
        columns(tmp_path / "e.parquet", "a")
    (tmp_path / "n.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a Parquet file"):
        columns(tmp_path / "n.parquet", "a")


def test_pyarrow_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"sartor\[parquet\]"):
        columns(tmp_path / "a.parquet", "a")


def test_a_draw_is_a_partition_decided_by_seed_and_name():
    rest, part = drawn(range(20), 0.25, 0, "valid", "here")
    assert len(part) == 5
    assert sorted(rest + part) == list(range(20))
    assert (rest, part) == (sorted(rest), sorted(part)) == drawn(range(20), 0.25, 0, "valid", "here")
    assert part != drawn(range(20), 0.25, 1, "valid", "here")[1]
    assert part != drawn(range(20), 0.25, 0, "test", "here")[1]
    assert len(drawn(range(20), 0.001, 0, "valid", "here")[1]) == 1
    with pytest.raises(DataError, match="here has 1 examples left, too few to hold out valid"):
        drawn([0], 0.5, 0, "valid", "here")
    with pytest.raises(ConfigError, match="valid must be in"):
        drawn(range(3), 1.0, 0, "valid", "here")
