"""Weights on their way between a supernet and the networks that are cut out of it.

`Supernet.extract` says how weights are cut out, not where from. That is found by cutting numbers: while every entry of
the supernet holds its own number, the network extracted holds the places of its entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from sartor.core import weights
from sartor.core.abilities import Shareable
from sartor.core.contracts import Supernet
from sartor.core.errors import CapabilityError, StateError
from sartor.core.records import Arch
from sartor.core.rng import global_seed

FIRST = 2**40
"""The number of the first entry: constants that a network brings along are not mistaken for places."""

EXACT = 2**53
"""Whole numbers below this are exact in float64."""


def read_supernet(space: Shareable, path: str | Path = "") -> Supernet:
    """The supernet of `space` with the weights of a file; without one with its own, the same at every call.

    Raises:
        StateError: The file cannot be read, or holds another supernet.
    """
    with global_seed(0):
        net = space.supernet()
    if not str(path):
        return net
    tensors = weights.load(Path(path), "train a supernet first")
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise StateError(
            f"{path} holds another supernet than the space's; use the space it was trained with"
        ) from error
    return net


def check_parent(parent: int | None, source: Path | None, arch: Arch) -> None:
    """Raise CapabilityError unless a trial that has a parent is given its weights, and no other one is."""
    if (parent is None) != (source is None):
        raise CapabilityError(
            f"trial {parent} is the parent of {arch} and its weights are {source}; "
            "run the search in a folder, which keeps the weights of parents"
        )


def keep_weights(path: Path, arch: Arch, module: nn.Module) -> None:
    """Write the weights of a trial for its children: whole or not at all."""
    weights.save(path, module.state_dict(), arch=arch)


def kept_weights(path: Path) -> tuple[Arch, dict[str, Tensor]]:
    """What `keep_weights` wrote: the arch, and its state dict.

    Raises:
        StateError: The file cannot be read.
    """
    remedy = "start the search in a new folder"
    tensors, facts = weights.load_with_facts(path, remedy)
    if "arch" not in facts:
        raise StateError(f"cannot read the weights {path} (it does not say of which network it is); {remedy}")
    return tuple(facts["arch"]), tensors


@torch.no_grad()
def write_back(supernet: Supernet, arch: Arch, state: Mapping[str, Tensor]) -> None:
    """Put the weights of a network where they were cut from; all other entries of the supernet stay.

    Parameters, floating-point buffers and the counters of batch norms are written; other buffers hold no weights.

    Args:
        supernet: Changed in place.
        arch: What was extracted.
        state: The state dict of `supernet.extract(arch)` after training.

    Raises:
        StateError: Names or shapes of `state` are not those of the network of `arch`.
        CapabilityError: The supernet does more than copy entries, so that weights have no place to go back to.
    """
    entries = _entries(supernet)
    vector = torch.cat([tensor.reshape(-1).double() for tensor in entries.values()])
    narrow = supernet.extract(arch)
    _check_fits(narrow, arch, state)
    for name, place in _places(supernet, arch, narrow, vector).items():
        vector[place] = state[name].to(vector)
    for tensor, part in zip(entries.values(), _split(vector, entries), strict=True):
        tensor.copy_(part)


def _entries(module: nn.Module) -> dict[str, Tensor]:
    """What is written, sharing memory with the module. Other integers may steer the extraction: they are no weights."""
    return {
        name: tensor
        for name, tensor in module.state_dict(keep_vars=True).items()
        if tensor.is_floating_point() or name.endswith("num_batches_tracked")
    }


def _split(vector: Tensor, entries: Mapping[str, Tensor]) -> list[Tensor]:
    parts = torch.split(vector, [tensor.numel() for tensor in entries.values()])
    return [part.view(tensor.shape) for part, tensor in zip(parts, entries.values(), strict=True)]


def _places(supernet: Supernet, arch: Arch, narrow: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """For every tensor of `narrow` the places of its entries in `vector`, in the tensor's shape."""
    if FIRST + len(vector) >= EXACT:
        raise CapabilityError(f"a supernet of {len(vector)} weights is too large to number; write back a smaller one")
    with _numbered(supernet, len(vector)):
        numbered = supernet.extract(arch)
    values, parameters = _entries(narrow), {name for name, _ in narrow.named_parameters(remove_duplicate=False)}
    found = {}
    for name, number in _entries(numbered).items():
        place = number.double() - FIRST
        inside = (place >= 0) & (place < len(vector))
        if not inside.any() and name not in parameters:
            continue  # a constant that comes with the network
        place = place.long()
        # Compared with the real weights, too: an extraction that looks at them cuts the numbers differently.
        if not inside.all() or not _same(vector[place], values[name].double()):
            raise CapabilityError(
                f"{type(supernet).__name__}.extract does not copy all entries of {name!r} from places that only the "
                "arch decides; weights can be written back to supernets that do"
            )
        found[name] = place
    return found


@contextmanager
def _numbered(supernet: Supernet, total: int) -> Iterator[None]:
    """Every entry holds its number, in float64, inside the block only."""
    entries = _entries(supernet)
    before = [(tensor, tensor.data) for tensor in entries.values()]
    numbers = torch.arange(FIRST, FIRST + total, dtype=torch.float64)
    try:
        for tensor, part in zip(entries.values(), _split(numbers, entries), strict=True):
            tensor.data = part.to(tensor.device, torch.float64 if tensor.is_floating_point() else tensor.dtype)
        yield
    finally:
        for tensor, data in before:
            tensor.data = data


def _same(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and torch.allclose(one, two, rtol=0, atol=0, equal_nan=True)


def _check_fits(narrow: nn.Module, arch: Arch, state: Mapping[str, Tensor]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in narrow.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    if wrong:
        name = wrong[0]
        raise StateError(
            f"the weights are not of network {arch}: {name!r} is {given.get(name, 'missing')}, "
            f"should be {wanted.get(name, 'absent')}; extract and write back with the same arch"
        )
