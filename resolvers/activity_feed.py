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
from models.activity_feed import COLUMNS, INDEXED, RARE, ActivityKind, ActivityRow, Event, in_team
from models.base import Query, Row, Scope
from models.identity import Team, TeamRow, User, UserRow
from models.sessions import OF_NO_WORK, MessageRow, Session, SessionRow, in_visible_session
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
        kinds = list(ActivityKind) if self.kinds is None else self.kinds
        types, names = models.events_of(kinds)
        if models.is_rare(kinds):
            found = [RARE, f"session_events.name {_among(names, query)}"]
        else:
            found = [
                INDEXED,
                f"(session_events.type {_among(types, query)} OR session_events.name {_among(names, query)})",
                "(session_events.type <> 'RUN_FINISHED' "
                "OR session_events.data ->> 'outcome' IS DISTINCT FROM 'interrupt')",
            ]
        if self.actor_ids is not None:
            found.append(f"session_events.actor_id {_among(list(self.actor_ids), query)}")
        if self.actor_kinds is not None:
            found.append(f"session_events.actor_kind = ANY({query.arg([kind.value for kind in self.actor_kinds])})")
        if self.since is not None:
            found.append(f"session_events.at >= {query.arg(self.since)}")
        if self.until is not None:
            found.append(f"session_events.at < {query.arg(self.until)}")
        return found

    def matches(self, event: Event) -> bool:
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
    few = actor.is_admin or await _are_few(Session.visible_to(actor))
    conditions = [*_seen(actor, query, few=few), *filter_.conditions(query), _beyond(query, after, descending)]
    rows = await _fetch(_page(conditions, _order(descending), size), query)
    return cut(rows, size, _cursor, partial(_count, actor, filter_), after=after)


async def _count(actor: Actor, filter_: ActivityFilter) -> int:
    query = Query()
    conditions = [*_seen(actor, query, few=True), *filter_.conditions(query)]
    return await db.fetchval(f"SELECT count(*) FROM session_events WHERE {_and(conditions)}", *query.args)  # type: ignore[no-any-return]


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
        f"{_page(conditions, f'session_events.seq {_direction(descending)}', size)}) AS child",
        query,
    )
    found: dict[UUID, list[ActivityRow]] = {id_: [] for id_ in ids}
    for row in rows:
        found[row["session_id"]].append(row)
    counts = SharedCount(partial(_count_of, lambda _: ["session_events.session_id = parent.id"], filter_, ids))
    return [cut(found[s["id"]], size, _cursor_in_session, partial(counts.of, s["id"]), after=after) for s in sessions]


