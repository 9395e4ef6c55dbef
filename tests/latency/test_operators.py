from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from latency.toy import Toy
from operated import Operations, device
from sartor import archs
from sartor.core.abilities import Operated
from sartor.core.contracts import Space
from sartor.core.errors import CapabilityError, DataError
from sartor.core.records import Operator
from sartor.core.rng import numpy_rng
from sartor.latency import models
from sartor.latency.design import Design
from sartor.latency.operator_table import Entry, OperatorTable
from sartor.latency.operators import OperatorDesign, design_of, seen
from sartor.networks import macs_params

SPACE = Operations(blocks=5)
DESIGN = OperatorDesign(SPACE)
EVERYONE = list(archs.enumerate_all(SPACE))
ORDER = numpy_rng(0, "operators").permutation(len(EVERYONE))
TRAIN, HELD = ([EVERYONE[i] for i in part] for part in (ORDER[:60], ORDER[60:160]))
DEVICE = np.array([device(key) for key in DESIGN.keys])
ALONE = OperatorTable({key: Entry(1.2 * ms + 0.03) for key, ms in zip(DESIGN.keys, DEVICE, strict=True)})
"""Timed alone, every operator takes a fifth longer, and the call comes on top."""


def measured(networks: list[tuple[int, ...]], noise: float = 0.02) -> models.Samples:
    truth = DESIGN.matrix(networks) @ DEVICE + 0.1
    y = truth * np.exp(noise * numpy_rng(1, "noise").standard_normal(len(truth)))
    return models.Samples.of(DESIGN, networks, y, [noise] * len(y))


def test_the_toy_is_a_space_of_operators() -> None:
    assert isinstance(SPACE, Operated)
    for operator in SPACE.operators().all():
        assert SPACE.operator(operator)(torch.zeros(2, *operator.input_shape)).shape[0] == 2


def test_which_entries_a_space_has() -> None:
    assert isinstance(design_of(SPACE, "a test"), OperatorDesign)
    assert isinstance(design_of(Toy(), "a test"), Design)
    with pytest.raises(CapabilityError, match="a test needs Layered, which Opaque does not offer"):
        design_of(Opaque(), "a test")
    with pytest.raises(DataError, match="no latency of 'stem-8'"):
        design_of(SPACE, "a test", OperatorTable({}))


class Opaque(Space):
    choices = SPACE.choices

    def build(self, arch: tuple[int, ...]) -> nn.Module:
        return nn.Identity()


def test_a_row_of_the_matrix_counts_every_operator_that_runs() -> None:
    rows = DESIGN.matrix([(0, 0, 0, 0, 0), (2, 4, 4, 1, 0)]).toarray()
    found = [{k: int(n) for k, n in zip(DESIGN.keys, row, strict=True) if n} for row in rows]
    assert found[0] == {"stem-8": 1, "head-4": 1, "k1-8-2": 1}
    assert found[1] == {"stem-8": 1, "head-4": 1, "k5-8-2": 1, "k3-4-1": 4, "k1-4-1": 1}
    assert DESIGN.matrix([]).shape == (0, len(DESIGN.keys))
    assert DESIGN.longest == 2 + 1 + 4 * 2


def test_tables_equal_the_matrix_product() -> None:
    found = DESIGN.tables(DEVICE, 0.5)
    assert found(EVERYONE).numpy() == pytest.approx(DESIGN.matrix(EVERYONE) @ DEVICE + 0.5)
    assert not found.pairwise


def test_macs_and_layers_are_those_of_the_modules() -> None:
    for operator, count in zip(SPACE.operators().all(), DESIGN.macs(), strict=True):
        assert count == macs_params(SPACE.operator(operator), torch.zeros(1, *operator.input_shape))[0]


class Separable(Operations):
    """Its operators are depthwise convolutions with squeeze and excitation, of real tensors only."""

    def operator(self, operator: Operator) -> nn.Module:
        float(torch.zeros(()))
        return Excited()


