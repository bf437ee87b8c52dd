"""A conversation with tiny models: what each of the three is fed by a follow-up."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import typer

from rsd_cli.chat.conversation import Conversation
from rsd_cli.chat.journal import Journal, Kept
from rsd_cli.cli import evaluate
from rsd_cli.cli.batch_run import Stdout
from rsd_cli.cli.conversing import Talk
from rsd_cli.cli.interrupt import Interrupt
from rsd_cli.cli.read_ahead import WRITERS, alike
from rsd_cli.cli.repl import Repl
from rsd_cli.cli.screen import Screen
from rsd_cli.cli.shape import Shape
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.cli.warm import FoundModel
from rsd_cli.decoding.strategies import parse
from rsd_cli.decoding.trajectory import Problem, Settings
from rsd_cli.engine.llama import DecodeAborted
from rsd_cli.engine.sampling import Sampling
from rsd_cli.engine.seat import common_prefix
from rsd_cli.errors import UsageError
from rsd_cli.rewards.families import Confidence, Solution
from rsd_cli.rewards.spec import PrmSpec
from tests.chat.talks import a_turn

HISTORY = "is so " * 300


@pytest.fixture
def talk(tiny):
    """A conversation of three models with 600 tokens behind it, which all of them have read."""
    paths = {"draft": tiny(seed=1), "target": tiny("other", seed=2), "prm": tiny("qwen2", seed=3)}
    interrupt = Interrupt()
    loaded = LoadedTrio(
        {role: FoundModel(role, path, None, None) for role, path in paths.items()},  # type: ignore[misc]
        PrmSpec("judge", "judge"),
        Shape(n_batch=128, threads=1),
        interrupt,
    )
    settings = Settings(threshold=0.5, max_tokens=60, max_steps=5, sampling=Sampling())
    screen = Screen(as_json=False, quiet=True, color=False, is_brief=True)
    made = Talk(loaded, interrupt, screen, {}, Kept("talk", "tiny", settings), Journal(None), 0.5)
    for role in loaded.models:
        loaded.engine(role)
    made.ask(HISTORY)
    with made.read_ahead as ahead:
        ahead.wait()
    yield made
    loaded.close()


def known_to(talk, role):
    """What a generator has read before the next question."""
    said = talk.conversation.messages
    return alike(lambda question: talk.loaded.prompt(role, talk.settings.system, question, said))


def new_tokens(talk, record, role, known):
    """What a generator did not have: the question, and the steps that the other model wrote."""
    asked = talk.loaded.prompt(role, talk.settings.system, record.question, talk.conversation.messages[:-2])
    model = talk.loaded.engine(role).model
    foreign = sum(len(model.tokenize(step.text)) for step in record.steps if step.author != role)
    return len(asked) - len(known) + foreign


def new_to_the_prm(talk, record, earlier):
    """What a judge reads by its protocol: each judged step, and what it is asked behind it."""
    family = talk.loaded.family
    known = alike(lambda question: family.context(Solution(question, earlier=earlier)))
    tokens, kept = 0, tuple[str, ...]()
    for step in record.steps:
        text = step.rejected.text if step.rejected else step.text
        asked = list(family.job(Solution(record.question, (*kept, text), earlier)).context)
        tokens += len(asked) - common_prefix(known, asked)
        known, kept = asked, (*kept, step.text)
    return tokens


def test_a_follow_up_feeds_each_model_only_its_new_tokens(talk):
    assert not isinstance(talk.loaded.family, Confidence)
    for question in ("And now?", "Is it so?", "And then 1 + 2?"):
        earlier = talk.conversation.solutions
        known = {role: known_to(talk, role) for role in WRITERS}
        assert min(map(len, known.values())) > 600
        record = talk.ask(question)
        for role in WRITERS:
            assert record.usage[role].fed <= new_tokens(talk, record, role, known[role]) + 2, role
        assert record.usage["prm"].fed <= new_to_the_prm(talk, record, earlier) + 2
        with talk.read_ahead as ahead:
            ahead.wait()


def test_reading_ahead_is_counted_and_stops_at_once(talk):
    before = dict(talk.read_ahead.fed)
    talk.ask("And now?")
    with talk.read_ahead:
        pass
    talk.ask("And then?")
    with talk.read_ahead as ahead:
        ahead.wait()
    assert sum(talk.read_ahead.fed.values()) > sum(before.values()) > 0


class Reading:
    """A read-ahead that is held in the middle of a decode; after `signals`, one by one, it goes on."""

    def __init__(self, talk, monkeypatch, *signals):
        self._loaded, self._signals = talk.loaded.loaded, signals
        self._begun, self._goes_on = threading.Event(), threading.Event()
        self.over = threading.Event()
        monkeypatch.setattr(talk.loaded, "loaded", self._held)

    def _held(self):
        if threading.current_thread() is not threading.main_thread():
            self._begun.set()
            assert self._goes_on.wait(10)
            time.sleep(0.1)
            self.over.set()
        return self._loaded()

    def disturb(self):
        """Send the signals from now on, once it reads."""
        assert self._begun.wait(10)
        threading.Thread(target=self._send).start()

    def _send(self):
        for number in self._signals:
            time.sleep(0.1)
            os.kill(os.getpid(), number)
        time.sleep(0.1)
        self._goes_on.set()


@pytest.fixture
def ctrl_c():
    """Ctrl-C is an exception, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.SIGINT
    signal.signal(signal.SIGINT, before)


