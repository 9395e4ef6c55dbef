from __future__ import annotations

import json

from sartor.jobs.fit.assemble import assemble
from sartor.jobs.fit.deliver import environment
from small import settings


def test_environment_names_what_a_result_depends_on():
    facts = environment(assemble(settings()), "sartor fit")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["seed"] == 0
    assert facts["threads"] == 1
    assert facts["command"] == "sartor fit"
    assert facts["data"]["name"] == "digits"
    assert len(facts["data"]["fingerprint"]) >= 16
    assert {"sartor", "torch", "python", "processor", "target"} <= facts.keys()


def test_delivered_files_agree_with_the_result(finished):
    words = json.loads((finished.folder / "architecture.json").read_text())
    winner = finished.result.points[0].winner
    assert words["arch"] == list(winner.arch)
    assert words["inputs"] == {"input": [1, 1, 16, 16]}
    assert (finished.folder / "model.onnx").read_bytes() == (finished.folder / winner.file).read_bytes()
