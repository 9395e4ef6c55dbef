"""Every module has its tests at the same path."""

from __future__ import annotations

from pathlib import Path

import pytest

import sartor

SOURCE, TESTS = Path(sartor.__file__).parent, Path(__file__).parent
MODULES = sorted(p.relative_to(SOURCE) for p in SOURCE.rglob("*.py") if not p.stem.startswith("__"))


def test_there_are_modules() -> None:
    assert len(MODULES) >= 40
    assert Path("core/records.py") in MODULES


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_the_module_has_tests(module: Path) -> None:
    path = TESTS / module.with_name(f"test_{module.name}")
    assert path.exists(), f"src/sartor/{module} has no tests; write {path.relative_to(TESTS.parent)}"
    assert "def test_" in path.read_text(encoding="utf-8"), f"{path.relative_to(TESTS.parent)} holds no test"
