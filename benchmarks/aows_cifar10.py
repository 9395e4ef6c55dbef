"""Uniform scaling, greedy slimming (AutoSlim), OWS and AOWS on CIFAR-10 at the same latency, measured on ONNX Runtime.

A slim MobileNet-v1 on a stated subset of CIFAR-10. A latency model is fitted to measured networks; each method searches
under a share of the reference's latency by that model; each result is trained from scratch in the same way, tested, and
timed in the same rounds as the reference. Greedy uses the supernet that OWS trained. Every finished epoch, network and
measurement is kept in the work folder: the same command goes on where it was stopped.

    python benchmarks/aows_cifar10.py --data DIR --work DIR --out benchmarks/results/aows_cifar10.json
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from sartor import archs
from sartor.core import files, plugins, state
from sartor.core.contracts import Problem, Strategy, Task
from sartor.core.records import Arch, Constraint, Estimate, Objective
from sartor.core.rng import derive, global_seed, numpy_rng
from sartor.costs.fitted import Fitted
from sartor.costs.macs import Macs
from sartor.evaluators.inherited import Inherited
from sartor.latency import plan, samples
from sartor.run.runner import run
from sartor.spaces.mobilenet_v1 import MobilenetV1
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.tasks.arrays import arrays
from sartor.timing.machine import machine
from sartor.timing.meter import Effort, Subject, time_together
from sartor.training import Recipe, evaluate, fit

METHODS = ("uniform_width", "autoslim", "ows", "aows")
STRIDES = (2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--work", type=Path, required=True, help="folder of unfinished and finished work")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the figures")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="to share the seeds out over machines or cores")
    parser.add_argument("--subset", type=int, default=12000, help="training images, validation included")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=float, default=0.25, help="base width of the MobileNet")
    parser.add_argument("--epochs", type=int, default=12, help="of supernet training")
    parser.add_argument("--lr", type=float, default=0.4, help="of supernet training, per 256 images")
    parser.add_argument("--final-epochs", type=int, default=24)
    parser.add_argument("--budget", type=float, default=0.5, help="share of the reference's latency")
    parser.add_argument("--measured", type=int, default=80, help="networks that the latency model is fitted to")
    parser.add_argument("--latency-batch", type=int, default=16, help="images per call when a latency is measured")
    return parser.parse_args()


class Benchmark:
    """The parts, and what has been done."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.work = args, args.work
        self.task: Task = arrays(
            train=args.data / "train.parquet",
            test=args.data / "test.parquet",
            subset=args.subset,
            batch=args.batch,
            valid=0.1,
        )
        self.space = MobilenetV1(
            classes=10, size=32, width=args.width, strides=STRIDES, multipliers=(0.25, 0.5, 0.75, 1, 1.25, 1.5)
        )
        self.target = OnnxRuntime(threads=1)
        self.example = self.task.example.repeat(args.latency_batch, 1, 1, 1)
        self.recipe = Recipe(epochs=args.final_epochs, lr=0.1, device="cpu")
        self.latency = self._latency()
        self.macs = Macs(self.space)
        self.limit = args.budget * float(self.latency([self.space.reference])[0])
        self.problem = Problem(
            space=self.space,
            objectives=(Objective("accuracy", "max"),),
            constraints=(Constraint("latency_ms", self.limit),),
            costs={"latency_ms": self.latency, "macs": self.macs},
            task=self.task.sealed(),
        )

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, kept as JSON."""
        path = self.work / f"{name}.json"
        if not path.exists():
            data = make()
            path.parent.mkdir(parents=True, exist_ok=True)
            files.atomically(path, lambda part: part.write_text(json.dumps(data, indent=1)))
        return json.loads(path.read_text())

    def search(self, method: str, seed: int) -> tuple[Arch, dict[str, float]]:
        """The result under the budget, and what the search cost in seconds."""
        folder = self.work / "search" / f"{method}-{seed}"
        strategy = self._strategy(method, seed)
        supernet = self.work / "search" / f"{'ows' if method == 'autoslim' else method}-{seed}/artifacts"
        judge = Inherited(self.problem, supernet=supernet / "supernet.safetensors", calibrate=2, device="cpu")
        clock = Clock(folder / "seconds.json")
        if method != "uniform_width":  # which has one candidate: nothing to evaluate
            run(strategy, self.problem, judge, folder=folder, seed=seed, on_step=lambda step: clock.book(f"{step}"))
        arch = strategy.solve(self.problem.limits())
        if method == "uniform_width":
            clock.book()
        return arch, clock.totals()

    def _strategy(self, method: str, seed: int) -> Strategy:
        settings = {} if method == "uniform_width" else {"epochs": self.args.epochs, "lr": self.args.lr}
        strategy = plugins.load("strategies", method)(self.problem, seed, **settings)
        if method == "autoslim":  # the training is that of OWS, seed by seed
            trained = state.load(self.work / f"search/ows-{seed}/state.safetensors")["strategy"]["training"]
            strategy.training.load_state_dict(trained)
        return strategy

    def final(self, arch: Arch, seed: int) -> dict[str, float]:
        """Test accuracy after training from scratch."""
        key = "-".join(map(str, arch))

        def train() -> dict[str, float]:
            folder = self.work / "final" / f"{key}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            with global_seed(derive(seed, "final", "init")):
                module = self.space.build(arch)
            fit(module, self.task, self.recipe, seed=derive(seed, "final"), checkpoint=folder / "state.safetensors")
            return {**evaluate(module, self.task.test(), self.task), "macs": float(self.macs([arch])[0])}

        return self.once(f"final/{key}-{seed}", train)

    def ratios(self, wanted: list[Arch]) -> dict[Arch, Estimate]:
        """Measured latencies as fractions of the reference's, all in the same rounds, two sessions per network."""
        subjects = {}
        for i, arch in enumerate([self.space.reference, *wanted]):
            with global_seed(0):
                module = self.space.build(arch).eval()
            folder = self.work / "onnx" / "-".join(map(str, arch))
            subjects[str(i)] = Subject.prepared(self.target, module, self.example, folder)
        timed = time_together(subjects, Effort(rounds=80, sessions=2), reference="0")
        return {arch: timed.ratio(str(i)) for i, arch in enumerate(wanted, 1)}

    def _latency(self) -> Fitted:
        path, rng = self.work / "samples.jsonl", numpy_rng(0, "plan")
        wanted = plan.plan(self.space, self.args.measured, rng)
        held = plan.heldout(self.space, 20, rng, wanted)
        clock = Clock(self.work / "samples.json")
        header = samples.Header.of(self.space, self.target.describe())
        known = {s.arch for s in samples.read(path, self.space)[1]} if path.exists() else set()
        if known < {*wanted, *held}:
            template = self.target.template(self._module(archs.largest(self.space)), self.example)

            def subject(arch: Arch) -> Subject:
                return Subject(lambda: template(self._module(arch)), self.example)

            reference = subject(self.space.reference)
            unit = time_together({"reference": reference}, Effort(sessions=3)).milliseconds("reference").value
            brief = replace(Effort.brief(30), sessions=2)
            for arch in [a for a in (*wanted, *held) if a not in known]:
                pair = {"reference": reference, "network": subject(arch)}
                found = time_together(pair, brief, reference="reference").ratio("network")
                ms = found.scaled(unit)
                split = "heldout" if arch in held else "train"
                sample = samples.Sample(arch, ms.value, ms.low, ms.high, found.value, split)
                samples.append(path, header, [sample])
            clock.book()
        self.latency_seconds = clock.totals()
        return Fitted(self.space, samples=str(path))

    def _module(self, arch: Arch) -> torch.nn.Module:
        with global_seed(0):
            return self.space.build(arch).eval()


