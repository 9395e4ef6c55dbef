"""To make a metric large, and to make minus the metric small, are one search: found by itself for all that exists.

Floating-point numbers change sign without rounding, so what is compared is equal bit for bit unless it says otherwise.
"""

from __future__ import annotations

import html
import inspect
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Literal, get_args, get_origin, get_type_hints

import optuna
import pytest
from torch.nn.functional import cross_entropy

from contracts import checks
from contracts.test_evaluators import MAKERS
from negated import OPPOSITE, Opposite, opposite
from problems import small_problem
from sartor.cli import main
from sartor.core import plugins
from sartor.core.contracts import Evaluator
from sartor.core.errors import BudgetError, CapabilityError, ConfigError
from sartor.core.metrics import SHARE, Score
from sartor.core.records import Estimate, Objective, Proposal
from sartor.costs.macs import Macs
from sartor.costs.params import Params
from sartor.data.quality import accuracy, mean_of
from sartor.evaluators.synthetic import Synthetic
from sartor.jobs.compare.allowance import Allowance
from sartor.jobs.compare.folders import gather
from sartor.jobs.compare.run import Setup, compare
from sartor.jobs.fit import search as searching
from sartor.jobs.fit.api import fit_config
from sartor.jobs.optuna_study import export_studies
from sartor.jobs.search import search
from sartor.jobs.verify import verify
from sartor.report import compare as comparing
from sartor.report import plots, table
from sartor.run.comparison import Figures
from sartor.run.journal import FileJournal, read_logs, read_trials
from sartor.run.result import read
from sartor.run.runner import Limits, run
from sartor.run.schema import encode
from sartor.spaces.tiny import Tiny
from small import settings

optuna.logging.set_verbosity(optuna.logging.WARNING)

STRATEGIES = plugins.names("strategies")
EVALUATORS = plugins.names("evaluators")
ONLY_MAXIMISED = ("compression", "mnas_soft", "mnas_hard")
"""Rewards that multiply a quality, and are defined for one of which more is better."""


class Curved(Evaluator):
    """A closed-form accuracy that also says how it rose, for who learns from curves."""

    def __init__(self, problem):
        self.inner = Synthetic(problem, noise=0.01)

    def __call__(self, proposal, seed):
        early = [self.inner(replace(proposal, fidelity=proposal.fidelity * part), seed) for part in (0.2, 0.5, 1.0)]
        return {**early[-1], **{f"accuracy_{i}": found["accuracy"] for i, found in enumerate(early, 1)}}


def upright():
    """The small problem whose task has the objective's metric, so that supernets are judged by it, too."""
    problem = small_problem()
    costs = {**problem.costs, "params": Params(problem.space)}
    return replace(problem, costs=costs, task=replace(problem.task, metrics=accuracy(2)))


class Searched:
    """A search that has ended, and what it knows."""

    def __init__(self, cls, problem, evaluator, folder, settings):
        if settings.get("decoder") == "lagrangian":  # it takes one limit
            problem = replace(problem, constraints=problem.constraints[:1])
        self.problem, self.strategy = problem, cls(problem, 0, **{**cls.smoke, **settings})
        run(self.strategy, problem, evaluator, folder=folder, seed=0, limits=Limits(trials=checks.MAX_TRIALS))
        journal = FileJournal(folder / "journal.jsonl")
        self.trials, self.logs = read_trials(journal), read_logs(journal)
        self.artifacts = checks.artifacts(folder)

    def answers(self):
        """What it names under several limits, as a fit asks it, and its trials there, the best first."""
        costs, found = self.problem.costs, []
        full = {m: float(c([self.problem.space.reference])[0]) for m, c in costs.items()}
        shares = [
            {"macs": 0.6},
            {"macs": 0.45},
            {"macs": 0.35},
            {"memory_bytes": 0.8},
            {"macs": 0.5, "memory_bytes": 0.7},
        ]
        for limits in ({m: share * full[m] for m, share in point.items()} for point in shares):
            try:
                found.append(searching.solve(self.strategy, self.trials, costs, limits, self.problem.objectives[0]))
            except (BudgetError, CapabilityError):
                found.append(None)
            found.append(searching.ranked(self.trials, costs, limits, self.problem.objectives[0]))
        return found


