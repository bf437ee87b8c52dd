"""Compares formulas with math-verify, in a process of its own that a hostile formula may kill.

Reads one JSON request a line: {"given", "gold", "seconds"}; writes one JSON answer a line: {"verdict"}. Started by
`isolated.command`; imports nothing of this package. A nursery imports sympy once and forks the process that answers;
the kernel ends that one when a formula takes too long (an interval timer, which no C code can hold up), and
the nursery forks the next. No code of a formula runs: nothing that the parsers hand to sympy as text is evaluated,
and the process may start no program, open no connection and write no file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from typing import Any, NoReturn

MEMORY_BYTES = 2 << 30  # of addresses, most of which the libraries only reserve
WARMING = (  # so that what libraries import late and parsers cache is there before the fork
    (r"\frac{1}{2}+\sqrt{3}x^{2}", r"\sin x+\sqrt[3]{2}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}"),
    (r"1<x", r"(1,\infty)"),
    (r"x^{2}-y=5", r"2x^{2}-2y=11"),
    (r"\{1,2\}", r"1 \pm \sqrt{2}"),
)
FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "urllib.", "pty.", "ftplib.", "smtplib.")
ALLOWED = frozenset(
    {"os.fork", "os.listdir", "os.scandir", "os.walk", "os.fwalk"}
)  # the last ones import modules
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def limit_memory() -> None:
    """Bound memory and leave no core file, where the system can."""
    import resource

    for limit, amount in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(OSError, ValueError):  # macOS knows no limit on addresses
            resource.setrlimit(limit, (amount, amount))


def refuse(event: str, details: tuple[Any, ...]) -> None:
    """An audit hook, which can't be taken off again: no programs, connections and files to write."""
    is_writing = event == "open" and isinstance(details[2], int) and details[2] & WRITING
    if is_writing or (event.startswith(FORBIDDEN) and event not in ALLOWED):
        raise PermissionError(event)


def read_word(text: str, *_arguments: object, **_options: object) -> Any:  # noqa: ANN401
    """Instead of sympy's parse_expr, which evaluates text as Python: a number or a name, all else is refused."""
    from sympy import Float, Integer, Symbol

    word = text.strip()
    if word.isidentifier():
        return Symbol(word)
    return Integer(int(word)) if word.lstrip("+-").isdigit() else Float(float(word))


def disarm() -> None:
    """Nothing that reaches sympy as text is evaluated any more, whoever passes it."""
    import math_verify.parser
    import sympy.physics.units  # noqa: F401 - sympy imports it late, and its names are text
    from sympy.parsing import sympy_parser

    sympy_parser.parse_expr = read_word
    sympy_parser.eval_expr = read_word
    math_verify.parser.parse_expr = read_word


def mend() -> None:
    """Two equations that sympy can't solve are not the same for that: math-verify would compare no solutions."""
    from math_verify import grader
    from sympy import solve

    compare = grader.sympy_solve_and_compare

    def compare_solutions(gold: Any, given: Any, *arguments: Any) -> bool:  # noqa: ANN401 - as math-verify calls it
        return bool(solve(gold, gold.free_symbols)) and bool(compare(gold, given, *arguments))

    grader.sympy_solve_and_compare = compare_solutions


def parsed(latex: str) -> list[Any]:
    """What math-verify reads, formulas only; empty if it reads none."""
    from math_verify import parse
    from math_verify.parser import LatexExtractionConfig

    found = parse(f"${latex}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None)
    return [formula for formula in found if not isinstance(formula, str)]


def verdict(given: str, gold: str) -> str:
    """Whether the given formula is the gold one: right, wrong or unparsable."""
    from math_verify import verify

    wanted, said = parsed(gold), parsed(given)
    if not said:
        return "unparsable"
    # 2 < x and (2, oo) are the same answer. The order of the arguments matters to math-verify.
    same = verify(wanted, said, timeout_seconds=None, allow_set_relation_comp=True) if wanted else False
    return "right" if same else "wrong"


def answer(line: str) -> dict[str, str]:
    """One request's answer."""
    request = json.loads(line)
    signal.setitimer(signal.ITIMER_REAL, float(request["seconds"]))  # its default is to end the process
    try:
        return {"verdict": verdict(str(request["given"]), str(request["gold"]))}
    except MemoryError:
        return {"verdict": "timeout"}
    except Exception:  # noqa: BLE001 - a formula can raise anything in sympy
        return {"verdict": "unparsable"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def say(message: dict[str, str]) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def serve() -> NoReturn:
    """Answer until standard input ends."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    sys.addaudithook(refuse)
    for line in sys.stdin:
        say(answer(line))
    os._exit(0)


def main() -> None:
    """Fork a process that answers, and the next one when its time was up."""
    logging.disable(logging.CRITICAL)
    limit_memory()
    disarm()
    mend()
    for given, gold in WARMING:
        verdict(given, gold)
    say({"ready": "yes"})
    while True:
        child = os.fork()
        if child == 0:
            serve()
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGALRM:
            return  # at the end, or after a crash: whether an answer is due is then not certain, so none is given
        say({"verdict": "timeout"})


if __name__ == "__main__":
    main()
