"""How fast, how good and how right the solvers are: prints the figures and writes benchmarks/results/solvers.json.

    OMP_NUM_THREADS=1 python benchmarks/solvers.py [--count 100] [--checks 400] [--output PATH]

Times are of one call on one core, tables as torch tensors in, `Solution` out; `cpu_ms` (processor time of the process)
is the figure to read on a shared machine.
"""

import argparse
import json
import platform
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from sartor.core.errors import BudgetError
from sartor.core.records import Axis, Choice, Layer
from sartor.core.tables import Tables
from sartor.solvers import brute, chain, constrained, integer

BASES = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
STRIDES = [2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
RESIDUAL = [(0, 1), (1, 2), *((s, 3 + 3 * s + b) for s in range(3) for b in range(3)), (0, 6), (1, 9)]
CHAIN = list(pairwise(range(14)))


def widths(base):
    """The width options of AOWS: 14 multipliers in [0.2, 1.5], rounded to multiples of 8, without duplicates."""
    return tuple(sorted({int(max(np.round(base * m / 8), 1) * 8) for m in np.linspace(0.2, 1.5, 14)}))


def mobilenet():
    """Choices and layers of MobileNet-v1 at 224 x 224."""
    choices = [Choice(f"width{i}", widths(b), ordered=True) for i, b in enumerate(BASES)]
    axes = [Axis((3,)), *(Axis(c.options, i) for i, c in enumerate(choices))]
    layers, side = [], 224
    for i, stride in enumerate(STRIDES):
        kind = "separable" if i else "conv"
        layers.append(Layer(f"layer{i}", kind, (side, side), 3, stride, False, axes[i], axes[i + 1]))
        side = -(-side // stride)
    return choices, [*layers, Layer("classifier", "linear", (1, 1), 1, 1, True, axes[-1], Axis((1000,)))]


def macs(key):
    pixels = key.out_size[0] * key.out_size[1]
    if key.kind == "separable":
        return float(pixels * (key.kernel**2 * key.c_in + key.c_in * key.c_out))
    return float(pixels * key.kernel**2 * key.c_in * key.c_out)


def params(key):
    if key.kind == "separable":
        return float(key.kernel**2 * key.c_in + key.c_in * key.c_out)
    return float(key.kernel**2 * key.c_in * key.c_out + key.bias * key.c_out)


def traffic(key):
    """Bytes moved: activations in and out, weights."""
    return 4.0 * (key.c_in * key.in_size[0] ** 2 + key.c_out * key.out_size[0] ** 2 + params(key))


def latency(rng):
    """Milliseconds of a layer on some device: compute + memory + launch, with steps of the vector width and noise."""
    per_mac, per_byte, launch, noise = 10 ** rng.uniform([-8.3, -7.5, -3, -2], [-7.3, -6.5, -1.5, -1])
    vector, seen = int(rng.choice([8, 16, 32])), {}

    def value(key):
        if key not in seen:
            waste = -(-key.c_out // vector) * vector / key.c_out
            exact = per_mac * macs(key) * waste + per_byte * traffic(key) + launch
            seen[key] = exact * float(np.exp(noise * rng.standard_normal()))
        return seen[key]

    return value


def losses(rng, choices):
    """Convex decreasing in the width, of random steepness per layer, with noise: what a supernet's statistics are."""
    return Tables(
        tuple(
            torch.from_numpy(
                rng.uniform(0.1, 1) * (np.array(c.options) / c.options[-1]) ** -rng.uniform(0.2, 1.2)
                + 0.01 * rng.standard_normal(len(c.options))
            )
            for c in choices
        )
    )


def uniform(rng, sizes, edges):
    unary = tuple(torch.from_numpy(rng.random(k)) for k in sizes)
    return Tables(unary, {(i, j): torch.from_numpy(rng.random((sizes[i], sizes[j]))) for i, j in edges})


def budget(rng, loss, cost, low=0.05, high=0.95):
    """Between the smallest cost and the cost of the unconstrained minimum."""
    least, most = chain.minimum(cost)[1], cost.cost(chain.minimum(loss)[0])
    return least + rng.uniform(low, high) * (most - least)


def realistic(rng, *, second=None):
    choices, layers = mobilenet()
    loss, cost = losses(rng, choices), Tables.of_layers(choices, layers, latency(rng))
    if second is None:
        return loss, [(cost, budget(rng, loss, cost))]
    other = Tables.of_layers(choices, layers, second)
    return loss, [(t, budget(rng, loss, t, 0.2)) for t in (cost, other)]


def counted(rng):
    choices, layers = mobilenet()
    loss, cost = losses(rng, choices), Tables.of_layers(choices, layers, macs)
    return loss, [(cost, budget(rng, loss, cost))]


def random_chain(rng, *, coupled=False, bounds=1):
    sizes = [6, 11, *[14] * 12]
    loss = uniform(rng, sizes, CHAIN if coupled else [])
    costs = [uniform(rng, sizes, CHAIN) for _ in range(bounds)]
    return loss, [(c, budget(rng, loss, c, 0.05 if bounds == 1 else 0.4)) for c in costs]


def opposed(rng, *, noise):
    """Every saving costs its exact worth of loss, but for the noise: the hard case of all knapsack problems."""
    sizes = [6, 11, *[14] * 12]
    cost = uniform(rng, sizes, CHAIN)
    loss = cost * -1.0 + uniform(rng, sizes, CHAIN) * noise
    return loss, [(cost, budget(rng, loss, cost))]


def residual(rng, *, options, bounds=1):
    """ResNet-20: three stage widths, three inner widths each; convex losses, products of widths as costs."""
    sizes = [int(k) for k in (rng.integers(8, 15, 12) if options is None else [options] * 12)]
    span = [np.linspace(0.2, 1.5, k) for k in sizes]
    loss = Tables(
        tuple(
            torch.from_numpy(rng.uniform(0.1, 1) * s ** -rng.uniform(0.2, 1.2) + 0.01 * rng.random(len(s)))
            for s in span
        )
    )

    def cost():
        noisy = {
            (i, j): torch.from_numpy(
                (np.outer(span[i], span[j]) + rng.random() * (span[i][:, None] + span[j]))
                * np.exp(0.05 * rng.standard_normal((sizes[i], sizes[j])))
            )
            for i, j in RESIDUAL
        }
        return Tables(tuple(torch.zeros(k, dtype=torch.float64) for k in sizes), noisy)

    costs = [cost() for _ in range(bounds)]
    return loss, [(c, budget(rng, loss, c, 0.05 if bounds == 1 else 0.3)) for c in costs]


SPEED = {
    "mobilenet latency": realistic,
    "mobilenet macs (integers)": counted,
    "mobilenet latency + params": lambda rng: realistic(rng, second=params),
    "mobilenet latency + macs": lambda rng: realistic(rng, second=macs),
    "random chain": random_chain,
    "random chain, coupled loss": lambda rng: random_chain(rng, coupled=True),
    "random chain, two limits": lambda rng: random_chain(rng, bounds=2),
    "opposed, noise 0.01": lambda rng: opposed(rng, noise=0.01),
    "opposed, noise 0.001": lambda rng: opposed(rng, noise=0.001),
    "residual 8": lambda rng: residual(rng, options=8),
    "residual 14": lambda rng: residual(rng, options=14),
    "residual 8-14": lambda rng: residual(rng, options=None),
    "residual 14, two limits": lambda rng: residual(rng, options=14, bounds=2),
}


def quantiles(values):
    median, p90 = np.quantile(values, [0.5, 0.9])
    return {"median": float(median), "p90": float(p90), "max": float(np.max(values))}


def timed(call):
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def speed(name, make, count):
    """Certified optimum, Lagrangian answer and their gap on `count` instances."""
    rows = {
        key: [] for key in ("optimum_ms", "optimum_cpu_ms", "lagrangian_cpu_ms", "labels", "gap_percent", "open_gap")
    }
    certified, infeasible = 0, 0
    for seed in range(count):
        loss, constraints = make(np.random.default_rng(seed))
        try:
            found, wall, cpu = timed(lambda loss=loss, constraints=constraints: constrained.optimum(loss, constraints))
        except BudgetError:
            infeasible += 1
            continue
        assert all(t.cost(found.arch) <= limit for t, limit in constraints)
        certified += found.optimal
        if not found.optimal:
            rows["open_gap"].append(found.loss - found.bound)
        for key, value in (("optimum_ms", wall), ("optimum_cpu_ms", cpu), ("labels", found.labels)):
            rows[key].append(value)
        if len(constraints) == 1:
            relaxed, _, cpu = timed(lambda loss=loss, bound=constraints[0]: chain.lagrangian(loss, *bound))
            span = loss.cost(chain.minimum(constraints[0][0])[0]) - chain.minimum(loss)[1]
            assert relaxed.bound - 1e-9 <= found.loss <= relaxed.loss + 1e-9
            rows["lagrangian_cpu_ms"].append(cpu)
            rows["gap_percent"].append(100 * (relaxed.loss - found.loss) / span)
    result = {key: quantiles(values) for key, values in rows.items() if values}
    result |= {"instances": count, "certified": certified, "infeasible": infeasible}
    ms, gap = result["optimum_cpu_ms"], result.get("gap_percent", {})
    line = f"{name:28s} cpu ms {ms['median']:7.1f} {ms['p90']:7.1f} {ms['max']:7.1f}"
    line += f"   certified {certified}/{count - infeasible}"
    if gap:
        line += f"   Lagrangian gap % {gap['median']:.3f} {gap['p90']:.3f} {gap['max']:.3f}"
    print(line, flush=True)
    return result


def primitives(count):
    """Milliseconds of the calls that AOWS makes at every iteration."""
    rows = {"minimum": [], "marginals": [], "lagrangian": []}
    for seed in range(count):
        loss, [(cost, limit)] = realistic(np.random.default_rng(seed))
        for name, call in (
            ("minimum", lambda loss=loss, cost=cost: chain.minimum(loss + cost)),
            ("marginals", lambda loss=loss, cost=cost: chain.marginals(loss + cost, 0.01)),
            ("lagrangian", lambda loss=loss, cost=cost, limit=limit: chain.lagrangian(loss, cost, limit)),
        ):
            rows[name].append(timed(call)[2])
    result = {name: quantiles(values) for name, values in rows.items()}
    print("cpu ms on MobileNet:", {k: round(v["median"], 2) for k, v in result.items()}, flush=True)
    return result


def value_of(solve, loss, constraints):
    try:
        found = solve(loss, constraints)
    except BudgetError:
        return None
    return found.loss


def agree(name, oracle, make, count, tolerance):
    """Equal loss (or both infeasible) on `count` instances; stops at the first that differs."""
    infeasible, worst = 0, 0.0
    for seed in range(count):
        loss, constraints = make(np.random.default_rng([seed, 1]))
        ours, theirs = value_of(constrained.optimum, loss, constraints), value_of(oracle, loss, constraints)
        assert (ours is None) == (theirs is None), (name, seed)
        if ours is None:
            infeasible += 1
            continue
        worst = max(worst, abs(ours - theirs))
        assert worst <= tolerance, (name, seed, ours, theirs)
    print(
        f"{name:45s} {count} instances equal ({infeasible} infeasible in both), largest difference {worst:.1e}",
        flush=True,
    )
    return {"instances": count, "infeasible": infeasible, "largest_difference": worst}


def drawn(rng, sizes, edges, bounds):
    """Random tables; limits at random quantiles of the costs, so that some are infeasible together."""
    loss = uniform(rng, sizes, edges if rng.random() < 0.5 else [])
    sample = [tuple(int(rng.integers(k)) for k in sizes) for _ in range(200)]
    costs = [uniform(rng, sizes, edges) for _ in range(bounds)]
    return loss, [(c, float(np.quantile(c(sample), rng.uniform(0, 0.6)))) for c in costs]


def small_chain(rng):
    sizes = [int(k) for k in rng.integers(2, 6, 6)]
    return drawn(rng, sizes, CHAIN[:5], int(rng.integers(1, 4)))


def small_residual(rng):
    sizes = [int(k) for k in rng.integers(1, 4, 9)]
    edges = [(0, 1), (1, 2), *((s, 3 + 2 * s + b) for s in range(3) for b in range(2)), (0, 5), (1, 7)]
    return drawn(rng, sizes, edges, int(rng.integers(1, 3)))


def middle_chain(rng):
    return drawn(rng, [int(k) for k in rng.integers(4, 9, 8)], CHAIN[:7], int(rng.integers(1, 3)))


def middle_residual(rng):
    return drawn(rng, [int(k) for k in rng.integers(2, 6, 12)], RESIDUAL, int(rng.integers(1, 3)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="instances per family that is timed")
    parser.add_argument("--checks", type=int, default=400, help="instances per family compared with enumeration")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "solvers.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        constrained.optimum(*realistic(np.random.default_rng(0)))  # imports and the first plan are not timed
        results = {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            "primitives_cpu_ms": primitives(args.count),
            "speed": {name: speed(name, make, args.count) for name, make in SPEED.items()},
            "subset sum (no noise)": speed("subset sum (no noise)", lambda rng: opposed(rng, noise=0.0), 2),
            "checks": {
                "enumeration, chains": agree("enumeration, chains", brute.optimum, small_chain, args.checks, 1e-9),
                "enumeration, residual": agree(
                    "enumeration, residual", brute.optimum, small_residual, args.checks, 1e-9
                ),
                "HiGHS, chains": agree("HiGHS, chains", integer.optimum, middle_chain, args.checks // 2, 1e-5),
                "HiGHS, residual": agree("HiGHS, residual", integer.optimum, middle_residual, args.checks // 2, 1e-5),
            },
        }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
