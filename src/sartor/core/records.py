"""What is written to the journal and read back: plain values, without torch or numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple, TypeAlias, get_args

from sartor.core.errors import ConfigError

Arch: TypeAlias = tuple[int, ...]
"""One option index per choice of the space; hashable and JSON-able."""

Scalar: TypeAlias = bool | int | float | str

Otherwise: TypeAlias = Literal["refuse", "fixed"]
"""What happens to a file that cannot be as it was asked for."""

Batches: TypeAlias = Literal["open", "fixed"]
"""Whether a file takes any number of examples."""


@dataclass(frozen=True)
class Choice:
    """One decision: a name and its finite options.

    Attributes:
        name: Unique in its space.
        options: What can be chosen, each once.
        ordered: Whether a later option is more of the same: wider, deeper, finer.
    """

    name: str
    options: tuple[Scalar, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        if not self.options:
            raise ConfigError(f"choice {self.name!r} has no options; give it at least one")
        if len(set(self.options)) != len(self.options):
            raise ConfigError(f"choice {self.name!r} has duplicate options {self.options}; keep one of each")


@dataclass(frozen=True)
class ExportSettings:
    """How the files of a network are written: the `[export]` table.

    Attributes:
        opset: Of ONNX files; 0 leaves it to the exporter.
        dynamic: Sizes that stay open beside the batch, which always does where the network allows it: `height` and
            `width` of inputs `(batch, channels, height, width)`, `length` of inputs `(batch, length)`, or the axis of
            one input by name, as in `ids.1` or `image.width`.
        otherwise: What happens if the network cannot take other sizes: `refuse`, or `fixed` writes a file of the
            example's sizes, and says so.
        batch: `open` where the network allows it, or `fixed` to the example's.
    """

    opset: int = 0
    dynamic: tuple[str, ...] = ()
    otherwise: Otherwise = "refuse"
    batch: Batches = "open"

    def __post_init__(self) -> None:
        for name, known in (("otherwise", get_args(Otherwise)), ("batch", get_args(Batches))):
            if getattr(self, name) not in known:
                raise ConfigError(f"export.{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.opset < 0:
            raise ConfigError(f"export.opset must be positive, or 0 for the exporter's own; got {self.opset}")


@dataclass(frozen=True)
class Proposal:
    """An architecture to evaluate.

    Attributes:
        fidelity: Fraction of the full training budget, in (0, 1].
        parent: Index of the trial whose trained weights the child inherits, or None.
    """

    arch: Arch
    fidelity: float = 1.0
    parent: int | None = None


@dataclass(frozen=True)
class Trial:
    """What is known about one evaluated proposal."""

    index: int
    arch: Arch
    fidelity: float
    metrics: Mapping[str, float] = field(hash=False)
    error: str | None = None
    parent: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it was evaluated without an error."""
        return self.error is None


@dataclass(frozen=True)
class Objective:
    """A metric to minimise or maximise.

    Attributes:
        metric: Its name.
        goal: `max` if more is better, `min` if less is.
    """

    metric: str
    goal: Literal["min", "max"]

    def __post_init__(self) -> None:
        if self.goal not in {"min", "max"}:
            raise ConfigError(f"goal of {self.metric!r} must be 'min' or 'max', got {self.goal!r}")

    def loss(self, trial: Trial) -> float:
        """Lower is better, whatever the goal; infinity for a failed trial."""
        if not trial.ok:
            return float("inf")
        value = trial.metrics[self.metric]
        return -value if self.goal == "max" else value


@dataclass(frozen=True)
class Constraint:
    """An upper bound on a metric.

    Attributes:
        upper: The loosest bound; nothing above it is feasible.
        levels: Tighter bounds that the same search serves too (several budgets, one supernet).
    """

    metric: str
    upper: float
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if any(level > self.upper for level in self.levels):
            raise ConfigError(f"levels {self.levels} of {self.metric!r} must not exceed its bound {self.upper}")


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % confidence interval.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """In another unit, e.g. a ratio times the milliseconds of the reference."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def as_dict(self) -> dict[str, float]:
        """As JSON-able data."""
        return asdict(self)


@dataclass(frozen=True)
class Axis:
    """A number of channels: fixed (`choice` is None, one size), or set by a choice (one size per option)."""

    sizes: tuple[int, ...]
    choice: int | None = None

    def __post_init__(self) -> None:
        if self.choice is None and len(self.sizes) != 1:
            raise ConfigError(f"an axis that no choice sets has one size, got {self.sizes}; name its choice")

    def at(self, arch: Sequence[int]) -> int:
        """The number of channels in `arch`."""
        return self.sizes[0 if self.choice is None else arch[self.choice]]


class LayerKey(NamedTuple):
    """What the cost of a layer depends on; layers with equal keys share one latency-table entry (AOWS, section 4.1).

    `kind` is `conv`, `separable` (depthwise + pointwise), `linear`, or another name that the cost models know.
    `in_size` is the (height, width) of the feature map that enters the layer.
    """

    kind: str
    in_size: tuple[int, int]
    kernel: int | tuple[int, int]
    stride: int
    bias: bool
    c_in: int
    c_out: int
    out: tuple[int, int] | None = None

    @property
    def taps(self) -> int:
        """Entries of one kernel."""
        return self.kernel**2 if isinstance(self.kernel, int) else self.kernel[0] * self.kernel[1]

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width after the layer: `out`, or padding keeps the size and the stride divides it, rounding up."""
        if self.out is not None:
            return self.out
        return -(-self.in_size[0] // self.stride), -(-self.in_size[1] // self.stride)


@dataclass(frozen=True)
class Layer:
    """One layer of a width space, with its channels given by choices.

    Attributes:
        kernel: Its side, or height and width.
        held: Feature maps, as (channels, (height, width)), that neither enter nor leave this layer but are needed after
            it: the other branch of a residual sum. Only peak memory counts them.
        out: Height and width after the layer, where stride and input size do not tell.
    """

    name: str
    kind: str
    in_size: tuple[int, int]
    kernel: int | tuple[int, int]
    stride: int
    bias: bool
    c_in: Axis
    c_out: Axis
    held: tuple[tuple[Axis, tuple[int, int]], ...] = ()
    out: tuple[int, int] | None = None

    def key(self, arch: Sequence[int]) -> LayerKey:
        """The table key of this layer in `arch`."""
        return self.sized(self.c_in.at(arch), self.c_out.at(arch))

    def sized(self, c_in: int, c_out: int) -> LayerKey:
        """The table key of this layer with `c_in` and `c_out` channels."""
        return LayerKey(self.kind, self.in_size, self.kernel, self.stride, self.bias, c_in, c_out, self.out)


@dataclass(frozen=True)
class Operator:
    """A piece of a network that is timed on its own: a block, a stem, a classifier.

    Attributes:
        key: What its cost depends on, in the words of published latency tables; equal keys cost the same.
        input_shape: Of one input, without the batch.
    """

    key: str
    input_shape: tuple[int, ...]


@dataclass(frozen=True)
class Operators:
    """All operators of a space's networks: what always runs, and what each option runs.

    Attributes:
        fixed: In every network.
        options: `options[i][k]` is what option `k` of choice `i` runs, an operator as often as it runs; an option that
            runs nothing (a skip) has none.
    """

    fixed: tuple[Operator, ...]
    options: tuple[tuple[tuple[Operator, ...], ...], ...]

    def all(self) -> tuple[Operator, ...]:
        """Every operator once, in order of appearance."""
        found = [*self.fixed, *(o for choice in self.options for option in choice for o in option)]
        return tuple({o.key: o for o in found}.values())
