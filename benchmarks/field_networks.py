"""Networks as people have them, beyond classifiers of torchvision and timm: cut rightly, or refused with a reason?

    python benchmarks/field_networks.py                       # all, one process each; goes on where it stopped
    python benchmarks/field_networks.py --only hf_ crepe      # those whose names begin so
    python benchmarks/field_networks.py --again wrong         # what was wrong, once more
    python benchmarks/field_networks.py --table               # the table of docs/surgery.md

Kinds: HuggingFace models by config (pictures, text, sound), detectors, segmentation, recurrent, sound, video,
volumes, pictures to pictures, several inputs or outputs, networks with trained weights that packages ship, and modules
in odd states (compiled, reparametrised, masked, adapted). They come with the extra `sartor[field]`; what is not
installed counts as skipped.

Right: the uncut built network gives what the original gives, in the same containers, for 1, 3 and 5 examples; cut
ones run for 1, 3 and 5 examples, give what the whole network with the other channels masked gives, have fewer
parameters, and train one step unless all weights are frozen; the module itself stays as it was. Refused: an error of
sartor with a one-line reason, or a space that says of every layer why it stays. All else is wrong. Torch-Pruning gets
the same network: right if half its channels can go (`pruning_ratio = 0.5`, what gives the outputs ignored), and it
then runs, gives outputs of the same shapes and has fewer parameters.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from field_networks_list import NETWORKS
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.errors import SartorError
from sartor.core.rng import global_seed
from sartor.networks import blank, lively
from sartor.spaces.widths import Widths
from sartor.surgery.cutting.slicing import Engine

TOLERANCE = 1e-3
"""Of float32 outputs, relative to the largest one: some networks have a hundred layers."""
ARCHS = 4
SECONDS = 240
BATCHES = (1, 3, 5)


def outputs(network: nn.Module, inputs: Any) -> Any:
    with torch.no_grad():
        return trees.call(network, inputs)


def shapes_of(tree: Any) -> Any:
    """Containers and shapes, to be compared."""
    if isinstance(tree, Tensor):
        return tuple(tree.shape), str(tree.dtype)
    inside = trees.children(tree)
    if inside is None:
        return repr(tree)[:80]
    return type(tree).__name__, [(str(k), shapes_of(v)) for k, v in inside]


def apart(found: Any, wanted: Any) -> float:
    """Largest difference relative to the largest value; infinite for other shapes or no numbers."""
    one, two = trees.leaves(found), trees.leaves(wanted)
    if [t.shape for t in one] != [t.shape for t in two]:
        return float("inf")
    worst = 0.0
    for a, b in zip(one, two, strict=True):
        if not b.is_floating_point() or not b.numel():
            continue
        difference = float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
        worst = max(worst, float("inf") if difference != difference else difference)  # noqa: PLR0124 - not a number
    return worst


def state_of(network: nn.Module) -> Any:
    """What must not change: weights, flags, attributes, hooks."""
    values = {n: v.clone() for n, v in network.state_dict().items() if isinstance(v, Tensor)}
    flags = [(n, m.training, sorted(vars(m)), len(m._forward_hooks)) for n, m in network.named_modules()]
    return values, flags, [p.requires_grad for p in network.parameters()]


def same_state(one: Any, two: Any) -> bool:
    values = one[0].keys() == two[0].keys() and all(torch.equal(v, two[0][n]) for n, v in one[0].items())
    return values and one[1:] == two[1:]


def ours(network: nn.Module, example: Any) -> dict[str, Any]:
    before = state_of(network)
    try:
        space = Widths(network=network, example=example)
    except SartorError as error:
        text = str(error)
        return {"verdict": "refused" if "\n" not in text else "wrong", "why": text, "kind": type(error).__name__}
    finally:
        touched = not same_state(before, state_of(network))
    found: dict[str, Any] = {"choices": len(space.choices), "fixed": len(space.coupling.fixed)}
    network = network.eval()
    whole = space.build(space.reference).eval()
    for batch in BATCHES:
        inputs = lively(example, batch, torch.Generator().manual_seed(batch))
        wanted, got = outputs(network, inputs), outputs(whole, inputs)
        if shapes_of(wanted) != shapes_of(got):
            return {**found, "verdict": "wrong", "why": f"uncut, {batch} examples: gives {shapes_of(got)}"[:300]}
        if (difference := apart(got, wanted)) > TOLERANCE:
            return {**found, "verdict": "wrong", "why": f"uncut, {batch} examples: differs by {difference:.1e}"}
    found |= cuts(space, network, example)
    if touched:
        return {**found, "verdict": "wrong", "why": "the user's module has changed"}
    return found


def cuts(space: Widths, network: nn.Module, example: Any) -> dict[str, Any]:
    rng, worst, classes = np.random.default_rng(0), 0.0, 0
    supernet = space.supernet()
    engine = Engine(space._skeleton, space._whole.eval())
    size = sum(p.numel() for p in network.parameters())
    for i in range(ARCHS):
        arch = tuple(0 if i == 0 else int(rng.integers(len(c.options))) for c in space.choices)
        module = space.build(arch).eval()
        classes += type(module) is type(network)
        if sum(p.numel() for p in module.parameters()) >= size and arch != space.reference:
            return {"verdict": "wrong", "why": "a cut network has as many parameters"}
        kept = supernet.kept(arch)  # type: ignore[attr-defined]
        for batch in BATCHES:
            inputs = lively(example, batch, torch.Generator().manual_seed(batch))
            got = outputs(module, inputs)
            masks = torch.from_numpy(kept).to(next(network.parameters()))[None]
            with torch.no_grad():
                wanted = engine(inputs, np.ones(len(kept), dtype=bool), masks)
            if shapes_of(got) != shapes_of(wanted):
                return {"verdict": "wrong", "why": f"a cut, {batch} examples: gives {shapes_of(got)}"[:300]}
            worst = max(worst, apart(got, wanted))
    if worst > TOLERANCE:
        return {"verdict": "wrong", "why": f"a cut differs from the masked network by {worst:.1e}"}
    if not trains(module, example):
        return {"verdict": "wrong", "why": "a cut network does not train"}
    return {"verdict": "right", "error": worst, "own_class": classes == ARCHS}


def trains(module: nn.Module, example: Any) -> bool:
    if not any(p.requires_grad for p in module.parameters()):
        return True  # it is not meant to
    result = trees.call(module.train(), lively(example, 3, torch.Generator().manual_seed(0)))
    loss = sum(t.float().square().mean() for t in trees.leaves(result) if t.is_floating_point())
    assert isinstance(loss, Tensor)
    loss.backward()
    slopes = [p.grad for p in module.parameters() if p.grad is not None]
    return bool(slopes) and all(bool(torch.isfinite(s).all()) for s in slopes)


def theirs(network: nn.Module, example: Any) -> dict[str, Any]:
    """Torch-Pruning, half of the channels, with the layers ignored whose outputs are the network's."""
    import torch_pruning as tp  # noqa: PLC0415 - an optional package

    network = network.eval()
    inputs = lively(example, 2, torch.Generator().manual_seed(0))
    wanted, size = outputs(network, inputs), sum(p.numel() for p in network.parameters())
    widths = {int(t.shape[d]) for t in trees.leaves(wanted) for d in range(1, t.dim())}
    layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    last = [m for m in layers[-6:] if (getattr(m, "out_features", 0) or getattr(m, "out_channels", 0)) in widths]
    given = inputs if isinstance(inputs, (Tensor, dict)) else tuple(inputs)
    pruner = tp.pruner.BasePruner(
        network,
        given,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=last,
        output_transform=lambda out: sum(t.float().sum() for t in trees.leaves(out)),
    )
    pruner.step()
    got = outputs(network, inputs)
    if [t.shape for t in trees.leaves(got)] != [t.shape for t in trees.leaves(wanted)]:
        return {"right": False, "why": "outputs of other shapes"}
    fewer = sum(p.numel() for p in network.parameters()) < size
    return {"right": fewer, "why": "" if fewer else "nothing was pruned"}


