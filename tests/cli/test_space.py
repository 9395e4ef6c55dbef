from __future__ import annotations

import json

import pytest

from sartor.cli import main

SMALL = ["space", "nets:residual", "--input", "1,3,8,8", "--quiet"]


def test_json(capsys):
    assert main([*SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["network"] == "nets:residual"
    for group in found["groups"]:
        assert group.keys() >= {"name", "layers", "options"}
    assert found["fixed"] == [{"layer": "head", "reason": "it is an output of the network"}]
    assert found["floor"]["macs"] < found["full"]["macs"]
    assert found["keeps_class"] is True


def test_text_and_what_to_do_next(capsys):
    assert main(SMALL) == 0
    out = capsys.readouterr().out
    assert "nets:residual: 3 groups of channels" in out
    assert "its own class" in out
    assert "sartor fit --network nets:residual --budget macs=50%" in out
    assert main(["space", "nets:numbers", "--input", "1,3,8,8", "--quiet"]) == 0
    assert "else graphs of its layers" in capsys.readouterr().out


def test_modules_to_ignore(capsys):
    assert main(["space", "nets:Gated", "--input", "1,3,8,8", "--ignore", "gate", "--json", "--quiet"]) == 0
    assert [g["name"] for g in json.loads(capsys.readouterr().out)["groups"]] == ["second"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["torchvision:resnet81"], "did you mean 'resnet18'"),
        (["nets:residual", "--input", "8"], "an input shape is positive whole numbers"),
        (["nets:residual", "--input", "1,4,8,8"], "Residual does not run on an input of"),
        (["nets:Gated", "--input", "1,3,8,8"], 'ignore = ["gate"]'),
        (["nets:residual", "--input", "1,3,8,8", "--ignore", "steam"], "'steam'"),
        (["nets:residual", "--input", "1,3,8,8", "--target", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(["space", *arguments, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_several_inputs(capsys):
    both = ["space", "several:concat", "--quiet", "--json", "--input"]
    for inputs in (["vector=1,10", "--input", "image=1,3,8,8"], ["1,3,8,8", "--input", "1,10"]):
        assert main([*both, *inputs]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {"stem", "body", "first", "second"} <= {layer for g in found["groups"] for layer in g["layers"]}
    assert found["input"] == [[3, 8, 8], [10]]
    words = ["space", "several:words", "--quiet", "--input", "image=1,3,8,8", "--input"]
    assert main([*words, "ids=1,6:int64"]) == 0
    out = capsys.readouterr().out
    assert "groups of channels" in out
    assert "its own class" in out
    assert main([*words, "ids=1,6:integer"]) == 2
    assert "input ids has the type 'integer'" in capsys.readouterr().err
    assert main([*words, "words=1,6:int64"]) == 2
    assert "image (1, 3, 8, 8), words (1, 6)" in capsys.readouterr().err
