from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nets import Branches, Numbers, Residual
from sartor import archs
from sartor.core import trees
from sartor.jobs.space import describe_space
from sartor.networks import macs_params
from sartor.spaces.widths import Widths
from sartor.targets.torch_cpu import TorchCpu
from several import CASES


@pytest.fixture(scope="module")
def space():
    return Widths(network=Residual(), size=8, divisor=2, multipliers=(0.25, 0.5))


def test_it_says_what_can_be_cut_and_what_cannot(space):
    found = describe_space(space)
    assert [g["name"] for g in found["groups"]] == ["stem", "expand", "pointwise"]
    assert found["groups"][0]["options"] == [2, 4, 8]
    assert sorted(found["groups"][0]["layers"]) == ["depthwise", "reduce", "stem"]
    assert found["fixed"] == [{"layer": "head", "reason": "it is an output of the network"}]
    assert found["keeps_class"]
    assert found["input"] == [3, 8, 8]


@pytest.mark.parametrize("name", CASES)
def test_all_kinds_of_inputs_and_outputs(name):
    case = CASES[name]
    example = case.batch(1)
    found = describe_space(Widths(network=case.network(), example=example, ignore=case.ignore, divisor=2))
    assert found["groups"]
    assert found["floor"]["macs"] < found["full"]["macs"]
    assert found["keeps_class"] == case.plain
    shapes = list(found["input"].values()) if isinstance(example, dict) else found["input"]
    shapes = [shapes] if isinstance(example, torch.Tensor) else shapes
    assert shapes == [list(x.shape[1:]) for x in trees.leaves(example)]


def test_both_ends_are_counted_on_the_networks_themselves(space):
    found = describe_space(space)
    for name, arch in (("full", space.reference), ("floor", archs.smallest(space))):
        macs, params = macs_params(space.build(arch), torch.zeros(1, 3, 8, 8))
        assert (found[name]["macs"], found[name]["params"]) == (macs, params)
    assert 0 < found["floor"]["memory_bytes"] < found["full"]["memory_bytes"]


def test_the_share_of_a_group_is_what_cutting_it_alone_saves(space):
    found = describe_space(space)
    whole = found["full"]["macs"]
    for i, group in enumerate(found["groups"]):
        arch = tuple(0 if j == i else a for j, a in enumerate(space.reference))
        macs, _ = macs_params(space.build(arch), torch.zeros(1, 3, 8, 8))
        assert group["macs_share"] == pytest.approx(1 - macs / whole)


def test_a_graph_says_so():
    graph = describe_space(Widths(network=Numbers(), size=8))
    assert not graph["keeps_class"]
    assert "graphs of the original's layers" in graph["notes"][0]
    assert describe_space(Widths(network=Branches(), size=8))["keeps_class"]


def test_with_a_target_both_ends_are_timed(space):
    seen = []
    found = describe_space(space, TorchCpu(), show=lambda done, total: seen.append((done, total)))
    for end in ("full", "floor"):
        times = found[end]["latency_ms"]
        assert 0 < times["low"] <= times["value"] <= times["high"]
    assert seen


def test_what_the_macs_leave_out_is_told():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(9, 8), nn.Linear(8, 3)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.layer(self.words(ids)).mean(1))

    found = describe_space(Widths(network=Words(), example=torch.zeros(1, 5, dtype=torch.int64), divisor=1))
    left = {(u["layer"], u["why"]): (u["macs"], u["params"]) for u in found["uncounted"]}
    assert left == {("words", "lookup"): (0, 72), ("layer.self_attn", "activations"): (2 * 5 * 5 * 8, 0)}
    assert describe_space(Widths(network=Residual(), size=8))["uncounted"] == []
