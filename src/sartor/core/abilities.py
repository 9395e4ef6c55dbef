"""What a part may offer beyond what its kind must do: asked for with `require` or `isinstance`, never by name.

The table, written by `make docs`:

Terms: A cost that is the sum of table entries, or the largest of several such sums (peak memory).
    offered by costs/fitted, costs/lookup, costs/macs, costs/memory, costs/params, costs/price
    asked for by regions/openings, regions/region, solvers/budgets, strategies/layernas/layers
    without: strategies with shared weights cannot keep it under a limit; all others ask it network by network.
Accounted: A space that counts its networks itself, exactly and without building them; by tables wherever it can.
    offered by spaces/blocks, spaces/burger, spaces/cells, spaces/compression, spaces/mbconv, spaces/mobilenet_v2,
        spaces/mobilenet_v3_large, spaces/mobilenet_v3_small, spaces/nats_size, spaces/nats_topology, spaces/widths
    asked for by costs/_counting, costs/memory, costs/price, evaluators/synthetic, jobs/fit/assemble
    without: MACs, parameters and memory come from its layers (`Layered`), else from built networks, one by one.
Layered: A space of widths that can list its layers.
    offered by spaces/digits_widths, spaces/mobilenet_v1, spaces/nats_size, spaces/resnet_widths, spaces/tiny,
        spaces/widths
    asked for by costs/_counting, costs/memory, latency/operators
    without: no latency model (unless it is `Operated`), and exact costs only if it is `Accounted`.
Operated: A space whose choices are between operators, each of which can be run and timed on its own.
    offered by spaces/cells, spaces/mbconv, spaces/nats_topology
    asked for by costs/fitted, costs/lookup, jobs/fit/assemble, jobs/fit/meter, jobs/measure/operators,
        latency/operators, latency/plan, supernet/controller
    without: no latency tables per operator, and no latency model (unless it is `Layered`).
Described: A space whose networks can be described layer by layer, for models that learn from many of them.
    offered by spaces/compression
    asked for by surrogates/embedding
    without: such models read the choices, one row each, in their order.
Pretrained: A space whose networks come with weights that may be trained already.
    offered by spaces/compression, spaces/widths
    asked for by evaluators/distil, evaluators/probe, evaluators/reconstructed, jobs/compare/run, jobs/fit/assemble,
        jobs/fit/pipeline, jobs/fit/train, strategies/portfolio/__init__
    without: the reference is trained before anything else, and a teacher to distil from must be given as a file.
Shareable: A space whose architectures share the weights of one supernet.
    offered by spaces/cells, spaces/digits_widths, spaces/mbconv, spaces/mobilenet_v1, spaces/nats_topology,
        spaces/resnet_widths, spaces/tiny, spaces/widths
    asked for by evaluators/finetune, evaluators/inherited, jobs/compare/allowance, jobs/compare/run,
        supernet/weights
    without: no strategy that trains a supernet, and no evaluator that takes weights out of one.
Scalable: A space that knows what scaling the reference network uniformly means, and perhaps other plans.
    offered by spaces/compression, spaces/digits_widths, spaces/mbconv, spaces/mobilenet_v1, spaces/nats_size,
        spaces/resnet_widths, spaces/tiny, spaces/widths
    asked for by jobs/compare/run, jobs/fit/pipeline, strategies/esnac/candidates, strategies/portfolio/__init__,
        strategies/uniform_width
    without: no uniformly scaled network to compare the result with, and none to start a search from.
Solvable: A strategy that can answer further budgets from what it has learned, without training again.
    offered by strategies/aows, strategies/autoslim, strategies/block_qnn, strategies/bohb, strategies/darts,
        strategies/esnac, strategies/hyperband, strategies/layernas, strategies/local_search, strategies/mcts,
        strategies/n2n, strategies/nasnet, strategies/netadapt, strategies/one_shot, strategies/optuna_sampler,
        strategies/ows, strategies/portfolio, strategies/ppo, strategies/proxyless, strategies/random_search,
        strategies/regularized_evolution, strategies/reinforce, strategies/successive_halving, strategies/tunas,
        strategies/uniform_width
    asked for by jobs/fit/search
    without: an answer is the best of its trials inside the budget.
Heritable: An evaluator that keeps the weights of a trial and can start from those of a parent.
    offered by evaluators/distil, evaluators/finetune
    asked for by run/lab
    without: a proposal may have no parent, and every trial starts anew.
Templated: A target that can prepare many networks of one family in milliseconds each.
    offered by targets/onnxruntime, targets/openvino, targets/torch_cpu, targets/torch_cuda
    asked for by jobs/fit/meter
    without: every network that is measured is exported and prepared for itself, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sartor.core.contracts import Batch, Session, Supernet, Task
from sartor.core.errors import CapabilityError
from sartor.core.records import Arch, Choice, Layer, Operator, Operators, Proposal
from sartor.core.tables import Tables
from sartor.core.trees import Inputs

T = TypeVar("T")


@runtime_checkable
class Terms(Protocol):
    """A cost that is the sum of table entries, or the largest of several such sums (peak memory).

    Without: strategies with shared weights cannot keep it under a limit; all others ask it network by network.
    """

    def terms(self) -> Sequence[Tables]:
        """The cost of an arch is the largest of these tables' values: of a single one, its sum.

        Empty where this cost of this space is neither.
        """


@runtime_checkable
class Accounted(Protocol):
    """A space that counts its networks itself, exactly and without building them; by tables wherever it can.

    Derive from it, after `Space`: what a space leaves out, it cannot tell.

    Without: MACs, parameters and memory come from its layers (`Layered`), else from built networks, one by one.
    """

    def account(self, metric: str) -> Tables | None:  # noqa: ARG002 - of spaces that have no tables
        """Tables of `macs` or `params` (a space of something else may have metrics of its own); None: it has none."""
        return None

    def steps(self) -> Sequence[Tables]:
        """Values alive at each step of execution, of which the largest is the peak; empty: it has no tables of them."""
        return ()

    def tally(self, metric: str, archs: Sequence[Arch]) -> Tensor | None:
        """`macs`, `params` or `values` (alive at once, at the peak) of `n` archs, `(n,)`, float64; None: it cannot."""
        if metric == "values":
            steps = [tables(archs) for tables in self.steps()]
            return torch.stack(steps).amax(0) if steps else None
        tables = self.account(metric)
        return None if tables is None else tables(archs)


@runtime_checkable
class Layered(Protocol):
    """A space of widths that can list its layers.

    Without: no latency model (unless it is `Operated`), and exact costs only if it is `Accounted`.
    """

    choices: tuple[Choice, ...]

    def layers(self) -> Sequence[Layer]:
        """All layers that cost something, in order of execution."""


@runtime_checkable
class Operated(Protocol):
    """A space whose choices are between operators, each of which can be run and timed on its own.

    Without: no latency tables per operator, and no latency model (unless it is `Layered`).
    """

    choices: tuple[Choice, ...]

    def operators(self) -> Operators:
        """What every network runs, and what each option adds."""

    def operator(self, operator: Operator) -> nn.Module:
        """A freshly initialised module that runs `operator` on inputs `(batch, *operator.input_shape)`."""


@runtime_checkable
class Described(Protocol):
    """A space whose networks can be described layer by layer, for models that learn from many of them.

    Derive from it, after `Space`: who leaves the edges out has only the order of the layers.

    Without: such models read the choices, one row each, in their order.
    """

    def description(self, arch: Arch) -> NDArray[np.float32]:
        """One row of numbers per layer, `(layers, features)`; networks may differ in layers, not in features."""

    def edges(self, arch: Arch) -> NDArray[np.int64] | None:  # noqa: ARG002 - of spaces that know none
        """Rows of the description from and to which values go, `(2, edges)`; None: it does not know."""
        return None


@runtime_checkable
class Pretrained(Protocol):
    """A space whose networks come with weights that may be trained already.

    Derive from it, after `Space`: what a space leaves out, it does not do.

    Without: the reference is trained before anything else, and a teacher to distil from must be given as a file.
    """

    trained: bool
    """Whether `build` gives trained weights: the reference is then taken as it is."""

    reconstructs: bool = False
    """Whether `reconstruct` can do anything."""

    def reconstruct(self, arch: Arch, module: nn.Module, batches: Iterable[Batch]) -> bool:  # noqa: ARG002
        """Bring a network cut out of a trained one nearer to it before any training, in place.

        Args:
            arch: What `module` is.
            module: `build(arch)`, with the weights that it came with.
            batches: Inputs and targets, of which as many are taken as the space needs.

        Returns:
            Whether anything was changed.
        """
        return False

    def inform(self, task: Task) -> None:
        """Look at training data before the search; the choices stay, and the same data lead to the same space."""


@runtime_checkable
class Shareable(Protocol):
    """A space whose architectures share the weights of one supernet.

    Without: no strategy that trains a supernet, and no evaluator that takes weights out of one.
    """

    def supernet(self) -> Supernet:
        """A freshly initialised supernet (from torch's global generator)."""


@runtime_checkable
class Scalable(Protocol):
    """A space that knows what scaling the reference network uniformly means, and perhaps other plans.

    Derive from it, after `Space`: who leaves the plans out has the uniform one.

    Without: no uniformly scaled network to compare the result with, and none to start a search from.
    """

    def scaled(self, factor: float) -> Arch:
        """The arch whose widths are nearest to `factor` times the reference's."""

    def plans(self) -> Mapping[str, Callable[[float], Arch]]:
        """Name -> a way to narrow the reference: a factor in [0, 1] -> an arch, wider with the factor."""
        return {"uniform": self.scaled}


@runtime_checkable
class Solvable(Protocol):
    """A strategy that can answer further budgets from what it has learned, without training again.

    Without: an answer is the best of its trials inside the budget.
    """

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best arch under upper bounds, metric -> limit; raises BudgetError if none meets them."""


@runtime_checkable
class Heritable(Protocol):
    """An evaluator that keeps the weights of a trial and can start from those of a parent.

    Without: a proposal may have no parent, and every trial starts anew.
    """

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
    """A target that can prepare many networks of one family in milliseconds each.

    Without: every network that is measured is exported and prepared for itself, in seconds.
    """

    def template(self, module: nn.Module, example: Inputs) -> Callable[[nn.Module], Session]:
        """Prepare `module`, the widest of the family, once; the result prepares narrower ones of the same graph.

        The returned function may get modules on the meta device: only the shapes of their parameters count.
        """


def require(thing: object, ability: type[T], by: object) -> T:
    """`thing` as an `ability`, or an error that says who needs what of whom."""
    if not isinstance(thing, ability):
        who = by if isinstance(by, str) else type(by).__name__
        raise CapabilityError(
            f"{who} needs {ability.__name__}, which {type(thing).__name__} does not offer; take one that does"
        )
    return thing
