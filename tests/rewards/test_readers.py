"""Families that read: what they lay out, and that growing a solution scores as reading it whole does."""

import math
from typing import Any

import numpy as np
import pytest

from rsd_cli.engine.jobs import Observed
from rsd_cli.engine.templates import ChatTemplate, Renderer
from rsd_cli.errors import ModelError
from rsd_cli.rewards.draft_head import DraftHead
from rsd_cli.rewards.families import Solution
from rsd_cli.rewards.features import FEATURES
from rsd_cli.rewards.heads import Head, Layer
from rsd_cli.rewards.judge import Judge
from rsd_cli.rewards.making import head_of, make_reader
from rsd_cli.rewards.marker import LAYOUTS as MARKERS
from rsd_cli.rewards.marker import Layout, Marker, math_shepherd, rlhflow, single_token
from rsd_cli.rewards.scoring import score
from rsd_cli.rewards.spec import PrmSpec
from rsd_cli.rewards.value_head import LAYOUTS, ValueHead, separator_ids

QUESTION = "What is 1 + 2?"
STEPS = ("We add 1 and 2.\n\n", "1 + 2 = 3\n\n", "So the answer is 3.\n\n")
OTHER = (STEPS[0], "1 + 2 = 4\n\n", "So 4.\n\n")


def a_head(n_embd, inputs=("hidden",), outputs=1, **options):
    random = np.random.default_rng(0)
    width = n_embd + len(inputs) - 1
    layer = Layer(random.normal(0, 0.1, (outputs, width)).astype(np.float32), np.zeros(outputs, np.float32))
    settings: dict[str, Any] = {
        "family": "value-head",
        "activation": "sigmoid",
        "separator": "\n\n",
    } | options
    return Head(hidden_size=n_embd, layers=(layer,), inputs=inputs, **settings)


@pytest.fixture
def templates():
    renderer = Renderer()
    yield lambda model: ChatTemplate(model, renderer)
    renderer.close()


def readers(model, template):
    """Every family that a tiny vocabulary can run."""
    head = a_head(model.n_embd)
    yield "judge", Judge(model, template)
    yield "skywork", ValueHead(model, template, head, "skywork", "\n\n")
    yield "skywork, newlines", ValueHead(model, template, head, "skywork", "\n")
    yield "trl", ValueHead(model, template, head, "trl", "\n")
    three = a_head(model.n_embd, outputs=3, activation="softmax", classes=(1, 2))
    yield "reasoneval", ValueHead(model, template, three, "reasoneval", "")
    yield "draft-head", DraftHead(model, template, a_head(model.n_embd, ("hidden", *FEATURES)), "Think.")
    yield "qwen-prm", ValueHead(model, template, head, "qwen-prm", "")
    for layout in MARKERS:
        yield layout, Marker(model, template, layout)


FAMILIES = (
    "judge",
    "skywork",
    "skywork, newlines",
    "trl",
    "reasoneval",
    "draft-head",
    "qwen-prm",
    *MARKERS,
)


@pytest.fixture
def reader(tiny_model, templates, monkeypatch):
    """Tiny vocabularies lack most markers; where they do, some token stands for them."""
    end = tiny_model("qwen2").tokenize("\n\n")[0]
    monkeypatch.setattr("rsd_cli.rewards.marker.single_token", lambda _model, _text: end)
    monkeypatch.setattr("rsd_cli.rewards.value_head.EXTRA_0", end)
    monkeypatch.setattr("rsd_cli.rewards.value_head.EXTRA_0_NAMES", ("\n\n",))

    def make(name, kind="qwen2"):
        return dict(readers(tiny_model(kind), templates(tiny_model(kind))))[name]

    return make


@pytest.mark.parametrize("name", FAMILIES)
def test_a_solution_begins_as_the_same_without_its_newest_step(name, reader):
    made = reader(name)
    for end in range(len(STEPS)):
        before, after = Solution(QUESTION, STEPS[:end]), Solution(QUESTION, STEPS[: end + 1])
        shorter, longer = made.context(before), made.context(after)
        assert longer[: len(shorter)] == shorter
        assert len(longer) > len(shorter)
        assert list(made.job(after).context[: len(longer)]) == longer