def assert_the_same_by_minus_the_metric(cls, folder, **settings):
    problem = upright()
    judge = Curved(problem)
    plain = Searched(cls, problem, judge, folder / "plain", settings)
    mirror = Searched(cls, opposite(problem), Opposite(judge, "accuracy"), folder / "mirror", settings)
    assert plain.trials
    assert mirror.trials == [minus(t) for t in plain.trials]
    assert checks.same(mirror.logs, plain.logs)
    assert mirror.artifacts == plain.artifacts
    assert mirror.answers() == plain.answers()
    assert any(plain.answers())


def minus(trial):
    return replace(trial, metrics={k: -v if k.startswith("accuracy") else v for k, v in trial.metrics.items()})


NEEDS = {("partition", "latent"): {"share": "none"}}
"""Words that go with one of another setting only."""


def worded(cls, smoke):
    """Every word or switch that a setting can have and has not, as `SETTING-WORD` and a table."""
    hints = get_type_hints(cls.__init__)
    for setting in inspect.signature(cls).parameters.values():
        hint = hints.get(setting.name)
        words = get_args(hint) if get_origin(hint) is Literal else (True, False) if hint is bool else ()
        for word in words:
            if word not in (setting.default, smoke.get(setting.name)) and word not in ONLY_MAXIMISED:
                # the options of one of Optuna's samplers are none of another's
                more = {"options": {}} if "options" in smoke else NEEDS.get((setting.name, word), {})
                yield f"{setting.name}-{word}", {setting.name: word, **more}


def variants():
    """Every strategy, as it is, and with every word or switch that a setting can have."""
    for name in STRATEGIES:
        cls = plugins.load("strategies", name)
        yield pytest.param(cls, {}, id=name)
        yield from (pytest.param(cls, given, id=f"{name}-{words}") for words, given in worded(cls, cls.smoke))


def multiplying():
    """Every strategy that can multiply a quality, and the settings with which it does."""
    for name in STRATEGIES:
        cls = plugins.load("strategies", name)
        kinds = get_args(get_type_hints(cls.__init__).get("reward"))
        yield from (
            pytest.param(cls, {"reward": kind}, id=f"{name}-{kind}") for kind in kinds if kind in ONLY_MAXIMISED
        )
    proxyless = plugins.load("strategies", "proxyless")
    yield from (
        pytest.param(proxyless, {"gradient": "reinforce", "penalty": kind}, id=f"proxyless-{kind}")
        for kind in ("mul_log", "add_linear")
    )


def test_the_lists_are_not_short():
    assert len(STRATEGIES) >= 20
    assert len(EVALUATORS) >= 7
    assert len(list(variants())) >= 50
    assert len(list(multiplying())) >= 10


@pytest.mark.parametrize(("cls", "settings"), variants())
def test_a_strategy_does_the_same_by_minus_the_metric(cls, settings, tmp_path):
    assert_the_same_by_minus_the_metric(cls, tmp_path, **settings)


@pytest.mark.parametrize(("cls", "settings"), multiplying())
def test_what_multiplies_a_quality_refuses_one_to_be_minimised(cls, settings):
    problem = upright()
    cls(problem, 0, **{**cls.smoke, **settings})
    with pytest.raises(ConfigError, match=r"multiplies by a quality; 'accuracy' is minimised"):
        cls(opposite(problem), 0, **{**cls.smoke, **settings})


def measured():
    """The small problem with a metric that tells any two networks apart, and one of which less is better."""
    problem = small_problem()
    metrics = (
        mean_of(_probability, "accuracy", "max", SHARE),
        mean_of(partial(cross_entropy, reduction="none"), "cross_entropy", "min"),
    )
    return replace(problem, task=replace(problem.task, metrics=metrics).sealed())


def _probability(logits, target):
    return logits.softmax(1).gather(1, target[:, None])[:, 0]


def judges():
    """Every evaluator, as its contract tests make it, and with every word or switch that a setting can have."""
    for name in EVALUATORS:
        cls = plugins.load("evaluators", name)
        yield pytest.param(name, {}, id=name)
        yield from (pytest.param(name, given, id=f"{name}-{words}") for words, given in worded(cls, {}))
    yield pytest.param("distil", {"recipe": LIVELY, "curve": True}, id="distil-lively")
    yield pytest.param("distil", {"recipe": LIVELY, "curve": True, "hopeless": 0.97}, id="distil-hopeless")


