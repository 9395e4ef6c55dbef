import math

import pytest
import torch

from sartor.core.rng import torch_rng
from sartor.data import distances

OUTPUT = torch.tensor([[1.0, 2.0, 4.0, 9.0], [2.0, 2.0, 2.0, 2.0]]).reshape(2, 1, 2, 2)
TARGET = torch.tensor([[2.0, 2.0, 3.3, 0.0], [0.0, 0.0, 0.0, 0.0]]).reshape(2, 1, 2, 2)
ALL = [getattr(distances, n) for n in ("absolute_error", "scale_invariant", "root_mean_squared", "absolute_relative")]
ALL.append(distances.within)


def test_the_formulas_by_hand():
    assert float(distances.absolute_error(OUTPUT, TARGET)[0]) == pytest.approx((1 + 0 + 0.7) / 3)
    assert float(distances.root_mean_squared(OUTPUT, TARGET)[0]) == pytest.approx(math.sqrt((1 + 0.49) / 3))
    assert float(distances.absolute_relative(OUTPUT, TARGET)[0]) == pytest.approx((0.5 + 0.7 / 3.3) / 3)
    assert float(distances.within(OUTPUT, TARGET)[0]) == pytest.approx(2 / 3)  # 2 / 1, 1, 4 / 3.3
    logs = [math.log(0.5), 0.0, math.log(4 / 3.3)]
    wanted = sum(d * d for d in logs) / 3 - 0.5 * (sum(logs) / 3) ** 2
    assert float(distances.scale_invariant(OUTPUT, TARGET)[0]) == pytest.approx(wanted, rel=1e-5)


def test_a_picture_without_known_pixels_has_no_measure_and_no_loss():
    assert [float(f(OUTPUT, TARGET)[1]) for f in ALL[:2]] == [0, 0]
    assert all(math.isnan(float(f(OUTPUT, TARGET)[1])) for f in ALL[2:])


@pytest.mark.parametrize("loss", ALL[:2])
def test_unknown_pixels_have_no_gradient(loss):
    output = (OUTPUT + 0.1).requires_grad_()
    loss(output, TARGET).sum().backward()
    assert output.grad.isfinite().all()
    assert (output.grad[TARGET == 0] == 0).all()
    assert (output.grad[TARGET > 0] != 0).all()


@pytest.mark.parametrize("function", ALL)
def test_nothing_at_unknown_pixels_matters(function):
    for value in (math.inf, math.nan, -5.0):
        other = torch.where(TARGET > 0, OUTPUT, torch.tensor(value))
        torch.testing.assert_close(function(other, TARGET), function(OUTPUT, TARGET), equal_nan=True)


@pytest.mark.parametrize("function", ALL)
def test_a_missing_channel_is_the_same_and_another_size_an_error(function):
    torch.testing.assert_close(function(OUTPUT[:, 0], TARGET), function(OUTPUT, TARGET), equal_nan=True)
    with pytest.raises(ValueError, match="is no depth map for a target of"):
        function(torch.rand(2, 1, 4, 1), TARGET)


def test_scale_invariance():
    generator = torch_rng(0)
    output, target = (1 + torch.rand(1, 1, 4, 4, generator=generator) for _ in range(2))
    whole = [float(distances.scale_invariant(k * output, target, share=1.0)) for k in (1, 3)]
    assert whole[0] == pytest.approx(whole[1], abs=1e-6)


def test_an_output_below_nothing_is_drawn_up():
    output = torch.full((1, 1, 2, 2), -0.5).requires_grad_()
    loss = distances.scale_invariant(output, torch.full((1, 1, 2, 2), 2.0))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert (output.grad < 0).all()
