"""What each kind of part must do. Abstract here, final everywhere else; `abilities` says what a part may offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, final

import torch
from torch import Tensor, nn

from sartor.core.errors import CapabilityError, ConfigError, LeakError
from sartor.core.metrics import Metric
from sartor.core.moves import Moves
from sartor.core.records import Arch, Choice, Constraint, ExportSettings, Objective, Proposal, Trial
from sartor.core.state import pack, unpack
from sartor.core.trees import Inputs, Tree

State: TypeAlias = dict[str, Any]
Batch: TypeAlias = tuple[Inputs, Tree]
"""Inputs and target of several examples."""


class Space(ABC):
    """A finite set of architectures: choices, and how to build a network from them."""

    choices: tuple[Choice, ...]

    input_shape: tuple[int, ...] | None = None
    """The shape of one input, without the batch: `(3, 224, 224)`; None if the space does not say."""

    example: Inputs | None = None
    """Inputs of one example, where a shape does not tell them: several, or whole numbers."""

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

    def key(self, arch: Arch) -> str:
        """What tables of results call the network: its options, `8:8:16:64:8`, unless they have other names."""
        return ":".join([words[a] for words, a in zip(self._option_words, arch, strict=True)])

    @cached_property
    def moves(self) -> Moves:
        """How networks vary. A space that knows more than its choices say sets, or returns, moves of its own."""
        return Moves(self.choices, self.canonical)

    @cached_property
    def _option_words(self) -> list[list[str]]:  # a table of 300,000 networks asks for as many keys
        return [[str(option) for option in c.options] for c in self.choices]


class CostModel(ABC):
    """A cheap, deterministic metric of an architecture (latency, MACs, energy, bytes)."""

    metric: str
    """Its name, with the unit: `latency_ms`, `macs`, `params`, `memory_bytes`."""

    @abstractmethod
    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        """Costs of `n` architectures, shape `(n,)`, float64."""

    def check(self) -> None:  # noqa: B027 - most costs are fit to be bounded
        """Refuse to be bounded: called once where a budget names this metric.

        Raises:
            BudgetError: It does not know enough of the space's networks for a limit to mean anything.
        """


class Evaluator(ABC):
    """An expensive metric of an architecture (its quality after training, say)."""

    @abstractmethod
    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        """Metrics of the proposal; all randomness comes from `seed`."""

    def epochs(self, fidelity: float) -> float:  # noqa: ARG002 - of those that train nothing
        """Passes over the training data that a trial of this fidelity costs, at most; 0 if it trains nothing."""
        return 0.0


class Session(Protocol):
    """A network that a target has made ready to run."""

    artifact: Path | None
    """The file a user deploys (model.onnx, ...), or None."""

    def __call__(self, inputs: Inputs) -> Tree:
        """The network's output for `inputs`, on the CPU, in the structure that the module gives."""

    def bind(self, inputs: Inputs) -> Callable[[], object]:
        """A call on these inputs with nothing around it: what is timed. It returns when the result is there."""


class Target(ABC):
    """Where a network will run."""

    @abstractmethod
    def prepare(
        self, module: nn.Module, example: Inputs, folder: Path, settings: ExportSettings | None = None
    ) -> Session:
        """Make `module` (set to eval mode) ready for inputs shaped like `example`; files go to `folder`.

        What `settings` asks for beside that is tried by the caller (`sartor.exporting.written`).
        """

    @abstractmethod
    def load(self, artifact: Path) -> Session:
        """A session of a file that `prepare` (or somebody else) has written."""

    @abstractmethod
    def describe(self) -> Mapping[str, str]:
        """Runtime, version, device, threads: whatever the latency depends on and a report must name."""


class Lab(Protocol):
    """What a strategy may do to the world: every call is metered and journaled."""

    def evaluate(self, proposals: Sequence[Proposal], ahead: Sequence[Proposal] = ()) -> list[Trial]:
        """Trials in the order of `proposals`; failed ones carry an `error`.

        Args:
            proposals: What to evaluate.
            ahead: What the next calls will ask for, in their order: who has workers may begin early.
        """

    def log(self, **scalars: float) -> None:
        """Write scalars to the journal (and to TensorBoard when it is installed)."""

    def artifact(self, name: str) -> Path:
        """Where to write a file that outlives the run, e.g. `supernet.safetensors`."""

    def progress(self, done: float, total: float, label: str = "") -> None:
        """Tell the user how much of the current step is done."""


