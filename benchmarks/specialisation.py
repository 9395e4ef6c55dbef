"""Are networks that were searched for one target faster there, at equal accuracy? ProxylessNAS says so.

Two whole searches find different networks even on one target: they are noisy. So the weights and the preferences are
learned once per seed, by `proxyless` within a share of the reference's multiply-adds (`--macs`; 0 is no limit), which
favours no target; then the most preferred network is found exactly, within the same share of the reference's latency on
each target (`--share`). What differs between the two answers of a seed is due to the latency models alone. Both are
trained alike, tested, and timed on both targets in the same rounds.

    OMP_NUM_THREADS=1 python benchmarks/specialisation.py --data DIR --work DIR \
        --out benchmarks/results/specialisation.json

The space and the data are those of operations_cifar10.toml. Killed, it goes on; more seeds do, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from scipy.stats import kendalltau

from sartor import archs, config
from sartor.core import files, plugins
from sartor.core.contracts import Problem
from sartor.core.records import Arch, Constraint, Estimate, Objective
from sartor.core.rng import derive, numpy_rng
from sartor.core.tables import Tables
from sartor.costs.fitted import Fitted
from sartor.evaluators.inherited import Inherited
from sartor.jobs.compare.statistics import interval
from sartor.jobs.fit.assemble import Parts, assemble
from sartor.jobs.fit.budget import aimed
from sartor.jobs.fit.pipeline import Pipeline
from sartor.jobs.fit.stage import Job
from sartor.jobs.fit.train import save_weights
from sartor.run.folder import RunFolder
from sartor.run.ledger import Ledger
from sartor.run.progress import Display, display
from sartor.run.runner import run
from sartor.solvers.constrained import optimum
from sartor.strategies.proxyless import Proxyless
from sartor.timing.estimate import ratio
from sartor.timing.meter import Effort, Subject, time_together
from sartor.timing.rounds import Rounds
from sartor.training import fit, score

RECIPE = Path(__file__).parent / "operations_cifar10.toml"
DRAWN = 2000
"""Random networks whose order on the two targets is compared."""
RANDOM = 200
"""Random preferences for which both targets' answers are found."""


