"""How much of the world's networks can be cut: all classifiers of torchvision, and timm's families, each checked.

Every network is analysed, cut at random, and compared in float64 with the whole network whose other channels are zero:
the original module with zeros in its weights (`zeroed`), and, where statistics are taken over channels that are cut
(layer norms, say), the whole graph with those channels masked (`masked`), which counts the kept ones only. The same
networks go through Torch-Pruning's default call. Each network has a process and a time limit of its own; one line of
JSON per network is appended to a file, so that an interrupted run goes on where it stopped.

    python benchmarks/coupling_coverage.py                 # everything
    python benchmarks/coupling_coverage.py --again failed  # what failed once more
    python benchmarks/coupling_coverage.py --times         # the time of the analysis against Torch-Pruning's
"""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import multiprocessing
import pstats
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
import torch_pruning as tp
import torchvision
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import sartor.surgery.analysis.coupling as coupling_module
import sartor.surgery.cutting.checked as checked_module
from sartor.core.rng import global_seed
from sartor.networks import load_network, macs_params
from sartor.spaces.widths import MULTIPLIERS, Widths
from sartor.surgery.analysis.accounting import Accounts
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.ladders import ladders
from sartor.surgery.analysis.operators import rule_of
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.trace import BATCH, trace
from sartor.surgery.analysis.tracker import operator_name
from sartor.surgery.cutting.slicing import Cut, Engine

HERE = Path(__file__).parent
LARGE = 100e6
"""Networks with more parameters are analysed only, on the meta device."""
TOLERANCE = 1e-9
DEEPEST = 0.9
"""The share of every group that is cut where it is asked how small a network can get."""
STATISTICS = ("batch_norm", "layer_norm", "group_norm", "rms_norm", "mean", "var", "std", "var_mean", "std_mean")


# --- the list ---------------------------------------------------------------------------------------------------------


def names(members: int) -> list[str]:
    """`torchvision:NAME` and `timm:NAME`: of each of timm's modules the smallest networks, of different kinds first."""
    vision = [f"torchvision:{n}" for n in torchvision.models.list_models(module=torchvision.models)]
    with (HERE / "coupling_models.json").open() as file:
        sizes: dict[str, list[list[Any]]] = json.load(file)
    chosen: list[tuple[int, str]] = []
    for entries in sizes.values():
        kinds: dict[str, int] = defaultdict(int)
        ranked = []
        for name, count in entries:
            kind = re.split(r"[_\d]", name)[0]
            ranked.append((kinds[kind], count, name))
            kinds[kind] += 1
        chosen += [(i, name) for i, (_, _, name) in enumerate(sorted(ranked)[:members])]
    ranks = [[f"timm:{name}" for i, name in chosen if i == rank] for rank in range(members)]
    return [*ranks[0], *vision, *(name for rank in ranks[1:] for name in rank)]


def family(spec: str) -> str:
    """torchvision's families by name, timm's by module."""
    where, _, name = spec.partition(":")
    if where == "timm":
        return f"timm:{timm.models._registry._model_to_module[name]}"
    return f"torchvision:{re.split(r'[_0-9]', name)[0]}"


def load(
    spec: str, sizes: Sequence[int] = (64, 96, 128, 160, 192, 224, 256, 299, 0)
) -> tuple[nn.Module, tuple[int, ...]]:
    """A network and the shape of the first input that is tried and works; 0 is the network's own size."""
    where, _, name = spec.partition(":")
    for size in sizes:
        try:
            if where == "timm":
                network, shape = _timm(name, size)
            else:
                network, shape = _torchvision(name, size)
        except Exception:
            if size == sizes[-1]:
                raise
            continue
        network = network.to(torch.get_default_dtype())  # some make tables of their own type
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(2, *shape))
        except Exception:
            if size == sizes[-1]:
                raise
            continue
        return network, shape
    raise AssertionError(spec)


