"""The abilities the parts offer each other. Abstract here, final everywhere else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, final, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sartor.core.errors import CapabilityError, LeakError
from sartor.core.records import Arch, Choice, Constraint, Layer, Objective, Operator, Operators, Proposal, Trial
from sartor.core.state import pack, unpack
from sartor.core.tables import Tables

State: TypeAlias = dict[str, Any]
Batch: TypeAlias = tuple[Tensor, Tensor]
T = TypeVar("T")


class Space(ABC):
    """A finite set of architectures: choices, and how to build a network from them."""

    choices: tuple[Choice, ...]

    @property
    def reference(self) -> Arch:
        """What a person would have taken; results are compared with it. The last options, unless the space differs."""
        return tuple(len(c.options) - 1 for c in self.choices)

    @abstractmethod
    def build(self, arch: Arch) -> nn.Module:
        """A fresh, independent network of plain PyTorch; initialised from torch's global generator."""

    def canonical(self, arch: Arch) -> Arch:
        """The one representative of all architectures that build the same network."""
        return arch


class CostModel(ABC):
    """A cheap, deterministic metric of an architecture (latency, MACs, energy, bytes)."""

    metric: str
    """Its name, with the unit: `latency_ms`, `macs`, `params`, `memory_bytes`."""

    @abstractmethod
    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        """Costs of `n` architectures, shape `(n,)`, float64."""


class Evaluator(ABC):
    """An expensive metric of an architecture (accuracy after training, say)."""

    @abstractmethod
    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        """Metrics of the proposal; all randomness comes from `seed`."""


class Session(Protocol):
    """A network that a target has made ready to run."""

    artifact: Path | None
    """The file a user deploys (model.onnx, ...), or None."""

    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for `x`, on the CPU."""

    def bind(self, x: Tensor) -> Callable[[], object]:
        """A call on this one input with nothing around it: what is timed. It returns when the result is there."""


class Target(ABC):
    """Where a network will run."""

    @abstractmethod
    def prepare(self, module: nn.Module, example: Tensor, folder: Path) -> Session:
        """Make `module` (set to eval mode) ready for inputs shaped like `example`; files go to `folder`."""

    @abstractmethod
    def load(self, artifact: Path) -> Session:
        """A session of a file that `prepare` (or somebody else) has written."""

    @abstractmethod
    def describe(self) -> Mapping[str, str]:
        """Runtime, version, device, threads: whatever the latency depends on and a report must name."""


class Lab(Protocol):
    """What a strategy may do to the world: every call is metered and journaled."""

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Trial]:
        """Trials in the order of `proposals`; failed ones carry an `error`."""

    def log(self, **scalars: float) -> None:
        """Write scalars to the journal (and to TensorBoard when it is installed)."""

    def artifact(self, name: str) -> Path:
        """Where to write a file that outlives the run, e.g. `supernet.safetensors`."""

    def progress(self, done: float, total: float, label: str = "") -> None:
        """Tell the user how much of the current step is done."""


class Strategy(ABC):
    """A resumable search. The runner calls `step` until it returns False."""

    saved: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that a checkpoint holds."""

    smoke: ClassVar[Mapping[str, Any]] = {}
    """Settings for a run of seconds that still reaches every phase; the contract tests use them."""

    within_limits: bool = True
    """Whether every proposal meets the constraints; False for a walk that starts outside them."""

    evaluator: ClassVar[str] = "train"
    """The evaluator it works with unless the config names another; `inherited` for those that train a supernet."""

    @abstractmethod
    def step(self, lab: Lab) -> bool:
        """Do one unit of work (a batch of trials, an epoch); False when finished."""

    def parents(self) -> Collection[int]:
        """Trials that a later proposal may name as its parent; after a step the weights of all others are removed."""
        return ()

    @final
    def state_dict(self) -> State:
        """All that `saved` names, as plain data."""
        return pack(self, self.saved)

    @final
    def load_state_dict(self, state: State) -> None:
        """Put back what `state_dict` took."""
        unpack(self, self.saved, state)


class AskTell(Strategy):
    """A strategy that only proposes and learns; it never owns the loop."""

    @abstractmethod
    def ask(self) -> list[Proposal]:
        """The next batch; empty when the search is finished."""

    @abstractmethod
    def tell(self, trials: Sequence[Trial]) -> None:
        """The results of the last `ask`, in its order, failed ones included."""

    def notes(self) -> Mapping[str, float]:
        """What the log should say about the last `ask`: that its model had failed, say; empty as a rule."""
        return {}

    @final
    def step(self, lab: Lab) -> bool:
        """Ask, evaluate, tell, and log what there is to say about it."""
        proposals = self.ask()
        if proposals:
            notes = self.notes()
            self.tell(lab.evaluate(proposals))
            if notes:
                lab.log(**notes)
        return bool(proposals)


