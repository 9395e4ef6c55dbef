"""Trained weights in the files that people have: wherever they lie, under whatever prefix, and without running code.

Read are safetensors, whole or in shards (`*.index.json`), and what `torch.save` wrote of a state dict, of a mapping
that holds one, or of a checkpoint of Lightning. The mapping and the prefix that fit most names of the network are
taken; of the network's own weights and an average of them (EMA) that fit alike, its own.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sartor.core import copies, foreign, weights
from sartor.core.errors import ConfigError, StateError

log = logging.getLogger(__name__)

Tensors: TypeAlias = Mapping[str, Tensor]

SAFE_TORCH = (2, 10)
"""The first torch that runs no code from a pickle that it is told to read as plain data."""

WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
"""What compiling, sharding and the like put before names, wherever they wrap a module."""

HOLDERS = re.compile(r"((module|model|net|network|backbone|student|teacher|generator|ema|model_ema|ema_model)\.)+")
"""What attributes are called in which networks are kept; a prefix of others must be that of half of the tensors."""

AVERAGED = re.compile(r"ema|averag|swa|teacher", re.I)
"""In a place of weights that are no network's own, but an average over its training."""

COUNTER = "num_batches_tracked"
"""A number that old files lack, and no network needs."""

DEEP = 3
"""How deep a mapping of tensors may lie."""

SHOWN = 5
"""Names in a message."""


class Inert:
    """Stands in for an object of a file that says how a network was trained: nothing of it is kept or run."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Without its arguments."""
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None: ...