LIVELY = {"epochs": 5, "lr": 0.3, "device": "cpu"}
"""A training whose best epoch is not its last."""


def judge(name, problem, folder, settings):
    """An evaluator as its contract tests make it, with further settings."""
    folder.mkdir()
    cls = plugins.load("evaluators", name)
    return MAKERS[name](lambda *given, **own: cls(*given, **{**own, **settings}), problem, folder)


@pytest.mark.parametrize(("name", "settings"), judges())
def test_an_evaluator_says_minus_the_metric(name, settings, tmp_path):
    problem = measured()
    plain = judge(name, problem, tmp_path / "plain", settings)
    mirror = judge(name, opposite(problem), tmp_path / "mirror", settings)
    sees_data = hasattr(plain, "task")  # the others say what they know of an architecture, whatever it is wanted for
    names = {m.name for m in problem.task.metrics} if sees_data else set()
    seen = []
    for seed, arch in enumerate([(0, 0, 0), (1, 2, 3), (3, 0, 1), (3, 3, 3)]):
        for fidelity in (0.5, 1.0):
            one, two = (evaluator(Proposal(arch, fidelity), seed) for evaluator in (plain, mirror))
            assert two == {k: -v if re.sub(r"_\d+$", "", k) in names else v for k, v in one.items()}
            seen.append(one)
    assert len({found["accuracy"] for found in seen}) > 1
    if settings.get("recipe") is LIVELY:
        assert any(found["accuracy"] > found[f"accuracy_{found['epochs']:.0f}"] for found in seen)
        assert any(found["epochs"] < 5 for found in seen[1::2]) == ("hopeless" in settings)


@pytest.mark.parametrize("name", [n for n in EVALUATORS if hasattr(plugins.load("evaluators", n), "inherit")])
def test_an_evaluator_hands_on_the_same_weights_by_minus_the_metric(name, tmp_path):
    problem, given = measured(), {"recipe": LIVELY} if name == "distil" else {}
    for folder, posed in (("plain", problem), ("mirror", opposite(problem))):
        evaluator = judge(name, posed, tmp_path / folder, given)
        evaluator.inherit(Proposal((1, 2, 3)), 0, parent=None, keep=tmp_path / folder / "kept")
    assert (tmp_path / "plain/kept").read_bytes() == (tmp_path / "mirror/kept").read_bytes()


UNITS = {"dB": ("negated:loud", "negated:quiet"), "share": ("negated:sure", "negated:unsure")}
"""Unit of a metric, to the tasks that want it large, and minus it small."""


@pytest.fixture(scope="module", params=UNITS)
def twins(request, tmp_path_factory):
    """The folders of two fits: by the metric, and by minus the metric."""
    folder = tmp_path_factory.mktemp(request.param)
    for name, task in zip(("plain", "mirror"), UNITS[request.param], strict=True):
        fit_config(job(task, budget={"macs": ["60%", "35%"]}), folder / name, command="sartor fit")
    return folder / "plain", folder / "mirror"


def job(task, **changes):
    given = {
        "task": {"name": task},
        "strategy": {"name": "random_search", "trials": 8},
        "evaluator": {"name": "train"},
        "training": {"epochs": 2, "lr": 0.3, "device": "cpu"},
        "verification": {"rounds": 4, "sessions": 1, "processes": 1},
    }
    return settings(**{**given, **changes})


def flipped(result):
    """The result of the same run by minus the metric."""

    def entry(found):
        if found is None:
            return None
        scores = {n: Score(-s.value, -s.high, -s.low, s.examples) for n, s in found.scores.items()}
        return replace(found, scores=scores, valid={n: -v for n, v in found.valid.items()})

    points = tuple(replace(p, searched=entry(p.searched), uniform=entry(p.uniform)) for p in result.points)
    metrics = tuple(replace(m, goal=OPPOSITE[m.goal]) for m in result.metrics)
    objectives = tuple(Objective(o.metric, OPPOSITE[o.goal]) for o in result.search.objectives)
    search = replace(result.search, objectives=objectives)
    return replace(result, metrics=metrics, reference=entry(result.reference), points=points, search=search)