def _torchvision(name: str, size: int) -> tuple[nn.Module, tuple[int, ...]]:
    if name.startswith("maxvit") and size not in (224, 0):
        raise ValueError("made for one size")
    if name == "inception_v3" and size not in (299, 0):
        raise ValueError("its head for training needs all of it")
    extra: dict[str, Any] = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit"):
        size = size // int(name[-2:]) * int(name[-2:])
        extra = {"image_size": size}
    return torchvision.models.get_model(name, weights=None, **extra), (3, size or 224, size or 224)


def _timm(name: str, size: int) -> tuple[nn.Module, tuple[int, ...]]:
    config = timm.get_pretrained_cfg(name)
    usual = tuple(config.input_size)
    resized = {"img_size": size} if config.fixed_input_size and size not in (usual[-1], 0) else {}
    network = timm.create_model(name, pretrained=False, **resized)
    return network, (usual[0], size, size) if size else usual


def randomise(network: nn.Module) -> None:
    """Statistics of batch norms, and parameters whose entries are all alike or next to nothing, become random."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        for parameter in network.parameters():
            if parameter.numel() and parameter.is_floating_point() and parameter.min() == parameter.max():
                if parameter.abs().max() < 1e-2:
                    parameter.normal_(0, 0.1)
                else:
                    parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))
            elif parameter.dim() > 1 and parameter.std() < 5e-3:  # classifiers that start with next to no output
                parameter.normal_(0, 0.05)


# --- one network ------------------------------------------------------------------------------------------------------


def ours(spec: str, wanted: int, seconds: float, emit: Callable[..., None]) -> None:
    """Analyse, cut, compare, train one step; what is known is emitted as soon as it is known."""
    torch.set_default_dtype(torch.float64)
    network, shape, params = sketch(spec)
    emit(params=params, shape=list(shape))
    if network is not None and params > LARGE:
        analysed(network, shape, emit)
        emit(only_analysed="more than 100 M parameters")
        return
    network = prepared(spec, shape)
    settle(network, shape)
    start = time.perf_counter()
    spent: list[float] = []

    def timed(*args: Any, **settings: Any) -> Any:
        begin = time.perf_counter()
        found = couple(*args, **settings)
        spent.append(time.perf_counter() - begin)
        return found

    checked_module.couple = timed  # type: ignore[assignment]
    space = Widths(network=network, input_shape=shape)
    figures(space.coupling, space.accounts, emit)
    least(space.coupling, network, emit)
    emit(seconds_analysis=spent[0], seconds_space=time.perf_counter() - start, way="class" if space.plain else "graph")
    compare(space, shape, (wanted, seconds), emit)
    train(space, shape, emit)


def sketch(spec: str) -> tuple[nn.Module | None, tuple[int, ...], int]:
    """The network on the meta device if it runs there, its input and its number of parameters."""
    try:
        with torch.device("meta"):
            network, shape = load(spec)
            return network, shape, sum(p.numel() for p in network.parameters())
    except Exception:  # noqa: BLE001 - it looks at values
        network, shape = load(spec)
        return None, shape, sum(p.numel() for p in network.parameters())


def settle(network: nn.Module, shape: tuple[int, ...]) -> None:
    """Statistics of batch norms become roughly those of random inputs, so that the signal gets through the network."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.momentum is not None]
    momenta = [m.momentum for m in norms]
    if not norms:
        return
    with torch.no_grad(), global_seed(3):
        for norm in norms:
            norm.momentum = 1.0
        network.train()(torch.randn(4, *shape))
        network.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.running_var is not None:
                norm.running_var.clamp_(min=1e-3).mul_(torch.empty_like(norm.running_var).uniform_(0.7, 1.4))
                norm.running_mean.add_(0.2 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean))


def prepared(spec: str, shape: tuple[int, ...]) -> nn.Module:
    """The network with random weights."""
    with global_seed(0):
        network, _ = load(spec, (shape[-1], 0))
        randomise(network)
    return network


