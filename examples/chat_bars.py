"""What a turn of `rsd chat` costs: what a follow-up feeds, its first token, Ctrl-C, and memory over many turns.

    python examples/chat_bars.py follow-up --prm qwen2.5-coder-0.5b
    python examples/chat_bars.py interrupt
    python examples/chat_bars.py memory --turns 200

`follow-up` asks behind a history of some 600 tokens: for each model what it was fed beside what was new, and the time
to the first token beside a bare llama_decode of the same tokens at the same place. `interrupt` presses Ctrl-C in a
terminal. `memory` pipes turns into the command and reads the size of its process.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rsd_cli.cli import setup
from rsd_cli.cli.opening import Given, Opening, opened
from rsd_cli.cli.read_ahead import WRITERS, alike
from rsd_cli.cli.screen import Screen
from rsd_cli.cli.shape import Shape
from rsd_cli.engine.floor import Floor
from rsd_cli.engine.sampling import Sampler, Sampling
from rsd_cli.engine.seat import common_prefix
from rsd_cli.rewards.families import Confidence, Solution

if TYPE_CHECKING:
    from collections.abc import Callable

    from rsd_cli.cli.conversing import Talk
    from rsd_cli.records import Author, Record

STORY = "".join(
    f"On day {day} the shop sold {day * 3 % 11 + 2} red and {day * 5 % 7 + 1} blue pens. "
    for day in range(1, 26)
)
FIRST = f"{STORY}How many red pens were sold on day 1 and day 2 together?"
FOLLOW_UPS = tuple(f"And on day {day} and day {day + 1}, how many blue pens?" for day in range(3, 13))
COMMAND = [sys.executable, "-m", "rsd_cli", "chat", "--no-log"]


def follow_up(trio: str, prm: str | None) -> None:
    """Print what each model was fed, and the ratio of first-token times."""
    wanted = Opening(
        Given(trio, prm=prm, max_tokens=160),
        setup.Access(),
        Shape(n_seats=1),
        Screen(as_json=False, quiet=True, color=False, is_brief=True),
        has_many_turns=True,
        journals=False,
    )
    with opened(wanted, time.perf_counter()) as (talk, _):
        talk.ask(FIRST)
        read_all(talk)
        ratios = [one_follow_up(talk, question) for question in FOLLOW_UPS]
    print(f"first token against bare: {statistics.median(ratios):.2f} (median of {len(ratios)})")


def read_all(talk: Talk) -> None:
    """Let the models read what was said, as they do while a person types."""
    talk.loaded.load_all()
    for role in talk.loaded.models:
        talk.loaded.engine(role)
    with talk.read_ahead as ahead:
        ahead.wait()


def one_follow_up(talk: Talk, question: str) -> float:
    """Ask, print what was fed beside what was new, take the turn back; gives the ratio of first-token times."""
    known = {role: alike(prompt_of(talk, role)) for role in WRITERS}
    new = {role: prompt_of(talk, role)(question)[len(known[role]) :] for role in WRITERS}
    history = talk.conversation.solutions
    record = talk.ask(question)
    facts = [
        f"{role} {record.usage[role].fed} of {upto(talk, record, role, len(new[role]))}" for role in WRITERS
    ]
    facts.append(f"prm {record.usage['prm'].fed} of {judged(talk, record, history)}")
    talk.undo()
    bare = bare_seconds(talk, new["draft"], len(known["draft"]))
    read_all(talk)
    first = (record.timings.first_token_ms or 0.0) / 1000
    print(f"fed, of new: {' | '.join(facts)} | first token {first * 1000:.0f} ms, bare {bare * 1000:.0f} ms")
    return first / bare


def prompt_of(talk: Talk, role: Author) -> Callable[[str], list[int]]:
    """A function from a question to the tokens that the role reads before its first step."""
    system, said = talk.settings.system, talk.conversation.messages
    return lambda question: talk.loaded.prompt(role, system, question, said)


def upto(talk: Talk, record: Record, role: Author, question: int) -> int:
    """The question's tokens, and those of the steps that the other model wrote."""
    model = talk.loaded.engine(role).model
    return question + sum(len(model.tokenize(step.text)) for step in record.steps if step.author != role)


