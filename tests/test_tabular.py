from __future__ import annotations

import gzip
from collections import OrderedDict
from itertools import product

import numpy as np
import pytest
from torch import nn

from sartor import archs, tabular
from sartor.core import plugins
from sartor.core.contracts import Space
from sartor.core.errors import ConfigError, DataError, MissingExtraError
from sartor.core.records import Choice
from sartor.spaces.nats_size import NatsSize
from sartor.tabular import Result, Table, dataset_of, shipped


class Sandwich(Space):
    """Four networks with the names of a published space."""

    choices = (Choice("c1", (8, 16), ordered=True), Choice("c2", (8, 16), ordered=True))

    def build(self, arch):
        return nn.Identity()

    def key(self, arch):
        return f"{8 + 8 * arch[0]}:{8 + 8 * arch[1]}"


class Nameless(Space):
    choices = (Choice("op", ("skip", "conv")), Choice("bias", (False, True)))

    def build(self, arch):
        return nn.Identity()


HEADER = "idx,arch_str,c1,c2,params_M_toys,flops_M_toys,toys_valid_2,toys_test_9,toys_seconds_2,remark"
ROWS = (
    "0,8:8,8,8,0.1,1.5,60.5,70,3,good",
    "1,16:8,16,8,0.2,2.5,62.5,72,4,",
    "2,8:16,8,16,0.3,3.5,64.25,71,5,bad",
    "3,16:16,16,16,0.4,4.5,66,73.125,6,1",
)


def write(path, *rows, header=HEADER):
    path.write_text("\n".join([header, *(rows or ROWS)]) + "\n")
    return path


def test_a_table(tmp_path):
    space = Sandwich()
    table = Table.read(write(tmp_path / "toys.csv"), space)
    assert table.dataset == "toys"
    assert set(table.columns) == {"params_M_toys", "flops_M_toys", "toys_valid_2", "toys_test_9", "toys_seconds_2"}
    assert table.signals() == ("toys_valid_2", "toys_test_9")
    assert table.best_signal() == "toys_test_9"
    assert (table.signal("valid"), table.signal("train")) == ("toys_valid_2", "")
    assert [table.line(space, a) for a in product(range(2), repeat=2)] == [0, 2, 1, 3]
    assert table.column("toys_test_9").tolist() == [70, 72, 71, 73.125]
    assert table.column("toys_test_9").dtype == np.float64


def test_a_compressed_file_and_one_of_another_system_read_alike(tmp_path):
    plain = Table.read(write(tmp_path / "toys.csv"), Sandwich())
    text = (tmp_path / "toys.csv").read_bytes()
    (tmp_path / "zipped").write_bytes(gzip.compress(text))
    (tmp_path / "windows.csv").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") + b"\r\n")
    for name in ("zipped", "windows.csv"):
        again = Table.read(tmp_path / name, Sandwich())
        assert again.rows == plain.rows
        assert all(np.array_equal(again.columns[c], plain.columns[c]) for c in plain.columns)
        assert dataset_of(tmp_path / name) == "toys"


@pytest.mark.parametrize("name", ["again.csv", "again.csv.gz"])
def test_what_is_written_reads_the_same(tmp_path, name):
    table = Table.read(write(tmp_path / "toys.csv"), Sandwich())
    table.write(tmp_path / name)
    again = Table.read(tmp_path / name, Sandwich())
    assert again.rows == table.rows
    assert again.columns.keys() == table.columns.keys()
    assert all(np.array_equal(again.columns[c], table.columns[c]) for c in table.columns)


def test_spaces_without_names_are_called_by_their_options(tmp_path):
    space = Nameless()
    assert space.key((1, 0)) == "conv:False"
    rows = [f"{space.key(a)},{i}" for i, a in enumerate(product(range(2), repeat=2))]
    table = Table.read(write(tmp_path / "t.csv", *rows, header="arch_str,x_test_1"), space)
    assert table.line(space, (1, 1)) == 3


def test_several_data_sets_in_one_file(tmp_path):
    rows = [f"{k},50,{i}" for i, k in enumerate(("8:8", "16:8", "8:16", "16:16"))]
    path = write(tmp_path / "two.csv", *rows, header="arch_str,cifar100_test_90,ImageNet16-120_test_90")
    with pytest.raises(ConfigError, match=r"several data sets, ImageNet16-120, cifar100; name one"):
        Table.read(path, Sandwich())
    table = Table.read(path, Sandwich(), dataset="ImageNet16-120")
    assert list(table.columns) == ["ImageNet16-120_test_90"]
    assert table.dataset == dataset_of(path, "ImageNet16-120") == "ImageNet16-120"
    assert tabular.SETTINGS[table.dataset] == {"classes": 120, "size": 16}
    with pytest.raises(ConfigError, match="no results on 'svhn', only on"):
        dataset_of(path, "svhn")