@dataclass(frozen=True)
class Place:
    """A target, as the search sees it.

    Attributes:
        limit: What a network may take, in milliseconds.
        aim: What a search aims at: less, by the error of the model.
    """

    name: str
    model: Fitted
    anchor: float
    limit: float
    aim: float


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    screen = display(quiet=False)
    places = [posed(args, name, screen) for name in args.targets]
    parts = assemble(settings(args, args.targets[0]))
    losses = {seed: preferred(args, parts, seed, screen) for seed in range(args.seeds)}
    winners = {seed: {p.name: answer(loss, p) for p in places} for seed, loss in losses.items()}
    tested = {
        (seed, arch): trained(args, parts, seed, arch, screen)
        for seed, found in winners.items()
        for arch in dict.fromkeys(found.values())
    }
    timed = together(args, parts, winners, screen)
    screen.close()
    found = {
        "settings": {k: v for k, v in vars(args).items() if k not in ("data", "work", "out")},
        "targets": {p.name: described(p) for p in places},
        "agreement": agreement(parts, places),
        "room": room(parts, places),
        "seeds": [row(parts, seed, winners[seed], places, losses[seed], tested, timed) for seed in losses],
    }
    found["summary"] = summary(found["seeds"], args.targets)
    print(json.dumps(found, indent=1))
    if args.out:
        files.atomically(args.out, lambda part: part.write_text(json.dumps(found, indent=1) + "\n"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--targets", nargs=2, default=["onnxruntime", "torch_cpu"])
    parser.add_argument("--share", type=float, default=0.55, help="of the reference's latency, on each target")
    parser.add_argument("--macs", type=float, default=0.65, help="of the reference's, in the search; 0: no limit")
    parser.add_argument("--epochs", type=int, default=24, help="of the search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=40, help="of the last measurement")
    parser.add_argument("--set", nargs="*", default=[], help="settings of the recipe: training.epochs=2")
    return parser.parse_args()


def settings(args: argparse.Namespace, target: str) -> dict[str, Any]:
    """The recipe on one target."""
    data = [f"task.{part}={args.data.resolve() / part}.parquet" for part in ("train", "test")]
    table = config.override(config.read(RECIPE), [*data, f"target.name={target}", *args.set])
    table["budget"] = {"latency_ms": f"{100 * args.share:g}%"}
    return {**table, "strategy": {"name": "proxyless"}}


def posed(args: argparse.Namespace, target: str, screen: Display) -> Place:
    """The reference measured and the latency model fitted, once per target."""
    table = settings(args, target)
    parts = assemble(table)
    with RunFolder(args.work / target, table) as folder:
        pipeline = Pipeline(Job(parts, folder, Ledger(folder.journal), screen))
        try:
            pipeline.pose()
        finally:
            pipeline.close()
    model = pipeline.costs["latency_ms"]
    assert isinstance(model, Fitted)
    assert pipeline.meter is not None
    assert pipeline.meter.anchor is not None
    least = float(model([archs.smallest(parts.space)])[0])
    (aim,) = aimed(pipeline.limits, model.nrmse, least=least)
    return Place(target, model, pipeline.meter.anchor.value, pipeline.limits[0]["latency_ms"], aim["latency_ms"])


def preferred(args: argparse.Namespace, parts: Parts, seed: int, screen: Display) -> Tables:
    """How unlikely each option is, after a search that knows no target."""
    problem = Problem(parts.space, (Objective("accuracy", "max"),), task=parts.task.sealed())
    if args.macs:
        macs = plugins.load("costs", "macs")(parts.space)
        limit = Constraint("macs", args.macs * float(macs([parts.space.reference])[0]))
        problem = replace(problem, constraints=(limit,), costs={"macs": macs})
    folder = args.work / "searches" / str(seed)
    search = Proxyless(problem, derive(seed, "search"), epochs=args.epochs, lr=0.1, arch_lr=0.02, every=2)
    judge = Inherited(problem, supernet=folder / "artifacts/supernet.safetensors")
    run(search, problem, judge, folder=folder, seed=seed, progress=partial(shown, screen, f"search, seed {seed}"))
    return search.controller.preferences.unlikeliness()


def shown(screen: Display, title: str, done: float, total: float, label: str) -> None:
    screen.bar(done, total, f"{title}: {label}")


def answer(loss: Tables, place: Place) -> Arch:
    """The most preferred network within the target's limit, found exactly."""
    return optimum(loss, [(place.model.terms()[0], place.aim)]).arch


def trained(args: argparse.Namespace, parts: Parts, seed: int, arch: Arch, screen: Display) -> dict[str, Any]:
    """Trained by the recipe, and tested."""
    folder = args.work / "networks" / f"{seed}-{'_'.join(map(str, arch))}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "result.json").exists():
        module, title = built(parts, seed, arch), f"training a winner of seed {seed}"
        checkpoint = folder / "checkpoint.safetensors"
        task = parts.task.sealed()
        bar = partial(epoch, screen, title)
        fit(module, task, parts.recipe, seed=derive(seed, "train"), checkpoint=checkpoint, on_epoch=bar)
        save_weights(module, folder / "model.safetensors")
        found = score(module, parts.task.test(), parts.task)["accuracy"]
        text = json.dumps({"accuracy": found.value, "low": found.low, "high": found.high})
        files.atomically(folder / "result.json", lambda part: part.write_text(text))
        checkpoint.unlink(missing_ok=True)
    return {**json.loads((folder / "result.json").read_text()), "weights": str(folder / "model.safetensors")}


def epoch(screen: Display, title: str, done: int, total: int, _: Mapping[str, float]) -> None:
    screen.bar(done, total, title)


def built(parts: Parts, seed: int, arch: Arch) -> torch.nn.Module:
    """From the same seed for all networks of a seed."""
    return parts.build(arch, "train", str(seed))


def together(
    args: argparse.Namespace, parts: Parts, winners: Mapping[int, Mapping[str, Arch]], screen: Display
) -> Rounds:
    """All winners and the reference, on both targets, in the same rounds; columns are `TARGET/ARCH`."""
    wanted = dict.fromkeys([parts.space.reference, *(a for found in winners.values() for a in found.values())])
    names = [key(target, arch) for target in args.targets for arch in wanted]
    file = args.work / "rounds.json"
    if file.exists():
        timed = Rounds.of(json.loads(file.read_text()))
        if set(names) <= set(timed.columns):
            return timed
    example = parts.task.example
    with TemporaryDirectory() as folder:
        subjects: dict[str, Subject] = {}
        for target in args.targets:
            runtime = plugins.load("targets", target)(threads=1)
            for arch in wanted:
                name, module = key(target, arch), module_of(args, parts, winners, arch)
                subjects[name] = Subject.prepared(runtime, module, example, Path(folder) / name)
        bar = partial(counted, screen, "all winners on both targets")
        (timed,) = time_together(subjects, Effort(args.rounds, sessions=3), on_round=bar).runs
    files.atomically(file, lambda part: part.write_text(json.dumps(timed.as_dict())))
    return timed


def counted(screen: Display, title: str, done: int, total: int) -> None:
    screen.bar(done, total, title)


def module_of(
    args: argparse.Namespace, parts: Parts, winners: Mapping[int, Mapping[str, Arch]], arch: Arch
) -> torch.nn.Module:
    """With trained weights, but for the reference."""
    seed = next((s for s, found in winners.items() if arch in found.values()), None)
    module = built(parts, seed or 0, arch)
    if seed is not None:
        folder = args.work / "networks" / f"{seed}-{'_'.join(map(str, arch))}"
        module.load_state_dict(load_file(folder / "model.safetensors"))
    return module.eval()


def key(target: str, arch: Arch) -> str:
    return f"{target}/{'_'.join(map(str, arch))}"


def described(place: Place) -> dict[str, Any]:
    facts = {"reference_ms": place.anchor, "limit_ms": place.limit, "aim_ms": place.aim}
    return {**facts, "model": place.model.kind, "nrmse": place.model.nrmse}


def agreement(parts: Parts, places: Sequence[Place]) -> dict[str, float]:
    """Whether the targets order networks alike: how much there is to specialise on."""
    rng = numpy_rng(0, "agreement")
    drawn = [parts.space.moves.draw(rng) for _ in range(DRAWN)]
    a, b = (p.model(drawn) / p.anchor for p in places)
    spread = (a / b).quantile(torch.tensor([0.05, 0.5, 0.95], dtype=a.dtype)).tolist()
    names = ("ratio_5", "ratio_50", "ratio_95")
    return {"kendall_tau": float(kendalltau(a, b).statistic), **dict(zip(names, spread, strict=True))}


def room(parts: Parts, places: Sequence[Place]) -> dict[str, Any]:
    """What the models promise for random preferences: how much faster than the other target's answer one could be."""
    rng, choices = numpy_rng(0, "room"), parts.space.choices
    gains: dict[str, list[float]] = {p.name: [] for p in places}
    same = 0
    for _ in range(RANDOM):
        loss = Tables(tuple(torch.from_numpy(rng.normal(size=len(c.options))) for c in choices))
        answers = [answer(loss, place) for place in places]
        same += answers[0] == answers[1]
        for place, rival in zip(places, reversed(answers), strict=True):
            gains[place.name].append(promised(loss, place, rival))
    quartiles = {name: statistics.quantiles(found, n=4) for name, found in gains.items()}
    return {"preferences": RANDOM, "one_network_for_both": same / RANDOM, "promised_quartiles": quartiles}


def row(
    parts: Parts,
    seed: int,
    winners: Mapping[str, Arch],
    places: Sequence[Place],
    loss: Tables,
    tested: Mapping[tuple[int, Arch], Mapping[str, Any]],
    timed: Rounds,
) -> dict[str, Any]:
    """The 2x2 table of one seed, and how the two networks differ."""
    words = {name: archs.describe(parts.space, arch) for name, arch in winners.items()}
    first, second = winners
    differ = {k: [words[first][k], words[second][k]] for k in words[first] if words[first][k] != words[second][k]}
    table = {}
    for place, other in zip(places, (second, first), strict=True):
        own, rival = key(place.name, winners[place.name]), key(place.name, winners[other])
        share = {
            f"for {name}": ratio(timed, key(place.name, arch), key(place.name, parts.space.reference)).as_dict()
            for name, arch in winners.items()
        }
        against = ratio(timed, own, rival) if own != rival else Estimate(1, 1, 1)
        table[f"on {place.name}"] = {
            "of_reference": share,
            "own_over_other": against.as_dict(),
            "verdict": verdict(against, same=own == rival),
            "promised": promised(loss, place, winners[other]),
        }
    accuracies = {name: dict(tested[seed, arch]) for name, arch in winners.items()}
    for found in accuracies.values():
        found.pop("weights")
    return {"seed": seed, "networks": words, "differ": differ, "accuracy": accuracies, "latency": table}


def verdict(ratio: Estimate, *, same: bool) -> str:
    if same:
        return "one network for both"
    return "faster" if ratio.high < 1 else "slower" if ratio.low > 1 else "no difference"


def promised(loss: Tables, place: Place, rival: Arch) -> float:
    """Modelled: the fastest network that is at least as preferred as `rival`, over `rival`."""
    best = optimum(place.model.terms()[0], [(loss, float(loss.cost(rival)) + 1e-9)]).arch
    return float(place.model([best])[0] / place.model([rival])[0])


def summary(rows: Sequence[Mapping[str, Any]], targets: Sequence[str]) -> dict[str, Any]:
    """Over seeds."""
    first, second = targets
    accuracies = [r["accuracy"] for r in rows]
    gaps = [a[first]["accuracy"] - a[second]["accuracy"] for a in accuracies]
    found: dict[str, Any] = {"accuracy_difference": {"each": gaps, "interval": interval(gaps)}}
    for target in targets:
        cells = [r["latency"][f"on {target}"] for r in rows]
        ratios = [c["own_over_other"]["value"] for c in cells]
        found[f"own_over_other_on_{target}"] = {
            "each": ratios,
            "geometric_mean": statistics.geometric_mean(ratios),
            "verdicts": [c["verdict"] for c in cells],
        }
    return found


if __name__ == "__main__":
    main()
