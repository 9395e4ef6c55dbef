"""Latency fitted to measured whole networks: a non-negative sum over layers or operators, after AOWS.

Source: Berman et al., "AOWS: Adaptive and optimal network width search with latency constraints", CVPR 2020, section
4.1; the models, physical terms and other deviations are described in `sartor.latency.models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from sartor.core.abilities import Operated, require
from sartor.core.contracts import CostModel, Space
from sartor.core.errors import ConfigError, DataError
from sartor.core.records import Arch
from sartor.core.tables import Tables
from sartor.latency import models
from sartor.latency.agreement import Agreement
from sartor.latency.operator_table import OperatorTable
from sartor.latency.operators import design_of
from sartor.latency.samples import Sample, merged, read, read_manifest

__all__ = ["Fitted"]


class Fitted(CostModel):
    """Milliseconds per call, predicted from the latencies of other networks of the space.

    Entries of the latency table that no measured network contains are predicted by the physical terms of the model;
    `unseen` counts them.

    Args:
        samples: File of measured networks (JSON lines), or a filled-in `manifest.csv`.
        kind: `macs` (a + b * MACs), `table` (one number per kind of layer, softly monotone: the paper's), `physical`
            (MACs, weights, activations per kind), `combined` (physical terms and smooth corrections), or `auto`: the
            one with the least cross-validation error.
        folds: Of the cross-validation.
        table: For a space of operators, a table of their latencies (see the cost `lookup`): the model then corrects it,
            instead of starting from multiply-adds, weights and activations.
    """

    metric = "latency_ms"

    def __init__(
        self,
        space: Space,
        *,
        samples: str = "",
        kind: Literal["auto", "macs", "table", "physical", "combined"] = "auto",
        folds: int = 5,
        table: str = "",
    ) -> None:
        if not samples:
            raise ConfigError("Fitted needs measured networks; set samples to a file that was measured into")
        path = Path(samples)
        found = read_manifest(path, space) if path.suffix == ".csv" else read(path, space)[1]
        self._fit(space, found, kind, folds, table)

    @classmethod
    def of(
        cls,
        space: Space,
        samples: Sequence[Sample],
        *,
        kind: models.Kind | Literal["auto"] = "auto",
        table: str = "",
    ) -> Fitted:
        """The model of samples in memory."""
        self = cls.__new__(cls)
        self._fit(space, samples, kind, 5, table)
        return self

    def _fit(
        self, space: Space, samples: Sequence[Sample], kind: models.Kind | Literal["auto"], folds: int, table: str
    ) -> None:
        known = OperatorTable.read(table) if table else None
        self._lookup = known.tables(require(space, Operated, "a table of operators")) if known is not None else None
        design = design_of(space, self, known)
        networks = merged(samples)
        train = [s for s in networks if s.split == "train"]
        if len(train) < folds:
            raise DataError(f"{len(train)} measured training networks are too few; measure at least {folds}")
        fitted = models.Samples.of(
            design, [s.arch for s in train], [s.latency_ms for s in train], [s.noise for s in train]
        )
        self.model = models.fit(design, fitted, kind, folds=folds)
        self.unseen = int(np.sum(np.asarray(fitted.counts.sum(axis=0)) == 0))
        self.training_networks = len(train)
        self._heldout = tuple(s for s in networks if s.split == "heldout")
        self._tables = design.tables(self.model.values, self.model.constant)

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return self._tables(archs)

    def terms(self) -> Sequence[Tables]:
        return (self._tables,)

    @property
    def kind(self) -> models.Kind:
        """Which model it is."""
        return self.model.kind

    @property
    def cv_error(self) -> float:
        """NRMSE on training networks, each predicted without its fold."""
        return self.model.cv_error

    @property
    def heldout_networks(self) -> int:
        """How many networks were measured to judge the fit only."""
        return len(self._heldout)

    @property
    def heldout(self) -> tuple[Sample, ...]:
        """The networks that were measured to judge the fit only."""
        return self._heldout

    @property
    def predictions(self) -> tuple[tuple[Arch, float, float], ...]:
        """Arch, measured and predicted milliseconds of each held-out network."""
        predicted = self([s.arch for s in self._heldout]).tolist()
        return tuple((s.arch, s.latency_ms, p) for s, p in zip(self._heldout, predicted, strict=True))

    @property
    def lookup(self) -> Agreement | None:
        """How well the table alone agrees with the held-out networks; None without a table, or without networks."""
        if self._lookup is None or not self._heldout:
            return None
        predicted = self._lookup([s.arch for s in self._heldout]).numpy()
        return Agreement.of(predicted, np.array([s.latency_ms for s in self._heldout]))

    @property
    def nrmse(self) -> float:
        """Root mean squared error on the held-out networks over their mean latency; NaN if there are none."""
        if not self._heldout:
            return float("nan")
        _, measured, predicted = zip(*self.predictions, strict=True)
        return models.nrmse(np.array(predicted), np.array(measured))
