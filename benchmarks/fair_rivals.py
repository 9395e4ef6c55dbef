"""The rivals of the fair bench: Torch-Pruning in every fair call, uniform and random widths, FastNAS.

A rival names, within a cell's budget, what its network is rebuilt from: a ratio, widths. Its settings are what a
careful user would set for any network: which layers feed a residual sum or the output is found in Torch-Pruning's own
graph, the number of heads is the network's. The ratio is found by bisection, so that the budget is used.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch_pruning
from fair_cells import Cell, TooSmallError, gradients
from torch import nn
from torch_pruning import importance

from sartor.core.records import Arch
from sartor.core.rng import derive, numpy_rng
from sartor.spaces.widths import Widths
from sartor.training import evaluate

Settings = dict[str, Any]

IMPORTANCE: Mapping[str, Callable[[], Any]] = {
    "gn": lambda: importance.GroupMagnitudeImportance(p=2),
    "l1": lambda: importance.MagnitudeImportance(p=1, group_reduction="first"),
    "l2": lambda: importance.MagnitudeImportance(p=2, group_reduction="first"),
    "lamp": lambda: importance.LAMPImportance(p=2),
    "bn": importance.BNScaleImportance,
    "taylor": importance.GroupTaylorImportance,
    "hessian": importance.GroupHessianImportance,
}
BATCHES = 8
"""That gradients are taken over."""


class Rival(ABC):
    """A way to make a trained network smaller."""

    drawn = False
    """Whether another seed gives another network."""

    @property
    def installed(self) -> bool:
        """Whether what it needs is there."""
        return True

    def fits(self, cell: Cell) -> bool:  # noqa: ARG002 - as a rule
        """Whether it says anything for this network that another does not."""
        return True

    @abstractmethod
    def search(self, cell: Cell, seed: int) -> Settings:
        """What `build` makes the network from, the largest inside the budget; JSON-able."""

    @abstractmethod
    def build(self, cell: Cell, found: Settings) -> nn.Module:
        """The network, with the teacher's weights."""


@dataclass(frozen=True)
class Call(Rival):
    """Torch-Pruning.

    Attributes:
        importance: Which channels go, a key of `IMPORTANCE`.
        scope: `local`, `global` or `isomorphic` (global within groups of alike layers).
        kept: Whether the outputs of residual blocks are left alone.
        round_to: Widths are multiples of it.
        steps: One shot, or several, with gradients anew at each.
        heads: Whether attention loses whole heads, not dimensions of all.
        most: The largest share of a layer that may go.
    """

    importance: str
    scope: str = "local"
    kept: bool = False
    round_to: int | None = None
    steps: int = 1
    heads: bool = False
    most: float = 1.0

    def fits(self, cell: Cell) -> bool:
        return not self.heads or bool(attention(cell.teacher))

    def search(self, cell: Cell, seed: int) -> Settings:  # noqa: ARG002 - nothing is drawn
        with torch.random.fork_rng():
            looks = 8 if self.steps > 1 and cell.metric == "macs" else None  # each takes gradients at every step
            return {"ratio": 1 - cell.filled(lambda size: self._pruned(cell, 1 - size), looks=looks)}

    def build(self, cell: Cell, found: Settings) -> nn.Module:
        return self._pruned(cell, found["ratio"])

    def _pruned(self, cell: Cell, ratio: float) -> nn.Module:
        network = copy.deepcopy(cell.teacher)
        for p in network.parameters():
            p.requires_grad_()
        scorer = IMPORTANCE[self.importance]()
        roles = layers_by_role(network, cell.task.example)
        heads = attention(network)
        extra = {"prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": ratio} if self.heads else {}
        pruner = torch_pruning.pruner.BasePruner(
            network,
            cell.task.example,
            importance=scorer,
            global_pruning=self.scope != "local",
            isomorphic=self.scope == "isomorphic",
            pruning_ratio=ratio,
            max_pruning_ratio=self.most,
            iterative_steps=self.steps,
            ignored_layers=roles["output"] + (roles["stream"] if self.kept else []),
            round_to=self.round_to,
            num_heads=dict(heads),
            in_channel_groups={},  # the defaults are dicts that all pruners share
            out_channel_groups={},
            **extra,
        )
        for step in range(self.steps):
            self._inform(cell, network, first=step == 0)
            pruner.step()
            for owner in (m for m in network.modules() if getattr(m, "qkv", None) in heads):
                owner.heads = pruner.num_heads[owner.qkv]
        network.zero_grad()
        return network.eval()

    def _inform(self, cell: Cell, network: nn.Module, *, first: bool) -> None:
        """Put into `grad` what the importance reads there.

        Torch-Pruning 1.6's own sum of squares keeps the last example only (it looks parameters up by name, and stores
        them by themselves): what it divides and reads is put there directly.
        """
        if self.importance not in ("taylor", "hessian"):
            return
        squared = self.importance == "hessian"
        if first:  # the teacher's are the same for all ratios
            found = cell.gradients(BATCHES, squared=squared)
        else:
            found = gradients(network, cell.task, batches=BATCHES, squared=squared)
        for name, p in network.named_parameters():
            p.grad = found[name].clone()


