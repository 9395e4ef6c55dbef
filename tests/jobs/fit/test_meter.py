from __future__ import annotations

import pytest

from operated import Operations
from sartor.jobs.fit.assemble import assemble
from sartor.jobs.fit.meter import Meter
from small import latency_settings


@pytest.fixture(scope="module", params=["onnxruntime", "torch_cpu"])
def meter(request):
    found = Meter(assemble(latency_settings(target={"name": request.param})))
    found.set_anchor(rounds=10)
    yield found
    found.close()


def test_the_reference_against_itself_is_the_anchor(meter):
    again = meter.compare({"same": (3, 3, 3)}, rounds=20)["same"]
    assert again.low <= meter.anchor.value * 1.02
    assert again.high >= meter.anchor.value * 0.98


def test_a_wide_network_takes_longer_than_a_narrow_one(meter):
    found = meter.compare({"narrow": (0, 0, 0), "wide": (3, 3, 3)}, rounds=20)
    assert found["narrow"].value < found["wide"].value
    timed = meter.visit([(0, 0, 0), (3, 3, 3)], rounds=9, seed=0)
    assert sorted(row[0] for row in timed.seconds)[4] < sorted(row[1] for row in timed.seconds)[4]


def test_the_reference_is_as_fresh_as_what_it_is_compared_with(monkeypatch):
    found = Meter(assemble(latency_settings(target={"name": "torch_cpu"})), sessions=2)
    found.set_anchor(rounds=2)
    opened, session = [], found.session
    monkeypatch.setattr(found, "session", lambda arch: opened.append(arch) or session(arch))
    found.compare({"narrow": (0, 0, 0)}, rounds=2)
    assert opened == [(3, 3, 3)] * 2 + [(0, 0, 0)] * 2
    found.close()


def test_networks_of_operators_are_prepared_once_and_loaded_for_every_session(monkeypatch):
    space = Operations(blocks=2)
    found = Meter(assemble(latency_settings(target={"name": "torch_cpu"}), space=space), sessions=2)
    found.set_anchor(rounds=2)
    prepared = []
    prepare = found._parts.target.prepare
    monkeypatch.setattr(found._parts.target, "prepare", lambda *a: prepared.append(a) or prepare(*a))
    timed = found.visit([space.reference, (0, 0)], rounds=2, seed=0)
    found.visit([space.reference, (0, 0)], rounds=2, seed=1)
    assert len(timed.seconds) == 2
    found.compare({"small": (0, 0)}, rounds=2)
    assert len(prepared) == 1, "the reference has been prepared before"
    found.close()
