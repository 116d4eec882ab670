"""Figures of now, live: computed once in a process for all who ask for the same, while somebody does.

A tail for each scope, list of metrics, pace and window takes a snapshot at that pace, of the latest instant of which
everything is known: so it says what the query `metricsNow` says of the same instant. Whoever comes is given the latest
one, and then what all are given; what a slow client misses is not told later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from core.errors import BadInput, Unavailable
from core.paging import decode_cursor, encode_cursor, not_a_cursor
from core.permissions import Actor
from services.metrics import live
from services.metrics.engine import MetricScope, scope_of
from services.metrics.live import Value
from subscriptions.tails import Following, Tail

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MetricTick:
    """The figures of one instant."""

    cursor: str
    at: datetime
    window_seconds: int
    values: Sequence[Value]


class MetricsTail(Tail[MetricTick]):
    """The figures of one scope, again and again."""

    def __init__(self, scope: MetricScope, metrics: tuple[str, ...], every: int, window: int) -> None:
        super().__init__(("metrics", scope, metrics, every, window))
        self._scope, self._metrics, self._every, self._window = scope, metrics, every, window
        self.latest: MetricTick | None = None

    @classmethod
    def named(cls, scope: MetricScope, metrics: tuple[str, ...], every: int, window: int) -> MetricsTail:
        """The tail that takes these; `release` it."""
        users = None if scope.user_ids is None else tuple(scope.user_ids)
        scope = MetricScope(scope.organization_id, users)
        key = ("metrics", scope, metrics, every, window)
        tail = Tail.of(key, lambda: MetricsTail(scope, metrics, every, window))
        assert isinstance(tail, MetricsTail)
        return tail

    async def follow(self) -> None:
        due = time.monotonic()
        while True:
            try:
                await self._look()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, Unavailable, OSError, TimeoutError):
                log.warning("Live figures could not be computed; it is tried again.", exc_info=True)
            # What took longer than the pace is not made good: the next one is due a pace after it.
            due = max(due + self._every, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _look(self) -> None:
        at = await live.newest()
        if self.latest is not None and at <= self.latest.at:
            return  # nothing more is known than before
        found = await live.snapshot(self._scope, self._metrics, at, self._window)
        self.latest = MetricTick(encode_cursor(at.isoformat()), at, self._window, found.values)
        self.stand()
        self.tell([self.latest])


class LiveMetrics(Following[MetricTick]):
    """One client's place in the figures. Raises BadInput."""

    tail: MetricsTail

    def __init__(self, actor: Actor, metrics: Sequence[str] | None, every: int, window: int, after: str | None) -> None:
        super().__init__()
        if not live.SHORTEST_EVERY <= every <= live.LONGEST_EVERY:
            raise BadInput(f"`every` is {live.SHORTEST_EVERY} to {live.LONGEST_EVERY} seconds.", field="every")
        self._scope, self._every, self._window = scope_of(actor), every, window
        self._metrics = live.check(live.USUAL if metrics is None else metrics, window)
        self._at = datetime.min.replace(tzinfo=UTC) if not after else _moment(after)

    def open(self) -> None:
        self.tail = MetricsTail.named(self._scope, self._metrics, self._every, self._window)

    def close(self) -> None:
        self.tail.release()

    async def missed(self) -> AsyncIterator[MetricTick]:
        await self.tail.started()
        while (latest := self.tail.latest) is not None and latest.at > self._at:
            self._at = latest.at
            yield latest

    def go_on_after(self, event: MetricTick) -> None:
        self._at = event.at


def _moment(cursor: str) -> datetime:
    [text] = decode_cursor(cursor, 1)
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise not_a_cursor()
    return at
