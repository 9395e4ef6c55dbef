"""The default command against its rivals, on networks that nothing was tuned for: one recipe, five seeds, every budget.

A cell is a teacher and a budget (`vgg:macs50`). Every rival (see `fair_rivals.py`) is cut to the budget and trained by
the recipe on a seed that is not reported; the best of them by validation is then trained on the reported seeds. sartor
is one `sartor.fit` per seed, whatever its default strategy is, with the same recipe. Each result is a JSON file in the
work folder: the same command goes on where it was stopped, and several processes can share the work.

    python benchmarks/fair.py --tune --data DIR --weights DIR --teachers DIR --work DIR
    python benchmarks/fair.py --estimate ...
    python benchmarks/fair.py --data DIR --weights DIR --teachers DIR --work DIR --out benchmarks/results/fair.json
    python benchmarks/fair.py --summary ...

DIR of `--data` holds `cifar10/`, `segmentation/camvid/` and `sr/`; `fair_networks.py` and `tasks_real.py` train the
teachers. The recipe is tuned on other images and seeds, on uniform networks and on Torch-Pruning's alike.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import re
import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fair_cells import BUDGETS, EPOCHS, TARGET, TEACHERS, Cell, Sources, family, write_json
from fair_rivals import RIVALS, Call, Random, Rival, Uniform
from torch import nn

import sartor
from sartor.core.errors import SartorError
from sartor.core.metrics import SHARE, Metric
from sartor.core.rng import derive, global_seed
from sartor.jobs.compare.statistics import interval
from sartor.networks import macs_params
from sartor.training import evaluate

RECIPE = Path(__file__).parent / "results/fair_recipe.json"
SELECTION, TUNING = 1000, 2000
"""Seeds: of the training that a rival is chosen by, and of the tuning."""
GRID = {"sgd": (0.005, 0.01, 0.02, 0.04, 0.08), "adamw": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)}
TUNED_ON = ("resnet20", "vgg", "mobilenet", "convnext", "vit", "camvid", "sr_x2")


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    sources = Sources(args.data, (args.weights, *args.teachers), args.work, args.images, args.epochs)
    if args.tune:
        tune(replace(sources, tuning=True), args)
        return
    if not args.recipe.exists():
        raise SystemExit(f"there is no {args.recipe}; run --tune first")
    tuned = json.loads(args.recipe.read_text())["families"]
    cells = list(ready(args.cells, sources, tuned))
    if args.estimate:
        estimate(cells, args)
        return
    if not args.summary:
        check_settings(args, tuned)
        work(cells, args)
    summarise(cells, args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder with resnet20_cifar10.safetensors, ...")
    parser.add_argument("--teachers", type=Path, nargs="+", required=True, help="folders with vgg.safetensors, ...")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="what --tune writes and everything else reads")
    everything = [f"{teacher}:{budget}" for teacher in TEACHERS for budget in BUDGETS]
    parser.add_argument("--cells", nargs="+", default=everything)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["rivals", "sartor"],
        help="rivals, names of rivals, sartor, sartor:STRATEGY (a name, or a table as JSON)",
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4000, help="CIFAR-10 images to train on")
    parser.add_argument("--epochs", type=int, help=f"instead of {EPOCHS}")
    for name, text in (
        ("tune", "try learning rates"),
        ("estimate", "time a part of one training per teacher"),
        ("summary", "only show what there is"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser.parse_args()


def ready(names: Sequence[str], sources: Sources, tuned: Mapping[str, Mapping[str, Any]]) -> Iterator[Cell]:
    """The cells for which there are weights and a recipe; it is said which there are not."""
    for name in names:
        if not sources.known(name.split(":")[0]):
            print(f"{name} is left out: there are no weights", flush=True)
            continue
        cell = Cell(name, sources, tuned)
        if cell.family in tuned:
            yield cell
        else:
            print(f"{name} is left out: no recipe was tuned for {cell.family}, see --tune", flush=True)


def check_settings(args: argparse.Namespace, tuned: Mapping[str, Mapping[str, Any]]) -> None:
    """Results of other settings are not to be mixed with these."""
    file = args.work / "settings.json"
    recipe = {family: {k: chosen[k] for k in ("optimizer", "lr")} for family, chosen in tuned.items()}
    now = {"images": args.images, "epochs": args.epochs or EPOCHS, **recipe}
    before = json.loads(file.read_text()) if file.exists() else {}
    changed = [k for k in now if k in before and before[k] != now[k]]
    if changed:
        was = ", ".join(f"{k} was {before[k]}, is {now[k]}" for k in changed)
        raise SystemExit(f"{args.work} holds results of other settings ({was}); take another --work")
    write_json(file, {**before, **now})


def work(cells: Sequence[Cell], args: argparse.Namespace) -> None:
    """All that has no result yet and that no other process is at."""
    while True:
        left = 0
        for cell in cells:
            for file, ready, unit in units(cell, args):
                if file.exists():
                    continue
                left += 1
                if not ready:
                    continue
                with claimed(file) as mine:
                    if mine and not file.exists():
                        once(cell, file, unit)
                        left -= 1
        if not left:
            return
        time.sleep(5)


Unit = tuple[Path, bool, Callable[[], dict[str, Any]]]


def units(cell: Cell, args: argparse.Namespace) -> Iterator[Unit]:
    """Result file, whether what it needs is there, and what makes it."""
    rivals = chosen_rivals(args.methods)
    for name in expected(cell, rivals):
        yield selection_file(cell, name), True, lambda n=name: select(cell, n)
    yield from finals(cell, rivals, args.seeds)
    for method in (m for m in args.methods if m.startswith("sartor")):
        for seed in range(args.seeds):
            file = cell.folder / f"{slug(method)}/{seed}.json"
            yield file, True, lambda m=method, s=seed: by_sartor(cell, m, s)


def finals(cell: Cell, rivals: Sequence[str], seeds: int) -> Iterator[Unit]:
    """The reported seeds of the best rival, once it is known; other rivals may have another best."""
    best = best_of(cell, rivals)
    if best is not None:
        for seed in range(seeds):
            yield final_file(cell, best, seed), True, lambda s=seed: final(cell, best, s)
    elif len(selected(cell, rivals)) < len(expected(cell, rivals)):
        yield cell.folder / "final/selection", False, dict


def chosen_rivals(methods: Sequence[str]) -> list[str]:
    """All of them for `rivals`, else those that are named."""
    named = [m for m in methods if not m.startswith("sartor") and m != "rivals"]
    unknown = [m for m in named if m not in RIVALS]
    if unknown:
        raise SystemExit(f"no rival {unknown}; there are {', '.join(RIVALS)}")
    return list(RIVALS) if "rivals" in methods else named


def slug(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name).strip("-")


@contextlib.contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Whether no other process is at it; a lock of the system, which goes when its process dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_suffix(".lock")
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    if file.exists():
        lock.unlink(missing_ok=True)


def once(cell: Cell, file: Path, unit: Callable[[], dict[str, Any]]) -> None:
    """Its result, and what it took."""
    start, cpu = time.time(), time.process_time()
    found = unit()
    found = {"seconds": round(time.time() - start, 1), "cpu_seconds": round(time.process_time() - cpu, 1), **found}
    write_json(file, found)
    shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items() if k not in ("found", "stages")}
    print(cell.name, file.parent.name, file.stem, shown, flush=True)


def select(cell: Cell, name: str) -> dict[str, Any]:
    """A rival's network inside the budget, trained once on the seed of the selection; its validation."""
    rival = RIVALS[name]
    if not rival.fits(cell):
        return {"error": "says nothing of this network"}
    start = time.process_time()
    try:
        with global_seed(derive(SELECTION, name)):
            found = rival.search(cell, SELECTION)
            network = rival.build(cell, found)
            cell.check(network)
    except Exception as error:  # noqa: BLE001 - whatever a rival's code raises is its result for this network
        print(traceback.format_exc(limit=-2), flush=True)
        return failed(error)
    searching = time.process_time() - start
    facts = {"found": found, **costs(cell, network), "search_cpu_seconds": searching, "weights": digest(network)}
    for other in sorted((cell.folder / "select").glob("*.json")):
        same = json.loads(other.read_text())
        if same.get("weights") == facts["weights"] and "valid" in same:
            return {**facts, "same_as": other.stem, "valid": same["valid"]}
    try:
        return {**facts, **cell.trained(network, SELECTION)}
    except SartorError as error:  # it diverged, say
        return {**facts, **failed(error)}


