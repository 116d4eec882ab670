"""One write: a transaction that holds the rows, their audit record and their events, and tells others after it.

async with write(actor, "session.update") as work:
    session = await work.lock_session(session_id)
    …
    work.target("Session", session.id, session.title)
    work.changed(before={…}, after={…})
    work.session_changed("UPDATED")
    work.emit("CUSTOM", name="quarterdeck.session.updated", data={…})
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from core import clock, db
from core.errors import ErrorCode, Forbidden, NotFound, QuarterdeckError
from core.permissions import Actor
from models.activity_feed import may_be_activity
from models.base import Query
from models.notifications import NotificationKind
from models.sessions import Session, SessionPurpose, SessionRow
from models.sharing import AccessLevel
from services import audit
from services.notifications import telling
from services.parts import parts
from services.sharing.access import level_in

MOST_NAMED = 50
"""Ids in one notice, which has to be small."""

_AUDITED_REFUSALS = frozenset(ErrorCode) - {ErrorCode.BAD_INPUT, ErrorCode.TOO_LARGE, ErrorCode.INTERNAL}


class Work:
    """A write under way."""

    def __init__(self, actor: Actor, entry: audit.Entry, tx: db.Transaction) -> None:
        self.actor = actor
        self.entry = entry
        self.tx = tx
        self.at: datetime = clock.now()
        self.session: SessionRow | None = None
        self.level = AccessLevel.ADMIN
        """What the actor may do in the session that `lock_session` holds."""
        self._next_seq = 0
        self._events: list[tuple[Any, ...]] = []
        self._changes: list[str] = []
        self._extra_entries: list[audit.Entry] = []
        self._after: list[Callable[[], Awaitable[None]]] = []
        self._notices: list[telling.Notice] = []
        self._told = telling.Told()

    # -- what the write is about

    def target(self, kind: str, target_id: UUID, name: str | None = None) -> None:
        """What the audit record points at."""
        self.entry.target_kind, self.entry.target_id, self.entry.target_name = kind, target_id, name

    def changed(self, *, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None) -> None:
        """What the audit record says of before and after. Never put secrets here: name them, with `[redacted]`."""
        self.entry.before, self.entry.after = before, after

    def also(self, entry: audit.Entry) -> None:
        """A further audit record of the same transaction."""
        self._extra_entries.append(entry)

    def after_commit(self, call: Callable[[], Awaitable[None]]) -> None:
        """Call this once the transaction has committed."""
        self._after.append(call)

    def notify(
        self,
        kind: NotificationKind,
        user_ids: Iterable[UUID],
        title: str,
        *,
        body: str = "",
        subject: tuple[str, UUID] | None = None,
        author: UUID | None = None,
    ) -> None:
        """Tell people, in this transaction: `title` is one line, `subject` the (type, id) it is about. Whoever acts is
        not told of it, nor is anybody who may not see the session that this write is about. `author` is whose doing it
        is where the product acts: mails are counted as theirs."""
        if self._is_of_work:
            self._notices.append(telling.Notice(kind, list(user_ids), title, body, subject, author))

    # -- sessions

    async def lock_session(self, session_id: UUID, *, needs: AccessLevel = AccessLevel.WRITE) -> SessionRow:
        """The session, held until the end of the transaction. NOT_FOUND where the actor may not see it,
        FORBIDDEN where they see it and their access is not enough.

        For its owner and the admins this is one statement. For others the grants are read again once the session is
        held: who takes them away holds it too, and this write may have waited for that.
        """
        query = Query()
        row = await self.tx.fetchrow(
            f"SELECT * FROM sessions WHERE id = {query.arg(session_id)} AND "
            f"{query.scope(Session.visible_to(self.actor), by_row=True)} "
            "FOR UPDATE",
            *query.args,
            row=SessionRow,
        )
        level = None if row is None else await level_in(self.tx.fetch, self.actor, row)
        if row is None or level is None:
            raise NotFound("There is no such session, or you may not see it.", field="sessionId")
        self.level = level
        self.entry.session_id = row["id"]
        if self.entry.target_id is None:
            self.target("Session", row["id"], row["title"])
        self.need(needs)
        self._hold(row)
        return row

    def need(self, level: AccessLevel) -> None:
        """Raises Forbidden where the actor's access to the session is not enough."""
        if self.level.includes(level):
            return
        raise Forbidden(
            "You can read this session but not change it. Ask its owner for WRITE access."
            if level is AccessLevel.WRITE
            else "This is for the session's owner and those who have ADMIN access to it. Ask its owner.",
            field="sessionId",
            level=self.level.value,
            needs=level.value,
        )

    async def hold_session(self, session_id: UUID) -> SessionRow:
        """The session, held, for Quarterdeck's own writes: no question of who may see it."""
        row = await self.tx.fetchrow("SELECT * FROM sessions WHERE id = $1 FOR UPDATE", session_id, row=SessionRow)
        if row is None:
            raise NotFound("The session does not exist any more.")
        self._hold(row)
        return row

    def hold_new_session(self, row: SessionRow) -> None:
        """Begin the event log of a session made in this transaction."""
        self.entry.session_id = row["id"]
        self._hold(row)

    def emit(
        self,
        type_: str,
        data: dict[str, Any] | None = None,
        *,
        name: str | None = None,
        run_id: UUID | None = None,
        message_id: UUID | None = None,
        tool_execution_id: UUID | None = None,
        approval_id: UUID | None = None,
    ) -> int:
        """Append to the held session's event log; returns the event's number."""
        assert self.session is not None, "lock_session first"
        self._next_seq += 1
        self._events.append(
            (
                self.session["id"],
                self._next_seq,
                self.session["organization_id"],
                self.at,
                type_,
                name,
                run_id,
                message_id,
                tool_execution_id,
                approval_id,
                self.actor.kind.value,
                self.actor.user_id,
                self.actor.on_behalf_of,
                data or {},
            )
        )
        return self._next_seq

    def reserve_events(self, count: int) -> int:
        """The first of `count` numbers for events that the caller writes itself; it emits one of its own besides."""
        assert self.session is not None, "lock_session first"
        first = self._next_seq + 1
        self._next_seq += count
        return first

    def session_changed(self, kind: str) -> None:
        """Tell those who watch lists of sessions: CREATED, UPDATED or REMOVED."""
        if kind not in self._changes and self._is_of_work:
            self._changes.append(kind)

    @property
    def _is_of_work(self) -> bool:
        """Whether others are told of it: what happens in a template's test is in the test's report alone."""
        return self.session is None or self.session["purpose"] == SessionPurpose.WORK

    def _hold(self, row: SessionRow) -> None:
        assert self.session is None, "a write holds one session"
        self.session = row
        self._next_seq = row["last_event_seq"]

    # -- the end

    async def finish(self) -> None:
        """Write what was collected; the last statements of the transaction."""
        if self.session is not None and self._events:
            await self.tx.execute(
                "UPDATE sessions SET last_event_seq = $2, updated_at = $3 WHERE id = $1",
                self.session["id"],
                self._next_seq,
                self.at,
            )
            await self.tx.executemany(
                "INSERT INTO session_events (session_id, seq, organization_id, at, type, name, run_id, message_id, "
                "tool_execution_id, approval_id, actor_kind, actor_id, on_behalf_of, data) "
                "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
                self._events,
            )
        if self.session is not None and self._changes:
            await self.tx.executemany(
                "INSERT INTO session_changes (organization_id, session_id, kind, at) VALUES ($1, $2, $3, $4)",
                [(self.session["organization_id"], self.session["id"], kind, self.at) for kind in self._changes],
            )
        if self._notices:
            session_id = self.session["id"] if self.session is not None else None
            self._told = await telling.tell(self.tx, self.actor, session_id, self._notices, self.at)
        if self.entry.action:
            await audit.record(self.tx, self.entry, *self._extra_entries)
        elif self._extra_entries:
            await audit.record(self.tx, *self._extra_entries)

    async def announce(self) -> None:
        """Tell other processes. A lost notice is made good by the readers' gap detection."""
        if self.session is not None:
            bus = parts().bus
            if self._events:
                await bus.publish(session_channel(self.session["id"]), {"seq": self._next_seq})
                if self._is_of_work and any(may_be_activity(event[4], event[5]) for event in self._events):
                    await bus.publish(activity_channel(self.session["organization_id"]), {"activity": True})
            if self._changes:
                await bus.publish(organization_channel(self.session["organization_id"]), {"changed": True})
        if self.entry.action or self._extra_entries:
            await audit.announce()
        await telling.announce(self._told)
        for call in self._after:
            await call()


