import sys
from pathlib import Path

import pytest

from sartor.core.named_code import named, origin


def test_code_is_found_wherever_it_stands_in_tables() -> None:
    tables = {
        "title": "networks: wide, and narrow",
        "space": {"name": "widths", "network": "my_net:build", "weights": "C:\\w.pth", "input_shape": [1, 2]},
        "task": {"name": "own.data:Task", "root": "photos:2024/x"},
        "evaluator": {"more": [{"deep": "a.b.c:d"}]},
        "target": {"network": "torchvision:resnet18", "other": "timm:vit"},
    }
    assert list(named(tables)) == ["my_net:build", "own.data:Task", "a.b.c:d"]


def test_what_is_installed_is_no_code_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_alone.py").write_text("raise RuntimeError('it ran')")
    (tmp_path / "pack_of_mine").mkdir()  # a package without a file of its own
    (tmp_path / "pack_of_mine" / "part.py").write_text("raise RuntimeError('it ran')")
    (tmp_path / "onnx.py").write_text("raise RuntimeError('it ran')")
    assert origin("mine_alone:build") == tmp_path / "mine_alone.py"
    assert origin("pack_of_mine.part:build") == tmp_path / "pack_of_mine"
    assert origin("onnx:load") == tmp_path / "onnx.py"  # what networks would take, as the folder goes first
    for code in ("torch.hub:load", "json:loads", "sys:exit", "not_there_at_all:x"):
        assert origin(code) is None, code
    assert not {"mine_alone", "pack_of_mine"} & sys.modules.keys()
