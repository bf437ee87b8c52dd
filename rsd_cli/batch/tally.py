"""What a batch has come to: counts for its progress and its summary. Arithmetic only; its clock is given to it."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rsd_cli.batch.answers import CUT_SHORT, Answered
from rsd_cli.decoding.gating import gated, unrewarded
from rsd_cli.evaluation.grader import is_right
from rsd_cli.evaluation.grading import gsm8k_gold
from rsd_cli.evaluation.verdict import make_verdict, spent_tariff
from rsd_cli.evaluation.workload import Workload
from rsd_cli.records import ROLES, RoleTime, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from rsd_cli.batch.answers import Outcome
    from rsd_cli.engine.pace import Pace
    from rsd_cli.evaluation.verdict import Verdict
    from rsd_cli.records import EndedBy, Record, Role

WINDOW = 60.0  # seconds over which speeds are taken


class Bucket(NamedTuple):
    """Rows and tokens of one second."""

    second: float
    rows: int
    tokens: int


@dataclass
class Window:
    """Rows and tokens of the last `WINDOW` seconds, a bucket a second."""

    buckets: deque[Bucket] = field(default_factory=deque)

    def add(self, now: float, rows: int, tokens: int) -> None:
        """Count something that just happened."""
        second = float(int(now))
        if self.buckets and self.buckets[-1].second == second:
            known = self.buckets.pop()
            rows, tokens = rows + known.rows, tokens + known.tokens
        self.buckets.append(Bucket(second, rows, tokens))
        while self.buckets[0].second < now - WINDOW:
            self.buckets.popleft()

    def rates(self, now: float, started: float) -> tuple[float, float]:
        """Rows and tokens a second."""
        span = max(1.0, min(WINDOW, now - started))
        known = list(self.buckets)  # a display looks from a thread of its own
        recent = [bucket for bucket in known if bucket.second >= now - WINDOW]
        return sum(bucket.rows for bucket in recent) / span, sum(bucket.tokens for bucket in recent) / span


@dataclass
class Steps:
    """Counts over the steps of all answers."""

    kept: int = 0
    by_target: int = 0
    tokens: int = 0
    target_tokens: int = 0
    judged: int = 0
    accepted: int = 0
    rewards: float = 0.0
    rewarded: int = 0
    unrewarded: int = 0

    def add(self, record: Record) -> None:
        """Count an answer's steps; rejected drafts were judged as well. Where one of several is selected, none is."""
        passed = [step.passed for step in gated(record)]
        self.judged += len(passed)
        self.accepted += sum(passed)
        self.unrewarded += unrewarded(record)
        for step in record.steps:
            by_target = step.author == "target"
            rewards = [step.reward, step.rejected.reward if step.rejected else None]
            known = [reward for reward in rewards if reward is not None]
            self.kept += 1
            self.by_target += by_target
            self.tokens += step.tokens
            self.target_tokens += step.tokens * by_target
            self.rewards += sum(known)
            self.rewarded += len(known)


