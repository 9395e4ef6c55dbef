import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from latency.toy import Toy, latencies, samples
from operated import Operations, device
from sartor import archs
from sartor.core.abilities import Terms, require
from sartor.core.contracts import CostModel, Space
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.records import Arch
from sartor.core.rng import numpy_rng
from sartor.costs.fitted import Fitted
from sartor.costs.lookup import Lookup
from sartor.latency.operator_table import Entry, OperatorTable
from sartor.latency.samples import Header, Sample, append

SPACE = Toy()
EVERYONE = list(archs.enumerate_all(SPACE))
ORDER = numpy_rng(0, "toy").permutation(len(EVERYONE))
TRAIN, HELD = ([EVERYONE[i] for i in part] for part in (ORDER[:150], ORDER[150:250]))
MEASURED = [*samples(SPACE, TRAIN, noise=0.02), *samples(SPACE, HELD, "heldout", noise=0.02, seed=1)]


def test_tables_equal_predictions_and_predictions_equal_the_device() -> None:
    cost = Fitted.of(SPACE, MEASURED, kind="combined")
    assert isinstance(cost, CostModel)
    assert cost.metric == "latency_ms"
    assert torch.equal(require(cost, Terms, "this").terms()[0](EVERYONE), cost(EVERYONE))
    assert cost(EVERYONE).numpy() == pytest.approx(latencies(SPACE, EVERYONE), rel=0.15)
    assert cost.nrmse < 0.03
    assert (cost.training_networks, cost.heldout_networks, cost.kind) == (150, 100, "combined")


def test_nrmse_is_that_of_the_predictions() -> None:
    cost = Fitted.of(SPACE, MEASURED, kind="macs")
    _, measured, predicted = map(np.array, zip(*cost.predictions, strict=True))
    assert cost.nrmse == pytest.approx(np.sqrt(np.mean((predicted - measured) ** 2)) / measured.mean())
    assert [a for a, _, _ in cost.predictions] == HELD
    assert predicted == pytest.approx(cost(HELD).numpy())


def test_held_out_samples_do_not_enter_the_fit() -> None:
    with_held, without = (Fitted.of(SPACE, m, kind="physical") for m in (MEASURED, MEASURED[:150]))
    assert torch.equal(with_held(HELD), without(HELD))
    assert math.isnan(without.nrmse)
    assert without.predictions == ()


def test_a_file_and_a_manifest_give_the_same_model(tmp_path: Path) -> None:
    path, sheet = tmp_path / "samples.jsonl", tmp_path / "manifest.csv"
    append(path, Header.of(SPACE), MEASURED)
    rows = [
        ",".join(
            [s.split, *(str(c.options[a]) for c, a in zip(SPACE.choices, s.arch, strict=True)), f"{s.latency_ms:.6f}"]
        )
        for s in MEASURED
    ]
    sheet.write_text("\n".join(["split,layer0,layer1,layer2,layer3,latency_ms", *rows]))
    from_file, again, from_sheet = (Fitted(SPACE, samples=str(p), kind="macs") for p in (path, path, sheet))
    assert torch.equal(from_file(EVERYONE), again(EVERYONE))
    assert from_sheet(EVERYONE).numpy() == pytest.approx(from_file(EVERYONE).numpy(), rel=1e-3)


def test_unseen_entries_are_counted_and_cost_something() -> None:
    narrow = samples(SPACE, [a for a in TRAIN if max(a) < 5])
    cost = Fitted.of(SPACE, narrow, kind="table")
    assert cost.unseen >= 20
    assert cost.terms()[0].cost(archs.largest(SPACE)) > max(cost([s.arch for s in narrow]).tolist())
    assert Fitted.of(SPACE, samples(SPACE, EVERYONE[::5]), kind="macs").unseen == 0


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set samples"):
        Fitted(SPACE)
    with pytest.raises(DataError, match="too few"):
        Fitted.of(SPACE, MEASURED[:3])
    with pytest.raises(DataError, match="no samples file"):
        Fitted(SPACE, samples=str(tmp_path / "missing.jsonl"))


class Unlayered(Space):
    choices = SPACE.choices

    def build(self, arch: Arch) -> nn.Module:
        return nn.Identity()


def test_a_space_that_cannot_list_its_layers_is_refused() -> None:
    with pytest.raises(CapabilityError, match="Fitted needs Layered"):
        Fitted.of(Unlayered(), MEASURED)


OPERATED = Operations()
RUN = list(archs.enumerate_all(OPERATED))


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latencies of operators timed alone: slower than in a network, each differently."""
    rng, path = numpy_rng(0, "alone"), tmp_path_factory.mktemp("table") / "operators.json"
    keys = [o.key for o in OPERATED.operators().all()]
    OperatorTable({k: Entry(device(k) * float(rng.uniform(1.1, 1.4)) + 0.02) for k in keys}).write(path)
    return path


def whole(count: int) -> list[Sample]:
    """Measured networks of operators, the last 30 held out."""
    rng = numpy_rng(0, "whole")
    truth = OperatorTable({o.key: Entry(device(o.key)) for o in OPERATED.operators().all()}).tables(OPERATED)
    picked = [RUN[i] for i in rng.permutation(len(RUN))[: count + 30]]
    noisy = [(a, (truth.cost(a) + 0.1) * float(np.exp(0.01 * rng.standard_normal()))) for a in picked]
    return [
        Sample(a, v, v * 0.98, v * 1.02, 1.0, "train" if i < count else "heldout") for i, (a, v) in enumerate(noisy)
    ]


@pytest.mark.parametrize("with_table", [False, True])
def test_operators_are_fitted_to_measured_networks(operators: Path, with_table: bool) -> None:
    cost = Fitted.of(OPERATED, whole(40), table=str(operators) if with_table else "")
    tables = require(cost, Terms, "this").terms()[0]
    assert torch.equal(tables(RUN), cost(RUN))
    assert not tables.pairwise
    assert all(float(t.min()) >= 0 for t in tables.unary)
    assert cost.nrmse < 0.03
    assert (cost.training_networks, cost.heldout_networks, cost.unseen) == (40, 30, 0)
    assert (cost.lookup is None) != with_table


def test_the_error_of_the_table_alone_is_told_and_corrected(operators: Path) -> None:
    cost, alone = Fitted.of(OPERATED, whole(8), table=str(operators)), Lookup(OPERATED, table=operators)
    found = cost.lookup
    assert found is not None
    _, measured, _ = map(np.array, zip(*cost.predictions, strict=True))
    predicted = alone([a for a, *_ in cost.predictions]).numpy()
    assert found.nrmse == pytest.approx(np.sqrt(np.mean((predicted - measured) ** 2)) / measured.mean())
    assert found.bias > 0
    assert cost.nrmse < 0.5 * found.nrmse
    assert Fitted.of(OPERATED, whole(8)[:8], table=str(operators)).lookup is None, "nothing was held out"


def test_a_table_is_for_spaces_of_operators(operators: Path) -> None:
    with pytest.raises(CapabilityError, match="a table of operators needs Operated, which Toy does not offer"):
        Fitted.of(SPACE, MEASURED, table=str(operators))
