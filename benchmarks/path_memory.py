"""What a search step of shared weights takes: memory and time of one path, binary gates, and soft gates.

A step is forward, loss and backward of all weights and gates, on `mbconv` for images of 32x32 with up to seven options
per block. Cases: `plain`, the extracted network; `path`, a hard gate of the supernet; `two` and `full`, the same with
the gradients of one further gate per block or of all gates (ProxylessNAS); `soft`, all options at once (DARTS). Paths
are drawn at random; every case runs the same ones.

Memory, twice: bytes of the distinct tensors that the graph keeps for the backward pass, without weights; and the peak
of the process above what it held before the step (`/proc/self/status`), in which the transients of the backward pass
count. Times are taken in turn, in random order within every round.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sartor import archs
from sartor.core.rng import derive, global_seed, numpy_rng
from sartor.spaces.mbconv import Mbconv
from sartor.supernet.mixed import glanced

CASES = ("plain", "path", "two", "full", "soft")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def gates_of(case, space, arch, rng):
    counts = [len(c.options) for c in space.choices]
    if case == "soft":
        return [torch.full((k,), 1 / k).requires_grad_() for k in counts]
    if case == "path":
        return archs.gates(space, arch)
    if case == "full":
        return [glanced(a, k, range(k)) for a, k in zip(arch, counts, strict=True)]
    others = [int(rng.choice([j for j in range(k) if j != a])) for a, k in zip(arch, counts, strict=True)]
    return [glanced(a, k, (j,)) for a, k, j in zip(arch, counts, others, strict=True)]


def stepper(case, space, net, arch, x, rng):
    """The loss of one step, as a call; and all that gets gradients."""
    y = torch.zeros(len(x), dtype=torch.long)
    if case == "plain":
        child = net.extract(arch).train().to(memory_format=torch.channels_last)  # as the supernet is
        return lambda: nn.functional.cross_entropy(child(x), y)
    gates = gates_of(case, space, arch, rng)
    return lambda: nn.functional.cross_entropy(net(x, gates), y)


def kept(loss, weights):
    """Bytes that the graph keeps."""
    sizes = {}

    def pack(t):
        storage = t.untyped_storage()
        sizes[storage.data_ptr()] = (storage, storage.nbytes())  # held, so that no address is used twice
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss()
    return sum(size for at, (_, size) in sizes.items() if at not in weights)


def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak(loss):
    """Bytes of the process above what it held before, at most, in one step."""
    loss().backward()  # gradients of weights are there from now on
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    loss().backward()
    return status("VmHWM") - before


def memory(space, net, path, options):
    found, batch = {}, options.batch
    for case in CASES:
        net.zero_grad(set_to_none=True)
        rng = numpy_rng(1, "other")
        loss = stepper(case, space, net, path, torch.randn(batch, *space.input_shape), rng)
        weights = {t.untyped_storage().data_ptr() for t in net.state_dict().values()}
        if case == "plain":
            weights |= {t.untyped_storage().data_ptr() for t in loss.__closure__[0].cell_contents.state_dict().values()}
        found[case] = {"kept": kept(loss, weights), "peak": peak(loss)}
    return found


def times(space, net, path, options, rng):
    clock = CLOCKS[options.clock]
    x = torch.randn(options.batch, *space.input_shape)
    losses = {case: stepper(case, space, net, path, x, numpy_rng(1, "other")) for case in CASES}
    for loss in losses.values():
        loss().backward()
    found = {case: [] for case in CASES}
    for _ in range(options.rounds):
        for i in rng.permutation(len(CASES)):
            start = clock()
            losses[CASES[i]]().backward()
            found[CASES[i]].append(clock() - start)
    return found


def line(case, kept, peak, ms, ratio):
    memory = f"kept {kept / 2**20:7.1f} MiB ({ratio['kept']:.3f})  peak {peak / 2**20:7.1f} MiB ({ratio['peak']:.3f})"
    return f"{case:6} {memory}  {ms:8.1f} ms ({ratio['time']:.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="cifar", choices=["imagenet", "cifar", "small"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--paths", type=int, default=3, help="drawn at random; the reference is one more")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu", help="cpu: on a machine with other work")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "path_memory.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    space = Mbconv(preset=options.preset)
    with global_seed(derive(0, "supernet")):
        net = space.supernet()
    rng = numpy_rng(0, "paths")
    paths = [space.reference, *(space.moves.draw(rng) for _ in range(options.paths))]
    rows = []
    for path in paths:
        row = memory(space, net, path, options)
        seconds = times(space, net, path, options, rng)
        for case in CASES:
            row[case]["ms"] = 1000 * float(np.median(seconds[case]))
            ratios = np.array(seconds[case]) / np.array(seconds["plain"])
            row[case]["ratio"] = {
                "kept": row[case]["kept"] / row["plain"]["kept"],
                "peak": row[case]["peak"] / row["plain"]["peak"],
                "time": float(np.median(ratios)),
            }
            print(line(case, **row[case]), flush=True)
        print()
        rows.append({"path": list(path), **row})
    summary = {
        case: {
            what: {
                f: float(g([r[case]["ratio"][what] for r in rows])) for f, g in (("median", np.median), ("max", max))
            }
            for what in ("kept", "peak", "time")
        }
        for case in CASES
    }
    print(json.dumps(summary, indent=1))
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    content = {"settings": settings, "torch": torch.__version__, "summary": summary, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
