import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, jaccard_score, r2_score

from sartor.core.rng import torch_rng
from sartor.data.pooled import balanced_accuracy, confusion, r2, rmse, worst_overlap
from sartor.training.evaluation import resampled


def measured(metric, output, target, batch=7):
    made = metric.make()
    for a, b in zip(output.split(batch), target.split(batch), strict=True):
        made.update(a, b)
    return made


def columns(count=50):
    g = torch_rng(0)
    target = torch.randn(count, 2, generator=g)
    return target + 0.3 * torch.randn(count, 2, generator=g), target


def test_rmse_is_the_root_over_the_whole_split_in_the_targets_unit():
    output, target = columns()
    made = measured(rmse("m", torch.tensor([[2.0, 5.0]])), output, target)
    scaled = (output - target) * torch.tensor([2.0, 5.0])
    assert float(made.compute()) == pytest.approx(float(scaled.square().mean().sqrt()), rel=1e-6)
    assert (rmse("m").goal, rmse("m").unit, rmse("m").interval) == ("min", "m", "per_example")


def test_r2_is_scikit_learns():
    output, target = columns()
    assert float(measured(r2(), output, target).compute()) == pytest.approx(r2_score(target, output), rel=1e-6)
    grid = measured(r2(), output.reshape(50, 1, 2), target.reshape(50, 1, 2))  # positions are one column
    assert float(grid.compute()) == pytest.approx(r2_score(target.flatten(), output.flatten()), rel=1e-6)


@pytest.mark.parametrize("metric", [rmse(), r2()], ids=lambda m: m.name)
def test_a_resampled_metric_is_that_of_the_drawn_examples(metric):
    output, target = columns()
    made = measured(metric, output, target)
    index = torch.randint(50, (50,), generator=torch_rng(1))
    again = measured(metric, output[index], target[index])
    assert made.resampled(torch.bincount(index, minlength=50)) == pytest.approx(float(again.compute()), rel=1e-9)
    low, high = resampled(made.resampled, 50)
    assert low < float(made.compute()) < high


def test_the_interval_of_rmse_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(60):
        error = torch.randn(80, 1, generator=torch_rng(seed)).double()
        low, high = resampled(measured(rmse(), error, torch.zeros(80, 1)).resampled, 80)
        held += low <= 1 <= high
    assert 50 <= held <= 60


def labels():
    g = torch_rng(0)
    truth = torch.randint(3, (20, 4, 5), generator=g)
    logits = torch.randn(20, 4, 4, 5, generator=g) + 2 * torch.nn.functional.one_hot(truth, 4).movedim(3, 1)
    logits[:, 3] = -9  # class 3 is neither there nor predicted
    return logits, truth


def test_the_worst_class_decides_over_all_examples():
    logits, truth = labels()
    truth[0, 0] = -100
    known = truth.flatten() != -100
    expected = jaccard_score(truth.flatten()[known], logits.argmax(1).flatten()[known], average=None, labels=[0, 1, 2])
    assert float(measured(worst_overlap(4), logits, truth).compute()) == pytest.approx(expected.min())


def test_balanced_accuracy_is_scikit_learns():
    logits, truth = labels()
    flat, known = logits.movedim(1, 3).reshape(-1, 4), truth.flatten()
    found = float(measured(balanced_accuracy(4), flat, known, 30).compute())
    assert found == pytest.approx(balanced_accuracy_score(known, flat.argmax(1)))


def test_counts_of_an_example():
    logits = torch.tensor([[[5.0, 0, 0, 0]], [[0, 5, 5, 5.0]]]).permute(1, 0, 2)  # classes 0 1 1 1
    counts = confusion(logits, torch.tensor([[0, 0, 1, -100]]), classes=2)
    assert counts.tolist() == [[1, 1, 1, 2, 2, 1]]
    assert np.isnan(float(worst_overlap(2).make().pooling(torch.zeros(6))))
