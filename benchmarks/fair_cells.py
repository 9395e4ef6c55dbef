"""A cell of the fair bench: a trained network, its data, a budget, and the one way in which everything is trained.

Validation and test of CIFAR-10 are two halves of its test images, for all networks alike: there is no training image
that all of them have not seen. Networks are trained further on images that the teachers have seen.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from compress_resnet import Resnet
from fair_networks import KINDS, MEAN, STD, VALID
from fair_networks import images as shuffled
from safetensors.torch import load_file, save_file
from tasks_real import networks as examples
from torch import Tensor, nn

from sartor.core import files, plugins
from sartor.core.contracts import Batch, Task
from sartor.core.records import Estimate
from sartor.core.rng import derive
from sartor.data.images import Images, image_task
from sartor.networks import macs_params
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing.meter import Effort, Subject, time_together
from sartor.training import Recipe, batches_of, evaluate, fit

TARGET = {"name": "onnxruntime", "threads": 1}
BRIEF, CAREFUL = Effort(rounds=15, sessions=2, warmup=0.05), Effort(rounds=40, sessions=5, processes=3)

SHARED: Mapping[str, Any] = {"device": "cpu", "distil_weight": 0.5, "warmup": 0.2, "clip": 5.0}
"""Of the recipe, whatever is trained: the teacher teaches, and a cut network does not take one large step."""


class Teacher(NamedTuple):
    """A trained network: how it is made, where its weights are, what it was trained on."""

    make: Callable[[], nn.Module]
    weights: str
    data: str = "cifar10"
    half: bool = False
    """Whether bfloat16 is faster for it on a CPU."""


def _example(name: str) -> Callable[[], nn.Module]:
    return examples()[name]


TEACHERS = {
    "resnet20": Teacher(lambda: Resnet(20), "resnet20_cifar10", half=True),
    "resnet32": Teacher(lambda: Resnet(32), "resnet32_cifar10", half=True),
    **{name: Teacher(kind.make, name, half=kind.half) for name, kind in KINDS.items()},
    "camvid": Teacher(_example("camvid"), "segmentation", "segmentation"),
    "sr_x2": Teacher(_example("sr_x2"), "super_resolution", "super_resolution"),
}

EPOCHS = {"cifar10": 2, "segmentation": 4, "super_resolution": 2}
"""Of the trainings: a quarter of a minute to half a minute of one core each."""

BUDGETS = {"macs50": ("macs", 0.5), "macs30": ("macs", 0.3), "latency50": ("latency_ms", 0.5)}


@dataclass(frozen=True)
class Sources:
    """Where everything is.

    Attributes:
        data: Folder of the data sets: `cifar10/`, `segmentation/camvid/`, `sr/`.
        weights: Folders in which weights are looked for, the first first.
        work: Folder of all results.
        images: CIFAR-10 images that networks are trained on further.
        epochs: Instead of `EPOCHS`.
        tuning: Whether other images are used than for what is reported.
    """

    data: Path
    weights: tuple[Path, ...]
    work: Path
    images: int = 4000
    epochs: int | None = None
    tuning: bool = False

    def teacher(self, name: str) -> nn.Module:
        """A trained network."""
        teacher = TEACHERS[name]
        found = [f for f in (w / f"{teacher.weights}.safetensors" for w in self.weights) if f.exists()]
        if not found:
            looked = ", ".join(map(str, self.weights))
            raise FileNotFoundError(f"no {teacher.weights}.safetensors in {looked}; train it (fair_networks.py)")
        module = teacher.make()
        module.load_state_dict(load_file(found[0]))
        return module.eval()

    def known(self, name: str) -> bool:
        """Whether there are weights for it."""
        return any((w / f"{TEACHERS[name].weights}.safetensors").exists() for w in self.weights)

    @cache  # noqa: B019 - there is one of it in a process
    def task(self, data: str) -> Task:
        """The data that teachers were trained on: `cifar10`, `segmentation`, `super_resolution`."""
        return {"cifar10": self._cifar, "segmentation": self._camvid, "super_resolution": self._pictures}[data]()

    def _cifar(self) -> Task:
        train, test = self._decoded("train"), self._decoded("test")
        start = 20000 if self.tuning else 0
        used = train.take(torch.arange(start, start + self.images))
        if self.tuning:  # the teachers of fair_networks have not seen these
            valid = test = train.take(torch.arange(len(train) - VALID, len(train)))
        else:
            valid, test = test.take(torch.arange(VALID)), test.take(torch.arange(VALID, len(test)))
        return image_task(
            used, valid, test, classes=10, batch=128, augment="shift_flip", source="CIFAR-10", mean=MEAN, std=STD
        )

    def _decoded(self, part: str) -> Images:
        """CIFAR-10 in an order drawn once; decoding takes longer than some trainings, so its outcome is kept."""
        kept = self.work / f"cifar10_{part}.npz"
        if not kept.exists():
            found = shuffled(self.data / "cifar10" / f"{part}.parquet")

            def write(file: Path) -> None:
                with file.open("wb") as opened:
                    np.savez(opened, pictures=found.pictures.numpy(), labels=found.labels.numpy())

            files.atomically(kept, write)
        with np.load(kept) as held:
            return Images(torch.from_numpy(held["pictures"]), torch.from_numpy(held["labels"]))

    def _camvid(self) -> Task:
        root = self.data / "segmentation/camvid"
        task: Task = plugins.load("tasks", "segmentation")(root=root, classes=11, ignore=11)
        if not self.tuning:
            return task
        # two thirds of the training pictures, and the last third of them to choose by
        other: Task = plugins.load("tasks", "segmentation")(
            root=root / "train.parquet", classes=11, ignore=11, valid=0.3, test=0.05, seed=7
        )
        return other

    def _pictures(self) -> Task:
        split = {"seed": 7, "valid": 0.2} if self.tuning else {}
        task: Task = plugins.load("tasks", "super_resolution")(
            train=self.data / "sr/bsds500_train", test=self.data / "sr/bsds500_test", scale=2, **split
        )
        return task


def family(teacher: nn.Module, data: str) -> str:
    """What a recipe is tuned for: networks with layer norm or without, and the tasks that are no classifications."""
    if data != "cifar10":
        return data
    return "layer_norm" if any(isinstance(m, nn.LayerNorm) for m in teacher.modules()) else "batch_norm"


class Few:
    """The first batches of an iterable."""

    def __init__(self, task: Task, count: int, generator: torch.Generator) -> None:
        self.task, self.count, self.generator = task, count, generator

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self.task.train(self.generator)), self.count)


class TooSmallError(Exception):
    """A rival cannot make so small a network."""


class Cell:
    """A teacher and a budget.

    Args:
        name: `vgg:macs50`; for a trial `vgg:macs40`, any per cent.
        sources: Where everything is.
        tuned: Optimiser and learning rate by family.
    """

    def __init__(self, name: str, sources: Sources, tuned: Mapping[str, Mapping[str, Any]]) -> None:
        self.name, self.sources = name, sources
        self.teacher_name, self.budget = name.split(":")
        metric = self.budget.rstrip("0123456789")
        self.metric = {"macs": "macs", "latency": "latency_ms"}[metric]
        self.share = int(self.budget.removeprefix(metric)) / 100
        self.kind = TEACHERS[self.teacher_name]
        self.folder = sources.work / name.replace(":", "-")
        self._tuned = tuned
        self._gradients: dict[str, dict[str, Tensor]] = {}

    @cached_property
    def teacher(self) -> nn.Module:
        return self.sources.teacher(self.teacher_name)

    @cached_property
    def task(self) -> Task:
        return self.sources.task(self.kind.data)

    @cached_property
    def macs(self) -> int:
        return macs_params(self.teacher, self.task.example)[0]

    @cached_property
    def family(self) -> str:
        return family(self.teacher, self.kind.data)

    @property
    def limit(self) -> str:
        """The budget as `sartor.fit` takes it."""
        return f"{self.share:.0%}"

    def settings(self) -> dict[str, Any]:
        """Of the recipe: what all have in common, and what was tuned."""
        if self.family not in self._tuned:
            raise LookupError(f"no recipe was tuned for {self.family}; run --tune")
        chosen = self._tuned[self.family]
        return {
            **SHARED,
            "epochs": self.sources.epochs or EPOCHS[self.kind.data],
            "amp": "bfloat16" if self.kind.half else "",
            "optimizer": chosen["optimizer"],
            "lr": chosen["lr"],
        }

    def cost(self, network: nn.Module, *, careful: bool = False) -> float:
        """As a share of the teacher's."""
        if self.metric == "macs":
            return macs_params(network, self.task.example)[0] / self.macs
        return self.latency(network, CAREFUL if careful else BRIEF).value

    def latency(self, network: nn.Module, effort: Effort = CAREFUL) -> Estimate:
        """As a share of the teacher's, both in the same rounds; once for all networks of these sizes."""
        kept = self.sources.work / f"teachers/{self.teacher_name}-latency"
        file = kept / f"{sizes(network)}-{effort.rounds}x{effort.sessions}x{effort.processes}.json"
        if not file.exists():
            write_json(file, self._timed(network, effort).as_dict())
        return Estimate(**json.loads(file.read_text()))

    def _timed(self, network: nn.Module, effort: Effort) -> Estimate:
        with tempfile.TemporaryDirectory() as folder:
            subjects = {"teacher": self._timed_teacher, "network": self._subject(network, Path(folder))}
            return time_together(subjects, effort, reference="teacher").ratio("network")

    @cached_property
    def _timed_teacher(self) -> Subject:
        """Exported once, into a folder that goes with the cell."""
        self._exports = tempfile.TemporaryDirectory()
        return self._subject(self.teacher, Path(self._exports.name))

    def _subject(self, network: nn.Module, folder: Path) -> Subject:
        return Subject.prepared(OnnxRuntime(threads=1), copy.deepcopy(network).eval(), self.task.example, folder)

    @torch.no_grad()
    def check(self, network: nn.Module) -> None:
        """Refuse a network whose outputs are not shaped like the teacher's.

        Raises:
            ValueError: They are not.
        """
        found, wanted = network(self.task.example), self.teacher(self.task.example)
        if found.shape != wanted.shape:
            raise ValueError(f"its output is {tuple(found.shape)}, the teacher's {tuple(wanted.shape)}")

    def filled(self, build: Callable[[float], nn.Module], *, looks: int | None = None) -> float:
        """The largest size in (0, 1] whose network is inside the budget, by bisection.

        Args:
            build: Size to network; the larger, the dearer, on the whole. Raises `TooSmallError` where there is none.
            looks: Networks to look at; by default ten, six where each has to be timed.

        Raises:
            LookupError: None of the networks was inside.
        """
        timed = self.metric != "macs"
        low, high = 0.0, 1.0
        tried: list[tuple[float, float]] = []
        for _ in range(looks or (6 if timed else 10)):
            middle = (low + high) / 2
            cost = self._tried(build, middle)
            low, high = (low, middle) if cost > self.share else (middle, high)
            tried.append((middle, cost))
        if timed:  # odd widths are slow: of larger networks some may be faster
            above = [low + 0.02 * k for k in range(1, 7) if low + 0.02 * k < 1]
            tried += [(size, self._tried(build, size)) for size in above]
        for size, cost in sorted(tried, reverse=True):
            if 0 < cost <= self.share and (not timed or self.cost(build(size), careful=True) <= self.share):
                return size
        made = [cost for _, cost in tried if cost > 0]
        smallest = f"the smallest of {len(made)} takes {min(made):.3f}" if made else "none could be made"
        raise LookupError(f"no network is inside: {smallest}")

    def _tried(self, build: Callable[[float], nn.Module], size: float) -> float:
        """The cost of a network of that size; 0 if there is none so small."""
        try:
            return self.cost(build(size))
        except TooSmallError:
            return 0.0

    def trained(self, network: nn.Module, seed: int, *, tenth: bool = False) -> dict[str, float]:
        """Train by the recipe, or by a tenth of it on a part of the validation split; scores of validation."""
        task, settings = self.task, self.settings()
        if tenth:
            steps = math.ceil(settings["epochs"] * batches_of(task) / 10)
            task = replace(task, train=lambda g: Few(self.task, steps, g))
            settings |= {"epochs": 1}
        start = time.process_time()
        fit(network, task, Recipe(**settings), seed=derive(seed, "tune"), teacher=self.teacher)
        spent = time.process_time() - start
        batches = islice(task.valid(), 4) if tenth else task.valid()
        return {"valid": evaluate(network, batches, task)[task.metric.name], "training_cpu_seconds": spent}

    def tested(self, network: nn.Module) -> float:
        """On the test split."""
        return evaluate(network, self.task.test(), self.task)[self.task.metric.name]

    def at_macs_of(self, network: nn.Module) -> Cell:
        """The same teacher with a budget of as many MACs as a network has."""
        other = copy.copy(self)
        other.metric, other.share = "macs", macs_params(network, self.task.example)[0] / self.macs
        return other

    def gradients(self, batches: int, *, squared: bool) -> dict[str, Tensor]:
        """Of the teacher (see `gradients`); they are kept for all budgets."""
        kind = "squares" if squared else "gradients"
        file = self.sources.work / f"teachers/{self.teacher_name}-{kind}{batches}.safetensors"
        if not file.exists():
            network = copy.deepcopy(self.teacher)
            found = gradients(network, self.task, batches=batches, squared=squared)
            files.atomically(file, lambda part: save_file(found, part))
        if kind not in self._gradients:
            self._gradients[kind] = load_file(file)
        return self._gradients[kind]

    def facts(self) -> dict[str, Any]:
        """Of the teacher; written once."""
        file = self.sources.work / "teachers" / f"{self.teacher_name}.json"
        if not file.exists():
            metric = self.task.metric
            found = {
                "family": self.family,
                "metric": {"name": metric.name, "goal": metric.goal, "unit": metric.unit},
                "macs": self.macs,
                "params": sum(p.numel() for p in self.teacher.parameters()),
                "valid": evaluate(self.teacher, self.task.valid(), self.task)[metric.name],
                "test": self.tested(self.teacher),
            }
            write_json(file, found)
        loaded: dict[str, Any] = json.loads(file.read_text())
        return loaded