def failed(error: Exception) -> dict[str, Any]:
    """A call that fails is a result, too."""
    return {"error": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}


def final(cell: Cell, name: str, seed: int) -> dict[str, Any]:
    """The best rival on a reported seed."""
    rival = RIVALS[name]
    chosen = json.loads(selection_file(cell, name).read_text())
    with global_seed(derive(seed, name)):
        found = rival.search(cell, seed) if rival.drawn else chosen["found"]
        network = rival.build(cell, found)
    facts = {"rival": name, "found": found, **costs(cell, network)}
    return {**facts, **cell.trained(network, seed), "test": cell.tested(network)}


def costs(cell: Cell, network: nn.Module) -> dict[str, Any]:
    """What a network takes, as shares of the teacher's, and how much of the budget that is."""
    macs, params = macs_params(network, cell.task.example)
    found: dict[str, Any] = {"macs": macs / cell.macs, "params": params}
    if cell.metric != "macs":
        time = cell.latency(network)
        found["latency"] = time.as_dict()
    used = found["macs"] if cell.metric == "macs" else found["latency"]["value"]
    return {**found, "used": used / cell.share}


def digest(network: nn.Module) -> str:
    """Of all weights: calls that cut alike need only one training."""
    held = hashlib.sha256()
    for name, value in network.state_dict().items():
        held.update(f"{name} {tuple(value.shape)}".encode())
        held.update(value.contiguous().numpy().tobytes())
    return held.hexdigest()[:16]


