"""What a head on the draft costs: the draft alone against the same answers with every step judged.

    python examples/head_cost.py QUESTIONS.jsonl --rows 6

Both sides answer each question greedily and take turns at going first. Printed are the tokens that the draft
decoded, which should be the same, and the ratio of wall times.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rsd_cli.cli import setup
from rsd_cli.cli.questions import GoldQuestion, read_questions
from rsd_cli.cli.shape import Shape
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.decoding.runner import Runner, finished
from rsd_cli.decoding.trajectory import Problem, Settings


def answer(
    loaded: LoadedTrio, strategy: str, tasks: list[GoldQuestion], max_tokens: int
) -> tuple[float, int, str]:
    """Seconds, tokens decoded by the draft, and the text; at threshold 0 every step stays."""
    settings = Settings(strategy, threshold=0.0, max_tokens=max_tokens, system=MATHS)
    problems = [Problem(task.id, task.question) for task in tasks]
    started, decoded, text = time.perf_counter(), 0, ""
    for happened in Runner(loaded, settings, loaded.shape.n_seats).run(problems):
        done = finished(happened)
        if done:
            decoded += done.usage["draft"].decoded
            text += done.trajectory.text
    return time.perf_counter() - started, decoded, text


def main() -> None:
    """Print both sides and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", type=Path)
    parser.add_argument("--trio", default="starter")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--seats", type=int, default=1)
    parser.add_argument("-n", "--max-tokens", type=int, default=400)
    args = parser.parse_args()
    cast = setup.find(setup.Choice(args.trio), setup.Access(), ("draft", "prm")).trio
    loaded = LoadedTrio(cast.models, cast.prm, Shape(n_seats=args.seats, reproducible=True), lambda: False)
    tasks = read_questions(args.questions, args.rows, need_gold=False)
    answer(loaded, "draft", tasks[:1], 32)  # warm
    seconds, decoded, texts = {"draft": 0.0, "rsd": 0.0}, {"draft": 0, "rsd": 0}, {"draft": "", "rsd": ""}
    for start in range(0, len(tasks), args.seats):
        order = ("draft", "rsd") if start // args.seats % 2 else ("rsd", "draft")
        for strategy in order:
            part = answer(loaded, strategy, tasks[start : start + args.seats], args.max_tokens)
            seconds[strategy] += part[0]
            decoded[strategy] += part[1]
            texts[strategy] += part[2]
    same = "the same text" if texts["draft"] == texts["rsd"] else "other text"
    print(f"draft alone: {decoded['draft']} tokens decoded in {seconds['draft']:.1f} s")
    print(f"judged:      {decoded['rsd']} tokens decoded in {seconds['rsd']:.1f} s, {same}")
    print(f"wall time x {seconds['rsd'] / seconds['draft']:.3f}")
    loaded.close()


if __name__ == "__main__":
    main()
