import pytest
import torch
from torch import nn

from sartor.exporting.tracing import Adapted, evaluating, several


def test_eval_mode_lasts_for_the_block_only() -> None:
    net = nn.Sequential(nn.Dropout(), nn.Dropout().eval())

    def fail() -> None:
        with evaluating(net):
            assert not net[0].training
            assert not torch.is_grad_enabled()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert net[0].training
    assert not net[1].training
    assert torch.is_grad_enabled()


def test_another_forward_has_the_same_state_under_the_same_names() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    other = Adapted(net, lambda x: -net(x))
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert all(a is b for a, b in zip(other.buffers(), net.buffers(), strict=True))
    x = torch.ones(2, 2)
    with evaluating(other):
        assert torch.equal(other(x), -net(x))
    assert net.training


def test_a_batch_of_one_is_doubled() -> None:
    assert len(several(torch.zeros(3, 2))) == 3
    found = several({"a": torch.zeros(1, 2), "b": torch.zeros(1, 5)})
    assert isinstance(found, dict)
    assert [tuple(t.shape) for t in found.values()] == [(2, 2), (2, 5)]