class Supernet(nn.Module, ABC):
    """All architectures in one module. Which one runs is an argument, never hidden state."""

    @abstractmethod
    def forward(self, x: Tensor, gates: Sequence[Tensor]) -> Tensor:
        """Run with one gate per choice.

        Args:
            x: Batch of inputs, `(batch, ...)`.
            gates: `gates[i]` has shape `(k_i,)` (shared by the batch) or `(batch, k_i)` (one row per example); an
                option whose gate is exactly zero everywhere is not run.
        """

    @abstractmethod
    def extract(self, arch: Arch) -> nn.Module:
        """A stand-alone copy with the shared weights of `arch`: the module that `Space.build(arch)` makes."""


# Optional abilities, asked for with `require`.


@runtime_checkable
class Separable(Protocol):
    """A cost model that is a sum of per-choice and pairwise tables."""

    def tables(self) -> Tables:
        """The tables; `tables()(archs)` equals `self(archs)`."""


@runtime_checkable
class Peaked(Protocol):
    """A cost model that is the maximum, not the sum, of table entries (peak memory)."""

    def peaks(self) -> Sequence[Tables]:
        """The cost of an arch is the largest of these tables' values."""


@runtime_checkable
class Shareable(Protocol):
    """A space whose architectures share the weights of one supernet."""

    def supernet(self) -> Supernet:
        """A freshly initialised supernet (from torch's global generator)."""


@runtime_checkable
class Layered(Protocol):
    """A width space that can list its layers, so that costs become tables."""

    choices: tuple[Choice, ...]

    def layers(self) -> Sequence[Layer]:
        """All layers that cost something, in order of execution."""


@runtime_checkable
class Operated(Protocol):
    """A space whose choices are between operators, each of which can be run and timed on its own."""

    choices: tuple[Choice, ...]

    def operators(self) -> Operators:
        """What every network runs, and what each option adds."""

    def operator(self, operator: Operator) -> nn.Module:
        """A freshly initialised module that runs `operator` on inputs `(batch, *operator.input_shape)`."""


@runtime_checkable
class Derives(Protocol):
    """A space that says which network preferences mean, where that is not the likeliest option of every choice."""

    def derive(self, probs: Sequence[Tensor]) -> Arch:
        """The arch that `probs`, per choice the weights of its options `(k_i,)`, stand for."""


@runtime_checkable
class Accounted(Protocol):
    """A space that counts its networks itself, exactly and without building them."""

    def account(self, metric: str) -> Tables | None:
        """Tables of `macs` or `params`; None if it cannot tell, or they are no sum of tables."""

    def steps(self) -> Sequence[Tables]:
        """Values alive at each step of execution; the largest is the peak."""


@runtime_checkable
class Tallies(Protocol):
    """A space that counts its networks itself, exactly and without building them, where no tables can."""

    def tally(self, metric: str, archs: Sequence[Arch]) -> Tensor | None:
        """`macs`, `params` or `values` (alive at once, at the peak) of `n` archs, `(n,)`, float64; else None."""


@runtime_checkable
class Draws(Protocol):
    """A space that knows which of its networks are worth trying at random, where uniform options are a poor guess."""

    def draw(self, rng: np.random.Generator) -> Arch:
        """A canonical arch."""


