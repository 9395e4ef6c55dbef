import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from latency.toy import Toy, latencies, samples
from sartor import archs
from sartor.core.contracts import CostModel, Separable, Space, require
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.records import Arch
from sartor.core.rng import numpy_rng
from sartor.costs.fitted import Fitted
from sartor.latency.samples import Header, append

SPACE = Toy()
EVERYONE = list(archs.enumerate_all(SPACE))
ORDER = numpy_rng(0, "toy").permutation(len(EVERYONE))
TRAIN, HELD = ([EVERYONE[i] for i in part] for part in (ORDER[:150], ORDER[150:250]))
MEASURED = [*samples(SPACE, TRAIN, noise=0.02), *samples(SPACE, HELD, "heldout", noise=0.02, seed=1)]


def test_tables_equal_predictions_and_predictions_equal_the_device() -> None:
    cost = Fitted.of(SPACE, MEASURED, kind="combined")
    assert isinstance(cost, CostModel)
    assert cost.metric == "latency_ms"
    assert torch.equal(require(cost, Separable, "this").tables()(EVERYONE), cost(EVERYONE))
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
    assert cost.tables().cost(archs.largest(SPACE)) > max(cost([s.arch for s in narrow]).tolist())
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