@asynccontextmanager
async def write(actor: Actor, action: str | None) -> AsyncIterator[Work]:
    """Open a write. What is refused inside is rolled back and audited as refused; `action` None audits nothing
    itself."""
    entry = audit.Entry.of(actor, action or "")
    try:
        async with db.transaction() as tx:
            work = Work(actor, entry, tx)
            yield work
            await work.finish()
    except QuarterdeckError as error:
        if action and error.code in _AUDITED_REFUSALS:
            await audit.refused(entry, error)
        raise
    # Shielded, so that a client that hangs up now does not keep others from hearing of what is done.
    await asyncio.shield(asyncio.ensure_future(work.announce()))


def session_channel(session_id: UUID) -> str:
    """The bus channel of one session's events."""
    return f"session:{session_id}"


def organization_channel(organization_id: UUID) -> str:
    """The bus channel that says that some session of an organisation changed."""
    return f"organization:{organization_id}"


def access_channel(organization_id: UUID) -> str:
    """The bus channel that says that access within an organisation changed: streams look again who may read on."""
    return f"access:{organization_id}"


async def announce_access(
    organization_id: UUID, *, sessions: Iterable[UUID] | None = None, users: Iterable[UUID] | None = None
) -> None:
    """Tell streams, after the commit, whose access to what may have changed; None and very many stand for all."""
    message: dict[str, Any] = {"sessions": None, "users": None}
    for name, ids in (("sessions", sessions), ("users", users)):
        if ids is not None and len(named := [str(id_) for id_ in ids]) <= MOST_NAMED:
            message[name] = named
    await parts().bus.publish(access_channel(organization_id), message)


def activity_channel(organization_id: UUID) -> str:
    """The bus channel that says that the activity feed of an organisation has more."""
    return f"activity:{organization_id}"
