import gzip
import zipfile
from pathlib import Path

import pytest

from sartor.core import foreign
from sartor.core.errors import ConfigError, DataError


def test_text_is_read_plain_and_packed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\ufeffäöü".encode())
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress("äöü".encode()))
    assert foreign.text(tmp_path / "a.csv", DataError) == foreign.text(tmp_path / "a.csv.gz", DataError) == "äöü"


def test_what_is_too_large_or_damaged_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(101))
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(10**6)))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"hello hello")[:-9])
    (tmp_path / "no.gz").write_bytes(b"hello")
    for name, message in {
        "large": "has more than 100 bytes",
        "latin": "is no text in UTF-8",
        "bomb.gz": "unpacks to more than",
        "cut.gz": "cannot read",
        "no.gz": "cannot read",
        "none": "there is no file",
        ".": "cannot read",
    }.items():
        with pytest.raises(ConfigError, match=message) as caught:
            foreign.text(tmp_path / name, ConfigError, most=100)
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("read", [foreign.from_json, foreign.from_toml])
def test_texts_that_are_nested_too_deep_or_wrong(read) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(DataError, match=r"a\.x is not .* nested too deep"):
        read(deep if read is foreign.from_json else f"a = {deep}".encode(), "a.x", DataError)
    with pytest.raises(DataError, match=r"a\.x is not (JSON|TOML)"):
        read(b"{", "a.x", DataError)
    assert read(b'{"a": 1}' if read is foreign.from_json else b"a = 1", "a.x", DataError) == {"a": 1}


def test_what_is_in_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b", b"1")
        archive.writestr("a", bytes(10**6))
    assert list(foreign.members(path, DataError)) == ["b", "a"]
    monkeypatch.setattr(foreign, "ROOM", 10**5)
    with pytest.raises(DataError, match=r"a\.zip has .* and unpacks to 1 MB, more than 100 times as much"):
        foreign.members(path, DataError)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b", b"1")
        archive.writestr("B", b"2")
    assert list(foreign.members(path, DataError)) == ["b", "B"]
    with pytest.raises(DataError, match=r"holds '[bB]' twice"):
        foreign.members(path, DataError, fold=True)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("b", b"3")
    with pytest.raises(DataError, match="holds 'b' twice"):
        foreign.members(path, DataError)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cannot read .*a\.zip as an archive"):
        foreign.members(path, DataError)


def test_the_words_of_others_are_one_plain_line() -> None:
    assert foreign.first_line(ValueError("\x1b[1mno\x1b[0m\n\tway\x07")) == "no way"
    assert foreign.first_line(KeyError()) == foreign.first_line(KeyError(), named=True) == "KeyError"
    assert foreign.first_line(ValueError("no"), named=True) == "ValueError: no"
    assert len(foreign.first_line(ValueError("x" * 1000))) == 200
    assert [foreign.size(n) for n in (10, 1500, 2e6, 3.2e9, 5e12)] == [
        "10 bytes",
        "1.5 kB",
        "2 MB",
        "3.2 GB",
        "5,000 GB",
    ]
