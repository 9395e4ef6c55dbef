from __future__ import annotations

import json

from sartor.cli import main
from sartor.core.plugins import names


def test_every_plug_in_has_a_line(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"spaces", "strategies", "targets", "tasks", "costs", "evaluators", "workers", "recipes"}
    for kind, entries in found.items():
        assert len(entries) >= 1
        if kind != "recipes":
            assert list(entries) == names(kind)
        assert all(len(purpose) > 10 for purpose in entries.values())


def test_one_kind(capsys):
    assert main(["list", "strategies"]) == 0
    out = capsys.readouterr().out
    assert "aows" in out
    assert "mobilenet_v1" not in out
