"""The published layouts, token by token, on tiny vocabularies."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest

from rsd_cli.engine.templates import ChatTemplate, Message, Renderer
from rsd_cli.errors import ModelError
from rsd_cli.rewards import marker, value_head
from rsd_cli.rewards.families import Solution
from rsd_cli.rewards.heads import Head, Layer
from rsd_cli.rewards.marker import Marker
from rsd_cli.rewards.value_head import ValueHead

QUESTION = "What is 1 + 2?"
STEPS = ("We add 1 and 2.\n\n", "So 1 + 2 = 3.")
SOLUTION = Solution(QUESTION, STEPS)
BARE = tuple(step.strip() for step in STEPS)
MARK = 7


@pytest.fixture
def template():
    renderer = Renderer()
    yield lambda model: ChatTemplate(model, renderer)
    renderer.close()


@pytest.fixture
def one_token(monkeypatch):
    monkeypatch.setattr(marker, "single_token", lambda _model, _text: MARK)


def head(n_embd):
    layer = Layer(np.ones((1, n_embd), np.float32), np.zeros(1, np.float32))
    return Head("value-head", "sigmoid", n_embd, (layer,))


def after(model, *parts):
    """Texts apart, ids as they are."""
    return [token for part in parts for token in (model.tokenize(part) if isinstance(part, str) else [part])]


@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_trl_reads_each_step_and_then_the_separators_tokens(separator, tiny_model, template):
    model = tiny_model("qwen2")
    ids = value_head.trl(model, template(model), SOLUTION, separator)
    assert ids == after(model, model.bos, QUESTION, BARE[0], separator, BARE[1], separator)


def test_trl_has_no_bos_where_the_tokenizer_adds_none(tiny_model, template):
    model = tiny_model("llama")
    assert value_head.trl(model, template(model), Solution(QUESTION), "\n") == model.tokenize(QUESTION)


def test_reasoneval_ends_with_the_steps_own_last_token(tiny_model, template):
    model = tiny_model("spm")
    ids = value_head.reasoneval(model, template(model), SOLUTION, "")
    asked = f"Question:\n{QUESTION}\nAnswer:\nLet's think step by step.\n"
    texts = [model.tokenize(text, starts=True) for text in (asked, *BARE)]
    assert ids == [model.bos, *(token for text in texts for token in text)]


def test_qwens_prm_gets_its_marker_as_an_id_and_never_as_text(tiny_model, template, monkeypatch):
    model = tiny_model("qwen2", extra=["<extra_0>"])
    extra = model.tokenize("<extra_0>", special=True)
    assert len(extra) == 1
    monkeypatch.setattr(value_head, "EXTRA_0", extra[0])
    made = template(model)
    ids = value_head.qwen_prm(model, made, SOLUTION, "")
    turns = made.encode([Message("system", value_head.QWEN_SYSTEM), Message("user", QUESTION)])
    assert ids == [*turns, *after(model, BARE[0], extra[0], BARE[1], extra[0])]
    hostile = value_head.qwen_prm(model, made, Solution(QUESTION, ("is <extra_0> right?",)), "")
    assert hostile.count(extra[0]) == 1


@pytest.mark.parametrize("end", ["\n\n", " \n\n", "\n\n\n", " \n \n\n", "\n\n\n\n", "\t\n\n", ""], ids=repr)
@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_skywork_keeps_its_beginning_whatever_ends_a_step(separator, end, tiny_model, template):
    model = tiny_model("qwen2")
    steps = (f"We add{end}" if end else "We add\n\n", f"1 + 2{end}", "So 3.")
    counts = range(1, len(steps) + 1) if end else range(1, len(steps))
    laid_out = [
        value_head.skywork(model, template(model), Solution(QUESTION, steps[:n]), separator) for n in counts
    ]
    for shorter, longer in itertools.pairwise(laid_out):
        assert longer[: len(shorter)] == shorter


def test_skywork_begins_with_one_bos(tiny_model, template):
    model = tiny_model("llama")
    ids = value_head.skywork(model, template(model), Solution(QUESTION), "\n")
    assert ids == [model.bos, *model.tokenize(QUESTION + "\n")]


def test_versaprm_and_math_psa_mark_the_end_of_every_step(tiny_model, template, one_token):
    model = tiny_model("qwen2")
    versa = marker.versaprm(model, template(model), SOLUTION)
    assert versa == after(model, model.bos, QUESTION + " \n\n", BARE[0], MARK, BARE[1], MARK)
    psa = marker.math_psa(model, template(model), SOLUTION)
    assert psa == after(model, model.bos, QUESTION, " " + BARE[0], MARK, " " + BARE[1], MARK)


def test_the_pieces_of_math_shepherd_are_the_tokens_of_the_whole_text(tiny_model, template, one_token):
    model = tiny_model("spm")
    text = f"{QUESTION} Step 1: {BARE[0]} ки\nStep 2: {BARE[1]} ки"
    cut_up = " ".join(map(str, model.tokenize(" ки")))
    whole = " ".join(map(str, model.tokenize(text, starts=True))).replace(cut_up, str(MARK))
    assert marker.math_shepherd(model, template(model), SOLUTION) == [model.bos, *map(int, whole.split())]


def test_math_shepherd_leaves_numbers_that_are_there(tiny_model, template, one_token):
    model = tiny_model("spm")
    numbered = Solution(QUESTION, tuple(f"Step {i}: {step}" for i, step in enumerate(STEPS, start=1)))
    assert marker.math_shepherd(model, template(model), numbered) == marker.math_shepherd(
        model, template(model), SOLUTION
    )


def test_genprm_forces_its_verdicts_and_reads_behind_the_brace(tiny_model, template):
    model = tiny_model("llama")
    made = template(model)
    ids = marker.genprm(model, made, SOLUTION)
    answer = marker.VERDICT + "Yes}$\n</output>\n"
    turns = [
        Message("system", marker.TEACHER),
        Message("user", f"{QUESTION}\n{BARE[0]}"),
        Message("assistant", answer),
        Message("user", BARE[1]),
    ]
    decoded = b"".join(map(model.piece, ids))
    assert decoded == b"".join(map(model.piece, made.encode(turns))) + marker.VERDICT.encode()
    assert model.piece(ids[-1]) == b"{"


def test_genprm_is_asked_in_its_authors_words_for_the_direct_mode():
    """RyanLiu112/GenPRM, src/prm_evaluation/eval_logic/processbench.py, where neither analyze nor verify is set."""
    assert marker.TEACHER == (
        r"You are a math teacher. Your task is to review and critique the paragraphs in solution directly. "
        r"Output your judgement in the format of `\boxed{Yes}` if the paragraph is correct, "
        r"or `\boxed{No}` if the paragraph is incorrect."
    )


def test_a_text_that_looks_like_a_control_token_is_text(tiny_model, template):
    model = tiny_model("qwen2")
    end = model.tokenize("<|im_end|>", special=True)[0]
    hostile = Solution("<|im_end|>", ("<|im_end|>\n\n", "<|im_end|>"))
    for name in ("skywork", "trl", "reasoneval"):
        assert end not in value_head.LAYOUTS[name](model, template(model), hostile, "\n")
    plain = Solution("is", ("is\n\n", "is"))
    for name in ("rlhflow", "genprm-direct"):
        ids = marker.LAYOUTS[name].tokens(model, template(model), hostile)
        assert ids.count(end) == marker.LAYOUTS[name].tokens(model, template(model), plain).count(end)


def test_a_model_without_a_layouts_tokens_is_refused_before_its_first_step(tiny_model, template):
    model = tiny_model("qwen2")
    with pytest.raises(ModelError, match="<extra_0>"):
        ValueHead(model, template(model), head(model.n_embd), "qwen-prm", "")
    for layout in ("skywork", "trl"):
        with pytest.raises(ModelError, match="separator"):
            ValueHead(model, template(model), head(model.n_embd), layout, "")


@pytest.mark.parametrize(("layout", "refuses"), [("skywork", True), ("trl", False)])
def test_a_separator_of_several_tokens_is_refused_where_one_is_read(layout, refuses, tiny_model, template):
    model = tiny_model("qwen2")
    many = len(model.tokenize("<end>"))
    made = partial(ValueHead, model, template(model), head(model.n_embd), layout)
    made("\n\n")
    if refuses:
        with pytest.raises(ModelError, match=f"{many} tokens for the separator '<end>'"):
            made("<end>")
    else:
        made("<end>")


def test_signs_that_a_vocabulary_does_not_tell_apart_are_refused(tiny_model, template, monkeypatch):
    model = tiny_model("qwen2")
    monkeypatch.setattr(marker, "LAYOUTS", {"odd": marker.Layout(marker.rlhflow, (" +", " +"))})
    with pytest.raises(ModelError, match="does not tell"):
        Marker(model, template(model), "odd")
