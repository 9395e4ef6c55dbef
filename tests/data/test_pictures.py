import io
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from sartor.core.errors import ConfigError, DataError, MissingExtraError
from sartor.data.pictures import columns, decoded, drawn, is_picture, numbers, picture_files, say_turned

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


RAMP = np.arange(0, 65536, 5461, dtype=np.uint16)[:12].reshape(3, 4)


def png(colour: int, values: np.ndarray) -> bytes:
    """A PNG of 16 bits per channel, which Pillow does not write: by the specification's chunks."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "TIFF")
    return data.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        png(0, RAMP),
        png(2, np.stack([RAMP] * 3, 2)),
        png(4, np.stack([RAMP, RAMP[::-1]], 2)),
        png(6, np.stack([RAMP] * 3 + [RAMP[::-1]], 2)),
        tiff(RAMP),
        b"P5 4 3 65535\n" + RAMP.astype(">u2").tobytes(),
        b"P6 4 3 65535\n" + np.stack([RAMP] * 3, 2).astype(">u2").tobytes(),
    ],
    ids=["grey", "colour", "grey alpha", "colour alpha", "tiff", "pgm", "ppm"],
)
def test_sixteen_bits_are_scaled_to_eight(data):
    wanted = torch.from_numpy(np.round(RAMP / 257))
    for channels in (1, 3):
        found = decoded(data, "d", channels)
        assert found.dtype == torch.uint8
        assert ((found - wanted).abs() <= 1).all()  # of colours Pillow takes the upper byte
        assert torch.equal(numbers(tiff(RAMP), "n"), torch.from_numpy(RAMP.astype(np.int32)))


def test_a_picture_that_would_lose_all_that_is_in_it_is_refused():
    with pytest.raises(DataError, match=r"d holds 0\.\.11 in 16 bits, which all become 0 in 8 bits; scale it"):
        decoded(png(0, np.arange(12, dtype=np.uint16).reshape(3, 4)), "d")
    for value in (0, 7, 65535):  # of one colour in the file, too
        found = decoded(png(0, np.full((3, 4), value, np.uint16)), "d")
        assert found.unique().tolist() == [round(value / 257)]


@pytest.mark.parametrize(
    "array", [GREY.astype(np.float32) / 255, GREY.astype(np.int32) * 300], ids=["float", "32 bits"]
)
def test_numbers_without_an_agreed_range_are_no_pictures(tmp_path, array):
    path = saved(tmp_path / "deep.tiff", array)
    # the trap: Pillow cuts these off at 255 (or at 0 and 1) without a word
    assert not np.array_equal(np.asarray(Image.open(path).convert("L")).astype(array.dtype), array)
    for channels in (1, 3, None):
        with pytest.raises(DataError, match=r"deep\.tiff holds (32-bit|floating).*save it so"):
            decoded(path, str(path), channels)
    assert np.array_equal(numbers(path, "deep").numpy(), array)
    assert numbers(path, "deep").dtype == (torch.float32 if array.dtype == np.float32 else torch.int32)


COLOURS = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)


def of_mode(mode: str) -> tuple[bytes, np.ndarray]:
    """A file of a mode, and the colours that are in it, `(3, 4, 3)`."""
    image, save = Image.fromarray(COLOURS), {}
    if mode in ("RGBA", "RGBX transparent"):
        image.putalpha(Image.fromarray(GREY))
    if mode in ("P", "P transparent", "P translucent"):
        image = image.quantize(12)
        save = {"P transparent": {"transparency": 3}, "P translucent": {"transparency": bytes(range(12))}}.get(mode, {})
    if mode in ("LA", "1", "CMYK"):
        image = Image.fromarray(GREY).convert(mode) if mode != "CMYK" else image.convert("CMYK")
    data = io.BytesIO()
    image.save(data, "TIFF" if mode == "CMYK" else "PNG", **save)
    wanted = image.convert("RGB") if mode not in ("LA", "1") else Image.merge("RGB", [image.convert("L")] * 3)
    return data.getvalue(), np.asarray(wanted)


@pytest.mark.parametrize("mode", ["RGBA", "P", "P transparent", "P translucent", "LA", "1", "CMYK"])
def test_every_mode_gives_its_colours(mode):
    data, wanted = of_mode(mode)
    assert len(np.unique(wanted)) > 1
    assert torch.equal(decoded(data, "d"), torch.from_numpy(wanted.copy()).permute(2, 0, 1))
    assert decoded(data, "d", None).shape[0] == (1 if mode in ("LA", "1") else 3)
    if mode in ("LA", "1"):
        assert torch.equal(decoded(data, "d", 1)[0], torch.from_numpy(wanted[..., 0].copy()))


def photographed(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(path, exif=exif)
    return path


def test_orientation_is_said_and_can_be_followed(tmp_path, caplog):
    paths = [photographed(tmp_path / f"{n}.png", n) for n in (1, 6, 3)]
    assert [tuple(decoded(p, "p").shape) for p in paths] == [(3, 3, 4)] * 3
    assert [tuple(decoded(p, "p", upright=True).shape) for p in paths] == [(3, 3, 4), (3, 4, 3), (3, 3, 4)]
    assert torch.equal(decoded(paths[2], "p", upright=True), decoded(paths[2], "p").flip((1, 2)))
    say_turned(paths, [str(p) for p in paths], "upright")
    assert "6.png and 1 more pictures are stored turned" in caplog.text
    assert "set upright = true" in caplog.text
    caplog.clear()
    say_turned(paths[:1], ["1"], "upright")
    say_turned([b"", None, tmp_path / "none.png"], ["a", "b", "c"], "upright")
    assert not caplog.records


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
def test_what_is_no_picture_is_named(tmp_path, read, monkeypatch):
    whole = io.BytesIO()
    Image.fromarray(GREY).save(whole, "PNG")
    (tmp_path / "a.png").write_bytes(whole.getvalue()[:50])
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "turn.png").symlink_to(tmp_path / "turn.png")
    for source, reason in (
        (tmp_path / "a.png", ""),
        (tmp_path / "none.png", "there is no such file"),
        (tmp_path / "link.png", "a link that leads nowhere"),
        (tmp_path / "turn.png", "a link that leads nowhere"),
        (b"hello", "it is none of BMP, GIF"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "it is none of BMP, GIF",
        ),  # Pillow would start Ghostscript
        (whole.getvalue()[:50], ""),
        (b"", "it is empty"),
        (None, "it is empty"),
    ):
        with pytest.raises(DataError, match=f"the third is not a readable image \\(.*{reason}") as caught:
            read(source, "the third")
        assert " at 0x" not in str(caught.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(DataError, match="it has more than 10 pixels"):
        read(whole.getvalue(), "bomb")


def test_files_are_found_below_the_folder_in_order(tmp_path):
    (tmp_path / "x").mkdir()
    paths = [saved(tmp_path / name, GREY) for name in ("b.png", "a.JPG", "x/c.bmp")]
    (tmp_path / "notes.txt").write_text("no picture")
    assert picture_files(tmp_path) == sorted(paths)
    assert [is_picture(p) for p in (paths[1], tmp_path / "notes.txt", tmp_path / "x")] == [True, False, False]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images in .*empty; .*\.png"):
        picture_files(tmp_path / "empty")


def test_what_programs_leave_behind_is_no_picture_and_loops_end(tmp_path):
    folder = tmp_path / "pictures"
    for place in (folder / "a", folder / "__MACOSX", folder / ".cache", tmp_path / "else"):
        place.mkdir(parents=True)
        saved(place / "1.png", GREY)
    for name in ("._1.png", ".hidden.png"):
        saved(folder / "a" / name, GREY)
    (folder / "a" / "Thumbs.db").write_bytes(b"x")
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "else")
    (folder / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = picture_files(folder)
    assert found == [folder / "a" / "1.png", folder / "a" / "gone.png", folder / "linked" / "1.png"]
    with pytest.raises(DataError, match=r"1\.png must be a folder"):
        picture_files(folder / "a" / "1.png")


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
    with pytest.raises(DataError, match="must be a Parquet file"):
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