class Clock:
    """Seconds spent on steps, kept over sessions; a step that is done again counts once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}
        self.last = time.perf_counter(), time.process_time()

    def book(self, step: str = "all") -> None:
        now = time.perf_counter(), time.process_time()
        self.steps[step] = [b - a for a, b in zip(self.last, now, strict=True)]
        self.last = now
        self.path.parent.mkdir(parents=True, exist_ok=True)
        files.atomically(self.path, lambda part: part.write_text(json.dumps(self.steps)))

    def totals(self) -> dict[str, float]:
        wall, cpu = (sum(s[i] for s in self.steps.values()) for i in (0, 1))
        return {"seconds": wall, "cpu_seconds": cpu}


def interval(values: list[float]) -> dict[str, float]:
    """Mean with its 95 % Student interval over the seeds."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": mean}
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def gain(rows: list[dict[str, Any]], method: str, over: str) -> dict[str, float]:
    """Relative reduction of the test error, paired by seed: 0.04 = 4 % fewer errors."""
    errors = {m: {r["seed"]: 1 - r["test_accuracy"] for r in rows if r["method"] == m} for m in (method, over)}
    return interval([1 - error / errors[over][seed] for seed, error in errors[method].items()])


def summary(bench: Benchmark, rows: list[dict[str, Any]]) -> dict[str, Any]:
    measured = bench.ratios(sorted({tuple(r["arch"]) for r in rows}))
    for row in rows:
        row["measured_ratio"] = measured[tuple(row["arch"])].as_dict()
    methods = {}
    for method in METHODS:
        own = [r for r in rows if r["method"] == method]
        if own:
            methods[method] = {
                "test_accuracy": interval([r["test_accuracy"] for r in own]),
                "measured_ratio": statistics.fmean(r["measured_ratio"]["value"] for r in own),
                "search_seconds": statistics.fmean(r["search"]["seconds"] for r in own),
                "search_cpu_seconds": statistics.fmean(r["search"]["cpu_seconds"] for r in own),
            }
    pairs = [(m, o) for i, m in enumerate(METHODS) for o in METHODS[:i] if {m, o} <= methods.keys()]
    return {
        "settings": {k: str(v) for k, v in vars(bench.args).items() if k not in ("data", "work", "out")},
        "task": dict(bench.task.describe or {}),
        "machine": machine(),
        "target": dict(bench.target.describe()),
        "budget_ms": bench.limit,
        "latency_model": {"kind": bench.latency.kind, "nrmse": bench.latency.nrmse, **bench.latency_seconds},
        "methods": methods,
        "relative_error_gain": {f"{m} over {o}": gain(rows, m, o) for m, o in pairs},
        "results": rows,
    }


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    same_settings(args)
    bench = Benchmark(args)
    print(
        f"budget {bench.limit:.3f} ms, latency model {bench.latency.kind}, NRMSE {bench.latency.nrmse:.3f}", flush=True
    )
    rows: list[dict[str, Any]] = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        searched = {m: bench.search(m, seed) for m in ("uniform_width", "ows", "autoslim", "aows")}
        for method in METHODS:
            arch, cost = searched[method]
            if method == "autoslim":
                cost = {k: v + training_cost(args.work, seed)[k] for k, v in cost.items()}
            result = bench.final(arch, seed)
            widths = [c.options[a] for c, a in zip(bench.space.choices, arch, strict=True)]
            rows.append({"method": method, "seed": seed, "arch": arch, "widths": widths, "search": cost})
            rows[-1] |= {"test_accuracy": result["accuracy"], "macs": result["macs"]}
            print(f"seed {seed} {method:14} {result['accuracy']:.4f} {widths} {cost['seconds']:.0f} s", flush=True)
        data = summary(bench, rows)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        files.atomically(args.out, lambda part, data=data: part.write_text(json.dumps(data, indent=1) + "\n"))
    print(json.dumps({k: data[k] for k in ("methods", "relative_error_gain")}, indent=1))


def same_settings(args: argparse.Namespace) -> None:
    """Refuse a work folder of other settings; more seeds and other threads may join."""
    path = args.work / "settings.json"
    own = {
        k: v for k, v in vars(args).items() if not isinstance(v, Path) and k not in ("seeds", "first_seed", "threads")
    }
    known = json.loads(path.read_text()) if path.exists() else own
    changed = [k for k in own if known.get(k) != own[k]]
    if changed:
        raise SystemExit(f"{args.work} was begun with another {', '.join(changed)}; name another work folder")
    if not path.exists():
        args.work.mkdir(parents=True, exist_ok=True)
        files.atomically(path, lambda part: part.write_text(json.dumps(own)))


def training_cost(work: Path, seed: int) -> dict[str, float]:
    """What the supernet cost that greedy took over from OWS (all of OWS but its last step, the solution)."""
    steps = list(json.loads((work / f"search/ows-{seed}/seconds.json").read_text()).values())[:-1]
    return {"seconds": sum(s[0] for s in steps), "cpu_seconds": sum(s[1] for s in steps)}


if __name__ == "__main__":
    main()