def unsigned(text):
    """A text without the signs of its numbers."""
    return re.sub(r"-(?=\d)", "", text)


def at_the_same_speed(result, other):
    """`result` with the times and the place of `other`: what no two runs share."""

    def entry(ours, theirs):
        return None if ours is None else replace(ours, latency_ms=theirs.latency_ms)

    points = tuple(
        replace(
            p, searched=entry(p.searched, q.searched), uniform=entry(p.uniform, q.uniform), reason=unsigned(p.reason)
        )
        for p, q in zip(result.points, other.points, strict=True)
    )
    reference = entry(result.reference, other.reference)
    return replace(result, reference=reference, points=points, spent=other.spent, environment=other.environment)


def test_a_fit_by_minus_the_metric_is_the_mirror(twins):
    (plain, trace), (mirror, mirrored) = map(read, twins)
    assert len({t.arch for t in trace.trials}) > 4
    metric = plain.metric.name
    opposed = [replace(t, metrics={k: -v if k == metric else v for k, v in t.metrics.items()}) for t in trace.trials]
    assert list(mirrored.trials) == opposed
    wanted, found = at_the_same_speed(flipped(plain), plain), at_the_same_speed(mirror, plain)
    # the ends of a bootstrap are interpolated from the other side
    for one, two in zip(wanted.networks.values(), found.networks.values(), strict=True):
        assert two.scores[metric].value == one.scores[metric].value
        assert two.scores[metric].low == pytest.approx(one.scores[metric].low, rel=1e-12)
        assert two.scores[metric].high == pytest.approx(one.scores[metric].high, rel=1e-12)
    assert without_ends(found) == without_ends(wanted)
    assert [p.delivered for p in mirror.points] == [p.delivered for p in plain.points]
    for p in plain.points:
        inside = [t for t in trace.trials if t.metrics[metric] is not None and macs(plain, t.arch) <= p.budget["macs"]]
        assert (
            p.searched.arch
            == max(inside, key=lambda t: t.metrics[metric]).arch
            != min(inside, key=lambda t: t.metrics[metric]).arch
        )
        assert (p.delivered == "uniform") == (
            p.uniform.arch != p.searched.arch and p.uniform.valid[metric] > p.searched.valid[metric]
        )
        assert p.reason or p.uniform.arch == p.searched.arch


def macs(result, arch):
    space = Tiny(widths=(4, 8, 12, 16), size=8)
    assert len(space.choices) == len(result.search.choices)
    return float(Macs(space)([arch])[0])


def without_ends(result):
    def entry(found):
        return found and replace(
            found, scores={n: Score(s.value, None, None, s.examples) for n, s in found.scores.items()}
        )

    points = tuple(replace(p, searched=entry(p.searched), uniform=entry(p.uniform)) for p in result.points)
    return encode(replace(result, reference=entry(result.reference), points=points))


def test_the_delivered_network_is_the_same_by_minus_the_metric(twins):
    plain, mirror = twins
    for point in read(plain)[0].points:
        one, two = ((folder / point.folder / "model.safetensors").read_bytes() for folder in (plain, mirror))
        assert one == two


def test_a_report_by_minus_the_metric_is_the_mirror(twins):
    """Of one run and its mirror image: the same sentences, and figures turned over."""
    result, trace = read(twins[0])
    name = result.metric.name
    image, seen = (
        flipped(result),
        replace(trace, trials=tuple(replace(t, metrics={**t.metrics, name: -t.metrics[name]}) for t in trace.trials)),
    )
    for one, two in zip(result.points, image.points, strict=True):
        assert unsigned(table.gain_sentence(two, image.metric)) == unsigned(table.gain_sentence(one, result.metric))
        assert re.findall(r"[+-][\d.]+ (?:points|dB)", table.gain_sentence(two, image.metric)) == re.findall(
            r"[+-][\d.]+ (?:points|dB)", table.gain_sentence(one, result.metric)
        )
        assert table.gain(two, image.metric).value == table.gain(one, result.metric).value
    assert numbers(table.summary_text(image)) == numbers(table.summary_text(result))
    drawn, mirrored = plots.draw(result, trace), plots.draw(image, seen)
    assert drawn.keys() == mirrored.keys() >= {"trade_off", "progress"} - ({"progress"} - drawn.keys())
    for title, figure in drawn.items():
        for one, two in zip(figure.data, mirrored[title].data, strict=True):
            assert (one.name, list(one.x)) == (two.name, list(two.x))
            if one.y is not None and list(one.y) != list(two.y):
                assert [-y for y in one.y] == list(two.y)
    assert any(list(a.y) != list(b.y) for a, b in zip(drawn["trade_off"].data, mirrored["trade_off"].data, strict=True))


