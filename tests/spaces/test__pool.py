from __future__ import annotations

import gzip

import pytest

from nets import Stages, random_
from sartor.core.errors import DataError
from sartor.core.records import Choice
from sartor.core.rng import numpy_rng
from sartor.spaces._pool import Pool
from sartor.spaces.compression import Compression
from sartor.tabular import Table

CHOICES = (Choice("a", (0, 1)), Choice("b", (2, 4, 6, 8, 10), ordered=True), Choice("c", ("none", "x", "y")))


def write(path, rows, header="arch_str,cifar10_valid_1"):
    text = "\n".join([header, *(f"{row},{50 + i}" for i, row in enumerate(rows))]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["pool.csv", "pool.csv.gz"])
def test_the_nearest_member_stands_for_the_others(tmp_path, name):
    pool = Pool(write(tmp_path / name, ["1:10:none", "0:4:none", "1:4:x"]), CHOICES)
    assert pool.archs == ((1, 4, 0), (0, 1, 0), (1, 1, 1))
    assert all(pool.nearest(a) == a for a in pool.archs)
    assert pool.nearest((1, 3, 0)) == (1, 4, 0)  # a quarter away
    assert pool.nearest((0, 3, 0)) == (0, 1, 0)  # half; the first one is 1.25 away
    assert pool.nearest((1, 1, 2)) == (1, 1, 1)  # 1, as far as any other word
    assert pool.nearest((1, 1, 0)) == (1, 4, 0)  # 0.75 against 1 and 1


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["1:10"], "arch_str,x", "line 2.*no network of this space"),
        (["1:10:none", "1:11:none"], "arch_str,x", "line 3.*'1:11:none'"),
        (["1:10:none"], "name,x", "no column 'arch_str'"),
        ([], "arch_str,x", "no rows"),
    ],
)
def test_a_table_of_something_else_is_named(tmp_path, rows, header, message):
    with pytest.raises(DataError, match=message):
        Pool(write(tmp_path / "pool.csv", rows, header), CHOICES)
    with pytest.raises(DataError, match="cannot read the pool"):
        Pool(tmp_path / "nothing.csv", CHOICES)


def test_a_space_is_down_to_its_pool(tmp_path):
    network, rng = random_(Stages()).eval(), numpy_rng(0)
    whole = Compression(network=network, size=8, steps=4)
    members = list({whole.reference: None, **{whole.moves.draw(rng): None for _ in range(9)}})
    file = write(tmp_path / "pool.csv", [whole.key(a) for a in members])
    space = Compression(network=network, size=8, steps=4, pool=str(file))
    assert list(space.moves.members) == members
    assert space.reference == whole.reference
    assert {space.moves.draw(rng) for _ in range(200)} == set(members)
    for _ in range(10):
        arch = whole.moves.draw(rng)
        stands = space.canonical(arch)
        assert stands in members
        assert space.canonical(stands) == stands
        assert space.tally("params", [arch]).tolist() == whole.tally("params", [stands]).tolist()
        assert space.description(arch).tolist() == whole.description(stands).tolist()
        assert space.key(arch) == whole.key(stands)
    table = Table.read(file, space)
    assert len(table.rows) == 10
    assert table.line(space, members[3]) == 3