def expected(cell: Cell, rivals: Sequence[str]) -> list[str]:
    """Those that can run here, or have run elsewhere."""
    return [n for n in rivals if RIVALS[n].installed or selection_file(cell, n).exists()]


def selection_file(cell: Cell, name: str) -> Path:
    return cell.folder / f"select/{slug(name)}.json"


def final_file(cell: Cell, name: str, seed: int) -> Path:
    return cell.folder / f"final/{slug(name)}-{seed}.json"


def selected(cell: Cell, rivals: Sequence[str]) -> dict[str, dict[str, Any]]:
    files = {name: selection_file(cell, name) for name in rivals}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def best_of(cell: Cell, rivals: Sequence[str]) -> str | None:
    """The rival with the best validation; None while one of them is still missing, or if all have failed."""
    found = selected(cell, rivals)
    valid = {n: cell.task.metric.sign * f["valid"] for n, f in found.items() if "valid" in f}
    whole = len(found) == len(expected(cell, rivals))
    return max(valid, key=lambda n: valid[n]) if valid and whole else None


def by_sartor(cell: Cell, method: str, seed: int) -> dict[str, Any]:
    """The whole command, as a user would call it, with the recipe of all."""
    folder = cell.folder / f"{slug(method)}/run-{seed}"
    try:
        done = sartor.fit(
            cell.teacher,
            cell.task,
            budget={cell.metric: cell.limit},
            target=TARGET,
            recipe="network",
            training=cell.settings(),
            folder=folder,
            seed=seed,
            strategy=strategy_of(method),
        )
    except SartorError as error:
        return failed(error)
    (point,) = done.result.points
    winner, whole, name = point.winner, done.result.reference, cell.task.metric.name
    time = winner.latency_ms.scaled(1 / whole.latency_ms.value)
    share = winner.macs / whole.macs
    return {
        "strategy": done.result.search.strategy,
        "test": winner.scores[name].value,
        "valid": winner.valid[name],
        "macs": share,
        "params": winner.params,
        "latency": time.as_dict(),
        "used": (share if cell.metric == "macs" else time.value) / cell.share,
        "verdict": point.verdict,
        "delivered": point.delivered,
        "seconds": done.result.spent.total_seconds,  # of all sessions
        "stages": {s.name: s.seconds for s in done.result.spent.stages},
    }


def strategy_of(method: str) -> str | dict[str, Any] | None:
    """`sartor` is the default; `sartor:NAME` another strategy, `sartor:{"name": NAME, ...}` one with settings."""
    text = method.partition(":")[2]
    found: dict[str, Any] | None = json.loads(text) if text.startswith("{") else None
    return found or text or None


