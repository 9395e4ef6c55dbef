import numpy as np
import pytest
import torch
from PIL import Image

from sartor.core.errors import DataError
from sartor.data.photographs import Photographs, square


def write(path, height, width):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 - height // 2 : width // 2 + height // 2] = 200  # the middle square
    Image.fromarray(pixels).save(path)
    return path


def test_the_middle_square_at_the_wanted_size(tmp_path):
    path = write(tmp_path / "a.png", 20, 60)
    assert (square(path, 20) == 200).all()
    assert square(path, 10).shape == (3, 10, 10)
    assert float(square(path, 10).float().mean()) > 190


def test_images_are_kept_while_there_is_room(tmp_path):
    files = [write(tmp_path / f"{i}.png", 8, 8) for i in range(3)]
    found = Photographs(files, 8, room=2 * 3 * 64)
    index = torch.tensor([2, 0, 1])
    before = found[index]
    assert before.shape == (3, 3, 8, 8)
    assert sorted(found.kept) == [0, 2]
    for file in files:
        file.unlink()
    assert torch.equal(found[torch.tensor([2, 0])], before[:2])
    with pytest.raises(DataError, match=r"^3 of 3 images cannot be used, .*1\.png.*0\.png is not a readable image"):
        found[torch.tensor([1])]


def test_all_that_cannot_be_read_are_named_at_first(tmp_path, caplog):
    files = [write(tmp_path / f"{i}.png", 20, 60) for i in range(3)]
    Photographs(files, 8, room=0).check()
    for file in files[1:]:
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"^2 of 3 images cannot be used, .*1\.png, .*2\.png; the first"):
        Photographs(files, 8, room=0).check()
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(files[0], exif=exif)
    stored, turned = (Photographs(files[:1], 8, 0, upright) for upright in (False, True))
    stored.check()
    turned.check()
    assert caplog.text.count("set task.upright = true") == 1
    assert torch.equal(stored[torch.tensor([0])].flip(2, 3), turned[torch.tensor([0])])


def test_deep_pictures_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif holds floating-point numbers"):
        square(tmp_path / "a.tif", 8)
