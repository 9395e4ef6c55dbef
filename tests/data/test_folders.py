import pytest

from sartor.core.errors import DataError
from sartor.data.folders import class_names, files_below, is_hidden, shown


def made(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    return root


def any_file(folder):
    return any(files_below(folder))


def test_each_folder_is_seen_once_and_hidden_ones_never(tmp_path):
    root = made(tmp_path / "r", "a/1", "a/b/2", ".git/3", "__MACOSX/4", "a/._1", "a/Thumbs.db", "a/desktop.ini")
    made(tmp_path / "other", "5")
    (root / "a" / "loop").symlink_to(root)
    (root / "itself").symlink_to(root / "itself")
    (root / "other").symlink_to(tmp_path / "other")
    found = [p.relative_to(root).as_posix() for p in files_below(root)]
    assert sorted(found) == ["a/1", "a/b/2", "itself", "other/5"]
    assert [is_hidden(n) for n in (".x", "__MACOSX", "x.jpg")] == [True, True, False]


def test_classes_in_the_order_of_their_names(tmp_path):
    root = made(tmp_path / "r", "b/1", "a/x/1", "猫/1", "notes.txt", ".cache/1")
    assert class_names(root, any_file, "files", "add some") == ["a", "b", "猫"]


def test_empty_and_doubled_classes(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"no files in the subfolders of .*none; add some"):
        class_names(tmp_path / "none", any_file, "files", "add some")
    root = made(tmp_path / "r", "a/1")
    for i in range(12):
        (root / f"c{i:02}").mkdir()
    with pytest.raises(DataError, match=r"has classes without files: c00, c01, .*, c09 and 2 more; add some"):
        class_names(root, any_file, "files", "")
    for number, (one, other) in enumerate((("Cat", "cat"), ("STRASSE", "straße"), ("o\u0308", "ö"))):
        twice = made(tmp_path / str(number), f"{one}/1", f"{other}/1")
        with pytest.raises(DataError, match=r"has one class twice, as .* and .*; put them into one folder"):
            class_names(twice, any_file, "files", "")
    with pytest.raises(DataError, match=r"a/1 must be a folder with one folder of files per class; it is a file"):
        class_names(root / "a" / "1", any_file, "files", "")


def test_names_in_a_message():
    assert shown(list("ab")) == "a, b"
    assert shown(list("abcdefghijkl")) == "a, b, c, d, e, f, g, h, i, j and 2 more"