def test_what_reads_ahead_is_over_whatever_interrupts_the_wait_for_it(talk, monkeypatch, ctrl_c):
    reading = Reading(talk, monkeypatch, ctrl_c, ctrl_c)
    with pytest.raises(KeyboardInterrupt), talk.read_ahead:
        reading.disturb()
    assert reading.over.is_set()


@pytest.mark.parametrize(("numbers", "code"), [("SIGINT", None), ("SIGTERM", 143), ("SIGHUP", 143)])
def test_a_signal_while_reading_ahead_ends_does_not_take_the_typed_line(
    numbers, code, talk, monkeypatch, ctrl_c, capsys
):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    reading = Reading(talk, monkeypatch, getattr(signal, numbers))

    class Reader:
        def read(self, _default=""):
            if reading.over.is_set():
                raise EOFError
            reading.disturb()
            return "/set seed 9"

    with talk.interrupt:
        try:
            Repl(talk).run(Reader())
        except typer.Exit as left:
            assert left.exit_code == code
        else:
            assert code is None
    assert talk.settings.seed == 9
    assert reading.over.is_set()
    capsys.readouterr()


def test_a_question_without_room_is_refused_before_anything_is_read(talk):
    turns = talk.conversation.turns
    with pytest.raises(UsageError, match="leaves no room for an answer") as refused:
        talk.ask("is so " * 3000)
    assert "/compact" in refused.value.hint
    assert talk.conversation.turns == turns


def test_a_conversation_that_can_not_be_taken_over_replaces_nothing(talk, tmp_path):
    talk.journal = Journal(tmp_path / "talk.jsonl")
    turns, settings = talk.conversation.turns, talk.settings
    assert turns
    with pytest.raises(UsageError, match="more than there are seats"):
        talk.replace_by(Conversation(), replace(settings, strategy="beam@4"))
    talk.journal.close()
    assert (talk.conversation.turns, talk.settings) == (turns, settings)
    assert (tmp_path / "talk.jsonl").read_bytes() == b""


def test_a_conversation_that_is_taken_over_keeps_its_threshold(talk):
    talk.replace_by(Conversation(), replace(talk.settings, strategy="judge", threshold=0.3))
    assert (talk.settings.strategy, talk.settings.threshold) == ("judge", 0.3)
    talk.set(replace(talk.settings, strategy="rsd"))
    assert talk.settings.threshold == 0.5, "the trio's, since another strategy means another scale"


def test_another_strategy_begins_anew(talk):
    options = {
        "weighting": "clip",
        "target_share": 0.2,
        "share_per": "problem",
        "beta": 5.0,
        "aggregate": "min",
    }
    talk.replace_by(Conversation(), replace(talk.settings, strategy="rsd-n@1", speculative=True, **options))
    talk.set(replace(talk.settings, seed=5))
    assert {name: getattr(talk.settings, name) for name in options} == options
    talk.set(replace(talk.settings, strategy="process-best-of-n@1"))
    usual = Settings()
    assert {name: getattr(talk.settings, name) for name in options} == {n: getattr(usual, n) for n in options}
    assert (talk.settings.seed, talk.settings.speculative) == (5, True)