@pytest.mark.parametrize("seats", [1, 3, 8])
@pytest.mark.parametrize("name", FAMILIES)
def test_rewards_that_grow_equal_rewards_from_scratch(name, seats, reader, tiny_engine):
    made, engine = reader(name), tiny_engine("qwen2", n_seats=seats, n_ctx=1024)
    solutions = [(str(i), Solution(QUESTION, STEPS if i % 2 else OTHER)) for i in range(4)]
    for one in score(engine, made, solutions):
        fresh = tiny_engine("qwen2", n_ctx=1024)
        for end, reward in enumerate(one.rewards, start=1):
            part = Solution(QUESTION, one.solution.steps[:end])
            assert reward == pytest.approx(alone(fresh, made, part), abs=0.02)
            assert 0 <= reward <= 1


@pytest.mark.parametrize("kind", ["qwen2", "hybrid"])
@pytest.mark.parametrize("seats", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_rejected_step_leaves_no_trace(name, seats, kind, reader, tiny_engine):
    made, fresh = reader(name, kind), tiny_engine(kind, n_ctx=1024)
    engine = tiny_engine(kind, n_seats=seats, n_ctx=1024)
    paths = [(OTHER, STEPS) if seat % 2 else (STEPS, OTHER) for seat in range(seats)]
    together(engine, made, [Solution(QUESTION, rejected[:1]) for rejected, _ in paths])
    together(engine, made, [Solution(QUESTION, rejected[:2]) for rejected, _ in paths])
    kept = [Solution(QUESTION, steps) for _, steps in paths]
    rewards = together(engine, made, kept)
    assert rewards == pytest.approx([alone(fresh, made, solution) for solution in kept], abs=0.005)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_follow_up_begins_with_the_turns_before_it(name, reader):
    made = reader(name)
    first = Solution(QUESTION, STEPS)
    for later in (Solution("And 2 + 2?", OTHER[:1], (first,)), Solution("And 2 + 2?", OTHER, (first, first))):
        answered, asked = made.context(first), made.context(later)
        assert asked[: len(answered)] == answered
        assert len(asked) > len(answered)
        assert asked != made.context(Solution("And 3 + 2?", later.steps, later.earlier))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_new_step_costs_its_own_tokens(name, reader, tiny_engine):
    made, engine = reader(name), tiny_engine("qwen2", n_ctx=1024)
    alone(engine, made, Solution(QUESTION, STEPS[:1]), release=False)
    before = engine.seats[0].usage.fed
    second = Solution(QUESTION, STEPS[:2])
    alone(engine, made, second, release=False)
    own = len(made.job(second).context) - len(made.context(second.before))
    assert engine.seats[0].usage.fed - before <= own


def together(engine, made, solutions):
    """The rewards of a solution in every seat, read side by side; the seats keep what they read."""
    for seat, solution in enumerate(solutions):
        engine.submit(seat, made.job(solution))
    seen: dict[int, Observed] = {}
    while engine.busy:
        seen |= {update.seat: update for update in engine.step() if isinstance(update, Observed)}
    return [made.reward(seen[seat], solution) for seat, solution in enumerate(solutions)]


def alone(engine, made, solution, *, release=True):
    engine.submit(0, made.job(solution))
    while engine.busy:
        seen = [update for update in engine.step() if isinstance(update, Observed)]
    if release:
        engine.release(0)
    return made.reward(seen[0], solution)


def test_a_step_beyond_the_context_has_no_reward(reader, tiny_engine):
    engine = tiny_engine("qwen2", n_ctx=256)
    long = Solution(QUESTION, (STEPS[0], "and 1 " * 300 + "\n\n", STEPS[2]))
    rewards = next(score(engine, reader("trl"), [("a", long)])).rewards
    assert [math.isnan(reward) for reward in rewards] == [False, True, True]


def test_skywork_reads_each_piece_apart_and_then_one_separator(tiny_model, templates):
    model = tiny_model("qwen2")
    ids = LAYOUTS["skywork"](model, templates(model), Solution(QUESTION, STEPS[:2]), "\n\n")
    end = separator_ids(model, "\n\n")[-1]
    pieces = [*model.tokenize("We add 1 and 2."), end, *model.tokenize("1 + 2 = 3"), end]
    assert ids[-len(pieces) :] == pieces
    assert ids[: -len(pieces)][-len(model.tokenize(QUESTION + "\n")) :] == model.tokenize(QUESTION + "\n")


def test_a_vocabulary_without_the_marker_is_refused(tiny_model, templates):
    model = tiny_model()
    for name in ("math-shepherd", "versaprm", "math-psa"):
        with pytest.raises(ModelError, match="no single token"):
            Marker(model, templates(model), name)
    with pytest.raises(ModelError, match="<extra_0>"):
        LAYOUTS["qwen-prm"](model, templates(model), Solution(QUESTION), "")


def test_shepherd_numbers_the_steps_and_marks_their_ends(tiny_model, templates, monkeypatch):
    model = tiny_model()
    monkeypatch.setattr("rsd_cli.rewards.marker.single_token", lambda _model, _text: 7)
    ids = math_shepherd(model, templates(model), Solution(QUESTION, STEPS[:2]))
    parts = [*model.tokenize(" Step 1: We add 1 and 2."), 7, *model.tokenize("\nStep 2: 1 + 2 = 3"), 7]
    assert ids[-len(parts) :] == parts


def test_rlhflow_answers_every_step_with_a_plus_and_reads_behind_the_header(tiny_model, templates):
    model = tiny_model()
    template = templates(model)
    ids = rlhflow(model, template, Solution(QUESTION, STEPS[:2]))
    before, first, answer, second = template.scaffold(("user", "assistant", "user"))
    asked = model.tokenize(f"{QUESTION} We add 1 and 2.")
    assert ids == [
        *before,
        *asked,
        *first,
        *model.tokenize("+"),
        *answer,
        *model.tokenize("1 + 2 = 3"),
        *second,
    ]


def test_every_published_marker_layout_has_its_signs():
    assert {name: layout.signs for name, layout in MARKERS.items()} == {
        "math-shepherd": (" +", " -"),
        "rlhflow": ("+", "-"),
        "versaprm": ("+", "-"),
        "math-psa": (" +", " -"),
        "genprm-direct": ("Yes", "No"),
    }
    assert isinstance(MARKERS["rlhflow"], Layout)


def test_a_marker_that_is_one_token_is_found(tiny_model):
    model = tiny_model()
    assert [single_token(model, "\n\n")] == model.tokenize("\n\n")


def test_a_head_for_another_model_is_refused_with_both_numbers(tiny_model, templates):
    model = tiny_model()
    with pytest.raises(ModelError, match=rf"1,536 values.* {model.n_embd}"):
        ValueHead(model, templates(model), a_head(1536), "trl", "\n")


def test_a_head_of_a_trio_is_refused_by_size_and_by_family(tiny_model, templates, tmp_path):
    model, path = tiny_model(), tmp_path / "head.safetensors"
    a_head(model.n_embd).save(path)
    spec = PrmSpec("own", "value-head", "trl", path)
    assert isinstance(make_reader(spec, model, templates(model), "", head_of(spec)), ValueHead)
    with pytest.raises(ModelError, match="head of the family value-head"):
        head_of(PrmSpec("own", "draft-head", "", path))
    a_head(1536).save(path)
    with pytest.raises(ModelError, match="1,536 values"):
        make_reader(spec, model, templates(model), "", head_of(spec))
    with pytest.raises(ModelError, match="no head"):
        make_reader(spec, model, templates(model), "", None)


def test_a_state_that_is_not_finite_gives_no_reward(tiny_model, templates):
    model = tiny_model()
    made = ValueHead(model, templates(model), a_head(model.n_embd), "trl", "\n")
    state = np.full(model.n_embd, np.nan, np.float32)
    assert math.isnan(made.reward(Observed(0, hidden=state), Solution(QUESTION, STEPS)))