def test_what_is_reported_is_on_the_test_split_if_there_is_one(tmp_path):
    rows = [f"{k},50,60" for k in ("8:8", "16:8", "8:16", "16:16")]
    both = Table.read(write(tmp_path / "a.csv", *rows, header="arch_str,x_test_2,x_valid_9"), Sandwich())
    assert (both.signals(), both.best_signal()) == (("x_test_2", "x_valid_9"), "x_test_2")
    none = Table.read(write(tmp_path / "b.csv", *rows, header="arch_str,x_train_9,x_valid_9"), Sandwich())
    assert (none.signals(), none.best_signal()) == (("x_train_9", "x_valid_9"), "x_valid_9")


def test_names_of_columns():
    assert Result.of("cifar10_test_90") == ("cifar10", "test", 90)
    assert Result.of("ImageNet16-120_valid_12") == ("ImageNet16-120", "valid", 12)
    assert Result.of("my_data_seconds_1") == ("my_data", "seconds", 1)
    assert Result.of("flops_M_cifar10") is None
    assert Result.of("c1") is None


def replaced(line, old, new):
    rows = list(ROWS)
    rows[line - 2] = rows[line - 2].replace(old, new)
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:2] + ROWS[3:], r"toys.csv has no row for 1 of the 4 networks of its space: '8:16'; add"),
        ((*ROWS, ROWS[1]), r"lines 3 and 6 of .*toys.csv are both of '16:8'; remove one"),
        ((*ROWS, ROWS[1].replace("16:8", "24:8")), r"line 6 of .*toys.csv, column 'arch_str': '24:8' is no network of"),
        (
            replaced(4, "64.25", "n/a"),
            r"line 4 of .*toys.csv, column 'toys_valid_2': 'n/a' is not a number of per cent",
        ),
        (replaced(3, "72", "720"), r"line 3 of .*, column 'toys_test_9': '720' is not a number of per cent"),
        (replaced(5, "73.125", "nan"), r"line 5 of .*, column 'toys_test_9': 'nan'"),
        (replaced(5, "73.125", ""), r"line 5 of .*, column 'toys_test_9': ''"),
        (replaced(2, "0.1", "-0.1"), r"line 2 of .*, column 'params_M_toys': '-0.1' is not a number that is not neg"),
        (replaced(2, "8:8,", "8:8"), r"line 2 of .*toys.csv has 9 fields, its header 10"),
        (replaced(3, ",72", ',"72'), r"line \d of .*toys.csv is no CSV"),
    ],
)
def test_wrong_rows_are_named(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        Table.read(write(tmp_path / "toys.csv", *rows), Sandwich())


def test_lines_are_those_of_the_file(tmp_path):
    rows = ['0,8:8,8,8,0.1,1.5,60.5,70,3,"two\nlines"', "", *replaced(3, "62.5", "?")[1:]]
    with pytest.raises(DataError, match=r"line 5 of .*: '\?'"):
        Table.read(write(tmp_path / "toys.csv", *rows), Sandwich())


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            HEADER.replace("arch_str", "arch"),
            r"line 1 of .* must name the columns, 'arch_str' among them; it has idx, ",
        ),
        (HEADER.replace("toys_test_9", "toys_valid_2"), r"line 1 of .* names the column 'toys_valid_2' twice"),
        ("idx,arch_str,c1,c2,a,b,c,d,e,f", r"line 1 of .* names no column of accuracies, such as cifar10_test_90"),
    ],
)
def test_wrong_headers_are_explained(tmp_path, header, message):
    path = write(tmp_path / "toys.csv", header=header)
    with pytest.raises(DataError, match=message):
        Table.read(path, Sandwich())


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(DataError, match="there is no table"):
        Table.read(tmp_path / "missing.csv", Sandwich())
    with pytest.raises(DataError, match="there is no table"):
        dataset_of(tmp_path / "missing.csv")
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(b"arch_str,x_test_1\n" * 99)[:14])
    for read in (lambda path: Table.read(path, Sandwich()), dataset_of):
        with pytest.raises(DataError, match="no CSV file, plain or with gzip"):
            read(tmp_path / "broken.csv.gz")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="it has nothing"):
        Table.read(tmp_path / "empty.csv", Sandwich())
    write(tmp_path / "none.csv")
    (tmp_path / "none.csv").write_text(HEADER)
    with pytest.raises(DataError, match="no row for 4 of the 4"):
        Table.read(tmp_path / "none.csv", Sandwich())


def test_the_table_of_another_space_and_a_space_too_large(tmp_path):
    path = write(tmp_path / "toys.csv")
    with pytest.raises(
        DataError, match=r"line 2 of .*'8:8' is no network of NatsSize, whose names are like '8:8:8:8:8'"
    ):
        Table.read(path, NatsSize())
    space = Nameless()
    space.choices = tuple(Choice(f"c{i}", (1, 2)) for i in range(30))
    with pytest.raises(ConfigError, match=r"1.07e\+09 networks"):
        Table.read(path, space)