def analysed(network: nn.Module, shape: tuple[int, ...], emit: Callable[..., None]) -> None:
    start = time.perf_counter()
    coupling = couple(network, torch.zeros(1, *shape, device="meta"))
    emit(seconds_analysis=time.perf_counter() - start)
    figures(coupling, Accounts(Skeleton(coupling), network, ladders(coupling.groups, MULTIPLIERS, 8)), emit)
    least(coupling, network, emit)


def figures(coupling: Any, accounts: Accounts, emit: Callable[..., None]) -> None:
    unknown = {operator_name(n) for n in accounts.skeleton.calls if rule_of(n) is None}
    reasons: dict[str, int] = defaultdict(int)
    for fixed in coupling.fixed:
        reasons[re.sub(r"\d+", "#", fixed.reason)] += 1
    emit(
        groups=len(coupling.groups),
        choices=len(accounts.ladders),
        unknown=sorted(unknown),
        fixed=len(coupling.fixed),
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])[:6]),
    )


def least(coupling: Any, network: nn.Module, emit: Callable[..., None]) -> None:
    """The MACs of the network with a tenth of every group, which is what Torch-Pruning is asked for."""
    ladder = ladders(coupling.groups, (1 - DEEPEST, 1.0), 1)
    macs = Accounts(Skeleton(coupling), network, ladder).macs()
    if macs is not None:
        whole = macs.cost([len(rungs.choice.options) - 1 for rungs in ladder])
        emit(smallest=macs.cost([0] * len(ladder)) / whole, macs=whole)


def compare(space: Widths, shape: tuple[int, ...], limits: tuple[int, float], emit: Callable[..., None]) -> None:
    wanted, seconds = limits
    rng = np.random.default_rng(0)
    engine = Engine(space._skeleton, space._whole.eval())
    errors: dict[str, list[float]] = {"zeroed": [], "masked": []}
    zeroed, supernet = Zeroed(space), space._supernet()
    start, signal = time.perf_counter(), float("inf")  # signal: how much two examples' outputs differ
    with global_seed(1):
        inputs = {n: torch.randn(n, *shape) for n in (2, 3)}
    for i in range(wanted):
        if i >= 3 and time.perf_counter() - start > seconds:
            break
        arch = tuple(int(rng.integers(len(c.options))) for c in space.choices)
        x = inputs[3 if i == 0 else 2]  # another batch than the traced one
        kept = supernet.kept(arch)  # type: ignore[attr-defined]
        cut = Cut(space._skeleton, kept, BATCH)
        with torch.no_grad():
            found = tree_leaves(supernet.extract(arch).eval()(x))
            signal = min(signal, distance([f[:1] for f in found], [f[1:2] for f in found]))
            exact = not statistics_over_cut(space, cut)
            if exact:
                errors["zeroed"].append(distance(found, tree_leaves(zeroed(kept, x))))
            if not exact or i < 1:
                everything = np.ones(len(kept), dtype=bool)
                masks = torch.from_numpy(kept).to(x)[None]
                errors["masked"].append(distance(found, tree_leaves(engine(x, everything, masks))))
        emit(
            archs=i + 1,
            references={k: len(v) for k, v in errors.items() if v},
            error=max(chain(*errors.values())),
            signal=signal,
        )
    emit(equal=max(chain(*errors.values())) <= TOLERANCE)


def distance(found: list[Any], wanted: list[Any]) -> float:
    """Largest difference relative to the largest value; not a number counts as infinite."""
    if [t.shape for t in found] != [t.shape for t in wanted]:
        return float("inf")
    worst = max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-300)) for a, b in zip(found, wanted, strict=True)
    )
    return float("inf") if math.isnan(worst) else worst