class Strategy(ABC):
    """A resumable search. The runner calls `step` until it returns False."""

    saved: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that a checkpoint holds; `trials` is none of them, as the journal has them."""

    trials: list[Trial]
    """What `recall` gives back: those that want their trials keep them here, oldest first."""

    smoke: ClassVar[Mapping[str, Any]] = {}
    """Settings for a run of seconds that still reaches every phase; the contract tests use them."""

    within_limits: bool = True
    """Whether every proposal meets the constraints; False for a walk that starts outside them."""

    evaluator: ClassVar[str] = "train"
    """The evaluator it works with unless the config names another; `inherited` for those that train a supernet."""

    shares_weights: ClassVar[bool] = False
    """Whether it trains one network for all its trials, which then train nothing themselves."""

    @abstractmethod
    def step(self, lab: Lab) -> bool:
        """Do one unit of work (a batch of trials, an epoch); False when finished."""

    def recall(self, trials: Sequence[Trial]) -> None:
        """Take back all trials of the steps done so far, oldest first, when a run goes on.

        Called once, after `load_state_dict`. What follows from the trials is neither saved nor rebuilt here, but when
        it is next asked for; a strategy around another one hands them on.
        """
        self.trials = list(trials)

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

    window: int = 1
    """Batches that are asked for before the oldest of them is told: batch k may use the results up to k - window. One
    that takes another number has it as a setting, and `waiting` among what it saves."""

    @cached_property
    def waiting(self) -> list[list[Proposal]]:
        """Batches that are asked for and not told yet, oldest first."""
        return []

    @abstractmethod
    def ask(self) -> list[Proposal]:
        """The next batch; empty when the search is finished.

        With a window above one it is asked although those that are `waiting` have not been told.
        """

    @abstractmethod
    def tell(self, trials: Sequence[Trial]) -> None:
        """The results of the last `ask`, in its order, failed ones included."""

    def notes(self) -> Mapping[str, float]:
        """What the log should say about the last `ask`: that its model had failed, say; empty as a rule."""
        return {}

    @final
    def step(self, lab: Lab) -> bool:
        """Ask, evaluate, tell, and log what there is to say about it."""
        notes: Mapping[str, float] = {}
        while len(self.waiting) < self.window and (batch := self.ask()):
            self.waiting.append(batch)
            notes = self.notes()
        if not self.waiting:
            return False
        first, *later = self.waiting
        ahead = [proposal for batch in later for proposal in batch]
        trials = lab.evaluate(first, ahead) if ahead else lab.evaluate(first)
        del self.waiting[0]
        self.tell(trials)
        if notes:
            lab.log(**notes)
        return True


class Supernet(nn.Module, ABC):
    """All architectures in one module. Which one runs is an argument, never hidden state."""

    @abstractmethod
    def forward(self, x: Inputs, gates: Sequence[Tensor]) -> Tree:
        """Run with one gate per choice.

        Args:
            x: Batch of inputs, `(batch, ...)`; several in a tuple or dict, as the space's networks take them.
            gates: `gates[i]` has shape `(k_i,)` (shared by the batch) or `(batch, k_i)` (one row per example); an
                option whose gate is exactly zero everywhere is not run.
        """

    @abstractmethod
    def extract(self, arch: Arch) -> nn.Module:
        """A stand-alone copy with the shared weights of `arch`: the module that `Space.build(arch)` makes."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Data, loss, distance and metrics: all that is known of what a network is for.

    A batch is `(inputs, target)`: inputs are a tensor, a tuple or a dict of tensors (the network is called with them
    spread over its arguments); target and output are tensors or anything made of tensors. See `sartor.core.trees`.

    Attributes:
        train: One shuffled, augmented epoch; all randomness comes from the generator.
        valid: The held-out part of the training data that a search may look at.
        test: The split that only the final report may touch.
        loss: `(output, target) -> (batch,)` losses.
        distance: `(output, teacher's output) -> (batch,)`: what distillation, in-place or ordinary, makes small.
        metrics: The first one decides; the others are reported.
        example: Inputs of one example, each `(1, ...)`: what latency is measured with.
        name: Of the kind of task, for messages and reports.
        logits: Whether the output is one tensor of logits, `(batch, classes, ...)`: label smoothing, and a temperature
            that softens teacher and student, have a meaning only then.
        classes: Number of outputs the network must have, or None if the task does not say.
        ignore: A class of positions that do not count, as in labels per pixel; None if all do.
        fingerprint: Hash of the data, for the report.
        describe: Words for the report: sizes of the splits, source.
        informed: The same task once it has seen the network as it comes, which `imitate` learns from; None for others.
    """

    train: Callable[[torch.Generator], Iterable[Batch]]
    valid: Callable[[], Iterable[Batch]]
    test: Callable[[], Iterable[Batch]]
    loss: Callable[[Tree, Tree], Tensor]
    distance: Callable[[Tree, Tree], Tensor]
    metrics: tuple[Metric, ...]
    example: Inputs
    name: str = "task"
    logits: bool = False
    classes: int | None = None
    ignore: int | None = None
    fingerprint: str = ""
    describe: Mapping[str, Any] | None = None
    informed: Callable[[nn.Module], Task] | None = None

    def __post_init__(self) -> None:
        names = [m.name for m in self.metrics]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"task {self.name!r} needs at least one metric, each with a name of its own; got {names}")

    @property
    def metric(self) -> Metric:
        """The metric that decides."""
        return self.metrics[0]

    def named(self, metric: str) -> Metric | None:
        """The metric of that name, if it has one."""
        return next((m for m in self.metrics if m.name == metric), None)

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
        raise CapabilityError(f"no constraint on {metric!r}; add one, as in [budget] {metric} = '50%'")

    def limits(self) -> dict[str, float]:
        """Every bound, metric -> upper."""
        return {c.metric: c.upper for c in self.constraints}

    def feasible(self, arch: Arch) -> bool:
        """Whether the constraints that a cost model can check are met."""
        costs = self.costs or {}
        return all(float(costs[c.metric]([arch])[0]) <= c.upper for c in self.constraints if c.metric in costs)
