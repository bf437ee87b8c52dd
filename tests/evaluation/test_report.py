"""The report: self-contained, harmless, and looked at in a real browser."""

import json
import random
import re
import struct
from dataclasses import replace

import pytest

from rsd_cli.evaluation.report import problems
from rsd_cli.evaluation.report.axes import axes, horizontal, vertical
from rsd_cli.evaluation.report.bars import rewards_of, rewards_picture, target_share_along
from rsd_cli.evaluation.report.page import report, write_report
from rsd_cli.evaluation.report.scatter import NARROW, WIDE, kind_of, scatter
from rsd_cli.evaluation.report.sections import task_section
from rsd_cli.evaluation.runs import Evaluation, TaskRun
from rsd_cli.evaluation.samples import Branch, Sample
from rsd_cli.records import Rejected, Step
from tests.evaluation.browser import drive, needs_browser, screenshot
from tests.evaluation.made import STRATEGIES, Trace, circumstances, evaluation_of, record_of, runs_of

MADE = evaluation_of(30, limit=30)
HOSTILE = (
    "</script><img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>]]>&amp;"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, MADE)
    return path


def hostile_evaluation():
    """Hostile text wherever text comes from outside."""
    steps = [
        Step(HOSTILE, "draft", 0.9, 10, 1.0),
        Step(HOSTILE, "target", None, 10, 1.0, Rejected(HOSTILE, 0.1, 5)),
    ]
    made = Trace(random.Random(0), steps=steps, kept=20)
    record = record_of(made, question=HOSTILE, answer=HOSTILE * 2, settings={HOSTILE: HOSTILE})
    branch = Branch(record, False, HOSTILE, "wrong")
    sample = Sample.single(HOSTILE, 0, {"question": HOSTILE}, HOSTILE, branch)
    run = replace(runs_of(1, ("rsd",))[0], name=HOSTILE, samples=(sample,))
    return Evaluation((TaskRun(HOSTILE, (run,)),), circumstances(config={HOSTILE: HOSTILE}))