class Zeroed:
    """The original module with zeros in its weights wherever a channel is cut."""

    def __init__(self, space: Widths) -> None:
        self.network = space._whole.eval()
        self.labels = {
            n: [space.coupling.tracker.units.resolve(d) for d in dims] for n, dims in space.coupling.weights()
        }
        norms = ("running_mean", "running_var")  # zeros in other buffers (frequencies, say) would be divided by
        self.state = dict(self.network.named_parameters())
        self.state |= {n: b for n, b in self.network.named_buffers() if n.endswith(norms)}

    def __call__(self, kept: np.ndarray, x: Tensor) -> Any:
        before = {n: self.state[n].clone() for n in self.labels if n in self.state}
        try:
            for name, dims in self.labels.items():
                for d, roots in enumerate(dims):
                    gone = [] if roots is None else np.flatnonzero(~kept[roots].all(1))
                    if name in self.state and len(gone) and self.state[name].is_floating_point():
                        self.state[name].index_fill_(d, torch.from_numpy(gone), 0)
            return self.network.train().eval()(x)  # some modules remember what they made of their weights
        finally:
            for name, value in before.items():
                self.state[name].copy_(value)


def statistics_over_cut(space: Widths, cut: Cut) -> bool:
    """Whether a norm or mean runs over channels that are cut: then zeros would count in it."""
    for node in space._skeleton.calls:
        rule = rule_of(node)
        if operator_name(node) in STATISTICS and rule is not None and rule.mixes is not None:
            for given, dims in rule.mixes(node):
                labels = space.coupling.tracker.dims(given)
                if any(cut.mask(labels[d]) is not None for d in dims):
                    return True
    return False