@dataclass
class Tally:
    """Counts of one run. `total` is None while the input's length is not known.

    `skipped` rows were done before; `failed_before` of them have an error as their record, and stay that way, and of
    `recalled` ones the answers are counted like this run's, but for what the run took: `spent`, `times`, `written`.
    `truncated` and `empty` are rows with such an answer among their samples. `ungraded` have a known answer that
    `grade` can't compare with theirs.
    """

    clock: Callable[[], float]
    total: int | None = None
    skipped: int = 0
    failed_before: int = 0
    recalled: int = 0
    answered: int = 0
    failed: int = 0
    truncated: int = 0
    empty: int = 0
    unanswered: int = 0
    grade: Callable[[str, str, EndedBy], bool | None] = is_right
    graded: int = 0
    ungraded: int = 0
    right: int = 0
    steps: Steps = field(default_factory=Steps)
    usage: dict[Role, Usage] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
    compared: float = 0.0  # compute of the answers of which it is known what the target alone needs
    spent: dict[Role, Usage] = field(default_factory=dict)
    times: dict[Role, RoleTime] = field(default_factory=dict)
    written: int = 0
    window: Window = field(default_factory=Window)
    errors: dict[str, int] = field(default_factory=dict)
    workload: Workload = field(default_factory=Workload)
    paces: dict[Role, Pace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def left(self) -> int | None:
        """Rows that are still to do."""
        return None if self.total is None else max(0, self.total - self.skipped - self.answered - self.failed)

    @property
    def counted(self) -> int:
        """Rows whose answers the counts are of."""
        return self.recalled + self.answered

    def count_token(self) -> None:
        """A generator drew a token."""
        self.window.add(self.clock(), 0, 1)

    def skip(self, known: Outcome | None, *, failed: bool) -> None:
        """Count a row that was done before, with all of its answer that the output tells."""
        self.skipped += 1
        self.failed_before += failed
        if isinstance(known, Answered):
            self.recalled += 1
            self._add_answer(known)
        elif known:
            self._add_error(known.code)

    def add(self, outcome: Outcome) -> None:
        """Count a row that is over."""
        self.window.add(self.clock(), 1, 0)
        if not isinstance(outcome, Answered):
            self.failed += 1
            self._add_error(outcome.code)
            return
        self.answered += 1
        self._add_answer(outcome)
        for sample in outcome.samples:
            self._add_work(sample)

    def _add_error(self, code: str) -> None:
        self.errors[code] = self.errors.get(code, 0) + 1

    def _add_answer(self, outcome: Answered) -> None:
        self.truncated += any(sample.ended_by in CUT_SHORT for sample in outcome.samples)
        self.empty += not all(sample.answer.strip() for sample in outcome.samples)
        self.unanswered += outcome.final_answer is None
        if outcome.row.gold is not None:
            text, ended_by = _given(outcome)
            right = self.grade(text, gsm8k_gold(outcome.row.gold), ended_by)
            self.ungraded += right is None
            self.graded += right is not None
            self.right += right is True
        for sample in outcome.samples:
            self._add_sample(sample)

    def _add_sample(self, record: Record) -> None:
        self.steps.add(record)
        for role, used in record.usage.items():
            self.usage[role] = self.usage.get(role, Usage()) + used
        for part in (*ROLES, "target_only"):
            self.flops[part] = self.flops.get(part, 0.0) + (getattr(record.flops, part) or 0.0)
        self.compared += record.flops.total if record.flops.target_only is not None else 0.0

    def _add_work(self, record: Record) -> None:
        """What an answer of this run took."""
        self.workload.add(record)
        self.written += sum(step.tokens for step in record.steps)
        for role, used in record.usage.items():
            self.spent[role] = self.spent.get(role, Usage()) + used
        for role, time in record.timings.roles.items():
            self.times[role] = self.times.get(role, RoleTime()) + time

    def rates(self) -> tuple[float, float]:
        """Rows and tokens a second, lately."""
        return self.window.rates(self.clock(), self.started)

    def seconds_left(self) -> float | None:
        """An estimate from the rows of the whole run so far; None while nothing is known."""
        over = self.answered + self.failed
        if self.left is None or not over:
            return None
        return self.left * (self.clock() - self.started) / over

    def verdict(self) -> Verdict | None:
        """Would the target alone have been cheaper for these very texts? None where it can't be told.

        What RSD took is measured; the target's own answers are estimated, at the speeds of this run.
        """
        work, parameters = self.workload.work(), self.workload.parameters
        if work is None or not {"draft", "target"} <= set(parameters):
            return None
        tariff = spent_tariff(self.spent, self.times, self.paces, work)
        return make_verdict(work, parameters, tariff)

    def summary(self) -> dict[str, Any]:
        """What `--summary` writes."""
        seconds, steps = self.clock() - self.started, self.steps
        compute = sum(self.flops.get(role, 0.0) for role in ROLES)
        verdict = self.verdict()
        return {
            "rows": {
                "answered": self.answered,
                "failed": self.failed,
                "skipped": self.skipped,
                "left": self.left,
            },
            "counted": self.counted,
            "failed_before": self.failed_before,
            "errors": self.errors,
            "truncated": self.truncated,
            "empty": self.empty,
            "without_final_answer": self.unanswered,
            "graded": self.graded,
            "not_graded": self.ungraded,
            "right": self.right,
            "acceptance": _share(steps.accepted, steps.judged),
            "target_share_of_steps": _share(steps.by_target, steps.kept),
            "target_share_of_tokens": _share(steps.target_tokens, steps.tokens),
            "steps_without_reward": steps.unrewarded,
            "mean_reward": _share(steps.rewards, steps.rewarded),
            "tokens": {role: asdict(used) for role, used in self.usage.items()},
            "flops": self.flops | {"total": compute},
            "compute_vs_target_only": _share(self.compared, self.flops.get("target_only", 0.0)),
            "time": {role: asdict(spent) for role, spent in self.times.items()},
            "decodes": {role: pace.to_json() for role, pace in self.paces.items()},
            "verdict": verdict.to_json() if verdict else None,
            "seconds": seconds,
            "rows_per_second": _share(self.answered + self.failed, seconds),
            "tokens_per_second": _share(self.written, seconds),
        }


def _given(outcome: Answered) -> tuple[str, EndedBy]:
    """The text to grade and how it ended: of one answer all of it, of several the final answer of the chosen one."""
    if len(outcome.samples) == 1:
        return outcome.samples[0].answer, outcome.samples[0].ended_by
    return "" if outcome.final_answer is None else rf"\boxed{{{outcome.final_answer}}}", "eog"


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
