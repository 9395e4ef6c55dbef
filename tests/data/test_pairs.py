import numpy as np
import pytest
import torch
from PIL import Image

from pictures import png
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import torch_rng
from sartor.data.pairs import (
    Augmentation,
    Decoded,
    PairBatches,
    fingerprint,
    fitting,
    nearest,
    pairs_of,
    rooms,
    size_of,
    sized,
    smooth,
)


def write(folder, names, value=0):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.full((4, 6), value, np.uint8)).save(folder / f"{name}.png")


def found(root, **settings):
    settings = {"valid": 0.2, "test": 0.2, "seed": 0} | settings
    return pairs_of(root, "labels", "label", **settings)


def stems(pairs):
    return [p.picture.stem for p in pairs]


NAMES = {"train": ["a", "b", "c", "d", "e"], "val": ["f"], "test": ["g", "h"]}


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
def test_folders_of_splits(tmp_path, layout):
    for split, names in NAMES.items():
        for kind in ("images", "labels"):
            write(tmp_path / layout.format(split=split, kind=kind), names)
    parts = found(tmp_path)
    assert {k: stems(v) for k, v in parts.items()} == {"train": list("abcde"), "valid": ["f"], "test": ["g", "h"]}
    for pair in parts["train"]:
        assert pair.answer.stem == pair.picture.stem
        assert "labels" in pair.answer.parts
        assert pair.names == (str(pair.picture), str(pair.answer))


def test_without_splits_they_are_drawn(tmp_path):
    for kind in ("images", "labels"):
        write(tmp_path / kind, [f"{i:02}" for i in range(20)])
    parts = found(tmp_path)
    assert [len(parts[k]) for k in ("train", "valid", "test")] == [13, 3, 4]
    assert len({n for p in parts.values() for n in stems(p)}) == 20
    assert {k: stems(v) for k, v in parts.items()} == {k: stems(v) for k, v in found(tmp_path).items()}
    assert stems(parts["test"]) != stems(found(tmp_path, seed=1)["test"])


def test_only_the_missing_split_is_drawn(tmp_path):
    for split in ("train", "test"):
        for kind in ("images", "labels"):
            write(tmp_path / split / kind, NAMES[split])
    parts = found(tmp_path)
    assert stems(parts["test"]) == ["g", "h"]
    assert len(parts["train"]) == 4
    assert set(stems(parts["train"]) + stems(parts["valid"])) == set("abcde")


