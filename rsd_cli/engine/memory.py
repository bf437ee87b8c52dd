"""Where the memories of an engine's seats are: in the streams of a context, or parked as bytes.

There may be more seats than streams. A seat with a job gets a stream; one that waits for another model gives its
own up where somebody needs it. Whatever cuts, copies, snapshots or clears a seat's memory does it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.engine.context import EVEN, FOUR, Row
from rsd_cli.engine.jobs import SNAPSHOTS
from rsd_cli.engine.llama import DecodeAborted
from rsd_cli.engine.seat import Seat, common_prefix
from rsd_cli.errors import RSDError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.engine.context import Context

NEARLY_FULL = 0.8
WORTH_COPYING = 16  # tokens; what another seat knows is copied from here on, and read anew below
WORTH_A_SIBLINGS = 2  # the same within a trajectory, where nothing but a token at a boundary is read anew


@dataclass(frozen=True)
class Gift:
    """What a seat could copy from another: its first `ready` tokens now, and `coming` once that has read them."""

    donor: Seat
    coming: int
    ready: int

    def least(self, seat: Seat) -> int:
        """How many tokens more than the seat's own are worth a copy."""
        return WORTH_A_SIBLINGS if self.donor.index in seat.siblings else WORTH_COPYING


class Memory:
    """The streams of one context and who holds them. With `forgets` nothing outlives a trajectory."""

    def __init__(self, context: Context, seats: Sequence[Seat], *, forgets: bool) -> None:
        self._context, self._can_cut = context, context.model.can_cut
        self._seats, self._forgets = seats, forgets
        self._holders: list[Seat | None] = [None] * context.n_streams
        if not self._can_cut:  # what can't be cut can't be a pad either, so it stays where it is
            for seat in seats:
                self._hold(seat, seat.index)

    def stream(self, seat: Seat) -> int:
        """The stream of a seat that was settled."""
        if seat.stream is None:
            raise ValueError(f"seat {seat.index} has no stream")
        return seat.stream

    def room(self, n_rows: int) -> int:
        """How many tokens that many rows may have together: every other stream may be padded."""
        return self._context.n_batch - (0 if self._context.exact else len(self._holders) - n_rows)

    def settle(self, waiting: Sequence[Seat]) -> list[Seat]:
        """Those of the seats that the next decode can serve, in order; the others wait for a stream or a prefix."""
        for seat in waiting:
            stream = self._free_stream() if seat.stream is None else None
            if stream is not None:
                self._enter(seat, stream)
        settled = [seat for seat in waiting if seat.stream is not None]
        return [seat for i, seat in enumerate(settled) if not self._waits(seat, settled[:i])]

    def _free_stream(self) -> int | None:
        """A stream that nobody holds, or else one whose holder has no job: a free seat's before a taken one's."""
        idle = [
            (holder is not None, holder is not None and holder.taken, stream)
            for stream, holder in enumerate(self._holders)
            if holder is None or not holder.job
        ]
        if not idle:
            return None
        _, _, stream = min(idle)
        holder = self._holders[stream]
        if holder:
            self._park(holder, stream)
        return stream

    def _park(self, seat: Seat, stream: int) -> None:
        if seat.taken:
            seat.parked = self._context.snapshot(stream) if seat.cached else None
        else:
            seat.tokens, seat.cached = [], 0
        self._context.cut(stream, 0)
        self._holders[stream] = seat.stream = None

    def _enter(self, seat: Seat, stream: int) -> None:
        self._hold(seat, stream)
        if seat.parked is not None and seat.cached:
            self._context.restore(stream, seat.parked)
            self._context.cut(stream, seat.cached)
        seat.parked = None

    def _hold(self, seat: Seat, stream: int) -> None:
        self._holders[stream], seat.stream = seat, stream

    def _waits(self, seat: Seat, earlier: Sequence[Seat]) -> bool:
        """Whether a seat should wait until an earlier one has read what both need; then that is copied."""
        if not (seat.fresh and seat.job):
            return False
        gifts = [
            self._gift(each, min(common_prefix(each.tokens, seat.tokens), seat.first_output))
            for each in self._donors(seat)
        ]
        worth = [gift for gift in gifts if gift.ready - seat.cached >= gift.least(seat)]
        best = max(worth, key=lambda gift: gift.ready, default=None)
        known = best.ready if best else seat.cached
        if any(gift.coming - known >= gift.least(seat) for gift in gifts if gift.donor in earlier):
            return True
        if best:
            self._copy(best, seat)
        return False

    def _donors(self, seat: Seat) -> list[Seat]:
        """Whose memory a seat may copy: its siblings', also where it is parked, and strangers' in the context."""
        knows_strangers = self._can_cut and not self._forgets
        return [
            each
            for each in self._seats
            if each is not seat
            and (each.index in seat.siblings or (each.stream is not None and knows_strangers))
        ]

    def _gift(self, donor: Seat, n: int) -> Gift:
        """What a donor that shares `n` tokens has to give: what can't be cut, where it is or was at a boundary."""
        if self._can_cut:
            return Gift(donor, n, min(n, donor.cached))
        there = [donor.cached, *(at for at, _ in donor.snapshots)]
        coming = [*there, *(donor.job.boundaries if donor.job else ())]
        return Gift(donor, *(max((at for at in places if at <= n), default=0) for places in (coming, there)))

    def _copy(self, gift: Gift, seat: Seat) -> None:
        stream, donor = self.stream(seat), gift.donor
        state = dict(donor.snapshots).get(gift.ready)
        if state is None:
            state = donor.parked if donor.stream is None else self._context.snapshot(donor.stream)
        if state is None:
            return
        self._context.restore(stream, state)
        if self._can_cut:
            self._context.cut(stream, gift.ready)
        seat.count(reused=gift.ready - seat.cached)
        seat.cached, seat.fresh = gift.ready, False
        seat.snapshots = [snapshot for snapshot in donor.snapshots if snapshot[0] <= gift.ready]
        if donor.index in seat.siblings:
            seat.borrowed = gift.ready
        self.remember(seat)

    def decode(self, rows: Sequence[Row], *, hidden: bool, fill: int) -> list[int]:
        """Decode rows that are filled up to multiples of `fill`; gives each row's batch index.

        Where that fails midway, the seats' memory ends again where they think it does.
        """
        pads = self._pads(rows) if fill == 1 else []
        # llama.cpp computes streams together only where they stand in order.
        everything = sorted([*rows, *pads], key=lambda row: row.stream)
        try:
            outputs = self._context.decode(everything, hidden=hidden, fill=fill)
        except (DecodeAborted, RSDError):
            for row in everything:
                self._mend(row.stream)
            raise
        for row in pads:
            self._context.cut(row.stream, row.position)
        index = {row.stream: output for row, output in zip(everything, outputs, strict=True)}
        return [index[row.stream] for row in rows]

    def _pads(self, rows: Sequence[Row]) -> list[Row]:
        """A token for every stream between the rows' first and last that has no row; it is cut off again.

        llama.cpp goes through the weights anew wherever streams are left out: 8 of 16 streams in even gaps took
        2.3 times as long as all 16 together. Nearly full batches are filled up: 14 of 16 rows took longer than 16.
        """
        if not self._can_cut:
            return []
        exact, taken = self._context.exact, {row.stream for row in rows}
        span = self._exact_span(taken) if exact else self._span(taken)
        ends = {
            stream: holder.cached if (holder := self._holders[stream]) else 0
            for stream in span
            if stream not in taken
        }
        return [
            Row(stream, end, [0], output=int(exact))
            for stream, end in ends.items()
            if exact or end < self._context.n_ctx
        ]

    def _span(self, taken: set[int]) -> range:
        first, last, n = min(taken), max(taken), len(self._holders)
        return range(n) if last + 1 - first >= NEARLY_FULL * n else range(first, last + 1)

    def _exact_span(self, taken: set[int]) -> range:
        """A multiple of four streams, and at least eight, around those that are taken."""
        n = max(EVEN, max(taken) + 1 - min(taken))
        n += -n % FOUR
        first = min(*taken, len(self._holders) - n)
        return range(first, first + n)

    def _mend(self, stream: int) -> None:
        holder = self._holders[stream]
        end = holder.cached if holder else 0
        if not (self._can_cut and self._context.cut(stream, end)) and holder:
            self.clear(holder)

    def rewind(self, seat: Seat, n: int) -> None:
        """Make the seat's memory end at `n` tokens, or earlier where only a snapshot lies before that."""
        if n == seat.cached:
            return
        if self._can_cut:
            if seat.stream is not None and not self._context.cut(seat.stream, n):
                self.clear(seat)
            seat.cached = min(seat.cached, n)  # what is parked is cut when it comes back
            return
        seat.snapshots = [snapshot for snapshot in seat.snapshots if snapshot[0] <= n]
        if seat.snapshots:
            seat.cached, state = seat.snapshots[-1]
            self._context.restore(self.stream(seat), state)
        else:
            self.clear(seat)

    def remember(self, seat: Seat) -> None:
        """Take a snapshot of a seat that can't be cut, where its job has a boundary."""
        if self._can_cut or not seat.job or seat.cached not in seat.job.boundaries:
            return
        if seat.cached and seat.cached not in [at for at, _ in seat.snapshots]:
            state = self._context.snapshot(self.stream(seat))
            seat.snapshots = [*seat.snapshots, (seat.cached, state)][-SNAPSHOTS:]

    def clear(self, seat: Seat) -> None:
        """Empty a seat's memory."""
        if seat.stream is not None:
            self._context.cut(seat.stream, 0)
        seat.cached, seat.parked, seat.snapshots = 0, None, []

    def hand_over(self, seat: Seat) -> Seat:
        """A free seat in place of this one, with what it may keep: a trajectory that begins alike goes on there."""
        if self._forgets or seat.stream is None:
            self.clear(seat)
        free = Seat(seat.index, seat.tokens[: seat.cached], seat.cached, snapshots=seat.snapshots)
        if seat.stream is not None:
            self._hold(free, seat.stream)
        return free
