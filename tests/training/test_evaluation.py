from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from cnn import small_cnn, small_task
from sartor.core.errors import ConfigError, DataError
from sartor.training import accuracy_interval, check_fits, evaluate
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


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (81, 263), (950, 1000), (1, 2)])
def test_interval_is_wilsons(right, n):
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert accuracy_interval(right / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_interval_refuses_nonsense():
    with pytest.raises(ValueError, match="n >= 1"):
        accuracy_interval(0.5, 0)
    with pytest.raises(ValueError, match="accuracy in"):
        accuracy_interval(float("nan"), 10)


def test_check_fits():
    task = small_task()
    check_fits(task, small_cnn())
    with pytest.raises(DataError, match=r"\(1, 5\), the task has 2 classes"):
        check_fits(task, small_cnn(classes=5))
    with pytest.raises(DataError, match="expects images of 3 channels, the task gives 1"):
        check_fits(task, small_cnn(channels=3))
    with pytest.raises(DataError, match=r"Sequential cannot take .* shape \(1, 1, 8, 8\)"):
        check_fits(task, nn.Sequential(nn.Flatten(), nn.Linear(5, 2)))
    check_fits(replace(task, classes=None), small_cnn(classes=5))


def test_devices():
    assert resolve("cpu") == torch.device("cpu")
    assert resolve("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="device must be"):
        resolve("abacus")
    with pytest.raises(ConfigError, match="not here"):
        resolve("cuda:99")
