import pytest
import torch

from sartor.core.errors import DataError
from sartor.data import survey as surveys
from sartor.data.survey import early, is_flat, size_of, survey, together


def failing(*wrong):
    def read(index):
        if index in wrong:
            raise DataError(f"file {index} is cut off; remove it")
        return torch.arange(4).reshape(1, 2, 2)

    return read


def names(count):
    return [f"file {i}" for i in range(count)]


def test_all_that_is_wrong_is_in_one_message():
    survey(names(3), failing(), "files")
    with pytest.raises(DataError, match=r"^file 1 is cut off; remove it$"):
        survey(names(3), failing(1), "files")
    with pytest.raises(DataError, match=r"^2 of 3 files cannot be used, file 0, file 2; the first: file 0 is cut off"):
        survey(names(3), failing(0, 2), "files")
    with pytest.raises(DataError, match=r"^15 of 20 files cannot be used, file 0, .*, file 9 and 5 more; the first"):
        survey(names(20), failing(*range(15)), "files")


def test_other_faults_are_not_hidden():
    def read(index):
        raise RuntimeError("a fault of sartor")

    with pytest.raises(RuntimeError, match="a fault of sartor"):
        survey(names(2), read, "files")


def test_pictures_of_one_colour_are_wrong_if_all_are():
    black, ramp = torch.zeros(3, 2, 2), torch.arange(12).reshape(3, 2, 2)
    assert is_flat(black)
    assert is_flat(torch.arange(3)[:, None, None].expand(3, 2, 2))  # red
    assert not is_flat(ramp)
    survey(names(3), len, "files", lambda i: ramp if i == 1 else black)
    survey(names(1), len, "files", lambda _: black)
    with pytest.raises(DataError, match=r"all 3 pictures are of one colour each, as file 0 is"):
        survey(names(3), len, "pictures", lambda _: black)


def test_a_large_data_set_is_not_read_before(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    sources = [tmp_path / "a", b"345", None, tmp_path / "gone"]
    assert [size_of(s) for s in sources] == [2, 3, 0, 0]
    done = []
    early(sources, lambda: done.append(1), names(4))
    assert done == [1]
    monkeypatch.setattr(surveys, "LOOKED", 4)
    early(sources[:2], lambda: done.append(2), names(2))
    with pytest.raises(
        DataError, match=r"2 of 4 files cannot be used, file 2, file 3; the first: file 2 has no content"
    ):
        early(sources, lambda: done.append(2), names(4))
    assert done == [1]


def test_one_error_stays_as_it_is():
    error = DataError("x")
    assert together([("x", error)], 9, "files") is error