class Excited(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.grouped = (nn.Conv2d(8, 8, (3, 5), 2, (1, 2), groups=g, bias=False) for g in (8, 2))
        self.squeeze = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.grouped(self.depthwise(x)) * self.squeeze(x.mean((2, 3)))[:, :, None, None].sigmoid()


def test_grouped_layers_are_seen_as_such() -> None:
    before = torch.get_rng_state()
    made = seen(Separable(), Operator("excited", (8, 9, 8)))
    assert torch.equal(before, torch.get_rng_state())
    squeeze, depthwise, grouped = sorted(made.layers, key=lambda key: (key.kind != "linear", key.in_size != (9, 8)))
    assert (depthwise.kind, depthwise.kernel, depthwise.out_size) == ("depthwise", (3, 5), (5, 4))
    assert (grouped.kind, grouped.c_in, grouped.c_out, grouped.out_size) == ("conv", 4, 8, (3, 2))
    assert (squeeze.c_in, squeeze.c_out) == (8, 8)
    assert made.macs == macs_params(Excited(), torch.zeros(1, 8, 9, 8))[0]
    assert made.values == 8 * 9 * 8 + 8 * 3 * 2
    assert made.shapes == ((8, 9, 8), (8, 3, 2))


def test_neighbours_are_of_one_shape_and_grow() -> None:
    work = DESIGN.macs()
    rows = DESIGN.neighbours.toarray()
    found = {(DESIGN.keys[int(np.argmax(r))], DESIGN.keys[int(np.argmin(r))]) for r in rows}
    assert found == {("k1-8-2", "k3-8-2"), ("k3-8-2", "k5-8-2"), ("k1-4-1", "k3-4-1"), ("k3-4-1", "k5-4-1")}
    assert all(rows @ work < 0)


def test_correlation_is_one_at_home_and_zero_between_shapes() -> None:
    found = DESIGN.correlation(1.0)
    at = {key: i for i, key in enumerate(DESIGN.keys)}
    assert np.diag(found) == pytest.approx(1.0)
    assert found[at["k1-8-2"], at["k1-4-1"]] == 0
    assert 0 < found[at["k1-4-1"], at["k5-4-1"]] < found[at["k3-4-1"], at["k5-4-1"]] < 1
    assert np.linalg.eigvalsh(found).min() > -1e-9


@pytest.mark.parametrize("table", [None, ALONE])
def test_terms_are_never_negative_and_scaled(table: OperatorTable | None) -> None:
    found = OperatorDesign(SPACE, table).physical()
    assert found.min() >= 0
    assert found.sum(axis=0) == pytest.approx((found > 0).sum(axis=0))


@pytest.mark.parametrize("kind", models.KINDS)
@pytest.mark.parametrize("table", [None, ALONE])
def test_entries_are_never_negative(kind: models.Kind, table: OperatorTable | None) -> None:
    design = OperatorDesign(SPACE, table)
    model = models.fit_with(design, measured(TRAIN, 0.3), kind, models.GRIDS[kind][0])
    assert model.values.min() >= 0
    assert model.constant >= 0


def error(table: OperatorTable | None, networks: list[tuple[int, ...]], noise: float = 0.02) -> float:
    design = OperatorDesign(SPACE, table)
    model = models.fit(design, measured(networks, noise), folds=3)
    truth = DESIGN.matrix(HELD) @ DEVICE + 0.1
    return models.nrmse(model.predict(design.matrix(HELD)), truth)


def test_totals_of_an_additive_device_are_recovered_to_below_the_noise() -> None:
    assert error(None, TRAIN) < 0.02
    assert error(ALONE, TRAIN) < 0.02


def test_a_table_of_operators_timed_alone_needs_few_networks_to_become_right() -> None:
    raw = ALONE.tables(SPACE)(HELD).numpy()
    assert models.nrmse(raw, DESIGN.matrix(HELD) @ DEVICE + 0.1) > 0.1
    few = TRAIN[:6]
    assert error(ALONE, few, 0.005) < min(0.01, 0.5 * error(None, few, 0.005))
