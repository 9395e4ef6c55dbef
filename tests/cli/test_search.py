from __future__ import annotations

import json

import tomli_w

from sartor.cli import main
from small import settings


def test_prints_the_archs(tmp_path, capsys):
    config = tmp_path / "small.toml"
    config.write_text(tomli_w.dumps(settings(strategy={"name": "uniform_width"}, training={"epochs": 1})))
    arguments = ["search", str(config), str(tmp_path / "run"), "--quiet"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "modelled: macs" in text
    assert "conv0" in text
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["found"][0]["arch"]
