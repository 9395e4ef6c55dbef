import pytest
import torch

from sartor.core.errors import BudgetError, CapabilityError
from sartor.core.tables import Tables
from sartor.solvers import brute

LOSS = Tables((torch.tensor([0.0, 2.0], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)))
COST = Tables(
    tuple(torch.zeros(2, dtype=torch.float64) for _ in range(2)),
    {(0, 1): torch.tensor([[3.0, 4.0], [2.0, 1.0]], dtype=torch.float64)},
)


def test_archs_are_all_in_order():
    assert brute.archs(LOSS) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_by_hand():
    assert brute.minimum(LOSS) == ((0, 1), 0.0)
    found = brute.optimum(LOSS, [(COST, 3.0)])
    assert (found.arch, found.loss, found.costs, found.optimal) == ((0, 0), 1.0, (3.0,), True)
    assert brute.optimum(LOSS, [], peaks=[(COST, 2.0)]).arch == (1, 1)
    weights = torch.exp(-torch.tensor([1.0, 0.0, 3.0, 2.0], dtype=torch.float64))
    expected = torch.stack([weights[:2].sum(), weights[2:].sum()]) / weights.sum()
    torch.testing.assert_close(brute.marginals(LOSS)[0], expected)


def test_nothing_fits():
    with pytest.raises(BudgetError, match="1 "):
        brute.optimum(LOSS, [(COST, 0.5)])


def test_too_many():
    with pytest.raises(CapabilityError, match="at most"):
        brute.archs(Tables(tuple(torch.zeros(14) for _ in range(14))))
