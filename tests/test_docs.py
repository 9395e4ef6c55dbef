"""The worked examples of the documentation run as they stand."""

from __future__ import annotations

import doctest
import importlib.util
import sys
from pathlib import Path

import pytest

from samples import SPACES
from sartor.core import abilities

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if ">>> " in p.read_text(encoding="utf-8"))


def test_there_are_pages():
    assert len(PAGES) >= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_page(page):
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried
    assert not failed


@pytest.fixture(scope="module")
def writer():
    spec = importlib.util.spec_from_file_location("writer", ROOT / "docs" / "abilities.py")
    writer = importlib.util.module_from_spec(spec)
    sys.modules["writer"] = writer  # dataclasses look their module up
    spec.loader.exec_module(writer)
    return writer


@pytest.fixture(scope="module")
def table(writer):
    return writer.table()


def test_the_table_of_abilities_is_up_to_date(writer, table):
    """A failure means: `make docs`."""
    assert writer.PAGE.read_text(encoding="utf-8") == writer.page(table)
    source = writer.MODULE.read_text(encoding="utf-8")
    assert source == writer.module(table, source)
    assert 8 <= len(table) <= 11
    for row in table:
        assert row.what, row
        assert row.without, row
        assert row.offers, row
        assert row.asks, row
    offered = {row.name: row.offers for row in table}
    assert {"spaces/widths", "spaces/compression"} == set(offered["Pretrained"])
    assert "costs/memory" in offered["Terms"]
    assert "costs/tabular" not in offered["Terms"]


def test_the_table_holds_for_instances(table):
    """It is of classes; what an instance offers is decided by the same rule, or a search and the page disagree."""
    offered = {row.name: row.offers for row in table}
    assert len(SPACES) >= 20
    for param in SPACES:
        space = param.values[0]
        if space is not None:
            kind = f"spaces/{param.id.partition('-')[0]}"
            has = {name for name in offered if isinstance(space, getattr(abilities, name))}
            assert has == {name for name, plugins in offered.items() if kind in plugins}, kind


def test_links_lead_somewhere():
    import re

    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"
