"""Documentation that holds: examples run, links lead somewhere, commands exist, figures stand where a link says."""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from samples import SPACES
from sartor.core import abilities
from sartor.core.plugins import names
from sartor.run.result import Result
from sartor.run.schema import decode, encode

ROOT = Path(__file__).parents[1]
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
EXAMPLES = [p for p in PAGES if ">>> " in p.read_text(encoding="utf-8")]
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
FIELDS = ("Figure", "Script", "Result", "Seeds", "Conditions", "Fell short", "More")


def program(name: str) -> ModuleType:
    """A program of docs/ that writes a page, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


commands = program("commands")


def prose(page: Path) -> str:
    """A page without code blocks and comments."""
    return COMMENT.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(text: str) -> set[str]:
    """The names of a page's headings in links, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        found.add(next(s for s in (slug, *(f"{slug}-{i}" for i in range(1, 99))) if s not in found))
    return found


def broken(page: Path) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading of it."""
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        place = (page.parent / name).resolve() if name else page
        if not place.exists() or (anchor and anchor not in anchors(prose(place))):
            wrong.append(link)
    return wrong


def command_lines(page: Path) -> list[str]:
    """All lines of code on a page that call sartor, continued lines joined."""
    text = COMMENT.sub("", page.read_text(encoding="utf-8")).replace("\\\n", " ")
    inline = re.findall(r"`(sartor [a-z][^`]*)`", FENCE.sub("", text))
    # not indented lines of Python or TOML: a command stands alone, with a prompt or without
    return inline + re.findall(
        r"^(?: {4})?(?:\$ )?(sartor [a-z]+(?: .*?)?)(?: +#.*)?$", "\n".join(_code(text)), re.MULTILINE
    )


def _code(text: str) -> list[str]:
    fenced = FENCE.findall(text)
    indented = re.findall(r"^ {4,}\S.*$", FENCE.sub("", text), re.MULTILINE)
    return [*fenced, *indented]


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = text.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda p: p.stem)
def test_examples_run(page):
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried
    assert not failed


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert not broken(page), f"{page.relative_to(ROOT)} has links that lead nowhere"


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "b.md").write_text("# One: `two`\n\n## One two\n", encoding="utf-8")
    page = tmp_path / "a.md"
    page.write_text("[1](b.md#one-two) [2](b.md#one-two-1) [3](b.md#three) [4](c.md) [5](#x)\n", encoding="utf-8")
    assert broken(page) == ["b.md#three", "c.md", "#x"]


def test_every_page_is_reached_from_the_index():
    reached, open_ = set(), [DOCS / "index.md"]
    while open_:
        page = open_.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            links = re.findall(r"\]\(([^)\s#]+)", prose(page))
            open_ += [p for p in ((page.parent / link).resolve() for link in links if "://" not in link) if p.exists()]
    missing = [str(p.relative_to(ROOT)) for p in PAGES if p.resolve() not in {r.resolve() for r in reached}]
    assert not missing, "no page that docs/index.md leads to has a link to these"


def test_commands_page_lists_every_command():
    text = commands.PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^## sartor (\w+)$", text, re.MULTILINE)
    assert len(headings) >= 10
    assert sorted(headings) == sorted(names("cli"))
    assert sorted(m[1] for m in commands.BLOCK.findall(text)) == sorted(names("cli"))


def test_options_on_the_commands_page_are_those_of_the_commands():
    text = commands.PAGE.read_text(encoding="utf-8")
    assert text == commands.current(text), "the command line has changed: `make docs` writes the tables again"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_that_are_shown_exist(page):
    for line in command_lines(page):
        command = line.split()[1]
        assert command in names("cli"), f"no such command: {line}"
        wrong = set(re.findall(r"(?<=\s)--[a-z][\w-]*", line)) - commands.flags(command)
        assert not wrong, f"sartor {command} has no {', '.join(sorted(wrong))}: {line}"


def test_commands_are_found():
    assert len(command_lines(README)) >= 3
    assert sum(len(command_lines(p)) for p in PAGES) >= 40


@pytest.mark.parametrize("strategy", names("strategies"))
def test_every_strategy_is_on_the_page_of_methods(strategy):
    assert f"`{strategy}`" in (DOCS / "methods" / "README.md").read_text(encoding="utf-8")


def test_the_readme_says_what_it_is():
    first = README.read_text(encoding="utf-8")[:600]
    assert all(word in first for word in ("pruning", "neural architecture search", "latency", "PyTorch"))


def test_the_readme_has_few_figures_each_with_its_page():
    table = rows(README.read_text(encoding="utf-8"), "What is measured")
    assert 1 <= len(table) <= 8
    for what, figure, more in table:
        (link,) = re.findall(r"\]\(([^)]+)\)", more)
        name, _, anchor = link.partition("#")
        text = (ROOT / name).read_text(encoding="utf-8")
        section = next(s for s in re.split(r"^(?=## )", text, flags=re.MULTILINE) if anchor in anchors(s))
        missing = set(re.findall(r"\d[\d,.]*\d|\d", figure)) - set(re.findall(r"\d[\d,.]*\d|\d", section))
        assert not missing, f"{what}: {link} does not have {sorted(missing)}"


def test_every_benchmark_says_how_it_was_made():
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    sections = [s for s in re.split(r"^## ", text, flags=re.MULTILINE)[1:] if "**Figure:**" in s]
    assert len(sections) >= 20
    for section in sections:
        title = section.partition("\n")[0]
        assert [f for f in FIELDS if f"\n* **{f}:** " not in section] == [], title
        paths = re.findall(r"benchmarks/[\w./]+", section)
        assert paths, title
        assert [p for p in paths if not (ROOT / p).exists()] == [], title


def test_every_result_is_on_a_page():
    text = "".join(p.read_text(encoding="utf-8") for p in PAGES)
    files = sorted(p.name for p in (ROOT / "benchmarks" / "results").iterdir())
    assert len(files) >= 40
    assert [f for f in files if f not in text] == []


@pytest.fixture(scope="module")
def writer():
    return program("abilities")


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


def test_the_page_of_results_is_up_to_date():
    """A failure means: `make docs`."""
    writer = program("result_json")
    assert writer.PAGE.read_text(encoding="utf-8") == writer.current()


def test_the_example_of_a_result_is_one():
    writer = program("result_json")
    data = json.loads(writer.EXAMPLE.read_text(encoding="utf-8"))
    assert json.loads(writer.lines(data)) == data, "it is shown as it is"
    result = decode(Result, data, writer.EXAMPLE.name)
    assert encode(result) == data, "a field is missing or unknown: make another fit"
    assert result.verdict == "PASS"
    assert max(map(len, writer.lines(data).splitlines())) <= 120