def tried(name: str, who: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    try:
        with global_seed(0):
            network, given = NETWORKS[name].make()
            example = blank(network, given)
    except ImportError as error:
        pipe.send({"verdict": "skipped", "why": str(error)})
        return
    try:
        found = {"sartor": ours, "torch_pruning": theirs}[who](network, example)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a result
        where = traceback.extract_tb(error.__traceback__)[-1]
        why = (
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]} ({Path(where.filename).name}:{where.lineno})"
        )
        found = {"verdict": "wrong", "right": False, "why": why}
    if "why" in found:  # no paths of this machine
        found["why"] = re.sub(r"/\S*?/site-packages/", "", found["why"])
    pipe.send({**found, "seconds": round(time.perf_counter() - start, 1)})


def alone(name: str, who: str) -> dict[str, Any]:
    """In a process of its own, with a time limit."""
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=tried, args=(name, who, other))
    process.start()
    other.close()
    try:
        found = mine.recv() if mine.poll(SECONDS) else {"verdict": "wrong", "right": False, "why": f"over {SECONDS} s"}
    except EOFError:
        found = {"verdict": "wrong", "right": False, "why": "the process died"}
    process.kill()
    process.join()
    assert isinstance(found, dict)
    return found


def table(rows: dict[str, Any]) -> str:
    """Counts by kind, as Markdown."""
    kinds: dict[str, Counter[str]] = {}
    for name, row in rows.items():
        if row["sartor"]["verdict"] == "skipped":
            continue
        count = kinds.setdefault(NETWORKS[name].kind, Counter())
        count["networks"] += 1
        count[row["sartor"]["verdict"]] += 1
        count["own class"] += bool(row["sartor"].get("own_class"))
        count["theirs"] += bool(row["torch_pruning"].get("right"))
    columns = ("networks", "right", "refused", "wrong", "own class", "theirs")
    total = sum(kinds.values(), Counter())
    lines = ["| kind | networks | right | refused with a reason | wrong | of the right ones in their own class | "]
    lines[0] += "Torch-Pruning right |"
    lines.append("|---" * (len(columns) + 1) + "|")
    for kind, count in [*sorted(kinds.items()), ("all", total)]:
        lines.append(f"| {kind} | " + " | ".join(str(count[c]) for c in columns) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--again", choices=["wrong", "refused", "skipped"])
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "field_networks.json")
    args = parser.parse_args()
    rows: dict[str, Any] = json.loads(args.output.read_text()) if args.output.exists() else {}
    keep: Callable[[str], bool] = lambda name: any(name.startswith(part) for part in args.only)  # noqa: E731
    for name in filter(keep, () if args.table else NETWORKS):
        known = rows.get(name, {})
        if known and known["sartor"]["verdict"] != args.again:
            continue
        row = {"kind": NETWORKS[name].kind, "sartor": alone(name, "sartor")}
        row["torch_pruning"] = known.get("torch_pruning") or alone(name, "torch_pruning")
        rows[name] = row
        args.output.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{name:28} {row['sartor']['verdict']:8} {row['sartor'].get('why', '')[:150]}", flush=True)
    print(table({name: rows[name] for name in NETWORKS if name in rows}))


if __name__ == "__main__":
    main()
