from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from operated import Operations, device
from sartor import archs
from sartor.core.abilities import Terms
from sartor.core.contracts import CostModel, Space
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.records import Arch, Choice, Operator, Operators
from sartor.costs.lookup import Lookup
from sartor.latency.operator_table import Entry, OperatorTable
from sartor.spaces.mbconv import Mbconv
from sartor.spaces.tiny import Tiny

PUBLISHED = os.environ.get("SARTOR_PROXYLESS", "")
"""The folder of ProxylessNAS's published files: `mobile_trim.yaml` and `proxyless_mobile.json`."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    keys = [o.key for o in Operations().operators().all()]
    OperatorTable({key: Entry(device(key)) for key in keys}).write(tmp_path / "operators.json")
    return tmp_path / "operators.json"


def test_the_sum_of_the_operators_of_every_network(path: Path) -> None:
    space, cost = Operations(), Lookup(Operations(), table=path)
    everyone = list(archs.enumerate_all(space))
    assert isinstance(cost, CostModel)
    assert isinstance(cost, Terms)
    assert cost.metric == "latency_ms"
    assert torch.equal(cost(everyone), cost.terms()[0](everyone))
    fixed = device("stem-8") + device("head-4")
    assert cost([(0, 0, 0, 0)]).item() == pytest.approx(fixed + device("k1-8-2"))
    assert cost([(2, 4, 0, 1)]).item() == pytest.approx(
        fixed + device("k5-8-2") + 2 * device("k3-4-1") + device("k1-4-1")
    )
    assert cost([]).shape == (0,)


def test_mistakes_are_named(path: Path) -> None:
    with pytest.raises(ConfigError, match="set table to a file, or measure it: sartor"):
        Lookup(Operations())
    with pytest.raises(CapabilityError, match="Lookup needs Operated, which Tiny does not offer"):
        Lookup(Tiny(), table=path)
    with pytest.raises(DataError, match="no latency of 'stem-16'"):
        Lookup(Operations(size=16), table=path)


class Published(Space):
    """The published network: every block a choice of one option.

    Args:
        folder: With its JSON file.
        stage: The number of the block from which on all are listed, but for the first, which always is.
    """

    def __init__(self, folder: Path, stage: int) -> None:
        blocks = json.loads((folder / "proxyless_mobile.json").read_text())["blocks"]
        size, found = 112, list[tuple[Operator, ...]]()
        for i, block in enumerate(blocks):
            conv, before = block["mobile_inverted_conv"], size
            if conv["name"] == "ZeroLayer":
                continue
            c_in, c_out, stride = conv["in_channels"], conv["out_channels"], conv["stride"]
            size //= stride
            key = (
                f"expanded_conv-input:{before}x{before}x{c_in}-output:{size}x{size}x{c_out}"
                f"-expand:{conv['expand_ratio']}-kernel:{conv['kernel_size']}-stride:{stride}"
                f"-idskip:{int(block['shortcut'] is not None)}"
            )
            if i == 0 or i >= stage:
                found.append((Operator(key, (c_in, before, before)),))
        self.choices = tuple(Choice(f"block{i}", ("published",)) for i in range(len(found)))
        ends = {
            "Conv-input:224x224x3-output:112x112x32": (3, 224, 224),
            "Conv_1-input:7x7x320-output:7x7x1280": (320, 7, 7),
            "Logits-input:7x7x1280-output:1000": (1280, 7, 7),
        }
        self._operators = Operators(tuple(Operator(k, s) for k, s in ends.items()), tuple((o,) for o in found))

    def build(self, arch: Arch) -> nn.Module:
        raise NotImplementedError

    def operators(self) -> Operators:
        return self._operators

    def operator(self, operator: Operator) -> nn.Module:
        raise NotImplementedError


@pytest.mark.skipif(not PUBLISHED, reason="SARTOR_PROXYLESS names no folder of ProxylessNAS's published files")
def test_the_published_table_and_network() -> None:
    """Without the first stage, which the table has at another width; TFLite's own profile says 63.820 ms."""
    folder = Path(PUBLISHED)
    table = folder / "mobile_trim.yaml"
    missing = "'expanded_conv-input:112x112x16-output:56x56x32-.*' of choice 'block1' runs .and 2 more keys.; measure"
    with pytest.raises(DataError, match=missing):
        Lookup(Published(folder, stage=1), table=table)
    space = Published(folder, stage=6)
    cost = Lookup(space, table=table)
    assert len(space.choices) + len(space.operators().fixed) == 20
    assert cost([space.reference]).item() == pytest.approx(63.705, abs=1e-3)


@pytest.mark.skipif(not PUBLISHED, reason="SARTOR_PROXYLESS names no folder of ProxylessNAS's published files")
def test_the_published_table_holds_the_space_it_was_published_for() -> None:
    folder = Path(PUBLISHED)
    space = Mbconv(widths=(24, 40, 80, 96, 192, 320))
    cost = Lookup(space, table=folder / "mobile_trim.yaml")
    assert 20 < cost([archs.smallest(space)]).item() < cost([archs.largest(space)]).item() < 400
    with pytest.raises(DataError, match="no latency of 'expanded_conv-input:112x112x16-output:56x56x32-"):
        Lookup(Mbconv(config=folder / "proxyless_mobile.json"), table=folder / "mobile_trim.yaml")