def test_the_status_line_tells_what_decides(talk):
    repl = Repl(talk)
    assert "rsd at 0.5" in repl.status()
    talk.set(replace(talk.settings, target_share=0.2))
    assert "rsd at a target share of 0.2" in repl.status()


@pytest.mark.parametrize("per", ["run", "problem"])
def test_a_conversation_is_one_run_for_a_budget(per, talk):
    talk.set(replace(talk.settings, target_share=0.2, share_per=per))
    steps = sum(len(talk.ask(question).steps) for question in ("And now?", "And then?"))
    rules = talk.rulebook.rules(parse("rsd"), talk.settings, Problem("next", "And now?"))
    assert rules.accepts.budget.steps == (steps if per == "run" else 0)


def test_a_signal_that_comes_before_the_answer_begins_is_not_lost(talk):
    talk.interrupt.signal = signal.SIGINT
    assert talk.ask("And now?").ended_by == "interrupted"
    with talk.interrupt.at_rest():
        pass
    assert talk.ask("And now?").ended_by != "interrupted"


class Typed:
    """Lines, each followed by a signal at once."""

    def __init__(self, talk, number, *lines):
        self._talk, self._number, self.lines = talk, number, [*lines]

    def read(self, _default=""):
        if not self.lines:
            raise EOFError
        self._talk.interrupt.signal = self._number
        return self.lines.pop(0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("line", ["/compare", "And now?"])
def test_what_ends_all_is_not_forgotten_whatever_it_meets(line, number, talk, capsys):
    with pytest.raises((SystemExit, typer.Exit)) as left:
        Repl(talk).run(Typed(talk, number, line))
    assert getattr(left.value, "code", getattr(left.value, "exit_code", 0)) == 143
    capsys.readouterr()


def test_ctrl_c_in_a_comparison_at_a_terminal_ends_nothing_else(talk, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    typed = Typed(talk, signal.SIGINT, "/compare", "/stats")
    Repl(talk).run(typed)
    assert typed.lines == []
    capsys.readouterr()


@pytest.mark.parametrize("line", ["And now?", "/regen", "/undo", "/show context", "/stats", "/compact"])
def test_ctrl_c_while_the_prms_file_is_hashed_comes_back_to_the_prompt(line, talk, capsys, monkeypatch):
    def hashing(_spec):
        raise DecodeAborted

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(talk.loaded, "_make_family", hashing)
    talk.loaded._family = None
    typed = Typed(talk, signal.SIGINT, line, "/show settings")
    repl = Repl(talk)
    repl.run(typed)
    assert (typed.lines, repl.has_failed) == ([], False)
    assert "prm" not in [room.role for room in talk.rooms]
    capsys.readouterr()


class Told(io.TextIOWrapper):
    """A stdout that says that it is a terminal, or none; `text` is what it was told."""

    def __init__(self, *, is_terminal):
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, "utf-8")
        self.isatty = lambda: is_terminal  # type: ignore[method-assign]

    @property
    def text(self):
        self.flush()
        return self.bytes.getvalue().decode()


def deliver_json(text):
    Screen(as_json=True, quiet=True, color=False).deliver(a_turn(text))


def compared_json(text):
    evaluate._print_json({"question": text})


def batch_line(text):
    Stdout().append(json.dumps({"question": text}, ensure_ascii=False))


@pytest.mark.parametrize("tell", [deliver_json, compared_json, batch_line])
def test_a_terminal_does_not_obey_what_stands_in_json(tell, monkeypatch):
    hostile = "\x9b2J \u202e evil \x7f \U000e0041 but café"
    shown, piped = Told(is_terminal=True), Told(is_terminal=False)
    for told in (shown, piped):
        monkeypatch.setattr("sys.stdout", told)
        tell(hostile)
    assert json.loads(shown.text)["question"] == json.loads(piped.text)["question"] == hostile
    assert shown.text.rstrip("\n").isprintable()
    assert "but café" in shown.text
    assert hostile in piped.text


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_half_a_character_is_an_escape_in_json(encoding, monkeypatch):
    """A terminal can give one, as can an earlier conversation."""
    told = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(told, encoding))
    Screen(as_json=True, quiet=True, color=False).deliver(a_turn("Is it caf\udce9 or caf\u00e9?"))
    assert json.loads(told.getvalue().decode())["question"] == "Is it caf\udce9 or caf\u00e9?"
