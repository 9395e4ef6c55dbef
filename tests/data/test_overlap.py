import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from sartor.core.rng import numpy_rng, torch_rng
from sartor.data.overlap import Overlap, overlap
from sartor.training.evaluation import DRAWS, resampled

# Two pictures of 2 x 3 pixels, three classes, 9 is ignored.
TRUE = torch.tensor([[[0, 0, 1], [1, 9, 9]], [[2, 0, 0], [0, 9, 1]]])
PREDICTED = torch.tensor([[[0, 1, 1], [1, 2, 0]], [[2, 2, 0], [0, 1, 0]]])
# By hand. Class 0: right 1 + 2, predicted 1 + 3, true 2 + 3. Class 1: right 2, predicted 3, true 2 + 1.
# Class 2: right 1, predicted 2, true 1.
MIOU = (3 / (4 + 5 - 3) + 2 / (3 + 3 - 2) + 1 / (2 + 1 - 1)) / 3


def logits(predicted, classes=3):
    return functional.one_hot(predicted, classes).movedim(-1, 1).float()


def measured(kind, predicted=PREDICTED, true=TRUE, classes=3, step=1):
    metric = Overlap(classes, 9, kind)
    for start in range(0, len(true), step):
        metric.update(logits(predicted[start : start + step], classes), true[start : start + step])
    return metric


@pytest.mark.parametrize("step", [1, 2])
def test_it_is_what_a_hand_counts(step):
    assert float(measured("miou", step=step).compute()) == pytest.approx(MIOU)
    assert float(measured("pixel_accuracy", step=step).compute()) == pytest.approx(6 / 9)


def test_it_is_no_mean_over_pictures():
    alone = [float(measured("miou", PREDICTED[i : i + 1], TRUE[i : i + 1]).compute()) for i in range(2)]
    assert sum(alone) / 2 != pytest.approx(MIOU, abs=1e-3)


def test_what_is_predicted_at_ignored_pixels_does_not_matter():
    other = PREDICTED.clone()
    other[TRUE == 9] = (other[TRUE == 9] + 1) % 3
    assert torch.equal(measured("miou").compute(), measured("miou", other).compute())
    other[0, 0, 0] = 2  # and at a pixel that counts it does
    assert not torch.equal(measured("miou").compute(), measured("miou", other).compute())


def test_a_class_that_is_nowhere_does_not_count():
    assert float(measured("miou", classes=5).compute()) == pytest.approx(MIOU)
    nothing = measured("miou", true=torch.full_like(TRUE, 9))
    assert math.isnan(float(nothing.compute()))


def test_drawing_a_picture_twice_counts_it_twice():
    metric = measured("miou")
    for times in ([1, 1], [2, 0], [3, 1]):
        index = torch.repeat_interleave(torch.arange(2), torch.tensor(times))
        wanted = float(measured("miou", PREDICTED[index], TRUE[index]).compute())
        assert metric.resampled(torch.tensor(times)) == pytest.approx(wanted)


def test_the_interval_is_that_of_the_bootstrap():
    generator = torch_rng(0)
    true = torch.randint(3, (12, 5, 5), generator=generator)
    right = torch.rand(12, 1, 1, generator=generator) > torch.rand(12, 5, 5, generator=generator)
    predicted = torch.where(right, true, (true + 1) % 3)
    low, high = resampled(measured("miou", predicted, true, step=5).resampled, 12)
    rng = numpy_rng(0, "bootstrap")
    draws = [torch.from_numpy(rng.integers(12, size=12)) for _ in range(DRAWS)]
    values = [float(measured("miou", predicted[i], true[i], step=12).compute()) for i in draws[:200]]
    # the first tenth of the same draws, the slow way
    assert low == pytest.approx(np.quantile(values, 0.025), abs=0.03)
    assert high == pytest.approx(np.quantile(values, 0.975), abs=0.03)
    assert low < float(measured("miou", predicted, true).compute()) < high


def test_both_metrics_are_shares_with_intervals():
    miou, accuracy = overlap(3, 9)
    assert [(m.name, m.goal, m.unit, m.interval) for m in (miou, accuracy)] == [
        ("miou", "max", "share", "per_example"),
        ("pixel_accuracy", "max", "share", "per_example"),
    ]
    made = miou.make()
    made.update(logits(PREDICTED), TRUE)
    assert float(made.compute()) == pytest.approx(MIOU)
