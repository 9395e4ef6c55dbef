from __future__ import annotations

import pytest
import torch

from sartor.core.errors import ConfigError, StateError
from sartor.core.records import Choice
from sartor.core.rng import torch_rng
from sartor.supernet.slimmable import draw, uniform
from sartor.supernet.statistics import Statistics

WIDTHS = tuple(Choice(f"w{i}", (8, 16, 24, 32), ordered=True) for i in range(3))


def statistics(choices=WIDTHS, half_life=1.0):
    return Statistics(choices, half_life=half_life)


def centred(table):
    return table - table.mean()


def test_mean_is_the_mean_of_the_differences_divided_by_the_number_of_choices():
    paths, d = draw(uniform(WIDTHS), 500, torch_rng(0)), torch.randn(500, generator=torch_rng(1))
    s = statistics()
    s.add(paths[:200], d[:200])
    s.add(paths[200:], d[200:])
    for i, table in enumerate(s.tables("mean").unary):
        plain = torch.stack([d[paths[:, i] == k].double().mean() / 3 for k in range(4)])
        assert torch.allclose(table, plain, atol=1e-3)


def test_least_squares_recovers_additive_effects():
    effects = torch.rand(3, 4, generator=torch_rng(0), dtype=torch.float64)
    paths = draw(uniform(WIDTHS), 400, torch_rng(1))
    s = statistics()
    s.add(paths, effects[torch.arange(3), paths].sum(1))
    s.tune()
    for i, table in enumerate(s.tables("least_squares").unary):
        assert torch.allclose(centred(table) * 3, centred(effects[i]), atol=1e-3)


def test_least_squares_is_not_fooled_when_the_other_layers_narrow():
    """Option 0 of the first layer is only seen while the second layer is poor; it is as good as the others."""
    effects = torch.tensor([[0.0] * 4, [3.0, 2.0, 1.0, 0.0], [0.0] * 4], dtype=torch.float64)
    paths = draw(uniform(WIDTHS), 2000, torch_rng(0))
    rich = paths[:, 1] > 1
    paths = paths[~(rich & (paths[:, 0] == 0))]
    s = statistics()
    s.add(paths, effects[torch.arange(3), paths].sum(1))
    s.tune()
    mean, fitted = s.tables("mean").unary[0], s.tables("least_squares").unary[0]
    assert mean[0] - mean[1:].mean() > 0.2
    assert float(centred(fitted).abs().max()) < 1e-3


def test_the_prior_grows_with_the_noise_and_beats_the_mean():
    slopes = torch.tensor([1.0, 0.8, 1.2], dtype=torch.float64)
    effects = slopes[:, None] * torch.tensor([2.0, 0.7, 0.2, 0.0], dtype=torch.float64)
    weights, errors = [], {"mean": [], "least_squares": []}
    for noise in (0.05, 5.0):
        for seed in range(5):
            paths = draw(uniform(WIDTHS), 300, torch_rng(seed))
            d = effects[torch.arange(3), paths].sum(1) + noise * torch.randn(300, generator=torch_rng(seed, "noise"))
            s = statistics()
            s.add(paths, d)
            s.tune()
            for name, found in errors.items():
                tables = s.tables(name).unary
                found += [float((centred(t) * 3 - centred(e)).norm()) for t, e in zip(tables, effects, strict=True)]
        weights.append(s.weights)
    assert weights[1][0] > weights[0][0]
    assert sum(errors["least_squares"]) < 0.5 * sum(errors["mean"])