def numbers(text):
    """How often each number is in a text, whatever its sign."""
    return Counter(re.findall(r"\d+(?:\.\d+)?", text))


def test_verify_says_the_same_by_minus_the_metric(twins):
    one, two = (verify(folder) for folder in twins)
    quality = [[c for c in found.checks if c.what == read(twins[0])[0].metric.name] for found in (one, two)]
    assert len(quality[0]) == len(quality[1]) >= 3
    for a, b in zip(*quality, strict=True):
        assert (a.network, a.holds, numbers(a.then), numbers(a.now)) == (
            b.network,
            b.holds,
            numbers(b.then),
            numbers(b.now),
        )
        assert a.holds
    assert (one.sentences, one.verdicts) == (two.sentences, two.verdicts)


def test_a_search_by_minus_the_metric_names_the_same(tmp_path):
    found = {}
    for name, task in zip(("plain", "mirror"), UNITS["dB"], strict=True):
        strategy = {"name": "regularized_evolution", "trials": 10, "population": 4}
        found[name] = search(
            job(task, strategy=strategy, training={"epochs": 1, "lr": 0.1}), tmp_path / name, command=""
        )
    assert found["plain"].found == found["mirror"].found
    assert (found["plain"].search.objectives[0].goal, found["mirror"].search.objectives[0].goal) == ("max", "min")


def test_a_study_by_minus_the_metric_has_the_same_best_trial(twins, tmp_path):
    best, directions = [], []
    for folder in twins:
        export_studies(folder, tmp_path / f"{folder.name}.db")
        study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{tmp_path / folder.name}.db")
        best.append(study.best_trial.number)
        directions.append(study.direction.name)
    assert directions == ["MAXIMIZE", "MINIMIZE"]
    assert best[0] == best[1]
    trials = read(twins[0])[1].trials
    # with constraints Optuna's best is the best of those inside
    assert trials[best[0]].metrics["evidence" if "evidence" in trials[0].metrics else "confidence"] is not None


@pytest.fixture(scope="module")
def contests(tmp_path_factory):
    """A comparison, and the one by minus the metric."""
    folder = tmp_path_factory.mktemp("contests")
    asked = Setup({"regularized_evolution": {"population": 3}}, Allowance("trials", 5), seeds=2)
    given = {"training": {"epochs": 1, "lr": 0.3, "device": "cpu"}, "budget": {"macs": "50%"}}
    return [
        compare(job(task, **given), folder / name, asked)
        for name, task in zip(("plain", "mirror"), UNITS["dB"], strict=True)
    ]


def test_a_comparison_by_minus_the_metric_is_the_mirror(contests):
    plain, mirror = contests
    assert (plain.metric.goal, mirror.metric.goal) == ("max", "min")
    assert [name for name, _ in plain.ranked] == [name for name, _ in mirror.ranked]
    assert mirror.reference.values == tuple(-v for v in plain.reference.values)
    assert (mirror.corner.worst, mirror.corner.best) == (-plain.corner.worst, -plain.corner.best)
    assert mirror.corner.cost == plain.corner.cost
    assert len({c.tested.mean for c in plain.contestants.values()}) > 1
    for name, ours in plain.contestants.items():
        theirs = mirror.contestants[name]
        assert theirs.tested.mean == -ours.tested.mean
        assert theirs.hypervolume == ours.hypervolume
        assert theirs.gain == pytest.approx(ours.gain) if ours.gain is None else same_gain(theirs.gain, ours.gain)
        for one, two in zip(ours.answers, theirs.answers, strict=True):
            assert (two.arch, two.quality, two.valid) == (one.arch, -one.quality, -one.valid)
            assert [mirror_of(t) for t in one.trials] == [timeless(t) for t in two.trials]