def sizes(network: nn.Module) -> str:
    """A digest of what the time of a network depends on: its modules, their whole numbers, the shapes of weights."""
    held = hashlib.sha256(repr(network).encode())
    for name, module in network.named_modules():
        numbers = sorted((k, v) for k, v in vars(module).items() if isinstance(v, int) and k != "training")
        held.update(f"{name} {numbers}".encode())
    for name, value in network.state_dict().items():
        held.update(f"{name} {tuple(value.shape)}".encode())
    return held.hexdigest()[:16]


def write_json(file: Path, found: Any) -> None:
    """Whole or not at all."""
    files.atomically(file, lambda part: part.write_text(json.dumps(found, indent=1) + "\n"))


def gradients(network: nn.Module, task: Task, *, batches: int, squared: bool) -> dict[str, Tensor]:
    """Of the loss over the first batches of an epoch: their mean, or the mean of each example's squares."""
    was = network.training
    network.eval()
    sums = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for x, y in islice(task.train(torch.Generator().manual_seed(0)), batches):
        for inputs, target in zip(x.split(1), y.split(1), strict=True) if squared else [(x, y)]:
            network.zero_grad()
            task.loss(network(inputs), target).mean().backward()
            for name, p in network.named_parameters():
                if p.grad is not None:
                    sums[name] += p.grad.square() if squared else p.grad
    network.zero_grad()
    network.train(was)
    return sums