def layers_by_role(network: nn.Module, example: Any) -> dict[str, list[nn.Module]]:
    """`stream`: layers whose output goes into a sum with another's; `output`: those that give the network's output."""
    graph = torch_pruning.DependencyGraph().build_dependency(network, example)
    nodes = list(graph.module2node.values())
    sums = [n for n in nodes if not _layer(n.module) and n.grad_fn is not None and n.grad_fn.name().startswith("Add")]
    stream: list[nn.Module] = []
    for node in sums:
        if sum(bool(_feeding([before])) for before in node.inputs) > 1:  # else a bias is added, or a parameter
            stream += _feeding(node.inputs)
    return {
        "stream": list(dict.fromkeys(stream)),
        "output": list(dict.fromkeys(m for n in nodes if not n.outputs for m in _feeding([n]))),
    }


def _layer(module: nn.Module) -> bool:
    """Whether its output channels are its own: of a depthwise convolution they are its input's."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return module.groups == 1 or module.groups != module.in_channels
    return isinstance(module, nn.Linear)


def _feeding(nodes: list[Any]) -> list[nn.Module]:
    """The layers whose output these nodes pass on, with no other layer between."""
    found, seen, stack = [], set(), list(nodes)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if _layer(node.module):
            found.append(node.module)
        else:
            stack += node.inputs
    return found


def attention(network: nn.Module) -> dict[nn.Module, int]:
    """Layers that make queries, keys and values, and their heads."""
    return {m.qkv: m.heads for m in network.modules() if hasattr(m, "qkv") and hasattr(m, "heads")}


@dataclass(frozen=True)
class Uniform(Rival):
    """Every width by the same factor; the channels with the largest norms stay.

    Attributes:
        divisor: Widths are rounded to multiples of it.
    """

    divisor: int = 1

    def space(self, cell: Cell) -> Widths:
        return Widths(
            network=cell.teacher,
            example=cell.task.example,
            divisor=self.divisor,
            multipliers=[k / 64 for k in range(4, 65)],
            importance="l2",
            reconstruct=0,
        )

    def search(self, cell: Cell, seed: int) -> Settings:  # noqa: ARG002 - nothing is drawn
        space = self.space(cell)
        return {"arch": list(space.scaled(cell.filled(lambda size: space.build(space.scaled(size)))))}

    def build(self, cell: Cell, found: Settings) -> nn.Module:
        return self.space(cell).build(tuple(found["arch"]))


class Random(Uniform):
    """The best of 20 random widths by validation after a tenth of the recipe.

    Each is as large as the budget allows; where it is a latency, all have the MACs of the uniform network that is fast
    enough, and the best is then made fast enough itself.
    """

    drawn = True
    count = 20

    def search(self, cell: Cell, seed: int) -> Settings:
        space = self.space(cell)
        by_macs = cell
        if cell.metric != "macs":
            by_macs = cell.at_macs_of(super().build(cell, super().search(cell, seed)))
        rng = numpy_rng(seed, "random widths")
        best, named = -float("inf"), None
        for number in range(self.count):
            factors = rng.uniform(0.25, 1, len(space.choices))
            arch = self._filling(by_macs, space, factors)
            network = space.build(arch)
            valid = cell.task.metric.sign * cell.trained(network, derive(seed, number) % 2**31, tenth=True)["valid"]
            if valid > best:
                best, named = valid, factors
        assert named is not None
        return {"arch": list(self._filling(cell, space, named))}

    def _filling(self, cell: Cell, space: Widths, factors: Any) -> Arch:
        def at(size: float) -> Arch:
            wanted = [2 * size * f * float(c.options[-1]) for f, c in zip(factors, space.choices, strict=True)]
            return tuple(
                min(range(len(c.options)), key=lambda k, c=c, w=w: abs(float(c.options[k]) - w))
                for c, w in zip(space.choices, wanted, strict=True)
            )

        return at(cell.filled(lambda size: space.build(at(size))))


@dataclass(frozen=True)
class FastNas(Rival):
    """NVIDIA modelopt's FastNAS: widths by how much validation suffers from each alone, without training.

    Attributes:
        divisor: Widths are multiples of it; its default, 32, leaves small networks as they are.
    """

    divisor: int = 4

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec("modelopt") is not None

    def search(self, cell: Cell, seed: int) -> Settings:  # noqa: ARG002 - nothing is drawn
        return {"flops": cell.filled(lambda size: self._pruned(cell, size))}

    def build(self, cell: Cell, found: Settings) -> nn.Module:
        return self._pruned(cell, found["flops"])

    def _pruned(self, cell: Cell, share: float) -> nn.Module:
        prune = importlib.import_module("modelopt.torch.prune")
        rules = importlib.import_module("modelopt.torch.prune.fastnas").FastNASConfig().model_dump()
        for rule in (r for layer in rules.values() for r in layer.values() if isinstance(r, dict)):
            rule |= {k: self.divisor for k in rule if k.endswith("_divisor")}
        task, network = cell.task, copy.deepcopy(cell.teacher)
        scored = [batch for batch, _ in zip(task.valid(), range(4), strict=False)]
        # what each width does to validation is measured once for a teacher
        kept = cell.sources.work / "teachers" / f"{cell.teacher_name}-fastnas{self.divisor}.pth"
        kept.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), satisfiable():
            found, _ = prune.prune(
                network,
                mode=[("fastnas", rules)],
                constraints={"flops": f"{100 * share:.3f}%"},
                dummy_input=task.example,
                config={
                    "data_loader": list(islice(task.train(torch.Generator().manual_seed(0)), BATCHES)),
                    "collect_func": lambda batch: batch[0],
                    "score_func": lambda m: task.metric.sign * evaluate(m, scored, task)[task.metric.name],
                    "checkpoint": str(kept),
                    "verbose": False,
                },
            )
        pruned: nn.Module = found
        return pruned.eval()


@contextlib.contextmanager
def satisfiable() -> Iterator[None]:
    """modelopt's refusal of a constraint below its smallest network, as what it is."""
    try:
        yield
    except ValueError as error:
        if "constraints can be satisfied" in str(error):
            raise TooSmallError(str(error)) from error
        raise


