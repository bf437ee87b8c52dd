"""Is the compute of records that of the tokens which went through llama_decode? Both counts, for every strategy.

    python examples/decoded.py QUESTIONS.jsonl --rows 8

Each strategy answers the same questions. On one side stand the tokens that records count, on the other those of all
rows that were decoded for them, each times 2 x parameters. Padding is told apart: a batch with a gap between its
streams costs more than one whose gap is filled with a token that is cut off again. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsd_cli.cli import setup
from rsd_cli.cli.eval_plan import contenders
from rsd_cli.cli.questions import read_questions
from rsd_cli.cli.shape import Shape
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.decoding.runner import Runner, finished
from rsd_cli.decoding.strategies import STRATEGIES
from rsd_cli.decoding.trajectory import Problem, Settings
from rsd_cli.engine.context import Context
from rsd_cli.engine.memory import Memory
from rsd_cli.records import ROLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rsd_cli.cli.questions import GoldQuestion
    from rsd_cli.engine.context import Row
    from rsd_cli.records import Role


@dataclass
class Seen:
    """Tokens by the identity of the context: all of them, and those that seats asked for."""

    everything: Counter[int] = field(default_factory=Counter)
    asked: Counter[int] = field(default_factory=Counter)


@contextmanager
def counting() -> Iterator[Seen]:
    """What is decoded from now on."""
    seen = Seen()
    of_context, of_memory = Context.decode, Memory.decode

    def decode(self: Context, rows: Sequence[Row], *, hidden: bool = False, fill: int = 1) -> list[int]:
        seen.everything[id(self)] += sum(len(row.tokens) for row in rows)
        return of_context(self, rows, hidden=hidden, fill=fill)

    def decode_asked(self: Memory, rows: Sequence[Row], *, hidden: bool, fill: int) -> list[int]:
        seen.asked[id(self._context)] += sum(len(row.tokens) for row in rows)
        return of_memory(self, rows, hidden=hidden, fill=fill)

    Context.decode, Memory.decode = decode, decode_asked  # type: ignore[method-assign]  # to watch them
    try:
        yield seen
    finally:
        Context.decode, Memory.decode = of_context, of_memory  # type: ignore[method-assign]


def compare(
    loaded: LoadedTrio, tasks: list[GoldQuestion], settings: Settings, n_samples: int
) -> dict[str, Any]:
    """FLOPs as counted and as decoded, over all questions."""
    counted: Counter[Role] = Counter()
    for engine in loaded.loaded().values():
        engine.forget()
    problems = [Problem(task.id, task.question, branch=i) for task in tasks for i in range(n_samples)]
    with counting() as seen:
        for happened in Runner(loaded, settings, loaded.shape.n_seats).run(problems):
            done = finished(happened)
            for role, usage in done.usage.items() if done else ():
                counted[role] += usage.decoded
    engines = loaded.loaded()
    decoded = {role: seen.asked[id(engine.context)] for role, engine in engines.items()}
    padding = {role: seen.everything[id(engine.context)] - decoded[role] for role, engine in engines.items()}
    told, real, padded = (
        sum(2.0 * engines[role].model.parameters * n for role, n in each.items() if n)
        for each in (counted, decoded, padding)
    )
    return {
        "counted": dict(counted),
        "decoded": decoded,
        "flops": told,
        "ratio": told / real,
        "padding": padded / real,
    }


def main() -> None:
    """A line for each strategy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", type=Path)
    parser.add_argument("--trio", default="starter")
    parser.add_argument("--prm")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--seats", type=int, default=16)
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("-n", "--max-tokens", type=int, default=160)
    args = parser.parse_args()
    access = setup.Access()
    cast = setup.find(setup.Choice(args.trio, prm=args.prm), access, ROLES).trio
    loaded = LoadedTrio(cast.models, cast.prm, Shape(n_seats=args.seats), lambda: False)
    loaded.load_all()
    tasks = read_questions(args.questions, args.rows, need_gold=False)
    base = Settings(
        max_tokens=args.max_tokens, system=MATHS, sampling=setup.make_sampling(cast.sampling), max_steps=100
    )
    found = {}
    for each in contenders(args.strategies):
        settings = each.settings(base, cast.threshold)
        found[each.name] = compare(loaded, tasks, settings, each.method.strategy.samples)
        told = found[each.name]
        print(
            f"{each.name:24} counted / decoded = {told['ratio']:.4f}, padding {told['padding']:.1%}",
            flush=True,
        )
    loaded.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
