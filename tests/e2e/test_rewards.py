"""Families on the real small models: published token counts, and rewards that grow as they are read whole."""

import json
from pathlib import Path

import pytest

from rsd_cli.cli import setup
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.engine.context import ContextOptions
from rsd_cli.engine.jobs import Observed
from rsd_cli.engine.llama import Model
from rsd_cli.engine.seats import Engine
from rsd_cli.engine.templates import ChatTemplate, Renderer
from rsd_cli.rewards.draft_head import DraftHead
from rsd_cli.rewards.families import Solution
from rsd_cli.rewards.heads import load_head
from rsd_cli.rewards.judge import Judge
from rsd_cli.rewards.marker import Marker
from rsd_cli.rewards.scoring import score
from rsd_cli.rewards.value_head import EXTRA_0, LAYOUTS, ValueHead
from tests.e2e.test_real_models import rsd
from tests.rewards.test_readers import a_head

pytestmark = pytest.mark.model

# llama.cpp rounds activations by the number of rows at once, which moves this Q4_K model's logits by up to 0.3. Heads
# feel it little, a softmax of two logits much more.
ROUNDING = 0.02
GOLDEN = json.loads(Path(__file__).with_name("skywork_golden.json").read_text("utf-8"))["cases"]
STARTER = Path(setup.__file__).parent.parent / "heads" / "starter-0.5b.safetensors"
QUESTION = "Natalia sold clips to 48 friends in April, and half as many in May. How many altogether?"
STEPS = ("In May she sold 48 / 2 = 24 clips.\n\n", "Together that is 48 + 24 = 72.\n\n", "\\boxed{72}\n\n")
WRONG = (STEPS[0], "Together that is 48 - 24 = 20.\n\n", "\\boxed{20}\n\n")


@pytest.fixture(scope="module")
def qwen():
    model = Model(setup.find_model("qwen2.5-coder-0.5b", setup.Access(quiet=True)).path)
    yield model
    model.close()


@pytest.fixture(scope="module")
def template(qwen):
    renderer = Renderer()
    yield ChatTemplate(qwen, renderer)
    renderer.close()


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['id']} {case['condition']}")
def test_skyworks_inputs_have_the_published_number_of_tokens(case, qwen, template):
    solution = Solution(case["problem"], tuple(step + "\n" for step in case["steps"]))
    ids = LAYOUTS["skywork"](qwen, template, solution, "\n")
    assert len(ids) == case["input_tokens"]
    assert (case["target_token_index"], ids[-1]) == (len(ids) - 1, 198)
    assert ids.count(198) == len(case["steps"])


def test_qwens_prms_read_at_an_id_that_no_text_gives(qwen, template):
    ids = LAYOUTS["qwen-prm"](qwen, template, Solution(QUESTION, STEPS), "")
    assert [i for i, token in enumerate(ids) if token == EXTRA_0][-1] == len(ids) - 1
    assert ids.count(EXTRA_0) == len(STEPS)
    assert EXTRA_0 not in qwen.tokenize("<extra_0><|quad_end|>")


def families(model, template):
    """All that this vocabulary can play: Math-Shepherd's marker is one token in Mistral's alone."""
    head = a_head(model.n_embd)
    three = a_head(model.n_embd, outputs=3, activation="softmax", classes=(1, 2))
    yield "judge", Judge(model, template)
    yield "skywork", ValueHead(model, template, head, "skywork", "\n\n")
    yield "qwen-prm", ValueHead(model, template, head, "qwen-prm", "")
    yield "trl", ValueHead(model, template, head, "trl", "\n")
    yield "reasoneval", ValueHead(model, template, three, "reasoneval", "")
    yield "rlhflow", Marker(model, template, "rlhflow")
    yield "math-psa", Marker(model, template, "math-psa")
    yield "versaprm", Marker(model, template, "versaprm")
    yield "genprm-direct", Marker(model, template, "genprm-direct")
    yield "draft-head", DraftHead(model, template, load_head(STARTER), MATHS)


@pytest.fixture(scope="module", params=[1, 8])
def engines(request, qwen):
    """For readers of logits or not: an engine that reads everything from the start, and one with seats."""
    made = {
        exact: (
            Engine(qwen, ContextOptions(512, exact=exact)),
            Engine(qwen, ContextOptions(512, request.param, n_batch=136, exact=exact)),
        )
        for exact in (False, True)
    }
    yield made
    for pair in made.values():
        for engine in pair:
            engine.close()


@pytest.mark.parametrize("parallel", ["1", "8"])
def test_the_starters_rewards_while_decoding_equal_those_of_the_finished_text(
    parallel, qwen, template, tmp_path
):
    """Of kept and of rejected steps; a step that the limit cut off is neither judged as ended nor as one to go on."""
    questions = [f"{i + 2} friends buy {i + 3} pens each. How many pens are that?" for i in range(8)]
    asked = tmp_path / "questions.jsonl"
    asked.write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))
    done = rsd("batch", str(asked), "-o", str(tmp_path / "out.jsonl"), "-n", "120", "--parallel", parallel)
    assert done.returncode == 0, done.stderr
    reader = DraftHead(qwen, template, load_head(STARTER), MATHS)
    engine = Engine(qwen, ContextOptions(512, 1))
    judged = [
        found
        for line in (tmp_path / "out.jsonl").read_text().splitlines()
        for found in judged_steps(json.loads(line)["rsd"]["samples"][0])
    ]
    apart = [
        abs(reward - from_scratch(engine, reader, steps, question)) for question, steps, reward in judged
    ]
    engine.close()
    assert len(apart) > len(questions)
    assert max(apart) <= ROUNDING


def judged_steps(record):
    """Question, steps and reward of each of the draft's steps that ended by itself."""
    kept: tuple[str, ...] = ()
    for step in record["steps"]:
        for own in (step, step.get("rejected") or {}):
            if own.get("reward") is not None and own["text"].endswith("\n\n"):
                yield record["question"], (*kept, own["text"]), own["reward"]
        kept += (step["text"],)


def from_scratch(engine, reader, steps, question=QUESTION):
    engine.forget()
    return read(engine, reader, Solution(question, steps))


def test_rewards_that_grow_equal_rewards_from_scratch(qwen, template, engines):
    """Also with a rejected step between."""
    for name, reader in families(qwen, template):
        fresh, grown = engines[isinstance(reader, Marker | Judge)]
        solutions = [(str(i), Solution(QUESTION, WRONG if i % 2 else STEPS)) for i in range(len(grown.seats))]
        known = {
            steps[:n]: from_scratch(fresh, reader, steps[:n]) for steps in (STEPS, WRONG) for n in (1, 2, 3)
        }
        for one in score(grown, reader, solutions):
            for n, reward in enumerate(one.rewards, 1):
                assert abs(known[one.solution.steps[:n]] - reward) <= ROUNDING, name
        read(grown, reader, Solution(QUESTION, WRONG[:2]), release=False)
        after = read(grown, reader, Solution(QUESTION, STEPS[:2]))
        assert abs(known[STEPS[:2]] - after) <= ROUNDING, name


def read(engine, reader, solution, *, release=True):
    engine.submit(0, reader.job(solution))
    while engine.busy:
        seen = [update for update in engine.step() if isinstance(update, Observed)]
    if release:
        engine.release(0)
    return reader.reward(seen[0], solution)