def _calls() -> dict[str, Rival]:
    """Every way of scoring once in the call that is best for it on the whole, every other setting with two scores."""
    found: dict[str, Rival] = {
        "tp gn local": Call("gn"),
        "tp gn global": Call("gn", "global"),
        "tp gn isomorphic": Call("gn", "isomorphic"),
        "tp taylor global": Call("taylor", "global"),
        "tp taylor isomorphic, 5 steps": Call("taylor", "isomorphic", steps=5),
    }
    for score in IMPORTANCE:
        found[f"tp {score} local, blocks kept"] = Call(score, kept=True)
        if score not in ("l1", "l2"):
            found[f"tp {score} global, blocks kept"] = Call(score, "global", kept=True)
    found |= {
        "tp gn isomorphic, blocks kept": Call("gn", "isomorphic", kept=True),
        "tp taylor isomorphic, blocks kept": Call("taylor", "isomorphic", kept=True),
        "tp gn global, blocks kept, 5 steps": Call("gn", "global", kept=True, steps=5),
        "tp taylor global, blocks kept, 5 steps": Call("taylor", "global", kept=True, steps=5),
        "tp taylor global, blocks kept, at most 0.8": Call("taylor", "global", kept=True, most=0.8),
        "tp gn local, blocks kept, by 4": Call("gn", kept=True, round_to=4),
        "tp gn local, blocks kept, by 8": Call("gn", kept=True, round_to=8),
        "tp taylor global, blocks kept, by 4": Call("taylor", "global", kept=True, round_to=4),
        "tp taylor global, blocks kept, by 8": Call("taylor", "global", kept=True, round_to=8),
        "tp gn local, by 4": Call("gn", round_to=4),
        "tp gn local, by 8": Call("gn", round_to=8),
        "tp taylor local, blocks kept, heads": Call("taylor", kept=True, heads=True),
        "tp taylor global, blocks kept, heads": Call("taylor", "global", kept=True, heads=True),
        "uniform": Uniform(),
        "uniform by 8": Uniform(8),
        "random": Random(),
        "fastnas": FastNas(),
    }
    return found


RIVALS = _calls()
