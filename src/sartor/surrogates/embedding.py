"""Embeddings of networks that a kernel can compare: encodings as sequences, recurrent and attention encoders, training.

Source: Cao, Wang and Kitani, "Learnable embedding space for efficient neural architecture compression" (ICLR 2019): a
bidirectional LSTM over the layers, its mean over time of unit length, an RBF kernel on that, trained so that a Gaussian
process predicts each value well from all the others. Deviations:

* A sequence has as many rows as the network has layers: there is no longest one.
* A space that does not describe its layers (`Described`) is encoded by its choices, one row each.
* `transformer` and `graph` are not in the paper.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sartor.core.abilities import Described
from sartor.core.contracts import Space
from sartor.core.errors import ConfigError
from sartor.core.files import atomically
from sartor.core.records import Arch, Choice
from sartor.core.rng import global_seed
from sartor.surrogates.curves import Targets
from sartor.surrogates.gaussian import rbf

Kind: TypeAlias = Literal["lstm", "transformer", "graph"]

CHUNK = 256
"""Sequences embedded at a time, where no gradient is needed."""
HEADS = 4
FILE = "embedding.safetensors"
"""Among the artifacts of a search."""
MEMORY = 2048
"""Networks whose descriptions are kept."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Networks as rows of numbers.

    Attributes:
        rows: `(n, t, features)`, zero after the end of each network.
        lengths: Rows that count, `(n,)`, int64.
        links: 1 where the first row leads into the second, `(n, t, t)`; None if nobody knows or asks.
    """

    rows: Tensor
    lengths: Tensor
    links: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: slice | Tensor) -> Sequences:
        lengths = self.lengths[index]
        most = int(lengths.max())
        links = None if self.links is None else self.links[index, :most, :most]
        return Sequences(self.rows[index, :most], lengths, links)

    @property
    def even(self) -> bool:
        """Whether all are equally long."""
        return bool((self.lengths == self.rows.shape[1]).all())

    @property
    def mask(self) -> Tensor:
        """Which rows count, `(n, t)`."""
        return torch.arange(self.rows.shape[1], device=self.rows.device) < self.lengths[:, None].to(self.rows.device)

    def to(self, device: str) -> Sequences:
        """The rows on a device; the lengths stay on the CPU."""
        return Sequences(self.rows.to(device), self.lengths, None if self.links is None else self.links.to(device))


class Encoding:
    """Networks of a space as sequences: its own description of their layers, or one row per choice.

    A row of the latter says which choice it is, which option is taken, where that is between the first and the last
    (ordered choices), and what it is as a fraction of the largest (numbers).

    Args:
        space: Any.
        links: Whether to say which rows lead into which, if the space knows.
    """

    def __init__(self, space: Space, *, links: bool = False) -> None:
        self.space = space
        self._table = None if isinstance(space, Described) else options(space.choices)
        self._links = links
        self._read = lru_cache(MEMORY)(self._described)

    @property
    def features(self) -> int:
        """Numbers per row."""
        return self([self.space.canonical(self.space.reference)]).rows.shape[2]

    def __call__(self, archs: Sequence[Arch]) -> Sequences:
        """Sequences of networks, in their order."""
        if self._table is not None:
            index = torch.tensor(archs, dtype=torch.int64)
            place = torch.arange(index.shape[1])
            return Sequences(self._table[place, index], torch.full((len(archs),), len(place)))
        read = [self._read(arch) for arch in archs]
        rows = nn.utils.rnn.pad_sequence([r for r, _ in read], batch_first=True)
        links = None
        if any(edges is not None for _, edges in read):
            links = torch.zeros(len(read), rows.shape[1], rows.shape[1])
            for i, (_, edges) in enumerate(read):
                if edges is not None:
                    links[i, edges[0], edges[1]] = 1.0
        return Sequences(rows, torch.tensor([len(r) for r, _ in read]), links)

    def _described(self, arch: Arch) -> tuple[Tensor, Tensor | None]:
        """Rows, and the edges between them, `(2, edges)`, if they are wanted and known."""
        assert isinstance(self.space, Described)
        rows = torch.from_numpy(np.asarray(self.space.description(arch), dtype=np.float32))
        edges = self.space.edges(arch) if self._links else None
        return rows, None if edges is None else torch.from_numpy(np.asarray(edges, dtype=np.int64))


def options(choices: Sequence[Choice]) -> Tensor:
    """The row of each option of each choice, `(choices, options, features)`."""
    n, k = len(choices), max(len(c.options) for c in choices)
    table = torch.zeros(n, k, n + k + 2)
    for i, choice in enumerate(choices):
        count = len(choice.options)
        table[i, :, i] = 1.0
        table[i, :, n : n + k] = torch.eye(k)
        if choice.ordered:
            table[i, :count, -2] = torch.linspace(0, 1, count) if count > 1 else 1.0
        if all(isinstance(o, int | float) for o in choice.options):
            values = torch.tensor([float(o) for o in choice.options])
            table[i, :count, -1] = values / max(float(values.abs().max()), 1e-12)
    return table


class Lstm(nn.Module):
    """A bidirectional LSTM, averaged over time.

    Args:
        features: Numbers per row.
        hidden: Units per direction; an embedding has twice as many numbers.
        layers: One on top of the other.
    """

    def __init__(self, features: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, layers, bidirectional=True, batch_first=True)

    def forward(self, sequences: Sequences) -> Tensor:
        """Embeddings `(n, 2 * hidden)` of length 1."""
        if sequences.even:
            return _unit(self.lstm(sequences.rows)[0].mean(1))
        packed = nn.utils.rnn.pack_padded_sequence(
            sequences.rows, sequences.lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return _average(states, sequences)


class Transformer(nn.Module):
    """Self-attention over the rows with sines for their places, averaged; the arguments are those of `Lstm`."""

    def __init__(self, features: int, hidden: int, layers: int) -> None:
        super().__init__()
        width = 2 * hidden
        self.enter = nn.Linear(features, width)
        layer = nn.TransformerEncoderLayer(width, HEADS, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, sequences: Sequences) -> Tensor:
        """Embeddings `(n, 2 * hidden)` of length 1."""
        rows = self.enter(sequences.rows)
        rows = rows + _sines(rows.shape[1], rows.shape[2]).to(rows)
        hidden = None if sequences.even else ~sequences.mask
        return _average(self.encoder(rows, src_key_padding_mask=hidden), sequences)


class Graph(nn.Module):
    """Messages between rows, then their average; the arguments are those of `Lstm`.

    In each of `layers` rounds a row hears of the rows before and after it in the order of execution, of the mean of
    those that lead into it, and of the mean of those that it leads into.
    """

    def __init__(self, features: int, hidden: int, layers: int) -> None:
        super().__init__()
        width = 2 * hidden
        self.enter = nn.Linear(features, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.rounds = nn.ModuleList(nn.Linear(5 * width, width) for _ in range(layers))

    def forward(self, sequences: Sequences) -> Tensor:
        """Embeddings `(n, 2 * hidden)` of length 1."""
        states, mask = self.enter(sequences.rows), sequences.mask.to(sequences.rows)[..., None]
        leads = None if sequences.links is None else _shares(sequences.links)
        for norm, mix in zip(self.norms, self.rounds, strict=True):
            x = norm(states) * mask
            nothing = torch.zeros_like(x)
            heard = (nothing, nothing) if leads is None else (leads[0] @ x, leads[1] @ x)
            before, after = nn.functional.pad(x, (0, 0, 1, 0))[:, :-1], nn.functional.pad(x, (0, 0, 0, 1))[:, 1:]
            states = states + nn.functional.relu(mix(torch.cat([x, before, after, *heard], -1)))
        return _average(states, sequences)


ENCODERS = {"lstm": Lstm, "transformer": Transformer, "graph": Graph}


def _shares(links: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices that average over what leads into a row, and over what it leads into."""
    into = links.transpose(1, 2)
    return into / into.sum(2, keepdim=True).clamp_min(1.0), links / links.sum(2, keepdim=True).clamp_min(1.0)


