"""Who read what is in sessions. Reads only note it in memory; it is written twice a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from core import clock, db
from core.permissions import Actor, ActorKind
from models.base import Row
from services import audit

logger = logging.getLogger(__name__)

WRITE_EVERY_SECONDS = 0.5
MOST_PENDING = 50_000
"""Pairs of user and session in memory; more is dropped, and said in the log. Seconds of the busiest installation."""

RECORDS_AT_ONCE = 500

Key = TypeVar("Key")


@dataclass(slots=True)
class _Reads:
    """How often and when something was read."""

    count: int
    first: datetime
    last: datetime

    def add(self, other: _Reads) -> None:
        self.count += other.count
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)


@dataclass(slots=True)
class _Seen:
    """What one credential read since the last time that was written."""

    actor: Actor
    how: str
    sessions: dict[UUID, _Reads] = field(default_factory=dict)


class Views:
    """The views of this process that are not written yet."""

    def __init__(self) -> None:
        self._pending: dict[tuple[UUID, UUID | None], _Seen] = {}
        self._size = 0
        self._dropped = 0

    def note(self, actor: Actor, session_ids: Iterable[UUID], how: str) -> None:
        """That an actor read what is in these sessions. Costs some dictionary look-ups, and never waits."""
        if actor.user_id is None or actor.kind not in (ActorKind.HUMAN, ActorKind.SERVICE):
            return
        if self._size >= MOST_PENDING:
            self._dropped += 1
            return
        key = (actor.user_id, actor.credential_id)
        seen = self._pending.get(key)
        if seen is None:
            seen = self._pending[key] = _Seen(actor, how)
        sessions, now = seen.sessions, clock.now()
        before = len(sessions)
        for id_ in session_ids:
            reads = sessions.get(id_)
            if reads is None:
                sessions[id_] = _Reads(1, now, now)
            else:
                reads.count += 1
                reads.last = now
        self._size += len(sessions) - before

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what is noted while the context is open, and what is left at its end."""
        self._take()
        task = asyncio.create_task(self._write_always())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._write_or_keep()

    async def write(self) -> None:
        """Write what is noted now."""
        pending = self._take()
        if not pending:
            return
        try:
            await _write(pending)
        except BaseException:
            self._put_back(pending)
            raise

    async def _write_always(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_SECONDS)
            await self._write_or_keep()

    async def _write_or_keep(self) -> None:
        try:
            await self.write()
        except Exception:
            logger.exception("Views of sessions could not be written; it is tried again.")
        if self._dropped:
            logger.error("%s reads of sessions were not recorded: too many wait to be written.", self._dropped)
            self._dropped = 0

    def _take(self) -> list[_Seen]:
        pending = list(self._pending.values())
        self._pending, self._size = {}, 0
        return pending

    def _put_back(self, pending: list[_Seen]) -> None:
        newer = self._pending
        self._pending = {}
        for seen in [*pending, *newer.values()]:
            kept = self._pending.setdefault((seen.actor.user_id, seen.actor.credential_id), seen)  # type: ignore[arg-type]
            if kept is not seen:
                for id_, reads in seen.sessions.items():
                    _add(kept.sessions, id_, reads)
        self._size = sum(len(seen.sessions) for seen in self._pending.values())


def _add(all_: dict[Key, _Reads], key: Key, reads: _Reads) -> None:
    """Count these reads with those of the same key."""
    found = all_.get(key)
    if found is None:
        all_[key] = _Reads(reads.count, reads.first, reads.last)
    else:
        found.add(reads)


views = Views()
"""Those of this process. The web program keeps them written."""


def note_view(actor: Actor, session_ids: Iterable[UUID], how: str) -> None:
    """That an actor read what is in these sessions: `how` says what, for the audit record of the hour's first view."""
    views.note(actor, session_ids, how)


_KINDS = """
SELECT id, 'TOKEN' AS kind FROM access_tokens WHERE id = ANY($1)
UNION ALL SELECT id, 'WEB' FROM web_sessions WHERE id = ANY($1)
"""
# In one order, so that two processes that write the same rows wait for each other and not both.
_UPSERT = """
INSERT INTO session_views (organization_id, session_id, user_id, credential_kind, hour, views, first_at, last_at)
SELECT sessions.organization_id, sessions.id, seen.user_id, seen.kind,
  date_trunc('hour', seen.first, 'UTC'), seen.views, seen.first, seen.last
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::timestamptz[], $6::timestamptz[])
  AS seen (session_id, user_id, kind, views, first, last)
JOIN sessions ON sessions.id = seen.session_id JOIN users ON users.id = seen.user_id
ORDER BY sessions.id, seen.user_id, seen.kind
ON CONFLICT (session_id, user_id, credential_kind, hour) DO UPDATE
SET views = session_views.views + excluded.views, last_at = greatest(session_views.last_at, excluded.last_at),
    first_at = least(session_views.first_at, excluded.first_at)
RETURNING session_id, user_id, credential_kind, xmax::text = '0' AS added
"""


async def _write(pending: list[_Seen]) -> None:
    credentials = [seen.actor.credential_id for seen in pending if seen.actor.credential_id is not None]
    async with db.transaction() as tx:
        kinds = {row["id"]: row["kind"] for row in await tx.fetch(_KINDS, credentials, row=Row)}
        all_: dict[tuple[UUID, UUID, str], _Reads] = {}
        first: dict[tuple[UUID, UUID, str], _Seen] = {}
        for seen in pending:
            kind = kinds.get(seen.actor.credential_id, "NONE")
            for session_id, reads in seen.sessions.items():
                key = (session_id, seen.actor.user_id, kind)
                _add(all_, key, reads)  # type: ignore[misc]
                first.setdefault(key, seen)  # type: ignore[arg-type]
        rows = await tx.fetch(
            _UPSERT,
            [session_id for session_id, _, _ in all_],
            [user_id for _, user_id, _ in all_],
            [kind for _, _, kind in all_],
            [reads.count for reads in all_.values()],
            [reads.first for reads in all_.values()],
            [reads.last for reads in all_.values()],
            row=Row,
        )
        added = [(row["session_id"], row["user_id"], row["credential_kind"]) for row in rows if row["added"]]
        titles = {
            row["id"]: row["title"]
            for row in await tx.fetch(
                "SELECT id, title FROM sessions WHERE id = ANY($1)", list({key[0] for key in added}), row=Row
            )
        }
        for begin in range(0, len(added), RECORDS_AT_ONCE):
            some = added[begin : begin + RECORDS_AT_ONCE]
            await audit.record(tx, *(_record(first[key], key, titles[key[0]]) for key in some))
    if added:
        await audit.announce()


def _record(seen: _Seen, key: tuple[UUID, UUID, str], title: str) -> audit.Entry:
    session_id, _, kind = key
    entry = audit.Entry.of(seen.actor, "session.view")
    entry.target_kind, entry.target_id, entry.target_name = "Session", session_id, title
    entry.session_id = session_id
    entry.details = {"read": seen.how, "credentialKind": kind}
    return entry
