"""How well do the latency models predict networks that they have not seen, and from how many measurements?

Measures MobileNet-v1 (64x64, ImageNet stem) on ONNX Runtime, one thread, then fits every model to growing subsets:

    python benchmarks/latency_model.py --visits visits.jsonl --minutes 20

Measuring goes in sweeps over all networks in a new random order, with fresh sessions each time, so that slow drift of
the machine and the luck of a session's memory layout reach all networks alike; held-out networks come up twice per
sweep. It appends to `--visits`, continues where it was interrupted, and `--minutes 0` only fits. Half of the training
networks are uniformly random, a quarter each is planned by coverage and by optimal design; the held-out ones are
uniformly random. The noise of the held-out measurements is judged by comparing two halves of their sessions.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sartor import archs
from sartor.core.records import Arch
from sartor.core.rng import numpy_rng
from sartor.latency import models
from sartor.latency.design import Design
from sartor.latency.plan import heldout, plan
from sartor.latency.samples import Header, Sample, append
from sartor.latency.sweeps import Visit, combine
from sartor.spaces.mobilenet_v1 import MobilenetV1
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing.machine import machine

RESULTS = Path(__file__).parent / "results"
CHUNK = 180  # sessions alive together: some 4 GB
ROUNDS = 20  # visits of each session
RUNS = 3  # timed calls per visit


def planned(space: MobilenetV1, training: int, held: int) -> tuple[dict[str, list[Arch]], list[Arch]]:
    """Training archs by kind of plan, and held-out ones."""
    part = training // 4
    kinds: dict[str, list[Arch]] = {}
    for kind, n in (("coverage", part), ("optimal", part), ("uniform", training - 2 * part)):
        kinds[kind] = plan(space, n, numpy_rng(0, "benchmark", kind), kind)  # type: ignore[arg-type]
    taken = [arch for chosen in kinds.values() for arch in chosen]
    return kinds, heldout(space, held, numpy_rng(0, "benchmark", "heldout"), taken)


def schedule(everyone: list[Arch], held: list[Arch], sweep: int) -> Iterator[list[Arch]]:
    """The chunks of one sweep."""
    rng = numpy_rng(0, "benchmark", "sweep", sweep)
    halves = np.array_split(rng.permutation(len(everyone)), 2)
    for part in halves:
        todo = list(dict.fromkeys([*(everyone[i] for i in part), *held]))
        todo = [todo[i] for i in rng.permutation(len(todo))]
        pieces = np.array_split(np.arange(len(todo)), -(-len(todo) // CHUNK))  # a small one could not tell its drift
        yield from ([todo[i] for i in piece] for piece in pieces)


def quick(call: Callable[[], object]) -> dict[str, float]:
    """Median milliseconds of some calls, after an untimed one: by the wall clock, and of the processor's time.

    With one thread the two differ by the time that other processes were given the core.
    """
    call()
    walls, cpus = [], []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        call()
        cpus.append((time.thread_time_ns() - cpu) * 1e-6)
        walls.append((time.perf_counter_ns() - wall) * 1e-6)
    return {"wall": round(statistics.median(walls), 5), "cpu": round(statistics.median(cpus), 5)}


def sweep_for(path: Path, space: MobilenetV1, everyone: list[Arch], held: list[Arch], minutes: float) -> None:
    """Measure for some minutes, behind the chunks that the file already holds."""
    end = time.perf_counter() + 60 * minutes
    done = {(v["sweep"], v["chunk"]) for v in lines(path)}
    target, example = OnnxRuntime(threads=1), torch.zeros(1, 3, 64, 64)
    template = target.template(space.build(archs.largest(space)), example)

    def call(arch: Arch) -> Callable[[], object]:
        with torch.device("meta"):
            module = space.build(arch)
        return template(module).bind(example)

    for sweep in range(1000):
        for number, chunk in enumerate(schedule(everyone, held, sweep)):
            if (sweep, number) in done:
                continue
            if time.perf_counter() > end:
                return
            start = time.perf_counter()
            rows = visit([space.reference, *(a for a in chunk if a != space.reference)], call, sweep, number)
            with path.open("a") as file:
                file.writelines(json.dumps({"sweep": sweep, "chunk": number, **row}) + "\n" for row in rows)
            print(f"sweep {sweep}, chunk {number}: {time.perf_counter() - start:.1f} s", flush=True)


def visit(
    chunk: list[Arch], call: Callable[[Arch], Callable[[], object]], sweep: int, number: int
) -> list[dict[str, Any]]:
    """Time the networks of a chunk in interleaved rounds."""
    calls = [call(arch) for arch in chunk]
    rng, rows = numpy_rng(0, "benchmark", "order", sweep, number), []
    gc.collect()
    gc.disable()
    for turn in range(ROUNDS):
        for j in rng.permutation(len(chunk)):
            rows.append({"round": turn, "arch": chunk[j], **quick(calls[j])})
    gc.enable()
    return rows


def lines(path: Path) -> list[dict[str, Any]]:
    """What the visits file holds; a torn last line is left out."""
    if not path.is_file():
        return []
    content = path.read_text()
    return [json.loads(line) for line in content[: content.rfind("\n") + 1].splitlines()]


def visits(path: Path, clock: str) -> list[Visit]:
    """The visits of the file, by the `wall` or the `cpu` clock."""
    return [Visit(tuple(v["arch"]), (v["sweep"], v["chunk"], v["round"]), v[clock]) for v in lines(path)]


def scatter(path: Path, clock: str, reference: Arch, held: list[Arch]) -> float:
    """Relative standard deviation of a held-out network's latency, from two halves of its sessions; NaN if one each."""
    sessions: dict[Arch, dict[tuple[int, int], int]] = {}
    halves: tuple[list[Visit], list[Visit]] = ([], [])
    for v in visits(path, clock):
        own = sessions.setdefault(v.arch, {})
        halves[own.setdefault(v.block[:2], len(own)) % 2].append(v)  # type: ignore[index]
    a, b = ({s.arch: s.ratio for s in combine(half, reference)} for half in halves)
    both = [arch for arch in held if arch in a and arch in b]
    if len(both) < 2:
        return float("nan")
    return float(np.std([np.log(a[arch] / b[arch]) for arch in both]) / 2)