def same_gain(a, b):
    assert (a.value, a.method, a.verdict, a.sentence) == (b.value, b.method, b.verdict, b.sentence)
    return (a.low, a.high) == (b.low, b.high)


def timeless(trial):
    return replace(trial, seconds=None)


def mirror_of(trial):
    best = None if trial.best is None else -trial.best
    return replace(timeless(trial), quality=None if trial.quality is None else -trial.quality, best=best)


def test_the_page_of_a_comparison_by_minus_the_metric_has_the_same_sentences(contests):
    plain, mirror = contests
    assert list(comparing.sentences(plain)) == list(comparing.sentences(mirror))
    assert numbers(comparing.headline(plain)) == numbers(comparing.headline(mirror))


def test_runs_by_a_metric_and_by_minus_the_metric_are_not_compared(twins, tmp_path):
    with pytest.raises(ConfigError, match="their metrics differ"):
        gather(twins, tmp_path / "out")


def surfaces(folder, out, capsys):
    """All that a person reads of a fit: page, table, and what the commands print."""
    out.mkdir()
    (out / "recipe.toml").write_bytes((folder / "config.toml").read_bytes())
    asked = {
        "fit": [str(out / "recipe.toml"), str(folder), "--trust-code"],
        "report": [str(folder)],
        "verify": [str(folder), "--quiet"],
        "compare": [str(folder), "--out", str(out / "compared")],
    }
    found = {}
    for command, given in asked.items():
        assert main([command, *given]) in (0, 1)
        found[command] = capsys.readouterr().out
    found["page"] = (folder / "report.html").read_text()
    found["compare page"] = (out / "compared/compare.html").read_text()
    return found


def test_only_shares_are_shown_in_per_cent(twins, tmp_path, capsys):
    """Next to a value in decibels there is no per cent, on whatever surface, and next to a share always."""
    for folder in twins:
        (result, trace), metric = read(folder), read(folder)[0].metric
        scores = [n.scores[metric.name] for n in result.networks.values()]
        values = [v for s in scores for v in (s.value, s.low, s.high)]
        values += [t.metrics[metric.name] for t in trace.trials]
        figures = {
            f"{scale * abs(v):{form}}" for v in values for scale in (1, 100) for form in (".4g", ".1f", ".2f", ".6g")
        }
        for name, text in surfaces(folder, tmp_path / f"{folder.name}-out", capsys).items():
            percent = set(re.findall(r"([\d.]+)(?:\s|&nbsp;)*%", html.unescape(text)))
            decibels = set(re.findall(r"([\d.]+)(?:\s|&nbsp;)*dB", html.unescape(text)))
            right, wrong = (percent, decibels) if metric.unit == SHARE else (decibels, percent)
            assert right & figures or (right and name.startswith("compare")), name  # which shows means, too
            assert not wrong & figures, name


def test_the_page_of_a_comparison_by_minus_the_metric_is_the_mirror(contests):
    """Of one comparison and its mirror image, as no two runs take the same time: equal numbers, whatever their sign."""
    plain, _ = contests
    image = overturned(plain)
    assert numbers(comparing.page(image)) == numbers(comparing.page(plain))


def overturned(found):
    """The same comparison by minus the metric."""

    def figures(f):
        ends = f.interval and Estimate(-f.interval.value, -f.interval.high, -f.interval.low)
        return Figures(f.median and -f.median, f.mean and -f.mean, ends)

    def answer(a):
        return replace(
            a,
            quality=-a.quality,
            valid=-a.valid,
            trials=tuple(replace(mirror_of(t), seconds=t.seconds) for t in a.trials),
            others=tuple(replace(o, quality=-o.quality) for o in a.others),
        )

    contestants = {
        name: replace(c, tested=figures(c.tested), answers=tuple(map(answer, c.answers)))
        for name, c in found.contestants.items()
    }
    reference = replace(
        found.reference, values=tuple(-v for v in found.reference.values), tested=figures(found.reference.tested)
    )
    return replace(
        found,
        metric=replace(found.metric, goal=OPPOSITE[found.metric.goal]),
        contestants=contestants,
        reference=reference,
        corner=replace(found.corner, worst=-found.corner.worst, best=-found.corner.best),
    )
