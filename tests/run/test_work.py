from __future__ import annotations

import pytest

from sartor.core import plugins
from sartor.core.errors import ConfigError, StateError
from sartor.run.work import Order, check_machine, check_sees, check_versions, cores_of, usable, versions

HERE = {"cpus": 2, "gpus": 0, "memory_gb": 8.0}


def test_a_worker_with_other_versions_is_refused_and_both_are_named():
    mine = {"sartor": "0.1.0", "torch": "2.14.0"}
    check_versions(mine, dict(mine), "here")
    for theirs in ({"sartor": "0.2.0", "torch": "2.14.0"}, {"sartor": "0.1.0", "torch": "2.13.0"}):
        words = [f"sartor {side['sartor']}, torch {side['torch']}" for side in (theirs, mine)]
        with pytest.raises(ConfigError, match=f"a worker on node7 has {words[0]}, this process has {words[1]}"):
            check_versions(mine, theirs, "node7")
    assert set(versions()) == {"sartor", "torch"}


@pytest.mark.parametrize(("name", "wanted"), [("cpus", 3), ("gpus", 1), ("memory_gb", 9.0)])
def test_a_trial_that_no_machine_can_hold_is_refused(name, wanted):
    check_machine(2, 0, None, HERE)
    asked = {"cpus": 1, "gpus": 0, "memory_gb": None, name: wanted}
    with pytest.raises(ConfigError, match=rf"workers.{name} = {wanted:g}, and no machine has more than {HERE[name]:g}"):
        check_machine(**asked, there=HERE)


def test_a_run_folder_that_is_not_seen_is_named(tmp_path):
    path = tmp_path / "seen"
    check_sees(("", ""))
    with pytest.raises(StateError, match=f"does not see {path} .*; name a run folder that all workers see"):
        check_sees((str(path), "a"))
    path.write_text("b")
    with pytest.raises(StateError, match=r"is another file on .*; name a run folder that all workers see"):
        check_sees((str(path), "a"))
    check_sees((str(path), "b"))


def test_cores_are_given_out_one_after_another_and_shared_when_there_are_too_few():
    cores = usable()
    assert [cores_of(i, 1) for i in range(len(cores) + 1)] == [*([c] for c in cores), [cores[0]]]
    assert cores_of(1, len(cores)) == cores


def test_an_order_makes_its_work():
    work = Order("run.toys:scores", {"where": True}).work()
    assert work({"index": 0})["cores"] == usable()


def test_all_kinds_take_the_same_settings():
    names = plugins.names("workers")
    assert set(names) == {"serial", "processes", "ray"}
    for name in ("serial", "processes"):
        plugins.load("workers", name)(None, count=2, cpus=1, memory_gb=0.5, trial_seconds=9.0)