def train(space: Widths, shape: tuple[int, ...], emit: Callable[..., None]) -> None:
    """One step of SGD on a cut network."""
    rng = np.random.default_rng(1)
    network = space.build(tuple(int(rng.integers(len(c.options))) for c in space.choices)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    with global_seed(2):
        x = torch.randn(2, *shape)
        loss = sum(t.square().mean() for t in tree_leaves(network(x)))
        loss.backward()
        slopes = [p.grad for p in network.parameters() if p.grad is not None]
        optimizer.step()
        after = sum(t.square().mean() for t in tree_leaves(network(x)))
    finite = bool(torch.isfinite(loss) and torch.isfinite(after) and all(torch.isfinite(s).all() for s in slopes))
    emit(trains=finite and len(slopes) > 0)


# --- Torch-Pruning ----------------------------------------------------------------------------------------------------


def theirs(spec: str, emit: Callable[..., None]) -> None:
    """Its default call on the same network."""
    _, shape, params = sketch(spec)
    if params > LARGE:
        emit(only_analysed="more than 100 M parameters")
        return
    network = prepared(spec, shape)
    x = torch.randn(2, *shape)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    start = time.perf_counter()
    tp.DependencyGraph().build_dependency(network, example_inputs=x)
    emit(seconds_analysis=time.perf_counter() - start)
    with torch.no_grad():
        wanted = [t.shape for t in tree_leaves(network(x))]
    whole = macs_params(network, x)
    for ratio in (0.5, DEEPEST):
        if ratio == DEEPEST:
            network = prepared(spec, shape)
            network.load_state_dict(state)
        prune(network, x, ratio)
        small = macs_params(network, x)
        with torch.no_grad():
            same = [t.shape for t in tree_leaves(network.eval()(x))] == wanted
        if ratio == 0.5:
            why = ("" if small[1] < whole[1] else "nothing was pruned") if same else "another output shape"
            emit(right=not why, why=why)
        elif same:
            emit(smallest=small[0] / max(1, whole[0]))


def prune(network: nn.Module, x: Tensor, ratio: float, steps: int = 1) -> Any:
    """Its default pruner, with the classifier left alone."""
    network.eval()
    classes = getattr(network, "num_classes", 1000) or 1000
    last = [
        m
        for m in network.modules()
        if (isinstance(m, nn.Linear) and m.out_features == classes)
        or (isinstance(m, nn.Conv2d) and m.out_channels == classes)
    ]
    pruner = tp.pruner.BasePruner(
        network,
        x,
        importance=tp.importance.MagnitudeImportance(),
        pruning_ratio=ratio,
        ignored_layers=last,
        iterative_steps=steps,
    )
    if steps == 1:
        pruner.step()
    return pruner


# --- running ----------------------------------------------------------------------------------------------------------


def guarded(work: Callable[..., None], args: tuple[Any, ...], limit: float) -> dict[str, Any]:
    """What `work` emits in a process of its own, with an error if it fails or takes too long."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def target() -> None:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        try:
            work(*args, lambda **found: there.send(found))
        except BaseException as error:  # noqa: BLE001 - whatever the network or a library raises is a result
            there.send({"error_text": f"{type(error).__name__}: {str(error)[:400]}", "line": _line(error)})
        there.send(None)

    process = context.Process(target=target)
    start = time.perf_counter()
    process.start()
    there.close()
    result: dict[str, Any] = {}
    try:
        while True:
            left = limit - (time.perf_counter() - start)
            if left <= 0 or not here.poll(left):
                result["error_text"] = f"took more than {limit:g} s"
                break
            found = here.recv()
            if found is None:
                break
            result |= found
    except EOFError:
        result["error_text"] = "the process died (out of memory?)"
    if process.is_alive():
        process.kill()
    process.join()
    result["seconds"] = round(time.perf_counter() - start, 2)
    return result


def _line(error: BaseException) -> str:
    frame, place = error.__traceback__, ""
    while frame is not None:
        place = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return place


def failed(entry: dict[str, Any]) -> bool:
    mine = entry.get("sartor", {})
    return "error_text" in mine or not (mine.get("only_analysed") or (mine.get("equal") and mine.get("trains")))


def read(file: Path) -> dict[str, dict[str, Any]]:
    """The last line of every network; a line holds one side (`sartor`, `torch_pruning`) or both."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    if file.exists():
        for text in file.read_text().splitlines():
            entry = json.loads(text)
            found[entry["name"]] |= entry
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, default=HERE / "results" / "coupling_coverage.jsonl")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "coupling_coverage.json")
    parser.add_argument("--only", default="", help="regular expression on names")
    parser.add_argument("--again", choices=("failed", "few", "all"), help="run these although they are done")
    parser.add_argument("--side", choices=("both", "sartor", "torch_pruning"), default="both")
    parser.add_argument("--members", type=int, default=3, help="networks per module of timm")
    parser.add_argument("--archs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="no further archs after this (at least three)")
    parser.add_argument("--limit", type=float, default=240, help="seconds per network, half of it for Torch-Pruning")
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="seconds in all")
    parser.add_argument("--times", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.times:
        times(args.out)
        return
    known, begin = read(args.lines), time.perf_counter()
    couple(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8))  # what tracing loads once
    for spec in names(args.members):
        if not re.search(args.only, spec) or time.perf_counter() - begin > args.stop_after:
            continue
        entry: dict[str, Any] = {"name": spec, "family": family(spec)}
        have = known.get(spec, {})
        few = have.get("sartor", {}).get("archs", args.archs) < args.archs
        again = {"failed": failed(have), "few": few, "all": True}.get(args.again, False)
        if args.side != "torch_pruning" and ("sartor" not in have or again):
            entry["sartor"] = guarded(ours, (spec, args.archs, args.seconds), args.limit)
        if args.side != "sartor" and ("torch_pruning" not in have or args.again == "all"):
            entry["torch_pruning"] = guarded(theirs, (spec,), args.limit / 2)
        if len(entry) > 2:
            with args.lines.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            print(spec, _short(entry), flush=True)
    summarise(read(args.lines), args)


def _short(entry: dict[str, Any]) -> str:
    mine, other = entry.get("sartor", {}), entry.get("torch_pruning", {})
    keys = (
        "groups",
        "smallest",
        "way",
        "archs",
        "references",
        "error",
        "signal",
        "equal",
        "trains",
        "unknown",
        "error_text",
        "line",
    )
    text = {k: mine[k] for k in (*keys, "seconds") if k in mine}
    return f"{text} | { ({k: other[k] for k in ('right', 'smallest', 'error_text', 'seconds') if k in other}) }"


