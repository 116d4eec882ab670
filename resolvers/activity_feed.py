"""Reads of the activity feed: of an organisation, of teams, of sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg

from core import db
from core.errors import QuarterdeckError
from core.ids import decode
from core.paging import Page, SharedCount, cut, decode_cursor, encode_cursor, not_a_cursor, page_size
from core.permissions import Actor, ActorKind, Permission
from models import activity_feed as models
from models.activity_feed import COLUMNS, INDEXED, ActivityKind, ActivityRow, Event
from models.base import Query, Row, Scope
from models.identity import Team, TeamRow, User, UserRow
from models.sessions import MessageRow, Session, SessionRow, in_visible_session
from resolvers import reading
from resolvers.reading import Batch, needing

# By time. Within a session the numbers are in that order, and need no time.
_KEY = ("session_events.at", "session_events.session_id", "session_events.seq")
_CASTS = ("timestamptz", "uuid", "bigint")


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """Which activities a feed has. None takes everything."""

    kinds: Sequence[ActivityKind] | None = None
    actor_ids: Sequence[UUID] | None = None
    actor_kinds: Sequence[ActorKind] | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self, query: Query) -> list[str]:
        """The filter in SQL, with what makes an event an activity."""
        types, names = models.events_of(ActivityKind if self.kinds is None else self.kinds)
        found = [
            INDEXED,
            f"(session_events.type = ANY({query.arg(types)}) OR session_events.name = ANY({query.arg(names)}))",
            "(session_events.type <> 'RUN_FINISHED' OR session_events.data ->> 'outcome' IS DISTINCT FROM 'interrupt')",
        ]
        if self.actor_ids is not None:
            found.append(f"session_events.actor_id = ANY({query.arg(list(self.actor_ids))})")
        if self.actor_kinds is not None:
            found.append(f"session_events.actor_kind = ANY({query.arg([kind.value for kind in self.actor_kinds])})")
        if self.since is not None:
            found.append(f"session_events.at >= {query.arg(self.since)}")
        if self.until is not None:
            found.append(f"session_events.at < {query.arg(self.until)}")
        return found

    def matches(self, event: Event | Any) -> bool:
        """The same filter on an event at hand, for what is followed live."""
        kind = models.kind_of(event)
        return (
            kind is not None
            and (self.kinds is None or kind in self.kinds)
            and (self.actor_ids is None or event.actor_id in self.actor_ids)
            and (self.actor_kinds is None or event.actor_kind in self.actor_kinds)
            and (self.since is None or event.at >= self.since)
            and (self.until is None or event.at < self.until)
        )


async def feed(
    actor: Actor, filter_: ActivityFilter, *, first: int | None, after: str | None, descending: bool
) -> Page[ActivityRow]:
    """What happened in all sessions that the actor may see, by time."""
    size = page_size(first)
    query = Query()
    conditions = _seen(actor, filter_, query)
    rows = await _fetch(
        f"SELECT {COLUMNS} FROM session_events WHERE {_and(conditions, _beyond(query, after, descending))} "
        f"ORDER BY {_order(descending)} LIMIT {size + 1}",
        query,
    )
    return cut(rows, size, _cursor, partial(_count, actor, filter_), after=after)


async def _count(actor: Actor, filter_: ActivityFilter) -> int:
    query = Query()
    found = _seen(actor, filter_, query)
    return await db.fetchval(f"SELECT count(*) FROM session_events WHERE {_and(found)}", *query.args)  # type: ignore[no-any-return]


async def _of_sessions(actor: Actor, sessions: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The feeds of sessions. They are as visible as the sessions, which the caller has read through their scope.
    Args: `first`, `after`, `filter` (an ActivityFilter), `descending`."""
    size, after = page_size(args["first"]), args["after"]
    filter_: ActivityFilter = args["filter"]
    descending: bool = args["descending"]
    ids = list({session["id"] for session in sessions})
    query = Query()
    wanted = query.arg(ids)
    conditions = ["session_events.session_id = parent.id", *filter_.conditions(query)]
    if after is not None:
        seq, _ = decode_cursor(after, 2)
        conditions.append(f"session_events.seq {'<' if descending else '>'} {query.arg(_number(seq))}")
    rows = await _fetch(
        f"SELECT child.* FROM unnest({wanted}::uuid[]) AS parent(id) CROSS JOIN LATERAL ("
        f"SELECT {COLUMNS} FROM session_events WHERE {_and(conditions)} "
        f"ORDER BY session_events.seq {'DESC' if descending else 'ASC'} LIMIT {size + 1}) AS child",
        query,
    )
    found: dict[UUID, list[ActivityRow]] = {id_: [] for id_ in ids}
    for row in rows:
        found[row["session_id"]].append(row)
    counts = SharedCount(partial(_count_of, "session_events.session_id = parent.id", filter_, Scope("true"), ids))
    return [cut(found[s["id"]], size, _cursor_in_session, partial(counts.of, s["id"]), after=after) for s in sessions]


