import numpy as np
import pytest
from scipy import optimize

from latency.toy import Toy, device, latencies
from sartor import archs
from sartor.core.errors import ConfigError, DataError
from sartor.core.rng import numpy_rng
from sartor.latency import models
from sartor.latency.design import BLOCK, Design

SPACE = Toy()
DESIGN = Design(SPACE)
RNG = numpy_rng(0, "toy")
EVERYONE = list(archs.enumerate_all(SPACE))
ORDER = RNG.permutation(len(EVERYONE))
TRAIN, HELD = ([EVERYONE[i] for i in part] for part in (ORDER[:200], ORDER[200:400]))
NOISE = 0.02


def measured(noise: float) -> models.Samples:
    truth = latencies(SPACE, TRAIN)
    y = truth * np.exp(noise * numpy_rng(1, "noise").standard_normal(len(truth)))
    return models.Samples.of(DESIGN, TRAIN, y, [max(noise, 0.001)] * len(y))


def error(model: models.Model) -> float:
    return models.nrmse(model.predict(DESIGN.matrix(HELD)), latencies(SPACE, HELD))


@pytest.fixture(scope="module")
def fits() -> dict[models.Kind, models.Model]:
    return {kind: models.fit(DESIGN, measured(NOISE), kind, folds=3) for kind in models.KINDS}


@pytest.mark.parametrize("kind", ["table", "combined"])
def test_totals_of_an_additive_device_are_recovered_to_below_the_noise(
    fits: dict[models.Kind, models.Model], kind: models.Kind
) -> None:
    assert error(fits[kind]) < NOISE
    assert fits[kind].cv_error == pytest.approx(np.hypot(NOISE, error(fits[kind])), rel=0.3)


def test_more_detail_predicts_better(fits: dict[models.Kind, models.Model]) -> None:
    assert error(fits["physical"]) < 0.5 * error(fits["macs"])
    assert error(fits["table"]) < 0.5 * error(fits["macs"])


def test_corrections_help_where_the_device_does_not_follow_the_terms() -> None:
    values = np.array([device(key) * (1 + 0.3 * np.sin(np.log(key.c_in) * 2)) for key in DESIGN.keys])
    data = models.Samples(DESIGN.matrix(TRAIN), DESIGN.matrix(TRAIN) @ values, np.full(len(TRAIN), 0.01))
    counts = DESIGN.matrix(HELD)
    physical, combined = (
        models.nrmse(models.fit(DESIGN, data, kind, folds=3).predict(counts), counts @ values)
        for kind in ("physical", "combined")
    )
    assert combined < 0.7 * physical


def test_auto_takes_a_model_with_the_least_cross_validation_error_but_for_ties(
    fits: dict[models.Kind, models.Model],
) -> None:
    best = models.fit(DESIGN, measured(NOISE), folds=3)
    assert best.cv_error <= (1 + models.TIE) * min(model.cv_error for model in fits.values())
    assert np.array_equal(best.values, fits[best.kind].values)


@pytest.mark.parametrize("kind", models.KINDS)
def test_entries_are_never_negative(kind: models.Kind) -> None:
    model = models.fit_with(DESIGN, measured(0.3), kind, models.GRIDS[kind][0])
    assert model.values.min() >= 0
    assert model.constant >= 0


def test_a_latency_that_is_linear_in_macs_is_recovered_exactly() -> None:
    counts = DESIGN.matrix(TRAIN)
    y = counts @ (2e-6 * DESIGN.macs()) + 0.3
    model = models.fit(DESIGN, models.Samples(counts, y, np.full(len(y), 0.01)), "macs")
    assert model.constant == pytest.approx(0.3)
    assert model.values == pytest.approx(2e-6 * DESIGN.macs())


def test_violations_of_monotonicity_fall_as_the_penalty_grows() -> None:
    data = measured(0.1)
    found = [
        models.violations(DESIGN, models.fit_with(DESIGN, data, "table", {"monotone": k}).values)
        for k in (0.0, 1.0, 1e2, 1e5)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.1 * found[0]


def test_cross_validation_wants_less_monotony_of_a_device_that_is_faster_with_more_channels() -> None:
    counts = DESIGN.matrix(TRAIN)
    noise = np.exp(0.03 * numpy_rng(1, "noise").standard_normal(len(TRAIN)))
    shrinking, growing = (counts @ np.array([0.01 + f(key.c_out) for key in DESIGN.keys]) for f in (_shrink, _grow))
    chosen = [
        models.fit(DESIGN, models.Samples(counts, y * noise, np.full(len(y), 0.03)), "table", folds=3)
        for y in (shrinking, growing)
    ]
    assert chosen[0].settings["monotone"] < chosen[1].settings["monotone"]


def _shrink(channels: int) -> float:
    return 8.0 / channels


def _grow(channels: int) -> float:
    return channels / 64


def test_entries_never_seen_follow_the_physical_terms() -> None:
    narrow = [a for a in TRAIN if max(a) < 5]
    y = latencies(SPACE, narrow)
    data = models.Samples.of(DESIGN, narrow, y, [0.01] * len(y))
    unseen = np.asarray(data.counts.sum(axis=0)) == 0
    physical = models.fit_with(DESIGN, data, "physical", {"block": BLOCK})
    wide = DESIGN.matrix([a for a in EVERYONE if max(a) == 5])
    truth = wide @ np.array([device(key) for key in DESIGN.keys]) + 0.05
    assert unseen.any()
    for kind in ("table", "combined"):
        model = models.fit_with(DESIGN, data, kind, models.GRIDS[kind][3])
        values = model.values
        assert models.nrmse(model.predict(wide), truth) < 0.1
        assert values[unseen].mean() > values[~unseen].mean()
        assert kind == "combined" or values[unseen] == pytest.approx(physical.values[unseen])


@pytest.mark.parametrize("kind", models.KINDS)
def test_a_noisier_sample_counts_less(kind: models.Kind) -> None:
    truth, settings = latencies(SPACE, TRAIN), models.GRIDS[kind][0]
    wrong = np.where(np.arange(len(TRAIN)) < 20, 3.0, 1.0) * truth
    even, distrusting = np.full(len(TRAIN), 0.02), np.where(np.arange(len(TRAIN)) < 20, 5.0, 0.02)
    good, careful, trusting = (
        models.fit_with(DESIGN, models.Samples(DESIGN.matrix(TRAIN), y, noise), kind, settings)
        for y, noise in ((truth, even), (wrong, distrusting), (wrong, even))
    )
    counts = DESIGN.matrix(HELD)
    distances = [models.nrmse(m.predict(counts), good.predict(counts)) for m in (careful, trusting)]
    assert distances[0] < 0.5 * distances[1]


@pytest.mark.parametrize("kind", ["physical", "combined"])
def test_a_few_disturbed_measurements_change_little(kind: models.Kind) -> None:
    data = measured(NOISE)
    wrong = np.where(np.arange(len(data)) % 25 == 0, 4.0, 1.0) * data.y
    disturbed = models.Samples(data.counts, wrong, data.noise)
    plain = models.fit_with(DESIGN, disturbed, kind, models.GRIDS[kind][0])
    assert error(models.fit(DESIGN, disturbed, kind, folds=3)) < 0.5 * error(plain)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="kind of a latency model"):
        models.fit(DESIGN, measured(NOISE), "cubic")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="too few"):
        models.fit(DESIGN, measured(NOISE).rows(np.arange(3)), "macs")


