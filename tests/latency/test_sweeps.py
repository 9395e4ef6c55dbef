import numpy as np
import pytest

from sartor.core.errors import DataError
from sartor.core.rng import numpy_rng
from sartor.latency.sweeps import Visit, combine

ARCHS = [(i,) for i in range(30)]
TRUTH = {arch: 1.0 + 0.1 * arch[0] for arch in ARCHS}


def visits(blocks: int, noise: float, drift: float) -> list[Visit]:
    rng = numpy_rng(0, "visits")
    level = np.cumsum(drift * rng.standard_normal(blocks))
    found = []
    for block in range(blocks):
        for i in rng.permutation(len(ARCHS))[:10]:
            ms = TRUTH[ARCHS[i]] * np.exp(level[block] + noise * rng.standard_normal())
            found.append(Visit(ARCHS[i], block, float(ms)))
    return found


def test_drift_is_taken_out() -> None:
    found = {s.arch: s for s in combine(visits(60, 0.0, 0.1), ARCHS[0])}
    for arch in ARCHS:
        assert found[arch].ratio == pytest.approx(TRUTH[arch] / TRUTH[ARCHS[0]], rel=1e-3)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    found = combine(visits(300, 0.05, 0.1), ARCHS[0])
    centre = np.median([s.latency_ms / TRUTH[s.arch] for s in found])
    inside = [s.low <= TRUTH[s.arch] * centre <= s.high for s in found]
    assert np.mean(inside) > 0.8
    assert np.median([s.high / s.low for s in found]) < 1.1


def test_a_disturbed_visit_changes_little() -> None:
    clean = visits(60, 0.01, 0.0)
    broken = [v._replace(ms=20 * v.ms) if i % 9 == 0 else v for i, v in enumerate(clean)]
    for a, b in zip(combine(clean, ARCHS[0]), combine(broken, ARCHS[0]), strict=True):
        assert b.ratio == pytest.approx(a.ratio, rel=0.05)


def test_splits_and_reference() -> None:
    found = {s.arch: s for s in combine(visits(60, 0.01, 0.1), ARCHS[2], {ARCHS[4]})}
    assert found[ARCHS[4]].split == "heldout"
    assert found[ARCHS[5]].split == "train"
    assert found[ARCHS[2]].ratio == 1
    with pytest.raises(DataError, match="never visited"):
        combine(visits(5, 0.0, 0.0), (99,))
