"""Searches along choices in their order on a table of published results, run for run, and what rank tests say.

    python benchmarks/tree_methods.py run --table nats_topology_cifar10.csv.gz --space nats_topology \
        --signals cifar10_valid_12,cifar10_test_200 --folder runs/tree_methods
    python benchmarks/tree_methods.py write --folder runs/tree_methods --output benchmarks/results/tree_methods.json

Every strategy has equal evaluations: runs of 500, also looked at after 100. Where a schedule follows the number of
trials there are runs of 100, too. A signal is both what a search sees and what is reported, as where others count the
evaluations until the best network of the table is found; a run ends with that network, as nothing can come after it.
Each run is one line in the folder as soon as it is done; `run` goes on where it was stopped. One process.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import mannwhitneyu

from sartor.core.errors import BudgetSpentError
from sartor.core.rng import derive
from sartor.evaluators.tabular import METRIC
from sartor.jobs.bench import Bench, Stand
from sartor.run.simulated import SimulatedLab

OURS = ("mcts", "block_qnn", "nasnet")
OTHERS = ("random_search", "regularized_evolution", "reinforce", "local_search")
COUNTS = (100, 500)
UNTIL = 5000
"""Evaluations after which a search for the best network is given up, and counted as so many."""
PATIENT = ("local_search", "regularized_evolution", "random_search")
"""Searches that also go on until the best network is found."""
VARIANTS: dict[str, dict[str, Any]] = {
    "mcts_none": {"name": "mcts", "share": "none"},
    "mcts_options": {"name": "mcts", "share": "options"},
    "mcts_no_climb": {"name": "mcts", "climb": False},
}
"""Other settings under names of their own."""
SCHEDULED = ("block_qnn",)
"""Searches whose first evaluations depend on how many there will be."""


class Group(NamedTuple):
    """Runs of one strategy."""

    space: str
    signal: str
    strategy: str
    evaluations: int
    until: bool

    @property
    def name(self) -> str:
        """Of its file."""
        return "-".join([self.space, self.signal, self.strategy, "until" if self.until else str(self.evaluations)])


def groups(space: str, signals: Sequence[str], strategies: Sequence[str]) -> Iterator[Group]:
    """All of them, the quick ones first."""
    for signal in signals:
        for strategy in strategies:
            for count in COUNTS if strategy in SCHEDULED else COUNTS[-1:]:
                yield Group(space, signal, strategy, count, False)
            if strategy in PATIENT:
                yield Group(space, signal, strategy, UNTIL, True)


def one(stand: Stand, group: Group, run: int, best: float) -> dict[str, Any]:
    """One run: the best value so far at the counts, and the evaluation that found the table's best network (or 0)."""
    strategy = stand.strategy(group.strategy, run)
    seed = derive(stand.task.seed, group.strategy, run, "trials")
    lab = SimulatedLab(stand.evaluator, seed, max_trials=group.evaluations, costs=stand.cost)

    def found() -> int:
        return next((i for i, t in enumerate(lab.trials, 1) if t.metrics[METRIC.name] >= best), 0)

    try:
        while strategy.step(lab) and not found():
            pass
    except BudgetSpentError:
        pass
    values = [t.metrics[METRIC.name] for t in lab.trials]
    at = {str(n): max(values[:n]) for n in COUNTS if n <= group.evaluations}
    return {"run": run, "at": at, "found": found(), "evaluations": len(values)}


def runs(arguments: argparse.Namespace) -> None:
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for group in groups(arguments.space, arguments.signals, arguments.strategies):
        path = arguments.folder / f"{group.name}.jsonl"
        whole = path.read_text().rpartition("\n")[0] if path.exists() else ""  # a kill may have torn the last line
        done = len(whole.splitlines())
        if done >= arguments.runs:
            continue
        task = Bench(
            space=group.space,
            table=str(arguments.table),
            strategies={group.strategy: VARIANTS.get(group.strategy, {})},
            evaluations=group.evaluations,
            signal=group.signal,
        )
        stand = Stand(task)
        best = float(stand.table.column(group.signal).max())
        with path.open("w") as file:
            file.write(whole + "\n" if whole else "")
            for run in range(done, arguments.runs):
                file.write(json.dumps(one(stand, group, run, best)) + "\n")
                file.flush()
        print(group.name, flush=True)


def figures(path: Path) -> dict[str, Any]:
    """Of the runs in a file."""
    lines = [json.loads(line) for line in path.read_text().rpartition("\n")[0].splitlines()]
    found = np.array([r["found"] for r in lines])
    values = {n: np.array([r["at"][n] for r in lines]) for n in lines[0]["at"]}
    count = UNTIL if path.stem.endswith("-until") else int(path.stem.rsplit("-", 1)[1])
    until = np.where(found > 0, found, count)
    return {
        "runs": len(lines),
        "mean": {n: float(v.mean()) for n, v in values.items()},
        "std": {n: float(v.std(ddof=1)) for n, v in values.items()},
        "found": float((found > 0).mean()),
        "until_mean": float(until.mean()),
        "until_median": float(np.median(until)),
        "until_90": float(np.percentile(until, 90)),
        "values": values,
    }


def written(arguments: argparse.Namespace) -> None:
    files = sorted(arguments.folder.glob("*.jsonl"))
    table = {path.stem: figures(path) for path in files if path.read_text().count("\n") > 1}
    tests = {}
    for name, row in table.items():
        space, signal, strategy, count = name.split("-")
        for other in OTHERS if strategy in (*OURS, *VARIANTS) and count != "until" else ():
            against = table.get("-".join([space, signal, other, str(COUNTS[-1])]))
            for n, values in row["values"].items() if against else ():  # one-sided: is ours better?
                p = mannwhitneyu(values, against["values"][n], alternative="greater").pvalue
                tests[f"{name} > {other} at {n}"] = float(p)
    rows = {name: {k: v for k, v in row.items() if k != "values"} for name, row in table.items()}
    arguments.output.write_text(json.dumps({"until": UNTIL, "groups": rows, "tests": tests}, indent=1) + "\n")
    for name, row in rows.items():
        means = ", ".join(f"{row['mean'][n]:.3f} +- {row['std'][n]:.3f} at {n}" for n in row["mean"])
        print(f"{name}: {means}; found {row['found']:.2f} at {row['until_mean']:.0f}")
    for name, p in tests.items():
        print(f"{name}: p = {p:.2g}")


def _words(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "write"])
    parser.add_argument("--table", type=Path)
    parser.add_argument("--space", default="nats_topology")
    parser.add_argument("--signals", type=_words, default=[])
    parser.add_argument("--strategies", type=_words, default=[*OTHERS, *OURS])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/tree_methods.json"))
    arguments = parser.parse_args()
    if arguments.action == "run":
        runs(arguments)
    else:
        written(arguments)


if __name__ == "__main__":
    main()
