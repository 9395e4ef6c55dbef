"""From a config (and objects that a caller hands over) to the parts of a job, checked against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from sartor import archs, exporting
from sartor import config as configs
from sartor.config import Table
from sartor.core import plugins
from sartor.core.abilities import Accounted, Operated, Pretrained, require
from sartor.core.contracts import CostModel, Space, Target, Task
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.records import ExportSettings
from sartor.core.rng import derive, global_seed
from sartor.jobs.fit.budget import Budget
from sartor.latency import models
from sartor.latency.operator_table import OperatorTable
from sartor.latency.plan import Kind
from sartor.networks import load_network
from sartor.timing.meter import Effort
from sartor.training import Recipe, channels_apart, check_fits

ANALYTIC = ("macs", "params", "memory")
"""Cost models that need no measuring; every job reports them."""
TOLD = ("edges", "density")
"""Of graphs: only some spaces tell them."""


@dataclass(frozen=True)
class LatencyModelSettings:
    """The `[latency_model]` table.

    Attributes:
        networks: Networks measured to fit the model.
        heldout: Further, uniformly random networks that only test it.
        sweeps: How often all are visited, each time in a fresh session; the held-out ones twice as often.
        rounds: Interleaved rounds per visit.
        kind: Which model (see sartor.costs.fitted), or `auto`.
        plan: Which networks to measure (see sartor.latency.plan).
        samples: Samples to take instead of measuring: a JSON-lines file of an earlier run on the same target, or the
            filled-in `manifest.csv` of another device; "" measures. With a manifest the budget is in that device's
            milliseconds, which nothing here can verify: the verdict stays UNSURE until the result is timed there.
        table: Latencies of the operators of a space of operators (`sartor measure --operators`, see the cost `lookup`),
            for the model to start from; "" starts from what the operators are made of.
    """

    networks: int = 120
    heldout: int = 40
    sweeps: int = 3
    rounds: int = 4
    kind: models.Kind | Literal["auto"] = "auto"
    plan: Kind = "optimal"
    samples: str = ""
    table: str = ""

    @property
    def elsewhere(self) -> bool:
        """Whether the latencies are those of another device."""
        return self.samples.endswith(".csv")


@dataclass(frozen=True)
class VerificationSettings:
    """The `[verification]` table.

    Attributes:
        rounds: Interleaved rounds of the final measurement, shared by the processes.
        sessions: Fresh sessions of each network, in each process: memory layout makes sessions of one file differ.
        processes: Fresh processes that take part, for it makes processes differ, too; 1 times in this one alone.
        attempts: How often a network that misses the budget is replaced by a smaller one.
        tolerance: Largest relative difference between the prepared network's outputs and PyTorch's.
    """

    rounds: int = 40
    sessions: int = 5
    processes: int = 3
    attempts: int = 3
    tolerance: float = 1e-3

    @property
    def effort(self) -> Effort:
        """How well the final measurement times."""
        return Effort(self.rounds, self.sessions, self.processes)


class Objects(TypedDict, total=False):
    """Parts that a caller hands over as they are, instead of their tables in the config."""

    space: Space | nn.Module
    task: Task
    target: Target


@dataclass(frozen=True)
class Parts:
    """All that a job is made of."""

    config: Table
    seed: int
    space: Space
    task: Task
    target: Target
    budget: Budget
    recipe: Recipe
    latency_model: LatencyModelSettings
    verification: VerificationSettings
    export: ExportSettings = field(default_factory=ExportSettings)

    def build(self, arch: tuple[int, ...], *names: str) -> nn.Module:
        """A freshly initialised network; the same names give the same weights."""
        with global_seed(derive(self.seed, "init", *names)):
            return self.space.build(arch)

    @property
    def taught(self) -> bool:
        """Whether the reference teaches the networks that are trained: if the config sets `distil_weight`."""
        return bool(self.config.get("training", {}).get("distil_weight", 0))


def assemble(
    config: Table,
    *,
    space: Space | nn.Module | None = None,
    task: Task | None = None,
    target: Target | None = None,
) -> Parts:
    """Build every part; objects that are given go before the config's tables.

    Raises:
        ConfigError: Unknown names or settings, wrong types.
        DataError: The data is missing or does not fit the network.
    """
    configs.check(config)
    for table in ("space", "task", "target", "budget", "strategy"):
        if not config.get(table):
            raise ConfigError(f"the config has no [{table}]; add one, with its settings")
    task = task or configs.build("tasks", config["task"])
    budget = Budget.of(config["budget"])
    space = _fitting_space(space, {"timed": budget.measured, **config["space"]}, task)
    _check_strategy(config["strategy"])
    parts = Parts(
        config=config,
        seed=int(config.get("seed", 0)),
        space=space,
        task=task,
        target=target or configs.build("targets", config["target"]),
        budget=budget,
        recipe=configs.call(Recipe, config.get("training", {})),
        latency_model=configs.call(LatencyModelSettings, config.get("latency_model", {})),
        verification=configs.call(VerificationSettings, config.get("verification", {})),
        export=configs.call(ExportSettings, config.get("export", {})),
    )
    _ = parts.verification.effort  # raises now, not after hours of search
    exporting.check_target(parts.target, parts.export)
    if parts.latency_model.table:
        OperatorTable.read(parts.latency_model.table).tables(require(space, Operated, "latency_model.table"))
    parts = replace(parts, task=_informed(task, space, lambda: parts.build(space.reference, "teacher")))
    parts.recipe.check(parts.task)
    ends = dict.fromkeys((space.reference, archs.smallest(space)))  # the smallest may be a graph: another tree
    built = {arch: parts.build(arch, "check") for arch in ends}
    for module in built.values():
        check_fits(parts.task, module, taught=parts.taught)
    exporting.check_export(built[space.reference], parts.task.example, parts.export)
    if isinstance(space, Pretrained):
        space.inform(parts.task)
    return parts


def _informed(task: Task, space: Space, network: Callable[[], nn.Module]) -> Task:
    """The task; one that learns from the network as it comes gets to see it.

    Raises:
        CapabilityError: It does, and the network is untrained.
    """
    if task.informed is None:
        return task
    if not isinstance(space, Pretrained) or not space.trained:
        raise CapabilityError(
            f"the task {task.name} learns from the network as it comes, which is untrained; give a module, or weights"
        )
    return task.informed(network().eval())


def _fitting_space(given: Space | nn.Module | None, table: Table, task: Task) -> Space:
    """The space; one that cannot be made of a network for want of its channels says so.

    Raises:
        DataError: The network takes pictures of other channels than the task gives.
    """
    try:
        return _space(given, table, task)
    except (CapabilityError, ConfigError, DataError) as error:
        spec = table.get("network")
        network = given if isinstance(given, nn.Module) else load_network(spec) if isinstance(spec, str) else None
        why = channels_apart(task, network) if network is not None else ""
        if not why:
            raise
        raise DataError(why) from error


def _space(given: Space | nn.Module | None, table: Table, task: Task) -> Space:
    """The space of the config, or the one given; a network means its widths."""
    if isinstance(given, Space):
        return given
    if isinstance(given, nn.Module):
        widths = plugins.load("spaces", WIDTHS)
        known = configs.keywords(widths)
        settings = {k: v for k, v in table.items() if k in known and k not in STAND_IN}
        space: Space = configs.call(widths, settings | {"network": given, "example": task.example})
        return space
    built: Space = configs.build("spaces", fitted_to_task(table, task))
    return built


def fitted_to_task(table: Table, task: Task) -> dict[str, Any]:
    """Fill in what a space needs to know of the data (classes, image size, channels) and the user left out.

    Whether latency counts (`timed`) is dropped where the space does not ask.
    """
    table = dict(table)
    known = configs.keywords(plugins.load("spaces", configs.name_of("spaces", table)))
    if "timed" not in known:
        table.pop("timed", None)
    facts: dict[str, Any] = {"classes": task.classes, "example": task.example}
    if isinstance(task.example, Tensor) and task.example.dim() == 4:
        facts |= {"in_channels": task.example.shape[1], "size": task.example.shape[2]}
    for name, value in facts.items():
        if name in known and value is not None:
            table.setdefault(name, value)
    return table


def analytic_costs(space: Space) -> dict[str, CostModel]:
    """MACs, parameters and peak memory of every network of the space, and what else it tells, by metric."""
    told = [name for name in TOLD if isinstance(space, Accounted) and space.tally(name, []) is not None]
    models = [plugins.load("costs", name)(space) for name in (*ANALYTIC, *told)]
    return {model.metric: model for model in models}


WIDTHS = "widths"
"""The space that a module stands for."""
OBJECT = "object "
"""How the name begins of what no config can build."""
STAND_IN = ("name", "choices", "fingerprint", "weights")
"""What `stand_in` says of an object, which is no setting."""


def of_a_module(table: Table) -> dict[str, Any]:
    """The settings of a table that hold for a module instead of the network that it names."""
    return {k: v for k, v in table.items() if k != "network"} if table.get("name") == WIDTHS else {}


def stand_in(thing: object) -> dict[str, Any]:
    """What a config says of an object that no config can build: enough to notice another one on resume."""
    kind = type(thing)
    table = {"name": f"{OBJECT}{kind.__module__}.{kind.__qualname__}"}
    if isinstance(thing, Space):
        table["choices"] = hashlib.sha256(repr(thing.choices).encode()).hexdigest()[:16]
    if isinstance(thing, Task):
        table["fingerprint"] = thing.fingerprint
    if isinstance(thing, nn.Module):
        table["weights"] = _digest(thing)
    return table


def _digest(network: nn.Module) -> str:
    """A hash of all weights."""
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def _check_strategy(table: Table) -> None:
    """Names and types of the strategy's settings, before anything takes time."""
    rest = dict(table)
    name = configs.name_of("strategies", rest)
    del rest["name"]
    configs.validate(plugins.load("strategies", name), rest)