@pytest.mark.parametrize("kind", models.KINDS)
@pytest.mark.parametrize("unit", [2.0**-40, 2.0**40])
def test_the_unit_of_time_changes_nothing_but_the_unit(kind: models.Kind, unit: float) -> None:
    """Seconds or picoseconds."""
    given = measured(NOISE)
    settings = models.GRIDS[kind][-1]
    one = models.fit_with(DESIGN, given, kind, settings)
    other = models.fit_with(DESIGN, models.Samples(given.counts, unit * given.y, given.noise), kind, settings)
    predicted = DESIGN.matrix(HELD)
    np.testing.assert_allclose(other.predict(predicted), unit * one.predict(predicted), rtol=1e-6)


@pytest.mark.parametrize("kind", models.KINDS)
def test_latencies_that_are_all_the_same(kind: models.Kind) -> None:
    for settings in models.GRIDS[kind]:
        same = models.Samples.of(DESIGN, TRAIN, [3.0] * len(TRAIN), [0.01] * len(TRAIN))
        predicted = models.fit_with(DESIGN, same, kind, settings).predict(DESIGN.matrix(HELD))
        np.testing.assert_allclose(predicted, 3.0, rtol=0.02)


@pytest.mark.parametrize("kind", models.KINDS)
@pytest.mark.parametrize("noise", [1e-12, 1e-3])
def test_a_few_networks_measured_hundreds_of_times(kind: models.Kind, noise: float) -> None:
    """Their latencies are those predicted, however well each is known."""
    few, rng = TRAIN[:7], numpy_rng(2, "again")
    truth = latencies(SPACE, few)
    y = np.tile(truth, 60) * np.exp(noise * rng.standard_normal(7 * 60))
    again = models.Samples.of(DESIGN, few * 60, y, [noise] * (7 * 60))
    for settings in models.GRIDS[kind]:
        fitted = models.fit_with(DESIGN, again, kind, settings)
        if kind == "combined":
            np.testing.assert_allclose(fitted.predict(DESIGN.matrix(few)), truth, rtol=0.01)
        assert np.isfinite(fitted.predict(DESIGN.matrix(HELD))).all()


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("seed", range(20))
def test_factors_of_columns_that_are_nearly_equal(scale: float, seed: int) -> None:
    """The residual is the least one, which a solver with bounds finds, too."""
    rng = np.random.default_rng(seed)
    own = rng.random((60, 4))
    a = np.concatenate([own, own[:, :3] * (1 + 1e-12 * rng.random((60, 3))), own[:, :1] * 0, own], axis=1)
    b = scale * (own @ np.array([1.0, 0.0, 2.0, 0.5]) - 0.3 * own[:, 1] + 0.01 * rng.random(60))
    found = models._nonnegative(a, b)
    assert (found >= 0).all()
    wanted = optimize.lsq_linear(own, b / scale, bounds=(0, np.inf), tol=1e-14)
    residual = float(np.linalg.norm(a @ found - b)) / scale
    assert residual == pytest.approx(np.sqrt(2 * wanted.cost), rel=1e-4)


def test_a_constant_that_explains_all_is_no_division_by_zero() -> None:
    """No entry costs anything: what is slower has fewer of each."""
    order = np.argsort(DESIGN.matrix(TRAIN) @ DESIGN.physical().sum(1))
    y = np.linspace(2.0, 1.0, len(TRAIN))[np.argsort(order)]
    odd = models.Samples.of(DESIGN, TRAIN, y, [0.01] * len(TRAIN))
    for kind in ("table", "combined"):
        found = models.fit_with(DESIGN, odd, kind, models.GRIDS[kind][0])
        assert np.isfinite(found.predict(DESIGN.matrix(HELD))).all()


def test_where_active_sets_go_round_in_a_circle_bounds_help(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((40, 5)), rng.random(40)
    wanted = models._nonnegative(a, b)

    def gives_up(*_: object) -> None:
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr(optimize, "nnls", gives_up)
    np.testing.assert_allclose(models._nonnegative(a, b), wanted, atol=1e-6)
