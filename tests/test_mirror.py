"""Every module has its tests at the same path."""

from __future__ import annotations

from pathlib import Path

import sartor

SOURCE, TESTS = Path(sartor.__file__).parent, Path(__file__).parent
MODULES = sorted(p.relative_to(SOURCE) for p in SOURCE.rglob("*.py") if not p.stem.startswith("__"))


def test_there_are_modules() -> None:
    assert len(MODULES) >= 200
    assert Path("core/records.py") in MODULES


def missing(modules: list[Path], tests: Path) -> list[str]:
    """What to write, for every module without tests."""
    paths = {module: tests / module.with_name(f"test_{module.name}") for module in modules}
    return [
        f"src/sartor/{module} has no tests; write {path.relative_to(tests.parent)}"
        for module, path in paths.items()
        if not path.exists() or "def test_" not in path.read_text(encoding="utf-8")
    ]


def test_every_module_has_tests() -> None:
    assert not missing(MODULES, TESTS)


def test_all_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "test_a.py").write_text("def test_it(): ...")
    (tmp_path / "core/test_b.py").write_text("# none yet")
    found = missing([Path("a.py"), Path("core/b.py"), Path("c.py")], tmp_path)
    assert [line.split()[0] for line in found] == ["src/sartor/core/b.py", "src/sartor/c.py"]
