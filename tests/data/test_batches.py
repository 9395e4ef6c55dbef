import numpy as np
import pytest
import torch

from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import torch_rng
from sartor.data.batches import Batches, Seeded, Splits, check_batch, divide, fingerprint


def take(index, generator):
    return index.float()[:, None], index


def seen(batches):
    return [y.tolist() for _, y in batches]


def test_a_held_out_split_is_in_order_and_whole():
    batches = Batches(torch.tensor([1, 4, 5, 8, 9]), take, 2)
    assert seen(batches) == [[1, 4], [5, 8], [9]]
    assert len(batches) == 3


def test_a_training_epoch_is_shuffled_and_drops_a_last_batch_that_is_not_full():
    index = torch.arange(100, 121)
    batches = Batches(index, take, 4, torch_rng(0))
    first = seen(batches)
    assert len(first) == len(batches) == 5
    flat = [i for part in first for i in part]
    assert len(set(flat)) == 20
    assert set(flat) <= set(index.tolist())
    assert flat != sorted(flat)
    assert first == seen(Batches(index, take, 4, torch_rng(0)))
    assert first != seen(Batches(index, take, 4, torch_rng(1)))
    assert len(seen(Batches(index[:3], take, 4, torch_rng(0)))) == 1  # the only one is kept


def whole(splits, count):
    parts = torch.cat([splits.train, splits.valid, splits.test])
    return parts.sort().values.tolist() == list(range(count))


def test_splits_cover_everything_once_and_follow_the_seed():
    a, b, c = (divide(50, valid=0.2, test=0.1, seed=s) for s in (0, 0, 1))
    assert whole(a, 50)
    assert a.sizes() == {"train": 36, "valid": 9, "test": 5}
    assert torch.equal(a.test, b.test)
    assert not torch.equal(a.test, c.test)


def test_every_class_gets_its_share():
    labels = torch.arange(60) % 3
    splits = divide(60, valid=0.25, test=0.2, seed=0, labels=labels)
    assert torch.bincount(labels[splits.test]).tolist() == [4, 4, 4]
    assert torch.bincount(labels[splits.valid]).tolist() == [4, 4, 4]


def test_groups_stay_together():
    groups = np.repeat(np.arange(10), [1, 9, 5, 5, 5, 5, 5, 5, 5, 5])
    for seed in range(20):
        splits = divide(50, valid=0.2, test=0.2, seed=seed, groups=groups)
        assert whole(splits, 50)
        parts = [set(groups[getattr(splits, name).numpy()]) for name in ("train", "valid", "test")]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        assert 5 <= len(splits.test) <= 15


def test_flags_are_the_test_split():
    flags = np.arange(20) % 4 == 1
    splits = divide(20, valid=0.2, test=0.9, seed=0, flags=flags)
    assert splits.test.tolist() == [1, 5, 9, 13, 17]
    assert len(splits.valid) == 3
    with pytest.raises(DataError, match="0 of 20 examples are flagged"):
        divide(20, valid=0.2, test=0.1, seed=0, flags=np.zeros(20))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"valid": 0.0}, ConfigError, "valid must be"),
        ({"test": 1.0, "groups": np.arange(9)}, ConfigError, "test must be"),
        ({"groups": np.zeros(9)}, DataError, "1 group left, too few to hold out test"),
    ],
)
def test_what_cannot_be_drawn_is_told(settings, error, words):
    with pytest.raises(error, match=words):
        divide(9, **{"valid": 0.2, "test": 0.2, "seed": 0, **settings})


def test_a_batch_holds_something():
    with pytest.raises(ConfigError, match="batch must be at least 1"):
        check_batch(0)


def test_fingerprints_differ_by_values_types_and_splits():
    index = torch.arange(3)
    splits, other = Splits(index, index, index), Splits(index, index, index + 1)
    x = torch.arange(4)
    prints = [fingerprint(splits, x), fingerprint(other, x), fingerprint(splits, x + 1), fingerprint(splits, x.int())]
    assert len(set(prints)) == 4
    assert prints[0] == fingerprint(Splits(index, index, index), {"a": torch.arange(4)})


class Drawing:
    """A loader that draws from torch's global generator."""

    def __iter__(self):
        for _ in range(3):
            yield torch.rand(2)


def test_a_foreign_loader_draws_from_our_generator():
    def all_of(generator):
        return torch.stack(list(Seeded(Drawing(), lambda b: b, generator)))

    before = torch.get_rng_state()
    first = all_of(torch_rng(0))
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    assert torch.equal(first, all_of(torch_rng(0)))
    assert not torch.equal(first, all_of(torch_rng(1)))
    assert torch.equal(all_of(None), all_of(None))
    assert len(first.unique()) == 6
    with pytest.raises(TypeError):
        len(Seeded(Drawing(), lambda b: b))