def test_the_likelihood_is_that_of_the_mixed_model():
    """Against the textbook formula with the covariance of all observations written out."""
    paths, s = draw(uniform(WIDTHS), 60, torch_rng(0)), statistics()
    d = torch.randn(60, generator=torch_rng(1), dtype=torch.float64)
    s.add(paths, d)
    X = torch.cat([torch.eye(4, dtype=torch.float64)[p] for p in paths.T], 1)

    def dense(weights):
        values, vectors = torch.linalg.eigh(s._prior(weights))
        free, bound = vectors[:, : -s._rank], vectors[:, -s._rank :]
        V = torch.eye(60, dtype=torch.float64) + (X @ bound) / values[-s._rank :] @ (X @ bound).T
        u, size, _ = torch.linalg.svd(X @ free, full_matrices=False)
        Z = u[:, size > 1e-8]  # fixed effects: the overall level, and the mean slope
        inverse = torch.linalg.inv(V)
        middle = Z.T @ inverse @ Z
        P = inverse - inverse @ Z @ torch.linalg.inv(middle) @ Z.T @ inverse
        freedom = 60 - Z.shape[1]
        return torch.logdet(V) + torch.logdet(middle) + freedom * torch.log(d @ P @ d / freedom)

    pairs = [(1.0, 1.0), (100.0, 1.0), (1.0, 100.0), (1e4, 10.0)]
    ours = torch.tensor([s._unlikeliness(w) for w in pairs])
    theirs = torch.stack([dense(w) for w in pairs])
    assert torch.allclose((ours - ours[0]).double(), theirs - theirs[0], atol=0.3)


@pytest.mark.parametrize("estimator", ["mean", "least_squares"])
def test_an_option_never_seen_gets_what_its_neighbours_say(estimator):
    effects = torch.tensor([9.0, 4.0, 1.0, 0.0], dtype=torch.float64)
    paths = draw(uniform(WIDTHS), 20000, torch_rng(0))
    paths = paths[paths[:, 0] != 1]
    s = statistics()
    s.add(paths, effects[paths[:, 0]])
    s.tune()
    table = s.tables(estimator).unary[0] * 3
    assert 2.5 < float(table[1] - table[3]) < 5.5  # far from the zero that an empty sum would say


def test_an_unordered_option_never_seen_gets_the_mean():
    choices = (Choice("op", ("a", "b", "c")), Choice("w", (1, 2), ordered=True))
    paths = torch.tensor([[0, 0], [1, 1], [0, 1], [1, 0]] * 50)
    s = statistics(choices)
    s.add(paths, torch.tensor([2.0, 4.0, 2.0, 4.0] * 50))
    s.tune()
    for estimator in ("mean", "least_squares"):
        table = s.tables(estimator).unary[0] * 2
        assert torch.allclose(centred(table), torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64), atol=0.4)
    assert torch.allclose(s.tables("mean").unary[0] * 2, torch.tensor([2.0, 4, 3], dtype=torch.float64), atol=1e-2)


@pytest.mark.parametrize(
    "choices",
    [
        (Choice("one", (8,), ordered=True), Choice("two", (8, 16), ordered=True)),
        (Choice("op", ("a", "b")),),
        (Choice("depth", (0, 1, 2), ordered=True), Choice("flag", (False, True))),
        (Choice("lonely", (3,)),),
    ],
)
def test_any_kind_of_choice(choices):
    s = statistics(choices)
    paths = draw(uniform(choices), 100, torch_rng(0))
    s.add(paths, paths.sum(1) + 0.1 * torch.randn(100, generator=torch_rng(1)))
    s.tune()
    for estimator in ("mean", "least_squares"):
        assert all(table.isfinite().all() for table in s.tables(estimator).unary)


def test_images_count_half_after_the_half_life():
    s = statistics(half_life=3)
    s.add(torch.zeros(10, 3, dtype=torch.long), 2 * torch.ones(10))
    before = s.tables("mean").unary[0][0]
    for _ in range(3):
        s.forget()
    assert s.mass()[0].tolist() == pytest.approx([5, 0, 0, 0])
    assert s.square == pytest.approx(20)
    assert torch.allclose(s.tables("mean").unary[0][0], before, atol=1e-2)


def test_statistics_without_images_are_an_error():
    with pytest.raises(StateError, match="train for one before solving"):
        statistics().tables("mean")


def test_a_half_life_must_be_positive():
    with pytest.raises(ConfigError, match="half_life"):
        statistics(half_life=0.0)


