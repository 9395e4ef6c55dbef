from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from report.fixture import mirrored, store, synthetic, write_run
from sartor.core.errors import StateError
from sartor.report.page import ABSENT, render, write_page

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
    result, trace = synthetic(budgets=1)
    point = replace(result.points[0], sentence=evil, reason=evil)
    choices = (replace(result.search.choices[0], name=evil), *result.search.choices[1:])
    stages = (replace(result.spent.stages[0], name=evil), *result.spent.stages[1:])
    result = replace(
        result,
        title=evil,
        task=evil,
        metrics=(replace(result.metric, unit=evil),),
        reference=replace(result.reference, options={evil: 3, **result.reference.options}),
        points=(point,),
        search=replace(result.search, strategy=evil, choices=choices, settings={evil: evil}),
        spent=replace(result.spent, stages=stages),
        environment={evil: {evil: evil}},
    )
    logs = ({**trace.logs[0], f"{evil}loss": 1.0}, *trace.logs[1:])
    store(tmp_path, result, replace(trace, logs=logs))
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
        "98.1 % against 96.2 % on test: +1.9 points",
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


def test_it_can_be_deleted_and_rebuilt(run):
    page = run / "report.html"
    first = write_page(run).read_text()
    page.unlink()
    assert write_page(run).read_text() == first


def test_without_model_files_it_says_so(tmp_path):
    folder = write_run(tmp_path / "run")
    for file in folder.glob("budget_*/*"):
        file.unlink()
    assert "This folder holds no model files" in write_page(folder).read_text()


def test_the_page_of_an_error_names_direction_and_gain(tmp_path):
    plain = write_page(store(tmp_path / "a", *synthetic(budgets=1))).read_text()
    page = write_page(store(tmp_path / "b", *mirrored(*synthetic(budgets=1)))).read_text()
    text = " ".join(Outline(page).text.split())
    assert "accuracy (less is better)" in text
    assert "down and left is better" in text
    gain = "Gain over uniform scaling: +1.9 points (+0.8 to +3.0)."
    assert gain in page
    assert gain in plain
    assert "up and left is better" in plain


def test_metrics_without_an_interval_are_named(tmp_path):
    result, trace = synthetic(budgets=1)

    def bare(entry):
        score = entry.scores["accuracy"]
        return replace(entry, scores={"accuracy": replace(score, low=None, high=None)})

    point = result.points[0]
    point = replace(point, searched=bare(point.searched), uniform=bare(point.uniform))
    result = replace(result, reference=bare(result.reference), points=(point,))
    text = " ".join(Outline(write_page(store(tmp_path, result, trace)).read_text()).text.split())
    assert "There is no interval for accuracy." in text
    assert text.count("(no interval)") == 3


def test_a_run_whose_search_has_left_nothing_says_what_is_missing(tmp_path):
    result, _ = synthetic(budgets=1)
    folder = store(
        tmp_path, replace(result, latency_model=None), replace(synthetic()[1], trials=(), logs=(), narrowing=())
    )
    text = Outline(write_page(folder).read_text()).text
    for name in ("prediction", "progress", "narrowing"):
        assert f"Not shown: {ABSENT[name][1]}" in text


def test_an_unreadable_result_is_one_clear_error(tmp_path):
    with pytest.raises(StateError, match="does not exist"):
        write_page(tmp_path)
    for content, words in (("{", "is not JSON"), ("[]", "not a list"), ("{}", "was written by sartor 0.1")):
        (tmp_path / "result.json").write_text(content)
        with pytest.raises(StateError, match=words):
            write_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_page_of_twenty_thousand_trials_is_small_and_says_what_it_leaves_out(tmp_path):
    result, trace = synthetic()
    trials = tuple(replace(trace.trials[i % 120], index=i) for i in range(20_000))
    page = render(result, replace(trace, trials=trials, logs=()), tmp_path)
    assert len(page.encode()) < 10e6
    assert page.count("Drawn: one in 5 of 20,000 candidates") == 2