def tune(sources: Sources, args: argparse.Namespace) -> None:
    """Optimiser and learning rate of each family, on networks of both kinds, with other images and another seed."""
    trials = list(tunings(sources, {name.split(":")[0] for name in args.cells}))
    for cell, name, file in trials:
        with claimed(file) as mine:
            if mine and not file.exists():
                once(cell, file, lambda c=cell, n=name: tried(c, TUNED_BY[n]))
    found: dict[str, dict[tuple[str, float], list[float]]] = {}
    for cell, _, file in trials:  # when all are done: other processes may have made some
        if file.exists():
            held, settings = json.loads(file.read_text()), cell.settings()
            key = (settings["optimizer"], settings["lr"])
            value = cell.task.metric.sign * held["valid"] if "valid" in held else float("-inf")
            found.setdefault(cell.family, {}).setdefault(key, []).append(value)
    before = json.loads(args.recipe.read_text())["families"] if args.recipe.exists() else {}
    chosen = {family: winner(tries) for family, tries in found.items()}
    settings = {"images": sources.images, "epochs": sources.epochs or EPOCHS, "seed": TUNING, "budget": "macs40"}
    write_json(args.recipe, {"settings": settings, "families": {**before, **chosen}})
    print(json.dumps(chosen, indent=1))


TUNED_BY: Mapping[str, Rival] = {"tp": Call("gn", kept=True), "uniform": Uniform()}


def tunings(sources: Sources, asked: Container[str]) -> Iterator[tuple[Cell, str, Path]]:
    """A teacher with a setting, how it is made smaller, and the file of the result."""
    for teacher in (t for t in TUNED_ON if t in asked and sources.known(t)):
        group = family(sources.teacher(teacher), TEACHERS[teacher].data)
        for optimizer, rates in GRID.items():
            for lr in rates:
                cell = Cell(f"{teacher}:macs40", sources, {group: {"optimizer": optimizer, "lr": lr}})
                for name in TUNED_BY:
                    yield cell, name, sources.work / f"tune/{teacher}-{name}-{optimizer}-{lr:g}.json"


def tried(cell: Cell, rival: Rival) -> dict[str, Any]:
    network = rival.build(cell, rival.search(cell, TUNING))
    try:
        return {"macs": cell.cost(network), **cell.trained(network, TUNING)}
    except SartorError as error:
        return failed(error)


def winner(tries: Mapping[tuple[str, float], Sequence[float]]) -> dict[str, Any]:
    """The setting with the best mean over networks; and all, to see how flat it is."""
    most = max(map(len, tries.values()))
    means = {key: statistics.fmean(v) for key, v in tries.items() if len(v) == most}
    optimizer, lr = max(means, key=lambda k: means[k])
    shown = {f"{o} {r:g}": means[o, r] for o, r in means}
    return {"optimizer": optimizer, "lr": lr, "networks": most, "mean_valid": shown}


def estimate(cells: Sequence[Cell], args: argparse.Namespace) -> None:
    """Core hours, from a tenth of a training and one rival's search in each cell."""
    total = 0.0
    for cell in cells:
        rivals = [n for n in expected(cell, chosen_rivals(args.methods)) if RIVALS[n].fits(cell)]
        start = time.process_time()
        rival = Uniform()
        network = rival.build(cell, rival.search(cell, 0))
        searching = time.process_time() - start
        training = 10 * cell.trained(network, 0, tenth=True)["training_cpu_seconds"]
        start = time.process_time()
        evaluate(network, cell.task.valid(), cell.task)
        training += time.process_time() - start
        parts = {
            "searches of rivals": searching * len(rivals),
            "selection, at most": training * (len(rivals) + Random.count / 10 * ("random" in rivals)),
            "rival's seeds": training * args.seeds * bool(rivals),
            "sartor, if it trains five networks": 5 * training * args.seeds * ("sartor" in args.methods),
        }
        total += sum(parts.values())
        print(cell.name, f"one training {training:.0f} s;", {k: f"{v / 3600:.2f} h" for k, v in parts.items()})
    print(f"{len(cells)} cells: {total / 3600:.1f} core hours")


def summarise(cells: Sequence[Cell], args: argparse.Namespace) -> None:
    """The table, and all that it rests on."""
    rivals = chosen_rivals(args.methods)
    rows = {cell.name: row(cell, rivals, args) for cell in cells if cell.folder.exists()}
    settings = {"images": args.images, "epochs": args.epochs or EPOCHS, "seeds": args.seeds}
    families = json.loads(args.recipe.read_text())["families"]
    found = {"settings": settings, "recipe": families, "means": means(rows), "cells": rows}
    print(table(rows))
    print(json.dumps(found["means"], indent=1))
    if args.out:
        write_json(args.out, found)


