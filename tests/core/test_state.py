from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from run.toys import largest_file, same
from sartor.core import state, weights
from sartor.core.errors import StateError
from sartor.core.records import Trial


class Thing:
    def __init__(self, value: Any) -> None:
        self.value = value


def through_file(value: Any, live: Any = None) -> Any:
    """What `value` is after pack, a file, and unpack over `live`."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "state.safetensors"
        state.save(path, state.pack(Thing(value), ("value",)))
        thing = Thing(live)
        state.unpack(thing, ("value",), state.load(path))
    return thing.value


def alike(a: Any, b: Any) -> bool:
    """The same types and values, not a number and minus zero included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    return bool(repr(a) == repr(b))


class Key(NamedTuple):
    kind: str
    width: int


numbers = st.lists(st.floats(width=32), max_size=4)
tensors = st.builds(
    lambda values, dtype: torch.tensor(values).nan_to_num(0.0, 9.0, -9.0).to(dtype),
    numbers,
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]),
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), tensors),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.tuples(st.integers())), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(plain)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    assert alike(through_file(value), value)


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        ([np.float64(0.1), (np.int32(1),)], [0.1, (1,)]),
        ({np.int64(1): np.str_("a")}, {1: "a"}),
        (Key("conv", 8), ("conv", 8)),
        ({Key("conv", 8): 1.0}, {("conv", 8): 1.0}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    ],
)
def test_relatives_of_plain_data_become_plain(value: Any, back: Any) -> None:
    got = through_file(value)
    assert got == back
    assert type(got) is type(back)


def test_trials_come_back_with_numpy_metrics_made_plain() -> None:
    trial = Trial(3, (0, 1), 0.5, {"accuracy": np.float64(0.25)}, "ValueError: x")
    assert through_file([trial, None]) == [trial, None]
    assert through_file({"best": trial})["best"].arch == (0, 1)


def test_tensors_are_copied_both_ways() -> None:
    tensor = torch.arange(3)
    thing = Thing(tensor)
    packed = state.pack(thing, ("value",))
    tensor += 10
    assert packed["value"].tolist() == [0, 1, 2]
    state.unpack(thing, ("value",), packed)
    thing.value += 5
    assert packed["value"].tolist() == [0, 1, 2]


def test_parameters_are_packed_without_their_graph() -> None:
    packed = state.pack(Thing(nn.Parameter(torch.ones(2)) * 2), ("value",))
    assert not packed["value"].requires_grad


def test_generators_go_on_where_they_were() -> None:
    for make, draw in (
        (np.random.default_rng, lambda g: g.random(4).tolist()),
        (lambda s: torch.Generator().manual_seed(s), lambda g: torch.rand(4, generator=g).tolist()),
    ):
        one, other = make(1), make(2)
        draw(one)
        back = through_file(one, other)
        assert back is other
        assert draw(back) == draw(one)


def test_modules_and_optimisers_are_loaded_in_place() -> None:
    def trained(steps: int, net: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        for i in range(steps):
            optimiser.zero_grad()
            net(torch.full((2, 3), float(i))).square().sum().backward()
            optimiser.step()

    def fresh(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # noqa: TID251
            net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        return net, torch.optim.Adam(net.parameters(), lr=0.1)

    net, optimiser = fresh(0)
    trained(3, net, optimiser)
    other, other_optimiser = fresh(1)
    assert through_file(net, other) is other
    assert through_file(optimiser, other_optimiser) is other_optimiser
    trained(2, net, optimiser)
    trained(2, other, other_optimiser)
    assert same(dict(net.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize("value", [{1, 2}, object(), np.zeros(2), [lambda: 0], b"x", 1j])
def test_what_is_not_plain_is_refused(value: Any) -> None:
    with pytest.raises(StateError, match=r"cannot checkpoint a .*; use plain data"):
        state.pack(Thing(value), ("value",))


def test_other_names_are_refused() -> None:
    with pytest.raises(StateError, match=r"missing \['value'\], unexpected \['other'\]"):
        state.unpack(Thing(1), ("value",), {"other": 1})


@pytest.mark.parametrize(
    ("live", "value"),
    [
        (nn.Linear(2, 2), {"weight": torch.zeros(3, 3), "bias": torch.zeros(2)}),
        (nn.Linear(2, 2), {}),
        (nn.Linear(2, 2), 3),
        (np.random.default_rng(0), {"bit_generator": "MT19937"}),
        (torch.Generator(), torch.zeros(3)),
    ],
)
def test_a_value_that_does_not_fit_its_attribute_is_a_state_error(live: Any, value: Any) -> None:
    with pytest.raises(StateError, match=r"state of Thing\.value does not fit"):
        state.unpack(Thing(live), ("value",), {"value": value})


def test_files_come_back_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "state.pt"
    state.save(path, {"x": torch.ones(2), "n": (1, "a")})
    assert same(state.load(path), {"x": torch.ones(2), "n": (1, "a")})
    assert [p.name for p in path.parent.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("size", [0, 10, 1000, 20000])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "state.pt"
    state.save(path, 1)
    with largest_file(size), pytest.raises(StateError, match="the file there is as before: free some space"):
        state.save(path, torch.zeros(10000))
    assert state.load(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_path_below_a_file_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match="cannot write"):
        state.save(tmp_path / "file" / "state.pt", 1)


def test_what_is_no_checkpoint_is_a_state_error_and_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    state.save(path, {"x": torch.zeros(100)})
    data = path.read_bytes()

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save(Evil(), tmp_path / "evil.pt")
    (tmp_path / "torn.pt").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("hello")
    for name in ("evil.pt", "torn.pt", "empty.pt", "text.pt", "missing.pt"):
        with pytest.raises(StateError, match=f"{name} is not a checkpoint of sartor"):
            state.load(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_of_an_earlier_version_is_named_and_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    assert not state.present(path)
    torch.save({}, tmp_path / "state.pt")
    with pytest.raises(StateError, match=r"state\.pt is a checkpoint of an earlier sartor, .* or remove it"):
        state.present(path)
    state.save(path, 1)
    assert state.present(path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    weights.save(tmp_path / "x", {}, format="0", data=1)
    with pytest.raises(StateError, match="or one of another version; remove it to start again"):
        state.load(tmp_path / "x")