async def _of_teams(actor: Actor, teams: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The feeds of teams, as far as the actor may see their sessions. Args as those of sessions' feeds."""
    size, after = page_size(args["first"]), args["after"]
    filter_: ActivityFilter = args["filter"]
    descending: bool = args["descending"]
    ids = list({team["id"] for team in teams})
    query = Query()
    wanted = query.arg(ids)
    conditions = [_IN_TEAM, *_seen(actor, filter_, query)]
    rows = await _fetch(
        f"SELECT parent.id AS of_parent, child.* FROM unnest({wanted}::uuid[]) AS parent(id) CROSS JOIN LATERAL ("
        f"SELECT {COLUMNS} FROM session_events WHERE {_and(conditions, _beyond(query, after, descending))} "
        f"ORDER BY {_order(descending)} LIMIT {size + 1}) AS child",
        query,
    )
    found: dict[UUID, list[ActivityRow]] = {id_: [] for id_ in ids}
    for row in rows:
        found[row["of_parent"]].append(row)
    counts = SharedCount(partial(_count_of, _IN_TEAM, filter_, models.visible_to(actor), ids))
    return [cut(found[t["id"]], size, _cursor, partial(counts.of, t["id"]), after=after) for t in teams]


_IN_TEAM = f"session_events.session_id IN ({models.sessions_of_team('parent.id')})"

feed_of_sessions = needing(Permission.SESSIONS_READ, _of_sessions)
feed_of_teams = needing(Permission.SESSIONS_READ, _of_teams)


async def _count_of(belongs: str, filter_: ActivityFilter, scope: Scope, ids: list[UUID]) -> Mapping[UUID, int]:
    query = Query()
    wanted = query.arg(ids)
    conditions = [belongs, query.scope(scope), *filter_.conditions(query)]
    rows = await db.fetch(
        f"SELECT parent.id, count(*) AS n FROM unnest({wanted}::uuid[]) AS parent(id) CROSS JOIN LATERAL ("
        f"SELECT FROM session_events WHERE {_and(conditions)}) AS child GROUP BY 1",
        *query.args,
        row=Row,
    )
    return {row["id"]: row["n"] for row in rows}


# -- what activities are about, by the ids in their data


def _named_in_data(name: str, prefix: str, table: str, row: type[Row], scope: Callable[[Actor], Scope]) -> Batch:
    """A batch function for what the data of events names; None where it names none, or one that may not be seen."""

    async def batch(actor: Actor, events: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        ids = [_id_in(event.data, name, prefix) for event in events]
        found = await reading.by_ids(table, row, scope(actor), {id_ for id_ in ids if id_ is not None})
        return [found.get(id_) if id_ is not None else None for id_ in ids]

    return batch


def _id_in(data: dict[str, Any], name: str, prefix: str) -> UUID | None:
    try:
        return decode(prefix, str(data[name]))
    except (KeyError, QuarterdeckError):
        return None


def user_named(name: str) -> Batch:
    """A batch function for the user that the data of events names."""
    return needing(Permission.MEMBERS_READ, _named_in_data(name, "usr", "users", UserRow, User.visible_to))


team_named = needing(Permission.MEMBERS_READ, _named_in_data("teamId", "team", "teams", TeamRow, Team.visible_to))
fork_source_named = _named_in_data("from", "ses", "sessions", SessionRow, Session.visible_to)
message_named = _named_in_data(
    "messageId", "msg", "messages", MessageRow, lambda actor: in_visible_session("messages", actor)
)


# -- statements


def _seen(actor: Actor, filter_: ActivityFilter, query: Query) -> list[str]:
    return [query.scope(models.visible_to(actor)), *filter_.conditions(query)]


def _beyond(query: Query, after: str | None, descending: bool) -> str:
    if after is None:
        return "true"
    at, session_id, seq = decode_cursor(after, 3)
    if not (isinstance(at, str) and isinstance(session_id, str) and len(at) <= 40 and len(session_id) <= 40):
        raise not_a_cursor()
    values = (at, session_id, str(_number(seq)))
    places = ", ".join(f"{query.arg(value)}::text::{cast}" for value, cast in zip(values, _CASTS, strict=True))
    return f"({', '.join(_KEY)}) {'<' if descending else '>'} ({places})"


def _order(descending: bool) -> str:
    return ", ".join(f"{column} {'DESC' if descending else 'ASC'}" for column in _KEY)


def _cursor(row: ActivityRow) -> str:
    return encode_cursor(row["at"].isoformat(), str(row["session_id"]), row["seq"])


def _cursor_in_session(row: ActivityRow) -> str:
    """The same as the event's own cursor, so that one reads the feed, and follows the session from there."""
    return encode_cursor(row["seq"], {})


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise not_a_cursor()
    return value


def _and(conditions: Sequence[str], *more: str) -> str:
    return " AND ".join((*conditions, *more))


async def _fetch(statement: str, query: Query) -> list[ActivityRow]:
    try:
        return await db.fetch(statement, *query.args, row=ActivityRow)
    except asyncpg.DataError:
        # The cursor is the one value that goes to the database as the client sent it.
        raise not_a_cursor() from None