def judged(talk: Talk, record: Record, history: tuple[Solution, ...]) -> int:
    """What a PRM of its own reads by its protocol: each judged step and what it is asked behind it."""
    family = talk.loaded.family
    if "prm" not in talk.loaded.models or family is None or isinstance(family, Confidence):
        return 0
    known, tokens = alike(lambda question: family.context(Solution(question, earlier=history))), 0
    kept: tuple[str, ...] = ()
    for step in record.steps:
        text = step.rejected.text if step.rejected else step.text
        asked = list(family.job(Solution(record.question, (*kept, text), history)).context)
        tokens += len(asked) - common_prefix(known, asked)
        known, kept = asked, (*kept, step.text)
    return tokens


def bare_seconds(talk: Talk, tokens: list[int], position: int) -> float:
    """A bare decode of the tokens behind the conversation, with one token drawn."""
    engine = talk.loaded.engine("draft")
    engine.context.cut(0, position)
    floor, sampler = Floor(engine), Sampler(engine.model, Sampling(), 0, [])
    started = time.perf_counter()
    floor.read(tokens, 1, position)
    sampler.draw(engine.context, len(tokens) - 1)
    seconds = time.perf_counter() - started
    engine.forget()
    sampler.close()
    floor.close()
    return seconds


def interrupt(trio: str, presses: int) -> None:
    """Print how long an answer goes on after Ctrl-C: while the draft reads, the draft writes, the target writes."""
    import pexpect

    phases = {"loading|starting|draft reads": (), "draft writes": (), "target writes": ("--threshold", "1")}
    for words, more in phases.items():
        times = []
        for _ in range(presses):
            terminal = pexpect.spawn(
                COMMAND[0], [*COMMAND[1:], "--trio", trio, *more], dimensions=(30, 100), timeout=90,
                env=os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"},
            )  # fmt: skip
            terminal.expect(b"/help lists")
            terminal.send(f"{FIRST}\r")
            terminal.expect(words.encode())
            time.sleep(0.2)
            started = time.perf_counter()
            terminal.sendintr()
            terminal.expect([b"interrupted: this", b"Nothing was written"])
            times.append(time.perf_counter() - started)
            terminal.close(force=True)
        shown = ", ".join(f"{seconds * 1000:.0f}" for seconds in times)
        print(f"Ctrl-C {words}: {shown} ms to the end of the answer")


def memory(trio: str, turns: int) -> None:
    """Print the size of the working process after a tenth of the turns and after all."""
    process = subprocess.Popen(
        [*COMMAND, "--trio", trio, "-n", "24", "--quiet", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    sizes = []
    for turn in range(turns):
        if turn % 20 == 19:
            process.stdin.write("/compact\n")
        process.stdin.write(f"What is {turn} + {turn + 1}?\n")
        process.stdin.flush()
        process.stdout.readline()
        sizes.append(resident(process.pid))
    process.stdin.close()
    process.wait()
    early = max(sizes[turns // 10 : turns // 5])
    print(f"{turns} turns: {early / 1e6:.0f} MB by turn {turns // 5}, {sizes[-1] / 1e6:.0f} MB at the end")


def resident(pid: int) -> int:
    """Bytes of the child that runs the models, without the pages of model files."""
    child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
    match = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text())
    return int(match[1]) * 1000 if match else 0


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("follow-up", "interrupt", "memory"))
    parser.add_argument("--trio", default="starter")
    parser.add_argument("--prm")
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--presses", type=int, default=3)
    args = parser.parse_args()
    if args.what == "follow-up":
        follow_up(args.trio, args.prm)
    elif args.what == "interrupt":
        interrupt(args.trio, args.presses)
    else:
        memory(args.trio, args.turns)


if __name__ == "__main__":
    main()
