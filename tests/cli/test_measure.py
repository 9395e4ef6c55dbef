from __future__ import annotations

import json

from sartor.cli import main


def test_json_and_text(capsys):
    arguments = ["measure", "jobs.test_measuring:small", "--input", "1,3,16,16", "--rounds", "3", "--threads", "1"]
    assert main([*arguments, "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["input"] == [1, 3, 16, 16]
    assert found["latency_ms"]["value"] > 0
    assert main([*arguments, "--quiet", "--target", "torch_cpu"]) == 0
    text = capsys.readouterr().out
    assert "ms (" in text
    assert "MACs        21.18 k" in text
