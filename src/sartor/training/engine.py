"""Where the loop runs: one device, or several through Lightning Fabric, behind the same few calls."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.contracts import Batch
from sartor.core.errors import MissingExtraError
from sartor.training.evaluation import resolve
from sartor.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Several devices or nodes, in Lightning Fabric's terms.

    Attributes:
        accelerator: `auto`, `cpu`, `cuda`.
        devices: Processes per node; -1 takes all devices.
        nodes: Machines.
        strategy: `auto` or `ddp`: every process holds the whole network (sharded weights are not supported).
    """

    accelerator: str = "auto"
    devices: int = -1
    nodes: int = 1
    strategy: str = "auto"

    def fabric(self, recipe: Recipe) -> Any:
        """A `Fabric` for `fit`; call its `launch()` at the start of the script.

        Raises:
            MissingExtraError: Lightning Fabric is not installed.
        """
        try:
            # Lazy: an extra, which only this function needs.
            lightning = importlib.import_module("lightning_fabric")
        except ImportError as error:
            raise MissingExtraError(
                "training on several devices needs Lightning Fabric; pip install 'sartor[fabric]'"
            ) from error
        precision = {"": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}[recipe.amp]
        return lightning.Fabric(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.nodes,
            strategy=self.strategy,
            precision=precision,
        )


class Engine(ABC):
    """What the loop needs to know about the hardware."""

    device: torch.device
    world: int = 1
    rank: int = 0

    @abstractmethod
    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
        """The network to call in the loop; it shares its parameters with `module`."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Gradients of `loss`, a scalar."""

    @abstractmethod
    def step(self, optimizer: torch.optim.Optimizer, module: nn.Module, clip: float) -> None:
        """Clip, then update the weights."""

    @abstractmethod
    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass."""

    @abstractmethod
    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, elementwise."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait for the other processes."""

    def share(self, batch: Batch) -> Batch | None:
        """This process's rows of a batch, on its device; None if there are fewer rows than processes."""
        if trees.size(batch) < self.world:
            return None
        mine: Batch = trees.to(trees.rows(batch, slice(self.rank, None, self.world)), self.device)
        return mine

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` took."""


class Single(Engine):
    """One device of this process."""

    def __init__(self, recipe: Recipe) -> None:
        self.device = resolve(recipe.device)
        self.dtype = getattr(torch, recipe.amp) if recipe.amp else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.amp == "float16")

    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:  # noqa: ARG002 - the contract
        return module

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, module: nn.Module, clip: float) -> None:
        if clip:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        self.scaler.step(optimizer)
        self.scaler.update()

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        return values

    def barrier(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:
            self.scaler.load_state_dict(dict(state))


class Several(Engine):
    """The processes of a launched `Fabric`; every one holds the whole network."""

    def __init__(self, fabric: Any) -> None:
        self.fabric = fabric
        self.device = fabric.device
        self.world = fabric.world_size
        self.rank = fabric.global_rank

    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
        self.wrapped, self.optimizer = self.fabric.setup(module, optimizer)
        return self.wrapped  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        self.fabric.backward(loss)

    def step(self, optimizer: torch.optim.Optimizer, module: nn.Module, clip: float) -> None:  # noqa: ARG002 - Fabric's wrappers of both are used
        if clip:
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=clip)
        self.optimizer.step()

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()  # Fabric's wrapper of the network does it

    def mean(self, values: Tensor) -> Tensor:
        return self.fabric.all_reduce(values, reduce_op="mean")  # type: ignore[no-any-return]

    def barrier(self) -> None:
        self.fabric.barrier()

    def state_dict(self) -> dict[str, Any]:
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        return scaler.state_dict() if scaler is not None else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        if scaler is not None and state:
            scaler.load_state_dict(dict(state))