def test_losses_never_fall_with_fewer_channels_and_the_mean_is_left_alone():
    s = statistics()
    paths = draw(uniform(WIDTHS), 400, torch_rng(0))
    s.add(paths, paths[:, 0].double() * 0.1 + torch.randn(400, generator=torch_rng(1)) * 0.01)
    raw, mended = s.tables("least_squares").unary, s.losses("least_squares").unary
    assert (raw[0].diff() > 0).all()
    assert all((u.diff() < 0).all() for u in mended)
    assert float(mended[0].max() - mended[0].min()) < 0.01 * float(raw[0].max() - raw[0].min())  # by a hair
    assert all(torch.equal(a, b) for a, b in zip(s.losses("mean").unary, s.tables("mean").unary, strict=True))


def test_losses_that_fall_already_stay():
    s = statistics()
    paths = draw(uniform(WIDTHS), 4000, torch_rng(0))
    s.add(paths, -paths.double().sum(1))
    for raw, mended in zip(s.tables("least_squares").unary, s.losses("least_squares").unary, strict=True):
        assert torch.allclose(raw - raw.mean(), mended - mended.mean(), atol=2e-3 * float(raw.max() - raw.min()))


MANY = (*WIDTHS, *(Choice(f"v{i}", tuple(range(8, 136, 16)), ordered=True) for i in range(17)))


@pytest.mark.parametrize("factor", [1.0, 1e3, 1e6])
def test_any_number_of_images(factor):
    """Sums over 2 to 2,000 million images, against a direct least-squares solve with the same prior."""
    paths = draw(uniform(MANY), 2000, torch_rng(0))
    d = (paths[:, 0] * 0.3 + paths[:, 5] * 0.1).double() + 0.1 * torch.randn(2000, generator=torch_rng(1)).double()
    s = statistics(MANY)
    s.add(paths, d)
    s.gram, s.moment, s.square = s.gram * factor * 1e3, s.moment * factor * 1e3, s.square * factor * 1e3
    s.tune()
    X = torch.cat([torch.eye(k, dtype=torch.float64)[p] for p, k in zip(paths.T, s.sizes, strict=True)], 1)
    size, axes = torch.linalg.eigh(s._prior(s.weights))
    root = (factor * 1e3) ** -0.5 * size.clamp_min(0).sqrt()[:, None] * axes.T
    wanted = torch.linalg.lstsq(torch.cat([X, root]), torch.cat([d, torch.zeros(len(root)).double()]), driver="gelsd")
    for table, effects in zip(
        s.tables("least_squares").unary, torch.split(wanted.solution / len(MANY), s.sizes), strict=True
    ):
        assert torch.allclose(centred(table), centred(effects), atol=1e-7)


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_the_unit_of_the_loss_changes_nothing_but_the_unit(scale):
    paths, d = draw(uniform(WIDTHS), 300, torch_rng(0)), torch.randn(300, generator=torch_rng(1)).double()
    one, other = statistics(), statistics()
    one.add(paths, d)
    other.add(paths, scale * d)
    one.tune(), other.tune()
    assert one.weights == other.weights
    for a, b in zip(one.losses("least_squares").unary, other.losses("least_squares").unary, strict=True):
        assert torch.allclose(a * scale, b, rtol=1e-9, atol=1e-12 * scale)


@pytest.mark.parametrize("value", [0.0, 1e-12, 1.0, 1e12])
@pytest.mark.parametrize("distinct", [1, 2, 500])
def test_images_that_tell_nothing_apart(value, distinct):
    """Constant differences, on one path again and again or on many."""
    paths, s = draw(uniform(WIDTHS), 500, torch_rng(0)), statistics()
    s.add(paths[torch.arange(500) % distinct], torch.full((500,), value, dtype=torch.float64))
    s.tune()
    for estimator in ("mean", "least_squares"):
        tables = s.losses(estimator)
        assert all(bool(u.isfinite().all()) for u in tables.unary)
        if distinct == 500:
            assert max(float(centred(u).abs().max()) for u in tables.unary) <= 1e-4 * value