def _unit(points: Tensor) -> Tensor:
    return nn.functional.normalize(points, dim=-1)


def _average(states: Tensor, sequences: Sequences) -> Tensor:
    mask = sequences.mask.to(states)[..., None]
    return _unit((states * mask).sum(1) / mask.sum(1))


def _sines(count: int, width: int) -> Tensor:
    angles = torch.arange(count)[:, None] * torch.exp(-math.log(1e4) * torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], -1).reshape(count, width)


@dataclass(frozen=True)
class Recipe:
    """What an embedding is, and how it is trained; the defaults are the paper's.

    Attributes:
        encoder: `lstm`, `transformer` or `graph`.
        hidden: Units per direction.
        layers: Of the encoder.
        alpha: Squared length scale of the kernel.
        beta: Variance of the noise.
        updates: Steps of Adam at most.
        lr: Its step size.
        weight_decay: Of Adam.
        tolerance: Training ends when the likelihood is so near to its own average, which halves the weight of the past.
        subset: Probability that an embedding is told of a network.
        warm: Whether training starts from the weights of the step before, not anew.
        file: The run folder of another search, or its `embedding.safetensors`, taken as it is: nothing is trained.
        device: `cpu` or `cuda`.
    """

    encoder: Kind = "lstm"
    hidden: int = 64
    layers: int = 4
    alpha: float = 0.01
    beta: float = 0.05
    updates: int = 100
    lr: float = 1e-3
    weight_decay: float = 5e-4
    tolerance: float = 1e-3
    subset: float = 0.5
    warm: bool = False
    file: str = ""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise ConfigError(f"encoder is {self.encoder!r}; it must be one of {', '.join(ENCODERS)}")
        for name in ("hidden", "layers", "updates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("alpha", "beta", "lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive")
        if not 0 < self.subset <= 1:
            raise ConfigError(f"subset is {self.subset}; it must be in (0, 1]")
        if self.encoder == "transformer" and self.hidden % (HEADS // 2):
            raise ConfigError(f"hidden is {self.hidden}; with {HEADS} heads it must be even")

    def fresh(self, features: int, seed: int) -> nn.Module:
        """An untrained encoder."""
        with global_seed(seed):
            return ENCODERS[self.encoder](features, self.hidden, self.layers).to(self.device)


PAPER = Recipe()


def train(encoder: nn.Module, sequences: Sequences, targets: Targets, recipe: Recipe) -> list[float]:
    """Change an encoder until leaving one network out is predicted well.

    Args:
        encoder: In place.
        sequences: The `n` networks.
        targets: Their values.
        recipe: Settings.

    Returns:
        The likelihood before each step and after the last.
    """
    adam = torch.optim.Adam(encoder.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    sequences, targets = sequences.to(recipe.device), targets.to(recipe.device)
    found, average = list[float](), 0.0
    for step in range(recipe.updates):
        points = encoder(sequences).double()
        likelihood = targets.predictive(rbf(points, points, recipe.alpha), recipe.beta)
        found.append(likelihood.item())
        average = found[-1] if step == 0 else 0.5 * average + 0.5 * found[-1]
        if step > 5 and abs(average - found[-1]) < recipe.tolerance:
            break
        adam.zero_grad()
        (-likelihood).backward()  # type: ignore[no-untyped-call]
        adam.step()
    return found


@torch.no_grad()
def embed(encoder: nn.Module, sequences: Sequences, recipe: Recipe) -> Tensor:
    """Embeddings `(n, 2 * hidden)`, float64, on the CPU."""
    parts = [sequences[i : i + CHUNK].to(recipe.device) for i in range(0, len(sequences), CHUNK)]
    return torch.cat([encoder(part).double().cpu() for part in parts])


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums of a block in one order, however many threads there are: a search must not depend on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep(encoders: Sequence[nn.Module], features: int, recipe: Recipe, path: Path) -> None:
    """Write encoders of one kind to one file."""
    tensors = {f"{i}.{name}": t.detach().cpu() for i, e in enumerate(encoders) for name, t in e.state_dict().items()}
    shape = {"encoder": recipe.encoder, "hidden": recipe.hidden, "layers": recipe.layers, "features": features}
    # one entry: safetensors writes several in any order
    about = {"embedding": json.dumps({**shape, "count": len(encoders)})}
    atomically(path, lambda part: save_file(tensors, part, metadata=about))


def _found(path: Path) -> Path:
    """The file, where it is named by its run's or search's folder, or as if the search's artifacts were the run's."""
    folder = path.parent.parent if path.name == FILE and path.parent.name == "artifacts" else path
    places = (path, folder / "search" / "artifacts" / FILE, folder / "artifacts" / FILE)
    return next((place for place in places if place.is_file()), path)


def load(path: Path, features: int, recipe: Recipe) -> list[nn.Module]:
    """The encoders that `keep` wrote.

    Raises:
        ConfigError: There is no such file, or it is for other networks or settings.
    """
    path = _found(path)
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["embedding"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{path} is not an embedding that esnac has written ({reason}); name its file") from error
    wanted = {"encoder": recipe.encoder, "hidden": recipe.hidden, "layers": recipe.layers, "features": features}
    for name, value in wanted.items():
        if about[name] != value:
            why = "its networks are described by other numbers" if name == "features" else f"set {name} = {about[name]}"
            raise ConfigError(f"the embedding {path} has {name} {about[name]!r}, here it is {value!r}: {why}")
    found = [recipe.fresh(features, 0) for _ in range(about["count"])]
    for i, encoder in enumerate(found):
        prefix = f"{i}."
        encoder.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    return found