def summarise(entries: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    """Counts, failures and medians per family."""
    old = json.loads(args.out.read_text()) if args.out.exists() else {}
    listed = {n: entries[n] for n in names(args.members) if n in entries}
    sections: dict[str, Any] = {}
    for source in ("torchvision", "timm"):
        mine = {n: e for n, e in listed.items() if n.startswith(source)}
        sections[source] = {
            "networks": len(mine),
            "sartor": _counts([e.get("sartor", {}) for e in mine.values()]),
            "torch_pruning": _theirs([e["torch_pruning"] for e in mine.values() if "torch_pruning" in e]),
        }
    families: dict[str, Any] = defaultdict(list)
    for entry in listed.values():
        families[entry["family"]].append(entry)
    result = {
        "device": "one core, torch " + torch.__version__,
        "versions": {
            "timm": timm.__version__,
            "torchvision": torchvision.__version__,
            "torch_pruning": version("torch-pruning"),
        },
        "tolerance": TOLERANCE,
        "summary": sections,
        "failures": {n: _failure(e["sartor"]) for n, e in listed.items() if "sartor" in e and failed(e)},
        "families": {name: _medians(group) for name, group in sorted(families.items())},
        "networks": listed,
    }
    args.out.write_text(json.dumps(old | result, indent=1) + "\n")
    print(json.dumps({"summary": sections, "failures": result["failures"]}, indent=1))


def _counts(found: list[dict[str, Any]]) -> dict[str, Any]:
    checked = [f for f in found if not f.get("only_analysed")]
    return {
        "analysed": sum("groups" in f for f in found),
        "checked": len(checked),
        "equal": sum(bool(f.get("equal")) for f in checked),
        "trains": sum(bool(f.get("trains")) for f in checked),
        "own_class": sum(f.get("way") == "class" for f in checked),
        "archs": sum(f.get("archs", 0) for f in checked),
        "median_seconds_analysis": _median(f.get("seconds_analysis") for f in found),
        "median_smallest_macs": _median(f.get("smallest") for f in found),
    }


def _theirs(found: list[dict[str, Any]]) -> dict[str, Any]:
    checked = [f for f in found if not f.get("only_analysed")]
    return {
        "checked": len(checked),
        "right": sum(bool(f.get("right")) for f in checked),
        "median_seconds_analysis": _median(f.get("seconds_analysis") for f in found),
        "median_smallest_macs": _median(f.get("smallest") for f in checked if f.get("right")),
    }


def _medians(group: list[dict[str, Any]]) -> dict[str, Any]:
    mine, other = [e.get("sartor", {}) for e in group], [e.get("torch_pruning", {}) for e in group]
    return {
        "networks": [e["name"] for e in group],
        "right": sum(not failed(e) for e in group),
        "seconds_analysis": _median(f.get("seconds_analysis") for f in mine),
        "smallest_macs": _median(f.get("smallest") for f in mine),
        "torch_pruning_right": sum(bool(f.get("right")) for f in other),
        "torch_pruning_smallest_macs": _median(f.get("smallest") for f in other),
    }


def _failure(found: dict[str, Any]) -> str:
    if "error_text" in found:
        return f"{found['error_text']} [{found.get('line', '')}]"
    if not found.get("equal"):
        return f"differs by {found.get('error')}"
    return "a training step is not finite"


def _median(values: Iterable[float | None]) -> float | None:
    found = [v for v in values if v is not None]
    return round(median(found), 4) if found else None


# --- times ------------------------------------------------------------------------------------------------------------


def times(out: Path, rounds: int = 5) -> None:
    """Analysis and whole jobs against Torch-Pruning's, taking turns."""
    found: dict[str, Any] = {"analysis": {}, "job": {}}
    for name in ("mobilenet_v2", "resnet50", "vit_b_16", "densenet121"):
        found["analysis"][name] = analysis_times(f"torchvision:{name}", rounds)
        print(name, found["analysis"][name], flush=True)
    for name in ("resnet18", "mobilenet_v2"):
        found["job"][name] = job_times(f"torchvision:{name}", rounds)
        print(name, found["job"][name], flush=True)
    old = json.loads(out.read_text()) if out.exists() else {}
    out.write_text(json.dumps(old | {"times": found}, indent=1) + "\n")


def analysis_times(spec: str, rounds: int) -> dict[str, float]:
    network = load_network(spec)
    example = torch.zeros(1, 3, 224, 224)
    network.eval()
    spent: dict[str, list[float]] = defaultdict(list)

    def timed(*args: Any, **settings: Any) -> Any:
        start = time.perf_counter()
        found = trace(*args, **settings)
        spent["trace"].append(time.perf_counter() - start)
        return found

    coupling_module.trace = timed  # type: ignore[assignment]
    for _ in range(rounds + 1):  # the first is not counted: it loads code
        spent["sartor"].append(clock(lambda: couple(network, example)))
        spent["torch_pruning"].append(clock(lambda: tp.DependencyGraph().build_dependency(network, example)))
    coupling_module.trace = trace
    middle = {key: median(values[1:]) for key, values in spent.items()}
    result = {f"seconds_{key}": round(value, 4) for key, value in middle.items()}
    result["seconds_rest"] = round(middle["sartor"] - middle["trace"], 4)
    result["ratio"] = round(middle["sartor"] / middle["torch_pruning"], 3)
    return result


def clock(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def job_times(spec: str, rounds: int) -> dict[str, float]:
    """From the network to one of half its multiply-adds."""
    spent: dict[str, list[float]] = defaultdict(list)
    shares: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds + 1):
        for side, job in (("sartor", _our_job), ("torch_pruning", _their_job)):
            network = load_network(spec).eval()
            x = torch.zeros(1, 3, 224, 224)
            whole = macs_params(network, x)[0]
            start = time.perf_counter()
            small = job(network, x, whole)
            spent[side].append(time.perf_counter() - start)
            shares[side].append(macs_params(small, x)[0] / whole)
    middle = {side: median(values[1:]) for side, values in spent.items()}
    result = {f"seconds_{side}": round(value, 3) for side, value in middle.items()}
    result |= {f"macs_{side}": round(median(values), 4) for side, values in shares.items()}
    result["ratio"] = round(middle["sartor"] / middle["torch_pruning"], 3)
    return result


def _our_job(network: nn.Module, x: Tensor, whole: int) -> nn.Module:
    """One width for all layers, the largest of a hundred that fits."""
    space = Widths(network=network, input_shape=tuple(x.shape[1:]), multipliers=[m / 32 for m in range(4, 33)])
    macs = space.account("macs")
    assert macs is not None
    archs = [space.scaled(i / 100) for i in range(10, 101)]
    costs = macs(archs)
    fitting = [(float(c), arch) for c, arch in zip(costs, archs, strict=True) if float(c) <= 0.5 * whole]
    return space.build(max(fitting)[1])


def _their_job(network: nn.Module, x: Tensor, whole: int, steps: int = 100) -> nn.Module:
    """As its README does it: pruned step by step until half the multiply-adds are gone."""
    pruner = prune(network, x, 1.0, steps)
    for _ in range(steps):
        pruner.step()
        if tp.utils.count_ops_and_params(network, x)[0] <= 0.5 * whole:
            break
    return network


def profile(spec: str) -> None:
    """Where the analysis spends its time."""
    network, example = load_network(spec), torch.zeros(1, 3, 224, 224)
    couple(network, example)
    with cProfile.Profile() as profiler:
        couple(network, example)
    pstats.Stats(profiler).sort_stats("cumulative").print_stats("sartor", 25)


if __name__ == "__main__":
    main()
