import math

import pytest
import torch
from torchmetrics import MeanSquaredError, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassHingeLoss
from torchmetrics.image import PeakSignalNoiseRatio

from sartor.core.errors import ConfigError
from sartor.core.metrics import Metric
from sartor.data import quality

LABELS = torch.tensor([0, 1])


def test_accuracy_is_a_proportion():
    (metric,) = quality.accuracy(3)
    assert (metric.name, metric.goal, metric.unit, metric.interval) == ("accuracy", "max", "share", "proportion")
    made = metric.make()
    made.update(torch.eye(3), torch.tensor([0, 1, 1]))
    assert float(made.compute()) == pytest.approx(2 / 3)


def test_a_mean_over_examples_keeps_its_values():
    metric = quality.mean_of(lambda a, b: (a - b).abs(), "error", "min", "m")
    assert (metric.goal, metric.unit, metric.interval) == ("min", "m", "per_example")
    made = metric.make()
    made.update(torch.tensor([1.0, 2.0]), torch.zeros(2))
    made.update(torch.tensor([math.nan]), torch.zeros(1))
    assert float(made.compute()) == 1.5
    assert made.values[:2].tolist() == [1, 2]
    assert math.isnan(made.values[2])


def test_torchmetrics_says_what_is_better():
    given = {"psnr": lambda: PeakSignalNoiseRatio(data_range=1.0), "mse": MeanSquaredError}
    psnr, mse = quality.of(given, torch.zeros(2, 3))
    assert [(m.name, m.goal, m.unit, m.interval) for m in (psnr, mse)] == [
        ("psnr", "max", "", "none"),
        ("mse", "min", "", "none"),
    ]


def test_accuracies_over_examples_have_an_interval_others_not():
    macro = lambda: MulticlassAccuracy(2, average="macro")  # noqa: E731
    micro = lambda: MulticlassAccuracy(2, average="micro")  # noqa: E731
    given = {"micro": micro, "macro": macro, "hinge": lambda: MulticlassHingeLoss(2)}
    assert [(m.unit, m.interval) for m in quality.of(given, LABELS)] == [
        ("share", "proportion"),
        ("share", "none"),
        ("", "none"),
    ]
    assert quality.of({"micro": micro}, LABELS[:, None])[0].interval == "none"  # over pixels


def test_a_direction_is_never_guessed():
    with pytest.raises(ConfigError, match="does not say whether higher is better"):
        quality.of({"both": lambda: MetricCollection({"a": MeanSquaredError()})}, LABELS)
    own = Metric("x", "min", "s", "none", MeanSquaredError)
    (named,) = quality.of({"seconds": own}, LABELS)
    assert (named.name, named.goal, named.unit, named.make) == ("seconds", "min", "s", MeanSquaredError)
    with pytest.raises(ConfigError, match="at least one metric"):
        quality.of({})