def judge(design: Design, train: list[Sample], held: list[Sample], scatter: float) -> list[dict[str, Any]]:
    """Every model fitted to `train`, with its errors on `held`."""
    data = models.Samples.of(design, *zip(*((s.arch, s.latency_ms, s.noise) for s in train), strict=True))
    counts, truth = design.matrix([s.arch for s in held]), np.array([s.latency_ms for s in held])
    rows = []
    for kind in models.KINDS:
        start = time.process_time()
        model = models.fit(design, data, kind)
        predicted = model.predict(counts)
        error = models.nrmse(predicted, truth)
        row = {
            "kind": kind,
            "networks": len(train),
            "nrmse": error,
            "without_noise": float(np.sqrt(max(0.0, error**2 - scatter**2))),
            "mape": models.mape(predicted, truth),
            "cv": model.cv_error,
            "fit_seconds": time.process_time() - start,
            "settings": dict(model.settings),
        }
        rows.append(row)
        print(
            f"  {kind:9} {len(train):4} networks: NRMSE {error:.2%} (without noise {row['without_noise']:.2%}), "
            f"MAPE {row['mape']:.2%}, CV {row['cv']:.2%}, fitted in {row['fit_seconds']:.1f} s, {row['settings']}",
            flush=True,
        )
    return rows


def report(args: argparse.Namespace, space: MobilenetV1, kinds: dict[str, list[Arch]], held: list[Arch]) -> None:
    """Fit, print, write."""
    measured = combine(visits(args.visits, args.clock), space.reference, set(held))
    by_arch = {s.arch: s for s in measured}
    judges = [by_arch[a] for a in held if a in by_arch]
    noise = scatter(args.visits, args.clock, space.reference, held)
    spread = float(np.std([s.latency_ms for s in judges]) / np.mean([s.latency_ms for s in judges]))
    reference = by_arch[space.reference].latency_ms
    print(f"reference {reference:.3f} ms ({args.clock} clock); held-out: spread {spread:.1%}, noise {noise:.2%}")
    design, rows = Design(space), []
    everyone = list(dict.fromkeys(a for chosen in kinds.values() for a in chosen))
    mixed = [everyone[i] for i in numpy_rng(0, "benchmark", "mix").permutation(len(everyone))]
    smallest = min(len(chosen) for chosen in kinds.values())
    subsets = {("mixed", n): mixed[:n] for n in args.sizes}
    subsets |= {(kind, n): chosen[:n] for kind, chosen in kinds.items() for n in (50, 100, smallest) if n <= smallest}
    for (name, n), chosen in subsets.items():
        print(f"{name}, {n}:")
        found = judge(design, [by_arch[a] for a in chosen if a in by_arch], judges, noise)
        rows += [{"plan": name, **row} for row in found]
    facts = {"reference_ms": reference, "clock": args.clock, "spread": spread, "noise": noise, "heldout": len(judges)}
    RESULTS.mkdir(exist_ok=True)
    result = {**facts, "machine": machine(), "visits": len(lines(args.visits)), "rows": rows}
    (RESULTS / "latency_model.json").write_text(json.dumps(result, indent=1) + "\n")
    if args.samples:
        args.samples.unlink(missing_ok=True)
        header = Header.of(space, OnnxRuntime(threads=1).describe(), str(machine()["processor"]))
        append(args.samples, header, [by_arch[a] for a in [*everyone, *held] if a in by_arch])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=Path, required=True, help="raw timings, JSON lines; grows")
    parser.add_argument("--minutes", type=float, default=20, help="how long to measure; 0 only fits")
    parser.add_argument("--training", type=int, default=500)
    parser.add_argument("--heldout", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 300, 500])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine that others load")
    parser.add_argument("--samples", type=Path, help="write one sample per network here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    space = MobilenetV1(classes=args.classes, size=64)
    kinds, held = planned(space, args.training, args.heldout)
    everyone = list(dict.fromkeys(arch for chosen in kinds.values() for arch in chosen)) + held
    if args.minutes:
        sweep_for(args.visits, space, everyone, held, args.minutes)
    report(args, space, kinds, held)


if __name__ == "__main__":
    main()
