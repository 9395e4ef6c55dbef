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
    found = json.loads(capsys.readouterr().out)["found"][0]
    assert found["arch"]
    assert found["changed"]


def test_of_many_choices_prints_what_is_changed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sartor.cli.search.MANY", 0)
    config = tmp_path / "small.toml"
    config.write_text(tomli_w.dumps(settings(strategy={"name": "uniform_width"}, training={"epochs": 1})))
    assert main(["search", str(config), str(tmp_path / "run"), "--quiet"]) == 0
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "search.json").read_text())["found"][0]
    changed, same = found["changed"], set(found["options"]) - set(found["changed"])
    assert f"{len(changed)} of {len(found['widths'])} choices are not the reference's" in text
    assert all(f"{name} {found['widths'][name]}" in text for name in changed)
    assert not any(f"{name} {found['widths'][name]}" in text for name in same)