def embedded(html, name):
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_asks_for_nothing_else():
    html = report(MADE)
    assert "default-src 'none'" in html
    for tag in ("<link", "<img", "<iframe", "src=", "@import", "url("):
        assert tag not in html
    addresses = set(re.findall(r"https?://[^\"' <]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_hostile_text_stays_text():
    html = report(hostile_evaluation())
    assert "<img" not in html
    assert html.count("<script") == html.count("</script>") == 3  # index, solutions, the page's own
    solutions = embedded(html, "solutions-0-0")
    assert solutions["0"][0]["steps"][1] == [HOSTILE, "t", None, 10, [HOSTILE, 0.1, 5]]


def test_every_problem_is_embedded_with_every_grade():
    html = report(MADE)
    index = embedded(html, "index")
    (task,) = index["tasks"]
    assert task["strategies"] == list(STRATEGIES)
    assert len(task["problems"]) == 30
    for k, run in enumerate(MADE.tasks[0].strategies):
        solutions = embedded(html, f"solutions-0-{k}")
        for sample, problem in zip(run.samples, task["problems"], strict=True):
            assert problem[0] == sample.doc_id
            assert problem[3][k] == [index["outcomes"].index(sample.outcome), sample.extracted]
            answers = solutions[str(sample.doc_id)]
            assert [len(answer["steps"]) for answer in answers] == [len(r.steps) for r in sample.records]
            (counted,) = [answer for answer in answers if answer["counts"]]
            assert counted["extracted"] == sample.extracted


def test_a_large_report_leaves_out_what_does_not_count(monkeypatch):
    whole = len(report(MADE))
    monkeypatch.setattr(problems, "LARGEST", 100_000)
    html = report(MADE)
    assert len(html) < whole / 2
    answers = embedded(html, f"solutions-0-{list(STRATEGIES).index('best-of-n@8')}")["3"]
    assert [answer["steps"] is not None for answer in answers] == [answer["counts"] for answer in answers]


def test_lone_surrogates_do_no_harm(tmp_path):
    sample = replace(MADE.tasks[0].strategies[0].samples[0], target="\udc80")
    run = replace(MADE.tasks[0].strategies[0], samples=(sample,))
    write_report(tmp_path / "report.html", Evaluation((TaskRun("x", (run,)),), circumstances()))
    assert (tmp_path / "report.html").read_text("utf-8")


def test_kinds_of_strategies():
    kinds = {run.name: kind_of(run) for run in MADE.tasks[0].strategies}
    assert kinds == {
        "rsd": "mixed",
        "rsd:threshold=0.4": "mixed",
        "rsd:threshold=0.9": "mixed",
        "target": "target",
        "draft": "draft",
        "majority@8": "other",
        "best-of-n@8": "other",
    }


def test_the_picture_has_every_strategy_the_chord_and_the_thresholds():
    drawn = scatter(MADE.tasks[0], WIDE)
    assert drawn.count('r="5.5"') == len(STRATEGIES)
    assert drawn.count('class="chord"') == 1
    (curve,) = re.findall(r'<polyline class="curve" points="([^"]*)"', drawn)
    assert len(curve.split()) == 3
    assert drawn.count('class="budgets"') == 2
    alone = scatter(TaskRun("x", runs_of(5, ("rsd",))), NARROW)
    assert 'class="chord"' not in alone
    assert 'class="curve"' not in alone
    assert "TFLOPs" in alone


def test_the_chord_ends_at_the_draft_and_the_target_alone():
    names = ("draft", "target", "majority@8", "speculative", "majority@8:target")
    several = TaskRun("gsm8k", runs_of(20, names))
    assert {kind_of(run) for run in several.strategies[3:]} == {"target", "other"}
    (chord,) = re.findall(r'<polyline class="chord" points="([^"]*)"', scatter(several, WIDE))
    dots = re.findall(r'cx="([0-9.]+)" cy="([0-9.]+)" r="5.5"', scatter(several, WIDE))
    places = [tuple(map(float, place.split(","))) for place in chord.split()]
    assert [places[0], places[-1]] == [tuple(map(float, dot)) for dot in dots[:2]]


def test_the_thresholds_are_joined_whatever_the_seats():
    runs = runs_of(10, ("rsd", "rsd:threshold=0.4"))
    others = tuple(with_settings(sample, n_seats=16, n_streams=8, threads=2) for sample in runs[1].samples)
    drawn = scatter(TaskRun("x", (runs[0], replace(runs[1], samples=others))), WIDE)
    assert 'class="curve"' in drawn
    others = tuple(with_settings(sample, max_tokens=9) for sample in runs[1].samples)
    drawn = scatter(TaskRun("x", (runs[0], replace(runs[1], samples=others))), WIDE)
    assert 'class="curve"' not in drawn


def with_settings(sample, **changes):
    record = sample.branches[0].record
    record = replace(record, settings=record.settings | changes)
    return replace(sample, branches=(replace(sample.branches[0], record=record),))


def without_answer(sample):
    return replace(sample, branches=(), right=False, extracted=None, outcome="error", error="too long")


def test_what_was_not_answered_has_no_place_in_the_picture():
    runs = runs_of(10, ("rsd", "target", "draft"))
    failed = replace(runs[0], samples=tuple(map(without_answer, runs[0].samples)))
    drawn = scatter(TaskRun("x", (failed, *runs[1:])), WIDE)
    assert re.findall("<circle.*?>", drawn) == re.findall(
        "<circle.*?>", scatter(TaskRun("x", runs[1:]), WIDE)
    )
    html = report(Evaluation((TaskRun("x", (failed,)),), circumstances()))
    assert "<figure><figcaption>Accuracy" not in html
    assert "10 error" in html


def test_a_problem_is_shown_by_its_question_where_one_strategy_failed():
    runs = runs_of(2, ("rsd", "target"))
    numbered = [
        replace(run, samples=tuple(replace(s, doc={"id": 1606} | s.doc) for s in run.samples)) for run in runs
    ]
    failed = replace(numbered[0], samples=tuple(map(without_answer, numbered[0].samples)))
    (task,) = embedded(report(Evaluation((TaskRun("x", (failed, numbered[1])),), circumstances())), "index")[
        "tasks"
    ]
    assert [problem[1] for problem in task["problems"]] == [s.doc["question"] for s in runs[0].samples]


@pytest.mark.parametrize("shares", [(0.43, 0.52), (0.0, 0.1), (0.2, 0.9), (0.56, 0.58)])
def test_a_line_of_the_grid_is_labelled_with_the_share_where_it_lies(shares):
    y = vertical(shares, WIDE)
    drawn = "".join(axes(WIDE, horizontal([1.0, 2.0], WIDE), y, ("compute", "accuracy")))
    labels = re.findall(r'text-anchor="end"[^>]*>([^<]*)%</text>', drawn)
    lines = re.findall(r'class="grid"[^>]*y1="([^"]*)"', drawn)
    assert [float(label) / 100 for label in labels] == pytest.approx(y.ticks(6))
    assert [float(line) for line in lines] == pytest.approx(
        [y(float(label) / 100) for label in labels], abs=0.06
    )
    assert max(map(len, labels)) <= len("42.5")


@pytest.mark.parametrize("names", [("target",), ("draft", "target"), ("majority@8",)])
@pytest.mark.parametrize("n", [1, 2])
def test_pictures_of_few_answers_have_finite_places(names, n):
    for frame in (WIDE, NARROW):
        drawn = scatter(TaskRun("x", runs_of(n, names)), frame)
        assert not re.search(r"\b(nan|inf)\b", drawn)
        places = [float(place) for place in re.findall(r'c[xy]="([^"]*)"', drawn)]
        assert all(-1 <= place <= frame.width for place in places)


def made_run(*steps):
    made = Trace(random.Random(0), steps=list(steps), kept=sum(step.tokens for step in steps))
    branch = Branch(record_of(made), True, "1", "right")
    return replace(MADE.tasks[0].strategies[0], samples=(Sample.single("rsd", 0, {}, "1", branch),))


def test_rewards_are_counted_by_what_became_of_the_step():
    run = made_run(
        Step("a", "draft", 1.0, 10, 1.0),
        Step("b", "draft", 0.72, 10, 1.0),
        Step("c", "target", None, 10, 1.0, Rejected("x", 0.0, 5)),
        Step("d", "target", None, 10, 1.0, Rejected("y", None, 5)),
    )
    found = rewards_of(run)
    assert [i for i, count in enumerate(found.accepted) if count] == [14, 19]
    assert [i for i, count in enumerate(found.rejected) if count] == [0]
    assert sum(found.accepted) + sum(found.rejected) == 3
    assert rewards_picture(found).count("<rect") == 3


def test_rewards_are_shown_of_what_could_be_rejected():
    seen = runs_of(3, ("rsd",))[0].samples
    looked = tuple(
        replace(
            one,
            branches=tuple(
                replace(b, record=replace(b.record, strategy="glimpse:target")) for b in one.branches
            ),
        )
        for one in seen
    )
    head = "Rewards of the draft's steps"
    for samples, shown in ((seen, True), (looked, False)):
        run = TaskRun("x", (replace(MADE.tasks[0].strategies[0], samples=samples),))
        drawn = task_section(run, Evaluation((run,), circumstances()))
        assert (head in drawn) == shown
        assert "Where the target writes" in drawn


def test_what_is_right_without_the_target_is_of_all_questions():
    own, other = Step("a", "draft", 1.0, 10, 1.0), Step("b", "target", None, 10, 1.0, Rejected("x", 0.0, 5))
    samples = [
        replace(made_run(step).samples[0], doc_id=i, right=right)
        for i, (step, right) in enumerate(((own, True), (own, False), (other, True)))
    ]
    run = TaskRun("x", (replace(MADE.tasks[0].strategies[0], samples=tuple(samples)),))
    drawn = task_section(run, Evaluation((run,), circumstances()))
    (table,) = re.findall(r"<table>(?:(?!<table>).)*no step by target.*?</table>", drawn)
    titles, cells = (re.findall(rf"<{tag}[^>]*>([^<]*)</{tag}>", table) for tag in ("th", "td"))
    shown = dict(zip(titles, cells, strict=True))
    assert (shown["no step by target"], shown["right without the target"]) == ("66.7%", "33.3%")


def test_a_step_is_spread_over_the_tenths_that_it_covers():
    """25 tokens of the draft, 50 of the target, 25 of the draft."""
    run = made_run(
        Step("a", "draft", 1.0, 25, 1.0), Step("b", "target", None, 50, 1.0), Step("c", "draft", 1.0, 25, 1.0)
    )
    assert target_share_along(run) == pytest.approx((0, 0, 0.5, 1, 1, 1, 1, 0.5, 0, 0))


LOOK = """
const visible = (element) => element.getClientRects().length > 0;
return {
  title: doc.title,
  listed: doc.querySelectorAll("#problems button").length,
  count: doc.getElementById("count").textContent,
  question: doc.querySelector("#problem .question").textContent,
  steps: doc.querySelectorAll("#problem .step").length,
  lost: doc.querySelectorAll("#problem .lost").length,
  rewards: doc.querySelectorAll("#problem .reward").length,
  pictures: [...doc.querySelectorAll("svg")].filter(visible).length,
  overflow: doc.documentElement.scrollWidth - doc.documentElement.clientWidth,
  images: doc.querySelectorAll("img").length,
  paper: win.getComputedStyle(doc.body).backgroundColor,
  address: win.location.hash,
};
"""


@needs_browser
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_problems_steps_and_pictures(page, width):
    sample = MADE.tasks[0].strategies[0].samples[4]
    found = drive(page, LOOK, width, "strategy=rsd&doc=4")
    steps = sample.records[0].steps
    assert found["title"] == "rsd eval: gsm8k"
    assert (found["listed"], found["count"]) == (30, "30 of 30")
    assert found["question"] == sample.records[0].question
    assert found["steps"] == len(steps)
    assert found["lost"] == sum(step.rejected is not None for step in steps)
    assert found["rewards"] == len(steps)  # each was judged: the kept draft's, or the rejected one's
    assert found["pictures"] == 1 + 2 * 3
    assert found["overflow"] == 0


@needs_browser
def test_a_browser_filters_searches_and_goes_where_it_is_clicked(page):
    script = """
    const change = (id, value, kind) => {
      doc.getElementById(id).value = value;
      doc.getElementById(id).dispatchEvent(new win.Event(kind, { bubbles: true }));
      return doc.getElementById("count").textContent;
    };
    const found = {};
    for (const filter of ["right", "wrong", "differs"]) found[filter] = change("filter", filter, "change");
    change("filter", "all", "change");
    found.searched = change("search", "sold 7 CLIPS", "input");
    found.nothing = change("search", "no such words", "input");
    found.empty = doc.getElementById("problem").textContent;
    change("search", "", "input");
    doc.querySelectorAll("#problems button")[2].click();
    found.current = doc.querySelector('#problems [aria-current="true"]').dataset.doc;
    [...doc.querySelectorAll("#problem .tabs button")].find((b) => b.textContent.includes("best-of-n@8")).click();
    found.branches = doc.querySelectorAll("#problem .tabs")[1].children.length;
    doc.querySelectorAll("#problem .tabs")[1].children[5].click();
    found.address = win.location.hash;
    const before = win.getComputedStyle(doc.body).backgroundColor;
    doc.getElementById("theme").click();
    found.turned = win.getComputedStyle(doc.body).backgroundColor !== before;
    return found;
    """
    found = drive(page, script)
    runs = MADE.tasks[0].strategies
    rights = [[sample.right for sample in run.samples] for run in runs]
    assert found["right"] == f"{sum(rights[0])} of 30"
    assert found["wrong"] == f"{30 - sum(rights[0])} of 30"
    differing = sum(len(set(grades)) > 1 for grades in zip(*rights, strict=True))
    assert found["differs"] == f"{differing} of 30"
    assert (found["searched"], found["nothing"]) == (f"{_having('sold', '7', 'clips')} of 30", "0 of 30")
    assert "No problem fits" in found["empty"]
    assert (found["current"], found["branches"]) == ("2", 8)
    assert "branch=5" in found["address"]
    assert found["turned"]


def _having(*words):
    """Problems in whose question, gold or answers all words stand."""
    rows = zip(*(run.samples for run in MADE.tasks[0].strategies), strict=True)
    texts = [
        " ".join(
            [row[0].records[0].question, row[0].target, *(sample.extracted or "" for sample in row)]
        ).lower()
        for row in rows
    ]
    return sum(all(word in text for word in words) for text in texts)


@needs_browser
def test_a_browser_runs_nothing_that_a_model_wrote(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, hostile_evaluation())
    found = drive(path, LOOK)
    assert found["title"].startswith("rsd eval: </script>")
    assert found["images"] == 0
    assert found["question"] == HOSTILE
    assert found["steps"] == 2
    assert found["lost"] == 1


@needs_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_paints_it(page, theme, tmp_path):
    picture = tmp_path / "picture.png"
    screenshot(page, picture, (390, 800), f"theme={theme}")
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (390, 800)
    assert len(data) > 20_000  # an empty page is far smaller
    background = drive(page, LOOK, 390, f"theme={theme}")["paper"]
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 29)"}[theme]
