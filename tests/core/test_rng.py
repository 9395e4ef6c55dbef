from __future__ import annotations

import numpy as np
import pytest
import torch

from sartor.core.rng import derive, global_seed, numpy_rng, torch_rng


def test_seeds_are_pinned() -> None:
    """A change here changes every run: it needs a new major version."""
    assert derive(0) == 3456079177858693020
    assert derive(0, "trial", 3) == derive(0, "trial", "3")
    assert derive(7, "trial", 3) == 3086765575756848093


def test_every_name_gives_a_stream_of_its_own() -> None:
    seeds = {derive(s, *path) for s in range(20) for path in [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("a", 1)]}
    assert len(seeds) == 120
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_repeat() -> None:
    assert np.array_equal(numpy_rng(0, "a").random(5), numpy_rng(0, "a").random(5))
    assert not np.array_equal(numpy_rng(0, "a").random(5), numpy_rng(0, "b").random(5))
    assert torch.equal(torch.rand(5, generator=torch_rng(0, "a")), torch.rand(5, generator=torch_rng(0, "a")))
    assert not torch.equal(torch.rand(5, generator=torch_rng(0, "a")), torch.rand(5, generator=torch_rng(1, "a")))


def test_the_global_generator_is_seeded_inside_the_block_only() -> None:
    before = torch.get_rng_state()
    with global_seed(3):
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    with global_seed(3):
        assert torch.equal(torch.rand(4), first)
    with global_seed(4):
        assert not torch.equal(torch.rand(4), first)


def test_the_global_generator_is_put_back_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), global_seed(3):
        torch.rand(-1)
    assert torch.equal(torch.get_rng_state(), before)
