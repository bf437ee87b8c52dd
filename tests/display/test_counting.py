"""How far long work is: in a log a line at once, then now and then, and one at the end."""

import time

from rsd_cli.display.counting import counting


def test_a_log_hears_at_once_then_seldom_and_of_the_end(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with counting("questions", 3) as tell:
        tell("nothing yet", 0)
        tell("one right")
        clock[0] += 31
        tell("still one", 0)
        tell("two")
        tell("all")
        tell("no more", 0)
    assert capsys.readouterr().err.splitlines() == [
        "questions 0 of 3  nothing yet",
        "questions 1 of 3  still one",
        "questions 3 of 3  all",
    ]
