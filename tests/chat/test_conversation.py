"""What models read of a conversation: the accepted texts of its turns, in order."""

from __future__ import annotations

from rsd_cli.chat.conversation import Conversation
from rsd_cli.engine.templates import Message
from rsd_cli.rewards.families import Solution
from tests.batch.made import REWRITTEN, a_step
from tests.chat.talks import a_turn

FIRST = a_turn("One?", "A.\n\nB.", steps=(a_step(text="A.\n\n"), a_step(text="B.")))
SECOND = a_turn("Two?", "C.", steps=(a_step(text="C."),))


def test_a_new_conversation_tells_models_nothing():
    assert Conversation().last is None
    assert (Conversation().messages, Conversation().solutions) == ((), ())


def test_generators_read_questions_and_answers_in_turn():
    assert Conversation((FIRST, SECOND)).messages == (
        Message("user", "One?"),
        Message("assistant", "A.\n\nB."),
        Message("user", "Two?"),
        Message("assistant", "C."),
    )


def test_a_prm_reads_the_steps():
    assert Conversation((FIRST, SECOND)).solutions == (
        Solution("One?", ("A.\n\n", "B.")),
        Solution("Two?", ("C.",)),
    )


def test_rejected_drafts_are_read_by_nobody():
    talk = Conversation((a_turn(steps=(REWRITTEN,), answer=REWRITTEN.text),))
    assert "Wrong" not in repr((talk.messages, talk.solutions))


def test_turns_come_and_go_at_their_ends():
    both = Conversation().answered(FIRST).answered(SECOND)
    assert both.last == SECOND
    assert both.answers == {"A.\n\nB.", "C."}
    assert both.undone() == Conversation((FIRST,))
    assert both.without_oldest(1) == Conversation((SECOND,))
    assert both.without_oldest(2) == both.undone().undone() == Conversation()


def test_taking_back_nothing_is_nothing():
    assert Conversation().undone() == Conversation().without_oldest(3) == Conversation()