def test_an_unknown_column_gets_a_hint(tmp_path):
    table = Table.read(write(tmp_path / "toys.csv"), Sandwich())
    with pytest.raises(ConfigError, match=r"no column 'toys_valid_12'; did you mean 'toys_valid_2'"):
        table.column("toys_valid_12")
    with pytest.raises(ConfigError, match=r"no column 'xyz'; it has params_M_toys, "):
        table.column("xyz")


def test_the_whole_size_space_is_read_in_a_moment(tmp_path):
    """32,768 rows: what is found is right; what it takes is in the documentation."""
    space = NatsSize()
    archs = list(product(range(8), repeat=5))
    rows = [f"{space.key(a)},{sum(a) + i / 65536:.6f}" for i, a in enumerate(archs)]
    table = Table.read(write(tmp_path / "all.csv", *rows, header="arch_str,cifar100_test_90"), space)
    assert len(table.rows) == 32768
    some = archs[::997]
    assert [table.columns["cifar100_test_90"][table.line(space, a)] for a in some] == pytest.approx(
        [sum(a) + archs.index(a) / 65536 for a in some], abs=1e-5
    )


def record(package, index, key, epochs, dataset, splits):
    """One training as the official package stores it; the numbers tell everything apart."""
    base = 10 * index + epochs / 100 + (0.5 if dataset == "cifar10" else 0)
    steps = list(range(epochs))
    one = package.ResultsCount(
        dataset, None, dict.fromkeys(steps, base), dict.fromkeys(steps, 1.0), 0.5 + index, 7.0 + index,
        {"channel": 16, "num_cells": 5, "class_num": 10}, 777, epochs, None,
    )  # fmt: skip
    one.update_train_info(dict.fromkeys(steps, base), {}, dict.fromkeys(steps, 1.0), dict.fromkeys(steps, 2.0))
    for shift, split in enumerate(splits):
        one.update_eval(
            {f"{split}@{e}": base + shift for e in steps},
            {f"{split}@{e}": 1.0 for e in steps},
            {f"{split}@{e}": 0.25 for e in steps},
        )
    return one


def official(package, folder, keys):
    """The files of the benchmark for a few networks, written by its own package."""
    folder.mkdir()
    package.pickle_save({"meta_archs": list(keys)}, folder / "meta.pickle")
    for index, key in enumerate(keys):
        by_epochs = OrderedDict()
        for hp in ("01", "12", "90"):
            results = package.ArchResults(index, key)
            for dataset, splits in {"cifar10-valid": ("x-valid", "ori-test"), "cifar10": ("ori-test",)}.items():
                results.update(dataset, 777, record(package, index, key, int(hp), dataset, splits))
            by_epochs[hp] = results.state_dict()
        package.pickle_save(by_epochs, folder / f"{index:06d}.pickle")
    return folder


def test_the_files_of_the_benchmark_through_its_own_package(tmp_path):
    package = pytest.importorskip("nats_bench")
    space = Sandwich()
    folder = official(package, tmp_path / "NATS-sss-v1_0-50262-simple", ["8:8", "16:16", "8:16", "16:8"])
    table = Table.read(folder, space)
    assert dataset_of(folder) == table.dataset == "cifar10"
    row = table.line(space, (1, 0))  # number 3 there
    assert table.columns["cifar10_valid_12"][row] == pytest.approx(30.12)
    assert table.columns["cifar10_test_90"][row] == pytest.approx(30 + 0.9 + 0.5)
    assert table.columns["cifar10_seconds_12"][row] == pytest.approx(12 * 2 + 0.25)
    assert (table.columns["params_M_cifar10"][row], table.columns["flops_M_cifar10"][row]) == (3.5, 10)
    table.write(tmp_path / "fast.csv")
    assert Table.read(tmp_path / "fast.csv", space).rows == table.rows
    (folder / "000002.pickle.pbz2").unlink()
    with pytest.raises(DataError, match=r"no results of '8:16' on cifar10"):
        Table.read(folder, space)
    (folder / "meta.pickle.pbz2").unlink()
    with pytest.raises(DataError, match="does not hold the files of NATS-Bench"):
        Table.read(folder, space)
    with pytest.raises(ConfigError, match="no results on 'svhn'"):
        Table.read(folder, space, "svhn")


def test_without_the_official_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nats_bench", None)
    with pytest.raises(MissingExtraError, match=r"needs nats_bench: pip install 'sartor\[nats\]'"):
        Table.read(tmp_path, Sandwich())


def test_tables_that_ship_fit_their_spaces():
    assert "digits_widths" in shipped()
    for name, path in shipped().items():
        assert path.stat().st_size <= 300e3
        space = plugins.load("spaces", name)()
        table = Table.read(path, space)
        assert len(table.rows) == len(list(archs.enumerate_all(space)))
        assert "latency_ms" in table.costs()
        short, long = (table.column(s) for s in table.signals()[:2])
        assert 0.3 < np.corrcoef(short, long)[0, 1] < 1
