"""The layouts on the real vocabulary of Qwen2.5, against published ids and the text as a whole."""

from __future__ import annotations

import pytest

from rsd_cli.engine.llama import Model
from rsd_cli.engine.templates import ChatTemplate, Renderer
from rsd_cli.registry.loading import load_registry
from rsd_cli.registry.store import Store
from rsd_cli.rewards import marker, value_head
from rsd_cli.rewards.families import Solution

pytestmark = pytest.mark.model

STEPS = ("We add 1 and 2.\n\n", "So $1 + 2 = 3$\n\n", "The answer is \\boxed{3}.")


@pytest.fixture(scope="module")
def qwen():
    model = Model(Store().fetch(load_registry().model("qwen2.5-coder-0.5b")))
    yield model
    model.close()


@pytest.fixture(scope="module")
def template(qwen):
    renderer = Renderer()
    yield ChatTemplate(qwen, renderer)
    renderer.close()


@pytest.mark.parametrize(("separator", "token"), [("\n", 198), ("\n\n", 271)])
def test_skyworks_separator_is_one_token_apart_from_the_full_stop(separator, token, qwen, template):
    steps = tuple(step.strip() + separator for step in STEPS)
    ids = value_head.skywork(qwen, template, Solution("What is 1 + 2", steps), separator)
    texts = [part for step in STEPS for part in (qwen.tokenize(step.strip()), [token])]
    start = [151643, *qwen.tokenize("What is 1 + 2\n")]
    assert ids == [*start, *(i for text in texts for i in text)]
    assert 382 not in ids, "a full stop that swallowed the separator"


def test_qwens_marker_is_an_id_that_the_stock_vocabulary_calls_otherwise(qwen, template):
    assert qwen.special_text(value_head.EXTRA_0) == "<|quad_end|>"
    assert len(qwen.tokenize("<extra_0>", special=True)) == 5
    ids = value_head.qwen_prm(qwen, template, Solution("What is 1 + 2?", STEPS), "")
    assert ids.count(value_head.EXTRA_0) == len(STEPS)
    text = "".join(qwen.special_text(token) for token in ids)
    bodies = "<|quad_end|>".join(step.strip() for step in STEPS) + "<|quad_end|>"
    assert text == (
        f"<|im_start|>system\n{value_head.QWEN_SYSTEM}<|im_end|>\n"
        f"<|im_start|>user\nWhat is 1 + 2?<|im_end|>\n<|im_start|>assistant\n{bodies}"
    )
    assert ids == qwen.tokenize(text, special=True), "apart as at once"


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("\n", [198]), ("\n\n", [271]), (" \n\n\n\n", [22701]), (" \n\n\n\n\n", [76325]),
        ("+", [10]), ("-", [12]), (" +", [488]), (" -", [481]),
        ("Yes", [9454]), ("No", [2753]), ("{Yes", [90, 9454]),
    ],
)  # fmt: skip
def test_markers_and_signs_have_the_published_ids(text, published, qwen):
    assert qwen.tokenize(text) == published


@pytest.mark.parametrize("name", ["versaprm", "math-psa"])
def test_marked_steps_have_the_tokens_of_the_whole_text(name, qwen, template):
    solution = Solution("What is 1 + 2?", STEPS)
    first, rest = {"versaprm": (" \n\n", ""), "math-psa": (" ", " ")}[name]
    end = marker.LAYOUTS[name].marker
    text = solution.question + first + rest.join(step + end for step in solution.bare)
    assert marker.LAYOUTS[name].tokens(qwen, template, solution) == qwen.tokenize(text)


def test_genprm_reads_behind_the_brace(qwen, template):
    ids = marker.genprm(qwen, template, Solution("What is 1 + 2?", STEPS))
    assert ids[-1] == 90
    assert marker.Marker(qwen, template, "genprm-direct")._signs == (9454, 2753)