def row(cell: Cell, rivals: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """All of a cell."""
    found: dict[str, Any] = {"teacher": cell.facts(), "selection": selected(cell, rivals)}
    metric = Metric(**found["teacher"]["metric"])
    best = best_of(cell, rivals)
    found["best rival"] = best
    entrants = {m: cell.folder / slug(m) for m in args.methods if m.startswith("sartor")}
    files = {m: {s: folder / f"{s}.json" for s in range(args.seeds)} for m, folder in entrants.items()}
    if best is not None:
        files["rival"] = {s: final_file(cell, best, s) for s in range(args.seeds)}
    for method, each in files.items():
        held = {s: json.loads(f.read_text()) for s, f in each.items() if f.exists()}
        if held:
            found[method] = {"seeds": held, **over_seeds(held)}
    theirs = tests(found.get("rival", {}))
    for method in entrants:
        ours = tests(found.get(method, {}))
        differences = [metric.gain(ours[s], theirs[s]) for s in ours if s in theirs]
        if differences:
            estimate = interval(differences)
            found[method]["ahead"] = {
                "mean": statistics.fmean(differences),
                "each": differences,
                "interval": None if estimate is None else [estimate.low, estimate.high],
            }
    return found


def tests(entry: Mapping[str, Any]) -> dict[int, float]:
    return {seed: held["test"] for seed, held in entry.get("seeds", {}).items() if "test" in held}


def over_seeds(held: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    good = [h for h in held.values() if "test" in h]
    errors = [h["error"] for h in held.values() if "error" in h]
    if not good:
        return {"errors": errors}
    return {
        "test": statistics.fmean(h["test"] for h in good),
        "used": statistics.fmean(h["used"] for h in good),
        "least used": min(h["used"] for h in good),
        "most used": max(h["used"] for h in good),
        "seconds": statistics.fmean(h["seconds"] for h in good),
        **({"errors": errors} if errors else {}),
    }


def means(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Per budget, over the cells of one unit; and how well budgets are used."""
    found: dict[str, Any] = {}
    methods = sorted({m for r in rows.values() for m in r if m.startswith("sartor")})
    for method in methods:
        for name, held in rows.items():
            if "ahead" in held.get(method, {}):
                unit = held["teacher"]["metric"]["unit"] or "1"
                key = f"{method}, {name.split(':')[1]}, {'points' if unit == SHARE else unit}"
                found.setdefault(key, []).append((100 if unit == SHARE else 1) * held[method]["ahead"]["mean"])
    found = {k: {"cells": len(v), "ahead": statistics.fmean(v)} for k, v in found.items()}
    for method in [*methods, "rival"]:
        used = [r[method] for r in rows.values() if "used" in r.get(method, {})]
        if used:
            found[f"budget used, {method}"] = {
                "mean": statistics.fmean(u["used"] for u in used),
                "least": min(u["least used"] for u in used),
                "above": [n for n, r in rows.items() if r.get(method, {}).get("most used", 0) > 1],
            }
    return found


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, one line per cell."""
    methods = sorted({m for r in rows.values() for m in r if m.startswith("sartor")})
    heads = ["network", "budget", "as it is", "best rival", "its score", "used"]
    for method in methods:
        heads += [method, "used", "ahead (95 %)"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, held in rows.items():
        metric = Metric(**held["teacher"]["metric"])
        teacher, budget = name.split(":")
        cells = [teacher, budget, metric.precise(held["teacher"]["test"]), str(held["best rival"] or "-")]
        cells += scored(metric, held.get("rival", {}))
        for method in methods:
            entry = held.get(method, {})
            cells += [*scored(metric, entry), ahead(metric, entry)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def scored(metric: Metric, entry: Mapping[str, Any]) -> list[str]:
    return [metric.precise(entry["test"]), f"{entry['used']:.1%}"] if "test" in entry else ["-", "-"]


def ahead(metric: Metric, entry: Mapping[str, Any]) -> str:
    if "ahead" not in entry:
        return "-"
    ends = entry["ahead"]["interval"]
    text = metric.difference(entry["ahead"]["mean"], places=2)
    if ends is None:
        return text
    low, high = (metric.difference(e, places=2).partition(" ")[0] for e in ends)
    return f"{text} ({low} to {high})"


if __name__ == "__main__":
    main()
