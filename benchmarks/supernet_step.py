"""What slicing costs: a training step of a supernet at one shared width against the extracted network's step.

A step is forward, loss and backward (`--optimiser` adds the SGD update). The two are timed in turn, in random order
within every round, and compared as the median of the per-round ratios, so that drift of the machine cancels out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sartor import archs
from sartor.core import plugins
from sartor.core.rng import derive, global_seed, numpy_rng

CASES = {
    "tiny": {},
    "mobilenet_v1": {"size": 64, "stem": "small", "classes": 10},
    "mobilenet_v1-imagenet": {"size": 224},
    "resnet_widths": {},
    "resnet_widths-18": {"blocks": (2, 2, 2, 2), "widths": (64, 128, 256, 512), "size": 64, "stem": "imagenet"},
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def stepper(run, parameters, x, y, optimiser):
    """One training step as a call."""
    update = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9)

    def step():
        update.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(run(x), y).backward()
        if optimiser:
            update.step()
        if x.is_cuda:
            torch.cuda.synchronize()

    return step


def paired(one, two, rounds, rng, clock):
    """Seconds of both calls, `(rounds, 2)`."""
    for call in (one, two, one, two):
        call()
    times = np.zeros((rounds, 2))
    for times_of_round in times:
        for which in rng.permutation(2):
            start = clock()
            (one, two)[which]()
            times_of_round[which] = clock() - start
    return times


def measure(case, factor, options):
    space = plugins.load("spaces", case.split("-")[0])(**CASES[case])
    with global_seed(derive(0, case)):
        net = space.supernet().to(options.device)
        x = torch.randn(options.batch, *space.input_shape, device=options.device)
        y = torch.zeros(options.batch, dtype=torch.long, device=options.device)
    arch = space.scaled(factor)
    gates, child = archs.gates(space, arch), net.extract(arch)
    sliced = stepper(lambda x: net(x, gates), net.parameters(), x, y, options.optimiser)
    alone = stepper(child, child.parameters(), x, y, options.optimiser)
    times = paired(sliced, alone, options.rounds, numpy_rng(0, "order"), CLOCKS[options.clock])
    ratios = times[:, 0] / times[:, 1]
    boot = np.median(numpy_rng(1).choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.percentile(boot, [2.5, 97.5])
    median = np.median(times, axis=0) * 1000
    print(
        f"{case:24} x{factor:<4} supernet {median[0]:8.2f} ms  extracted {median[1]:8.2f} ms  "
        f"ratio {np.median(ratios):.3f} [{low:.3f}, {high:.3f}]"
    )
    return {
        "case": case,
        "factor": factor,
        "batch": options.batch,
        "supernet_ms": median[0],
        "extracted_ms": median[1],
        "ratio": float(np.median(ratios)),
        "interval": [low, high],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["tiny", "mobilenet_v1", "resnet_widths"], choices=list(CASES))
    parser.add_argument("--factors", nargs="+", type=float, default=[0.2, 0.5, 1.0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: on a machine with other work")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--optimiser", action="store_true", help="include the SGD update of all parameters")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "supernet_step.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(case, factor, options) for case in options.cases for factor in options.factors]
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(
        json.dumps({"settings": settings, "torch": torch.__version__, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
