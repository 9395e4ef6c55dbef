from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from cnn import small_cnn, small_task
from sartor.core.contracts import Task
from sartor.core.errors import ConfigError, DataError, DivergedError
from sartor.data.losses import squared
from sartor.data.quality import mean_of
from sartor.training import evaluate, score, score_outputs
from sartor.training.evaluation import resolve


def test_accuracy_is_the_share_of_right_answers():
    task, module = small_task(), small_cnn().eval()
    x, y = map(torch.cat, zip(*task.valid(), strict=True))
    expected = float((module(x).argmax(1) == y).float().mean())
    parts = zip(x.split(7), y.split(7), strict=True)  # unequal batches weigh by their size
    assert evaluate(module, parts, task) == {"accuracy": pytest.approx(expected)}


def test_evaluate_changes_nothing():
    task, module = small_task(), small_cnn()
    module[1].eval()
    modes, weights = [m.training for m in module.modules()], {k: v.clone() for k, v in module.state_dict().items()}
    evaluate(module, task.valid(), task)
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())


def test_nothing_to_evaluate_on():
    with pytest.raises(DataError, match="no batches"):
        evaluate(small_cnn(), [], small_task())


def regression(values, interval="per_example"):
    """A task whose outputs are its inputs: the metric is the mean of `values`."""
    x = torch.tensor(values, dtype=torch.float64)[:, None]

    def batches():
        return [(x[i : i + 3], x[i : i + 3]) for i in range(0, len(x), 3)]

    metric = mean_of(lambda output, _: output[:, 0], "mean", "min", "m")
    return Task(
        train=lambda _: batches(),
        valid=batches,
        test=batches,
        loss=squared,
        distance=squared,
        metrics=(replace(metric, interval=interval),),
        example=x[:1],
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_decides_is_a_number(value):
    task, spoilt = regression([0.5, 1.0]), regression([value, value])  # a NaN among numbers is left out
    with pytest.raises(DivergedError, match=f"mean, which decides, is {value} over 2 examples"):
        score(nn.Identity(), spoilt.valid(), spoilt)
    undecided = mean_of(lambda output, _: output[:, 0] * value, "other", "min")
    both = replace(task, metrics=(*task.metrics, undecided))
    found = evaluate(nn.Identity(), task.valid(), both)
    assert found["mean"] == 0.75
    assert repr(found["other"]) == repr(value)


def test_a_share_of_examples_has_wilsons_interval():
    task, module = small_task(), small_cnn().eval()
    found = score(module, task.valid(), task)["accuracy"]
    expected = binomtest(round(40 * found.value), 40).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx(
        (expected.low, expected.high), abs=1e-6
    )  # torchmetrics counts in float32
    assert found.examples == 40


def test_a_mean_over_examples_is_bootstrapped():
    """The percentile interval is near the normal one where examples are many; NaNs have nothing to judge."""
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 5
    task = regression([*values.tolist(), float("nan")])
    found = score(nn.Identity(), task.valid(), task)["mean"]
    assert found.value == pytest.approx(float(values.mean()))
    half = 1.96 * float(values.std()) / 20
    assert found.low == pytest.approx(found.value - half, abs=0.15 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.15 * half)
    assert found == score(nn.Identity(), task.valid(), task)["mean"], "the same examples give the same interval"


@pytest.mark.parametrize(("values", "interval"), [([1.0], "per_example"), ([1.0, 2.0], "none")])
def test_where_there_is_no_interval_none_is_made_up(values, interval):
    task = regression(values, interval)
    found = score(nn.Identity(), task.valid(), task)["mean"]
    assert not found.bounded


def test_outputs_one_by_one_give_the_same_scores():
    task, module = small_task(), small_cnn().eval()
    shapes = []

    def session(x):
        shapes.append(len(x))
        with torch.no_grad():
            return module(x)

    assert score_outputs(session, task.valid(), task) == score(module, task.valid(), task)
    assert set(shapes) == {1}


def test_devices():
    assert resolve("cpu") == torch.device("cpu")
    assert resolve("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="device must be"):
        resolve("abacus")
    with pytest.raises(ConfigError, match="not here"):
        resolve("cuda:99")