@runtime_checkable
class Varies(Protocol):
    """A space that knows which small changes are worth trying, where one choice is not as good as another."""

    def vary(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """A canonical arch next to `arch`."""


@runtime_checkable
class Trained(Protocol):
    """A space whose networks come with weights that are worth keeping."""

    trained: bool
    """Whether `build` gives trained weights: the reference is then taken as it is."""


@runtime_checkable
class Reconstructs(Protocol):
    """A space that can bring a network cut out of a trained one nearer to it before any training."""

    def reconstruct(self, arch: Arch, module: nn.Module, batches: Iterable[Batch]) -> bool:
        """Change the weights of `module`, which `build(arch)` made, in place.

        Args:
            arch: What `module` is.
            module: With the weights that `build` gave it.
            batches: Inputs and targets, of which as many are taken as the space needs.

        Returns:
            Whether anything was changed.
        """


@runtime_checkable
class Informed(Protocol):
    """A space that may want to see the data before it is searched."""

    def inform(self, task: Task) -> None:
        """Look at training data; the choices stay, and the same data always lead to the same space."""


@runtime_checkable
class Shaped(Protocol):
    """A space that knows what enters its networks."""

    input_shape: tuple[int, ...]
    """The shape of one input, without the batch: `(3, 224, 224)`."""


@runtime_checkable
class Listed(Protocol):
    """A space that is a list of networks: every other arch stands for one of them."""

    @property
    def members(self) -> Sequence[Arch]:
        """All canonical archs; empty if there is no list."""


@runtime_checkable
class Keyed(Protocol):
    """A space whose networks have names in published tables."""

    def key(self, arch: Arch) -> str:
        """The name: `8:8:16:64:8`, say."""


@runtime_checkable
class Described(Protocol):
    """A space whose networks can be described layer by layer, for models that learn from many of them."""

    def description(self, arch: Arch) -> NDArray[np.float32]:
        """One row of numbers per layer, `(layers, features)`; networks may differ in layers, not in features."""


@runtime_checkable
class Wired(Protocol):
    """A described space that knows which layers lead into which."""

    def edges(self, arch: Arch) -> NDArray[np.int64]:
        """Rows of the description from and to which values go, `(2, edges)`."""


@runtime_checkable
class Scalable(Protocol):
    """A space that knows what scaling the reference network uniformly means."""

    def scaled(self, factor: float) -> Arch:
        """The arch whose widths are nearest to `factor` times the reference's."""


@runtime_checkable
class Solvable(Protocol):
    """A strategy that can answer further budgets from what it has learned, without training again."""

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best arch under upper bounds, metric -> limit; raises BudgetError if none meets them."""


@runtime_checkable
class Heritable(Protocol):
    """An evaluator that keeps the weights of a trial and can start from those of a parent."""

    def inherit(self, proposal: Proposal, seed: int, *, parent: Path | None, keep: Path | None) -> Mapping[str, float]:
        """Metrics of the proposal, as from a call of the evaluator.

        Args:
            proposal: What to evaluate.
            seed: Of all randomness.
            parent: The file that the evaluator wrote for trial `proposal.parent`; None exactly if it has no parent.
            keep: Where to write this trial's weights, whole or not at all; None keeps nothing.
        """


@runtime_checkable
class Templated(Protocol):
    """A target that can prepare many networks of one family in milliseconds each."""

    def template(self, module: nn.Module, example: Tensor) -> Callable[[nn.Module], Session]:
        """Prepare `module`, the widest of the family, once; the result prepares narrower ones of the same graph.

        The returned function may get modules on the meta device: only the shapes of their parameters count.
        """


@dataclass(frozen=True)
class Task:
    """Data, loss and metrics.

    Attributes:
        train: One shuffled, augmented epoch; all randomness comes from the generator.
        valid: The held-out part of the training data that a search may look at.
        test: The split that only the final report may touch.
        loss: `(logits, target) -> (batch,)` losses.
        metrics: Name -> constructor of a torchmetrics metric; the first is the one to maximise.
        example: One input, `(1, ...)`: what latency is measured with.
        classes: Number of outputs the network must have, or None if the task does not say.
        fingerprint: Hash of the data, for the report.
        describe: Words for the report: sizes of the splits, source.
    """

    train: Callable[[torch.Generator], Iterable[Batch]]
    valid: Callable[[], Iterable[Batch]]
    test: Callable[[], Iterable[Batch]]
    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: Mapping[str, Callable[[], Any]]
    example: Tensor
    classes: int | None = None
    fingerprint: str = ""
    describe: Mapping[str, Any] | None = None

    def sealed(self) -> Task:
        """This task for a search: touching the test split is an error."""
        return replace(self, test=_sealed)


def _sealed() -> Iterable[Batch]:
    raise LeakError("a search may not touch the test split; use task.valid(), or evaluate after the search")


@dataclass(frozen=True)
class Problem:
    """What is to be searched; fixed for the whole run."""

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    costs: Mapping[str, CostModel] | None = None
    task: Task | None = None

    def cost(self, metric: str) -> CostModel:
        """The cost model of `metric`."""
        known = self.costs or {}
        if metric not in known:
            raise CapabilityError(f"no cost model for {metric!r}; the problem has {sorted(known)}")
        return known[metric]

    def limit(self, metric: str) -> float:
        """The upper bound on `metric`."""
        return self._constraint(metric).upper

    def levels(self, metric: str) -> tuple[float, ...]:
        """All bounds on `metric` that the search serves, loosest first."""
        constraint = self._constraint(metric)
        return tuple(sorted({constraint.upper, *constraint.levels}, reverse=True))

    def _constraint(self, metric: str) -> Constraint:
        for constraint in self.constraints:
            if constraint.metric == metric:
                return constraint
        raise CapabilityError(f"no constraint on {metric!r}; add one, for example [budget] {metric} = ...")

    def limits(self) -> dict[str, float]:
        """Every bound, metric -> upper."""
        return {c.metric: c.upper for c in self.constraints}

    def feasible(self, arch: Arch) -> bool:
        """Whether the constraints that a cost model can check are met."""
        costs = self.costs or {}
        return all(float(costs[c.metric]([arch])[0]) <= c.upper for c in self.constraints if c.metric in costs)


def require(thing: object, ability: type[T], by: object) -> T:
    """`thing` as an `ability`, or an error that says who needs what of whom."""
    if not isinstance(thing, ability):
        who = by if isinstance(by, str) else type(by).__name__
        raise CapabilityError(f"{who} needs {ability.__name__}, which {type(thing).__name__} does not offer")
    return thing