def test_tables(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for split, names in NAMES.items():
        cells = [png(np.full((4, 6), i, np.uint8)) for i in range(len(names))]
        parquet.write_table(pyarrow.table({"image": cells, "label": cells[::-1]}), tmp_path / f"{split}.parquet")
    parts = found(tmp_path)
    assert [len(parts[k]) for k in ("train", "valid", "test")] == [5, 1, 2]
    assert parts["test"][1].answer == parts["test"][0].picture
    assert parts["test"][1].names[1] == f"the label of row 1 of {tmp_path / 'test.parquet'}"
    alone = found(tmp_path / "train.parquet")
    assert [len(alone[k]) for k in ("train", "valid", "test")] == [3, 1, 1]


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(DataError, match=r"must hold train\.parquet, train/images .*; it holds nothing"):
        found(tmp_path)
    write(tmp_path / "images", ["a", "b"])
    with pytest.raises(DataError, match=r"needs a folder .*labels beside it"):
        found(tmp_path)
    write(tmp_path / "labels", ["a"])
    with pytest.raises(DataError, match=r"images/b\.png has no .*labels/b\.png"):
        found(tmp_path)


def test_the_fingerprint_is_of_files_and_cells(tmp_path):
    for kind in ("images", "labels"):
        write(tmp_path / kind, [f"{i}" for i in range(10)])
    before = fingerprint(found(tmp_path))
    assert before == fingerprint(found(tmp_path))
    assert before != fingerprint(found(tmp_path, seed=1))
    (tmp_path / "labels" / "3.png").write_bytes(b"longer" * 100)
    assert before != fingerprint(found(tmp_path))


def test_pictures_are_decoded_once_while_there_is_room():
    asked = []

    def read(index):
        asked.append(index)
        return torch.full((3, 2, 2), index, dtype=torch.uint8), torch.zeros(2, 2)

    data = Decoded(read, 3, 2 * (12 + 16))
    values = [[int(data[i][0][0, 0, 0]) for i in range(3)] for _ in range(2)]
    assert values == [[0, 1, 2]] * 2
    assert asked == [0, 1, 2, 2]
    assert rooms(1, {"a": [1], "b": [1, 2, 3]}) == {"a": 2**28, "b": 3 * 2**28}
    with pytest.raises(ConfigError, match="cache_gb"):
        rooms(-1, {"a": [1]})


def batches(generator=None, **settings):
    data = Decoded(lambda i: (torch.full((1, 4, 4), i, dtype=torch.uint8), torch.tensor([[i]])), 10, 0)
    finish = lambda x, y: (x.float(), y)  # noqa: E731
    return PairBatches(data, 4, finish, generator, **settings)


def test_held_out_pairs_come_in_order_and_an_epoch_is_a_shuffle():
    fixed = batches()
    assert [y.flatten().tolist() for _, y in fixed] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(fixed) == 3
    epoch = [y.flatten().tolist() for _, y in batches(torch_rng(0))]
    assert [len(b) for b in epoch] == [4, 4]
    assert len({i for b in epoch for i in b}) == 8
    assert epoch == [y.flatten().tolist() for _, y in batches(torch_rng(0))]
    assert epoch != [y.flatten().tolist() for _, y in batches(torch_rng(1))]
    twice = [i for _, y in batches(torch_rng(0), repeats=2) for i in y.flatten().tolist()]
    assert sorted(twice) == sorted(list(range(10)) * 2)


def test_only_training_pairs_are_changed():
    change = lambda x, y, g: (x + 100, y)  # noqa: E731
    assert all(float(x.min()) >= 100 for x, _ in batches(torch_rng(0), augment=change))
    assert all(float(x.max()) < 100 for x, _ in batches(augment=change))


def test_a_picture_and_its_answer_change_in_step():
    """The answer holds the picture's own numbers: after any change they must still be these."""
    picture = torch.arange(8 * 12, dtype=torch.uint8).reshape(1, 8, 12)
    change = Augmentation("zoom_flip", 2.0, lambda y, size, factor: smooth(y[None], size)[0])
    generator = torch_rng(0)
    seen = set()
    for _ in range(40):
        x, y = change(picture, picture[0], generator)
        assert torch.equal(x[0], y)
        seen.add(tuple(x.flatten().tolist()))
    assert len(seen) > 30
    flips = Augmentation("flip", 2.0, nearest)
    both = {tuple(flips(picture, picture[0], generator)[0].flatten().tolist()) for _ in range(30)}
    assert both == {tuple(picture.flatten().tolist()), tuple(picture.flip(-1).flatten().tolist())}
    none = Augmentation("", 2.0, nearest)
    before = generator.get_state()
    assert torch.equal(none(picture, picture[0], generator)[0], picture)
    assert torch.equal(before, generator.get_state())


def test_the_factor_is_that_of_the_window():
    factors = []

    def enlarged(answer, size, factor):
        factors.append((factor, answer.shape[-2]))
        return nearest(answer, size)

    picture = torch.zeros(3, 60, 40, dtype=torch.uint8)
    change, generator = Augmentation("zoom", 1.5, enlarged), torch_rng(0)
    for _ in range(50):
        x, y = change(picture, torch.zeros(60, 40), generator)
        assert (x.shape, y.shape) == ((3, 60, 40), (60, 40))
    assert all(factor == 60 / rows for factor, rows in factors)
    assert 1 <= min(factors)[0] < 1.1
    assert 1.4 < max(factors)[0] <= 1.5


@pytest.mark.parametrize(("kind", "zoom"), [("mirror", 1.5), ("flip", 0.5), ("zoom", float("nan"))])
def test_augmentations_have_names_and_enlarge(kind, zoom):
    with pytest.raises(ConfigError, match="augment must be one of"):
        Augmentation(kind, zoom, nearest)


def test_sizes():
    labels = torch.tensor([[0, 1], [2, 3]])
    assert nearest(labels, (4, 4)).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    assert nearest(labels, (2, 2)).tolist() == labels.tolist()
    assert nearest(torch.arange(9).reshape(1, 9), (1, 3)).tolist() == [[1, 4, 7]]
    assert smooth(torch.full((3, 5, 5), 77, dtype=torch.uint8), (2, 7)).unique().tolist() == [77]
    assert sized(None) is None
    assert (sized(8), sized([4, 6])) == ((8, 8), (4, 6))
    for wrong in (0, [1], [1, 2, 3], [0, 4]):
        with pytest.raises(ConfigError, match="size must be"):
            sized(wrong)


def test_pairs_that_do_not_fit_are_named(tmp_path):
    for kind in ("images", "labels"):
        write(tmp_path / kind, ["a", "b", "c", "d"])
    pair = found(tmp_path)["train"][0]
    assert size_of(pair) == (4, 6)
    picture, labels = torch.zeros(3, 4, 6), torch.zeros(4, 6)
    fitting(picture, labels, pair, (4, 6))
    with pytest.raises(DataError, match=r"images/\w\.png has \(4, 6\) pixels, .*labels/\w\.png has \(4, 5\)"):
        fitting(picture, labels[:, :5], pair, (4, 6))
    with pytest.raises(DataError, match=r"images/\w\.png has \(4, 6\) pixels, the first one \(8, 8\); set size"):
        fitting(picture, labels, pair, (8, 8))
