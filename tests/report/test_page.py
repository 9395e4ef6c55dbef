from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from report.fixture import synthetic, write_run
from sartor.core.errors import StateError
from sartor.report.page import ABSENT, write_page

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=20000",
    "--window-size=1280,2000",
)


class Outline(HTMLParser):
    """Ids, tags and visible text of a page; fails on elements that are not closed in order."""

    VOID = {"meta", "br", "link"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.text = ""
        self.references: list[str] = []
        self.stack: list[str] = []
        self.feed(page)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.references += [v for k, v in attrs if k in ("src", "href", "action", "data")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.stack):
            self.text += data


def browse(path, tmp_path):
    """The document after its scripts have run, and what the browser logged to the console."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def rewrite(folder, **changes):
    raw = {**synthetic(), **changes}
    (folder / "result.json").write_text(json.dumps(raw))
    return write_page(folder).read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "a run")


@pytest.fixture(scope="module")
def page(run):
    return write_page(run)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_a_browser_without_a_network_draws_every_plot(page, tmp_path):
    document, console = browse(page, tmp_path)
    assert console == []
    drawn = re.findall(r'<div class="plot[^>]*id="(\w+)"[^>]*data-drawn="yes"', document)
    assert drawn == ["trade_off", "widths", "prediction", "progress", "narrowing", "stages"]
    assert document.count('<svg class="main-svg"') >= len(drawn)
    assert document.count('class="heatmaplayer') >= 4


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_hostile_names_do_not_run(tmp_path):
    evil = "</script><script>console.error('ran')</script><img src=x onerror=console.error('ran')>"
    raw = synthetic(budgets=1)
    raw["title"] = raw["search"]["strategy"] = raw["ledger"]["stages"][0]["name"] = evil
    raw["environment"] = {evil: {evil: evil}}
    raw["search"]["choices"][0]["name"] = evil
    raw["reference"]["widths"] = {evil: 3, **raw["reference"]["widths"]}
    raw["curve"][0]["sentence"] = raw["curve"][0]["folder"] = evil
    raw["search"]["history"][0][f"{evil}loss"] = 1.0
    (tmp_path / "result.json").write_text(json.dumps(raw))
    document, console = browse(write_page(tmp_path), tmp_path)
    assert console == []
    assert document.count('data-drawn="yes"') == 6
    assert "<img" not in document


def test_the_page_is_whole_and_fetches_nothing(page):
    text = page.read_text()
    outline = Outline(text)
    assert outline.references == []
    assert len(outline.ids) == len(set(outline.ids)) == 12, "a place and its data for each of six plots"
    assert text.count("plotly.js v") == 1
    assert "default-src 'none'" in text
    assert not list(page.parent.glob("*.part"))
    figures = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    assert len(figures) == 6
    assert not any("<" in figure for figure in figures), "nothing in a figure can end its script element"


def test_the_page_says_what_a_person_asks(page):
    text = " ".join(Outline(page.read_text()).text.split())
    for words in (
        "digits on resnet14",
        "PASS0.94 ms (0.93-0.95) <= 0.96 ms",
        "2.04xthe speed of the reference",
        "At latency <= 0.96 ms: gain over uniform scaling: +1.9 points",
        "aimed at a tighter limit once (0.931 ms)",
        "fitted to 120 networks and tried on 40 others; its error there: NRMSE 2.1 %",
        "total10 min 31 s6166",
        "sartor verify 'a run'",
        "torch.export.load('budget_0/model.pt2').module()",
        "data / fingerprint5f2c9b0e41aa",
    ):
        assert words in text


def test_the_page_says_that_uniform_scaling_has_won(tmp_path):
    page = write_page(write_run(tmp_path / "run", scaled_wins=True, budgets=1)).read_text()
    text = " ".join(Outline(page).text.split())
    for words in (
        "searched is the search's own network.",
        "The winner is the uniformly scaled network: on the validation split it is better than the search's (98.33",
        "98.1 against 96.2 % on test: +1.9 points",
        "+1.9 pointsagainst the search's own network; interval +0.8 to +3.0 points",
    ):
        assert words in text
    assert page.count("<tr><th>searched</th>") == 1
    assert "searched is" not in " ".join(Outline(write_page(write_run(tmp_path / "other")).read_text()).text.split())


def test_only_files_that_exist_are_named(tmp_path):
    folder = write_run(tmp_path / "run", budgets=1)
    for name in ("model.pt2", "architecture.json", "model.onnx"):
        (folder / "budget_0" / name).unlink()
    text = Outline(write_page(folder).read_text()).text
    assert "load_file('budget_0/model.safetensors')" in text
    assert not any(name in text for name in ("model.pt2", "architecture.json", "model.onnx"))


def test_it_can_be_deleted_and_rebuilt_from_the_result_alone(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    first = rewrite(folder)
    (folder / "report.html").unlink()
    assert write_page(folder).read_text() == first
    assert "This folder holds no model files" in first


def test_an_empty_result_says_what_is_missing(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    page = write_page(tmp_path).read_text()
    text = Outline(page).text
    assert all(f"Not shown: {reason}" in text for _, reason in ABSENT.values())
    assert len(page) < 20_000, "without plots plotly is left out"


@pytest.mark.parametrize("value", [None, [], "<script>x</script>", {"<script>x</script>": {"<script>x": [None]}}])
def test_odd_parts_neither_crash_nor_break_the_page(tmp_path, value):
    (tmp_path / "result.json").write_text(json.dumps(dict.fromkeys(synthetic(), value)))
    page = write_page(tmp_path).read_text()
    assert "<script>x" not in page
    assert Outline(page).text.count("Not shown") >= len(ABSENT)


def test_an_unreadable_result_is_one_clear_error(tmp_path):
    with pytest.raises(StateError, match="does not exist"):
        write_page(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(StateError, match="is no JSON"):
        write_page(tmp_path)
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(StateError, match="not a list"):
        write_page(tmp_path)
    assert not (tmp_path / "report.html").exists()
