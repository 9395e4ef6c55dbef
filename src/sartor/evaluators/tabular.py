"""Looks the accuracy up in a table of published results: a search of thousands of trials takes a second.

A table of long trainings can stand for a search with short ones: `signal` names the column that the search sees, or
`noise` blurs it, while `true` gives what is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist

from sartor.core.contracts import Evaluator, Problem
from sartor.core.errors import ConfigError
from sartor.core.metrics import Metric
from sartor.core.records import Arch, Proposal
from sartor.core.rng import derive
from sartor.tabular import Result, Table

__all__ = ["Tabular"]

METRIC = Metric("accuracy", "max", "%")
"""What published tables hold; in per cent, as they write it."""

_NORMAL = NormalDist()


class Tabular(Evaluator):
    """The accuracy of a network in per cent, and all results in its row of the table.

    A proposal of low fidelity gets a shorter training: the longest in the table that is no longer than its share of the
    signal's epochs, or the shortest that there is. `seconds` is what that training took, where the table says it.

    Args:
        table: A CSV file, also with gzip, or the folder of NATS-Bench (see sartor.tabular).
        signal: The column that is the accuracy; "" takes the validation split (else the test split) after the longest
            training.
        dataset: Which one, if the table has several.
        noise: Standard deviation, in points of per cent, of the normal noise that the trial's seed adds.
        curve: Whether to report what shorter trainings of the table reach, too, as `accuracy_1`, `accuracy_2`, ... by
            their epochs, each with noise of its own: where they are the first epochs of the same training.

    Raises:
        ConfigError: No table is given, it has no such column, or the noise is negative.
        DataError: The table cannot be read, or does not fit the space.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        table: str | Path = "",
        signal: str = "",
        dataset: str = "",
        noise: float = 0.0,
        curve: bool = False,
    ) -> None:
        if not str(table):
            raise ConfigError(
                "Tabular needs published results; set table to a CSV file, or to the folder of NATS-Bench"
            )
        self._prepare(problem, Table.read(table, problem.space, dataset), signal, noise, curve)

    @classmethod
    def of(
        cls, problem: Problem, table: Table, *, signal: str = "", noise: float = 0.0, curve: bool = False
    ) -> Tabular:
        """The evaluator of a table in memory."""
        self = cls.__new__(cls)
        self._prepare(problem, table, signal, noise, curve)
        return self

    def _prepare(self, problem: Problem, table: Table, signal: str, noise: float, curve: bool) -> None:
        if noise < 0:
            raise ConfigError(f"noise must not be negative, got {noise}")
        self.table, self.noise, self.curve = table, noise, curve
        self.signal = signal or table.signal("valid") or table.best_signal()
        table.column(self.signal)
        self._key, self._rows = problem.space.key, table.rows
        self._true = table.column(table.best_signal()).tolist()
        names = [name for name in table.columns if Result.of(name) is not None or name == self.signal]
        values = zip(*(table.columns[name].tolist() for name in names), strict=True)
        self._results = [dict(zip(names, row, strict=True)) for row in values]
        self._sources = self._shorter()
        self._epochs = {name: self._up_to(name) for _, name, _ in self._sources}

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        """The accuracy and the results in the table; `seed` matters only if there is noise."""
        results = self._results[self._rows[self._key(proposal.arch)]]
        signal, seconds = self._source(proposal.fidelity)
        accuracy = results[signal]
        if self.noise:
            accuracy += self.noise * _normal(seed)
        metrics = {METRIC.name: accuracy, **results}
        if self.curve:
            metrics |= {f"{METRIC.name}_{e}": self._early(results[n], seed, e) for e, n in self._epochs[signal]}
        if seconds:
            metrics["seconds"] = results[seconds]
        return metrics

    def true(self, arch: Arch) -> float:
        """What is reported of a network: accuracy on the test split after the longest training, in per cent."""
        return float(self._true[self._rows[self._key(arch)]])

    def _shorter(self) -> list[tuple[float, str, str]]:
        """Least fidelity, column of the accuracy, column of the seconds; longest training first."""
        own = Result.of(self.signal)
        if own is None:  # some other column
            return [(0.0, self.signal, "")]
        found = []
        for name in self.table.columns:
            result = Result.of(name)
            if result is not None and result.split == own.split and result.epochs <= own.epochs:
                seconds = f"{own.dataset}_seconds_{result.epochs}"
                found.append((result.epochs / own.epochs, name, seconds if seconds in self.table.columns else ""))
        return sorted(found, reverse=True)

    def _up_to(self, signal: str) -> list[tuple[int, str]]:
        """Epochs and columns of the signal and of the shorter trainings, shortest first."""
        found = [(r.epochs, name) for _, name, _ in self._sources if (r := Result.of(name)) is not None]
        most = max((epochs for epochs, name in found if name == signal), default=0)
        return sorted(pair for pair in found if pair[0] <= most)

    def _early(self, accuracy: float, seed: int, epochs: int) -> float:
        return accuracy + self.noise * _normal(derive(seed, epochs)) if self.noise else accuracy

    def _source(self, fidelity: float) -> tuple[str, str]:
        for least, signal, seconds in self._sources:
            if fidelity >= least - 1e-9:
                return signal, seconds
        _, signal, seconds = self._sources[-1]
        return signal, seconds


def _normal(seed: int) -> float:
    """Standard normal, from one number: a generator would take longer than all the rest."""
    return _NORMAL.inv_cdf(((derive(seed, "noise") >> 11) + 0.5) / 2**52)