STAND_INS: Mapping[str, type[Any]] = {
    "argparse.Namespace": Inert,
    "types.SimpleNamespace": Inert,
    "datetime.datetime": Inert,
    "datetime.timedelta": Inert,
    "numpy.dtype": Inert,
    "numpy.core.multiarray.scalar": Inert,
    "numpy._core.multiarray.scalar": Inert,
    **{f"pathlib.{name}": Inert for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")},
    **{f"omegaconf.dictconfig.{name}": Inert for name in ("DictConfig",)},
    **{f"omegaconf.listconfig.{name}": Inert for name in ("ListConfig",)},
    **{f"omegaconf.base.{name}": Inert for name in ("ContainerMetadata", "Metadata")},
    **{f"omegaconf.nodes.{n}Node": Inert for n in ("Any", "Integer", "Float", "String", "Boolean", "Path")},
    "pytorch_lightning.utilities.parsing.AttributeDict": dict,
    "lightning.pytorch.utilities.parsing.AttributeDict": dict,
    "lightning_fabric.utilities.data.AttributeDict": dict,
    "lightning.fabric.utilities.data.AttributeDict": dict,
}
"""Classes of settings in checkpoints. torch would not read such a file at all; with these it reads the tensors."""


@dataclass(frozen=True)
class Candidate:
    """A mapping of tensors in a file, with a prefix taken off or put on.

    Attributes:
        place: Where it lies: `state_dict`, `ema.model`; empty at the top.
        prefix: What was taken off its names, or `+` and what was put before them.
        tensors: By the network's names: those that it has.
        more: By names that it has not, which its own hooks may know.
        others: Names outside the prefix.
        fits: How many of them have the network's size.
    """

    place: str
    prefix: str
    tensors: Tensors
    more: Tensors
    others: tuple[str, ...]
    fits: int

    @property
    def rank(self) -> tuple[int, int]:
        """More is better."""
        return self.fits, len(self.tensors)

    @property
    def averaged(self) -> bool:
        """Whether its names say that it is an average."""
        return bool(AVERAGED.search(f"{self.place}.{self.prefix}"))

    def __str__(self) -> str:
        parts = [f"under {self.place!r}"] * bool(self.place) + [f"with the prefix {self.prefix!r}"] * bool(self.prefix)
        return " ".join(parts) or "at the top"

    def same(self, other: Candidate) -> bool:
        """Whether it holds the same values."""
        return self.tensors.keys() == other.tensors.keys() and all(
            value.dtype == other.tensors[name].dtype and torch.equal(value, other.tensors[name])
            for name, value in self.tensors.items()
        )


def load_weights(network: nn.Module, file: Path) -> None:
    """Fill a network with trained weights from a file.

    What the file has beside them is said in the log. A network that is refused may be filled in part.

    Args:
        network: Every parameter and buffer must be in the file, but for counters of batches.
        file: Safetensors (one file, or the `.index.json` of shards), or what `torch.save` wrote.

    Raises:
        ConfigError: The file cannot be read without running code, holds weights of another network, or holds a
            network twice; the message says which names it has, how many fit, and the first of another size.
    """
    content = _content(file)
    wanted = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    candidates = list(_candidates(content, wanted))
    found = _chosen(file, candidates)
    if found is None:
        raise ConfigError(
            f"{file} holds no tensors by name, {_outline(content)}; save the state dict, as in "
            "torch.save(network.state_dict(), FILE)"
        )
    _check(network, file, found, wanted)
    try:
        missing, extra = network.load_state_dict({**found.more, **found.tensors}, strict=False)
    except Exception as error:  # of hooks of the network's own
        raise ConfigError(f"cannot fill {type(network).__name__} from {file}: {foreign.first_line(error)}") from error
    if lacking := _lacking(missing, wanted):
        raise _of_another(network, file, found, wanted, lacking)
    averages = [c for c in candidates if c.averaged and 2 * len(c.tensors) > len(wanted)]
    if averages:
        what = f"and an average of them {averages[0]}; its own are taken"
        log.warning("%s: has weights %s %s", file, found, "which are averages" if found.averaged else what)
    if left := [*extra, *found.others]:
        log.warning("%s: left out %d names that the network has not: %s", file, len(left), _some(left))


def load_own(network: nn.Module, file: Path) -> None:
    """Fill a network with the weights that sartor has written of it into a run folder.

    Raises:
        StateError: The file is missing or damaged, or holds those of another network.
    """
    state = weights.load(file)
    try:
        copies.load(network, state)
    except RuntimeError as error:
        raise StateError(
            f"{file} holds the weights of another network ({foreign.first_line(error)}); restore it, or run again in a "
            "new folder"
        ) from error


def _content(file: Path) -> Any:
    """What is in a file, as tensors and plain data."""
    if not file.is_file():
        what = "is a folder; name the file in it" if file.is_dir() else "does not exist; correct the path"
        raise ConfigError(f"cannot read weights from {file}: it {what}")
    if file.name.endswith(".index.json"):
        return _sharded(file)
    with file.open("rb") as opened:
        head = opened.read(64)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size:  # may begin like any other
        return _safetensors(file)
    for start, what in (
        (b"version https://git-lfs", "it is a pointer of Git LFS; fetch the file with git lfs pull"),
        (b"<", "it is a page of the web, not a file of weights; fetch it again"),
        (b"\x89HDF", "it is an HDF5 file; save the state dict as safetensors"),
    ):
        if head.lstrip().startswith(start):
            raise ConfigError(f"cannot read weights from {file}: {what}")
    if head.startswith(b"PK"):
        _refuse_programs(file)
    if head.startswith((b"PK", b"\x80")):
        return _pickled(file)
    return _safetensors(file)


def _safetensors(file: Path) -> Tensors:
    try:
        return load_file(file)
    except Exception as error:  # the parser's own exceptions, and those of what it allocates
        raise ConfigError(
            f"cannot read weights from {file}: {foreign.first_line(error)}; it is neither safetensors nor what "
            "torch.save writes: save the state dict as safetensors"
        ) from error


def _sharded(file: Path) -> Tensors:
    """All shards that an index names; they lie beside it."""
    table = foreign.from_json(foreign.content(file, ConfigError), str(file), ConfigError)
    places = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ConfigError(f"cannot read weights from {file}: it has no 'weight_map' of names and files; write it again")
    found: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if PurePosixPath(name).name != name or "\\" in name:
            raise ConfigError(f"cannot read weights from {file}: it names {name!r}, and shards must lie beside it")
        found.update(next(iter(_mappings(_content(file.parent / name), "")), ("", {}))[1])
    return found


def _pickled(file: Path) -> Any:
    """What `torch.save` wrote, if it is tensors and plain data."""
    version = tuple(int(part) for part in re.findall(r"\d+", str(torch.__version__))[:2])
    if version < SAFE_TORCH:
        raise ConfigError(
            f"cannot read weights from {file}: it is a pickle, which torch {torch.__version__} may run code of "
            "(CVE-2025-32434, CVE-2026-24747); install torch 2.10 or later, or save the weights as safetensors"
        )
    try:
        # opened here: by its name alone, torch would take the file for one of another kind
        with warnings.catch_warnings(), file.open("rb") as opened:
            warnings.simplefilter("ignore")  # of pickles in newer protocols
            with torch.serialization.safe_globals([(kind, name) for name, kind in STAND_INS.items()]):
                return torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch.load raises on a foreign file is not documented
        raise _unreadable(file, error) from error


def _refuse_programs(file: Path) -> None:
    names = list(foreign.members(file, ConfigError))
    parts = {part for name in names for part in PurePosixPath(name).parts}
    what = ""
    if "constants.pkl" in parts and "code" in parts:
        what = "a TorchScript program"
    if parts & {"archive_format", "serialized_exported_program.json"}:
        what = "a program of torch.export"
    if what:
        raise ConfigError(
            f"cannot read weights from {file}: it is {what}; save the state dict of the network itself, as in "
            "torch.save(network.state_dict(), FILE)"
        )


def _unreadable(file: Path, error: Exception) -> ConfigError:
    text = foreign.first_line(error)
    found = re.search(r"GLOBAL ([\w.]+)|(?:unsupported|function) GLOBAL ([\w.]+)", str(error))
    if found is None:
        reason = "it is no pickle of tensors and plain data" if "weights_only" in text else text  # its advice is bad
        return ConfigError(f"cannot read weights from {file}: {reason}; save the state dict as safetensors")
    return ConfigError(
        f"cannot read weights from {file}: it holds an object, {found[1] or found[2]}, whose code would run; save the "
        "state dict alone, as in torch.save(network.state_dict(), FILE)"
    )


def _candidates(content: Any, wanted: Tensors) -> Iterator[Candidate]:
    """Every mapping of tensors in the file, with every prefix that fits some names."""
    plain = {_unwrapped(name): name for name in wanted}
    for place, mapping in _mappings(content, ""):
        tensors = {_unwrapped(name): value for name, value in mapping.items()}
        yield _candidate(place, "", tensors, plain, wanted)
        for prefix, count in _prefixes(tensors, plain).items():
            if HOLDERS.fullmatch(prefix) or 2 * count >= len(tensors):
                cut = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
                rest = tuple(n for n in tensors if not n.startswith(prefix))
                yield _candidate(place, prefix, cut, plain, wanted, rest)
        for prefix, count in _prefixes(plain, tensors).items():
            if 2 * count >= len(plain):
                yield _candidate(place, f"+{prefix}", {prefix + n: v for n, v in tensors.items()}, plain, wanted)


def _mappings(value: Any, place: str, depth: int = 0) -> Iterator[tuple[str, Tensors]]:
    if not isinstance(value, Mapping) or depth > DEEP:
        return
    tensors = {name: t for name, t in value.items() if isinstance(name, str) and isinstance(t, Tensor)}
    if tensors:
        yield place, tensors
    for name, below in value.items():
        if isinstance(name, str):
            yield from _mappings(below, f"{place}.{name}".lstrip("."), depth + 1)


def _unwrapped(name: str) -> str:
    return WRAPPERS.sub("", name)


def _prefixes(longer: Iterable[str], shorter: Mapping[str, object]) -> Counter[str]:
    """How many of the longer names are one of the shorter behind each prefix, which ends in a dot."""
    found: Counter[str] = Counter()
    for name in longer:
        parts = name.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in shorter:
                found[".".join(parts[:cut]) + "."] += 1
    return found


def _candidate(
    place: str, prefix: str, tensors: Tensors, plain: Mapping[str, str], wanted: Tensors, rest: Sequence[str] = ()
) -> Candidate:
    taken = {plain[name]: value for name, value in tensors.items() if name in plain}
    fits = sum(_alike(value, wanted[name]) for name, value in taken.items())
    more = {name: value for name, value in tensors.items() if name not in plain}
    return Candidate(place, prefix, taken, more, tuple(rest), fits)


def _alike(value: Tensor, wanted: Tensor) -> bool:
    """Of one size, and numbers of one kind: whole ones would be taken for others without a word."""
    return value.shape == wanted.shape and value.is_floating_point() == wanted.is_floating_point()


def _chosen(file: Path, candidates: Sequence[Candidate]) -> Candidate | None:
    """The one that fits most names, a network's own before an average of it."""
    if not candidates:
        return None
    best = max(candidate.rank for candidate in candidates)
    equal = [candidate for candidate in candidates if candidate.rank == best]
    own = [candidate for candidate in equal if not candidate.averaged] or equal
    first, *others = own
    different = [other for other in others if not other.same(first)]
    if best[1] and different:
        raise ConfigError(
            f"{file} holds the network {1 + len(different)} times, {first} and {different[0]}, with other values; save "
            "the state dict that is meant in a file of its own"
        )
    return first


def _check(network: nn.Module, file: Path, found: Candidate, wanted: Tensors) -> None:
    if found.fits < len(found.tensors) or not found.tensors:
        raise _of_another(network, file, found, wanted, _lacking(wanted.keys() - found.tensors.keys(), wanted))


def _lacking(missing: Iterable[str], wanted: Tensors) -> list[str]:
    """Without counters, and without second names of tensors that are there under their first."""
    names = set(missing)
    there = {value.data_ptr() for name, value in wanted.items() if name not in names} - {0}
    return [
        name for name in wanted if name in names and not name.endswith(COUNTER) and wanted[name].data_ptr() not in there
    ]


def _of_another(
    network: nn.Module, file: Path, found: Candidate, wanted: Tensors, lacking: Sequence[str]
) -> ConfigError:
    parts = [f"{len(found.tensors)} of its {len(wanted)} names are there"]
    if found.tensors and (found.place or found.prefix):
        parts[0] += f" {found}"
    if lacking:
        parts.append(f"missing are {_some(lacking)}")
    apart = [name for name, value in found.tensors.items() if not _alike(value, wanted[name])]
    if apart:
        ours, theirs = (_described(values[apart[0]]) for values in (wanted, found.tensors))
        more = f" ({len(apart)} differ)" if len(apart) > 1 else ""
        parts.append(f"{apart[0]!r} is {theirs} in the file and {ours} in the network{more}")
    if found.more or found.others:
        parts.append(f"the file has {_some([*found.more, *found.others])}")
    return ConfigError(
        f"{file} does not hold the weights of {type(network).__name__}: {'; '.join(parts)}; name the network that they "
        "were trained for"
    )


def _described(value: Tensor) -> str:
    kind = "" if value.is_floating_point() else f" of {str(value.dtype).removeprefix('torch.')}"
    return f"{tuple(value.shape)}{kind}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(foreign.words(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _outline(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"only {_some([str(name) for name in content]) or 'nothing'}"
    return "but a " + ("Python object" if isinstance(content, Inert) else type(content).__name__)