async def _of_teams(actor: Actor, teams: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The feeds of teams, as far as the actor may see their sessions. Args as those of sessions' feeds."""
    size, after = page_size(args["first"]), args["after"]
    filter_: ActivityFilter = args["filter"]
    descending: bool = args["descending"]
    ids = list({team["id"] for team in teams})
    few = await _are_few(Scope(in_team("= ANY({})"), [ids, ids]))
    query = Query()
    wanted = query.arg(ids)
    conditions = [
        *_seen(actor, query, few=few, of_team="= parent.id"),
        *filter_.conditions(query),
        _beyond(query, after, descending),
    ]
    rows = await _fetch(
        f"SELECT parent.id AS of_parent, child.* FROM unnest({wanted}::uuid[]) AS parent(id) CROSS JOIN LATERAL ("
        f"{_page(conditions, _order(descending), size)}) AS child",
        query,
    )
    found: dict[UUID, list[ActivityRow]] = {id_: [] for id_ in ids}
    for row in rows:
        found[row["of_parent"]].append(row)

    def belongs(query: Query) -> list[str]:
        return _seen(actor, query, few=True, of_team="= parent.id")

    counts = SharedCount(partial(_count_of, belongs, filter_, ids))
    return [cut(found[t["id"]], size, _cursor, partial(counts.of, t["id"]), after=after) for t in teams]


feed_of_sessions = needing(Permission.SESSIONS_READ, _of_sessions)
feed_of_teams = needing(Permission.SESSIONS_READ, _of_teams)


async def _count_of(
    belongs: Callable[[Query], list[str]], filter_: ActivityFilter, ids: list[UUID]
) -> Mapping[UUID, int]:
    query = Query()
    wanted = query.arg(ids)
    conditions = [*belongs(query), *filter_.conditions(query)]
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


FEW = 200
"""Sessions of which everything is read and put in order sooner than they are found along the index of the feed."""


async def _are_few(scope: Scope) -> bool:
    query = Query()
    statement = f"SELECT count(*) FROM (SELECT FROM sessions WHERE {query.scope(scope)} LIMIT {FEW + 1}) AS found"
    return await db.fetchval(statement, *query.args) <= FEW  # type: ignore[no-any-return]


def _seen(actor: Actor, query: Query, *, few: bool, of_team: str | None = None) -> list[str]:
    """That events are of sessions that the actor may see. An admin's, without a team, are all but those of tests.

    Few sessions are a set to join with. Of many it is asked for each event along the index, until the page is full;
    OFFSET keeps the planner from making a set of these too.
    """
    found = [f"session_events.organization_id = {query.arg(actor.organization_id)}"]
    if actor.is_admin and of_team is None:
        of_tests = f"SELECT FROM sessions WHERE sessions.id = session_events.session_id AND {OF_NO_WORK}"
        return [*found, f"NOT EXISTS ({of_tests})"]
    sessions = query.scope(Session.visible_to(actor)) + (f" AND {in_team(of_team)}" if of_team else "")
    if few:
        found.append(f"session_events.session_id IN (SELECT sessions.id FROM sessions WHERE {sessions})")
    else:
        found.append(
            f"EXISTS (SELECT FROM sessions WHERE sessions.id = session_events.session_id AND {sessions} OFFSET 0)"
        )
    return found


def _beyond(query: Query, after: str | None, descending: bool) -> str:
    if after is None:
        return "true"
    at, session_id, seq = decode_cursor(after, 3)
    if not (isinstance(at, str) and isinstance(session_id, str) and len(at) <= 40 and len(session_id) <= 40):
        raise not_a_cursor()
    values = (at, session_id, str(_number(seq)))
    places = ", ".join(f"{query.arg(value)}::text::{cast}" for value, cast in zip(values, _CASTS, strict=True))
    return f"({', '.join(_KEY)}) {'<' if descending else '>'} ({places})"


def _page(conditions: Sequence[str], order: str, size: int) -> str:
    """What is shown of the rows is made after the page is cut: where they have to be sorted, it would be most of the
    work."""
    return (
        f"SELECT {COLUMNS} FROM (SELECT * FROM session_events WHERE {_and(conditions)} "
        f"ORDER BY {order} LIMIT {size + 1}) AS session_events"
    )


def _order(descending: bool) -> str:
    return ", ".join(f"{column} {_direction(descending)}" for column in _KEY)


def _direction(descending: bool) -> str:
    return "DESC" if descending else "ASC"


def _cursor(row: ActivityRow) -> str:
    return encode_cursor(row["at"].isoformat(), str(row["session_id"]), row["seq"])


def _cursor_in_session(row: ActivityRow) -> str:
    """The same as the event's own cursor, so that one reads the feed, and follows the session from there."""
    return encode_cursor(row["seq"], {})


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise not_a_cursor()
    return value


def _among(values: Sequence[Any], query: Query) -> str:
    """One value is compared with `=`, along which an index stays in order."""
    return f"= {query.arg(values[0])}" if len(values) == 1 else f"= ANY({query.arg(values)})"


def _and(conditions: Sequence[str]) -> str:
    return " AND ".join(conditions)


async def _fetch(statement: str, query: Query) -> list[ActivityRow]:
    try:
        return await db.fetch(statement, *query.args, row=ActivityRow)
    except asyncpg.DataError:
        # The cursor is the one value that goes to the database as the client sent it.
        raise not_a_cursor() from None
