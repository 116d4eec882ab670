"""Who had access to a session, when and by what, and who used it.

Grants keep their own history. What else gives access is told by the records of its changes: ownership by the session's
log, visibility, policy, team membership and roles by the audit log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from core import clock, db
from core.errors import BadInput, NotFound
from core.ids import decode
from core.paging import cut, decode_cursor, encode_cursor, not_a_cursor, page_size
from core.permissions import Actor, Permission, Role
from models.base import Query, Row
from models.identity import UserRow
from models.sessions import Session, SessionPurpose, SessionRow, Visibility
from models.sharing import SESSION, AccessLevel, Allowance, GrantRow
from resolvers import reading
from resolvers.sharing import seen_session
from services import audit
from services.sharing.access import AccessReasonKind


@dataclass(frozen=True, slots=True)
class AccessPeriod:
    """That something gave somebody access for a while."""

    kind: AccessReasonKind
    level: AccessLevel
    since: datetime
    until: datetime | None
    """None while it holds."""
    grant_id: UUID | None = None
    note: str | None = None
    team_id: UUID | None = None
    granted_by_id: UUID | None = None
    ended_by_id: UUID | None = None
    via_link_id: UUID | None = None


@dataclass(slots=True)
class PersonAccess:
    """How somebody had access, and how they used it."""

    user_id: UUID
    access: list[AccessPeriod] = field(default_factory=list)
    views: int = 0
    first_view_at: datetime | None = None
    last_view_at: datetime | None = None
    messages_sent: int = 0
    decisions_made: int = 0

    @property
    def used(self) -> bool:
        """Whether there is anything that they did."""
        return bool(self.views or self.messages_sent or self.decisions_made)


@dataclass(frozen=True, slots=True)
class AccessReport:
    """The report of one session over a stretch of time."""

    session: SessionRow
    since: datetime
    until: datetime
    organization_visibility: Sequence[AccessPeriod]
    """When it was open to everybody in the organisation."""
    people: Sequence[PersonAccess]
    """Everybody who had access by anything else, or used it; by their ids."""


Periods = list[tuple[datetime, datetime | None]]
"""Stretches of time; one that goes on ends with None."""


async def access_report(actor: Actor, session_id: UUID, since: datetime | None, until: datetime | None) -> AccessReport:
    """The report, for those who manage the session or may read the audit log; asking for it is recorded there.

    Raises NotFound, Forbidden, and BadInput for an empty stretch of time.
    """
    session = await _session(actor, session_id)
    since, until = since or session["created_at"], until or clock.now()
    if until <= since:
        raise BadInput("`to` must be later than `from`.", field="to")
    people: dict[UUID, PersonAccess] = {}

    def add(user_id: UUID, period: AccessPeriod) -> None:
        if period.since < until and (period.until is None or period.until > since):
            people.setdefault(user_id, PersonAccess(user_id)).access.append(period)

    for user_id, period in [*await _owners(session), *await _admins(session), *await _granted(session)]:
        add(user_id, period)
    opened = [
        AccessPeriod(AccessReasonKind.ORGANIZATION, AccessLevel.READ, *period) for period in await _opened(session)
    ]
    for row in await db.fetch(_USES, session_id, since, until, row=Row):
        person = people.setdefault(row["user_id"], PersonAccess(row["user_id"]))
        person.views += row["views"]
        person.messages_sent += row["messages"]
        person.decisions_made += row["decisions"]
        person.first_view_at = person.first_view_at or row["first_at"]
        person.last_view_at = person.last_view_at or row["last_at"]
    for person in people.values():
        if person.used:
            for period in opened:
                add(person.user_id, period)
        person.access.sort(key=lambda period: period.since)
    await _record(actor, session, since, until)
    opened = [period for period in opened if period.since < until and (period.until is None or period.until > since)]
    return AccessReport(session, since, until, opened, sorted(people.values(), key=lambda person: person.user_id))


async def people_of_reports(actor: Actor, reports: Sequence[AccessReport], args: dict[str, Any]) -> list[Any]:
    """A page of each report's people. Args: `first`, `after`."""
    size, after = page_size(args.get("first")), args.get("after")
    beyond = _user_id(after) if after is not None else None
    pages = []
    for report in reports:

        async def count(people: Sequence[PersonAccess] = report.people) -> int:
            return len(people)

        rest = [person for person in report.people if beyond is None or person.user_id > beyond]
        pages.append(cut(rest[: size + 1], size, lambda person: encode_cursor(str(person.user_id)), count, after=after))
    return pages


async def _session(actor: Actor, session_id: UUID) -> SessionRow:
    if actor.may(Permission.AUDIT_READ):
        found: SessionRow | None = await reading.find("sessions", SessionRow, Session.visible_to(actor), session_id)
    else:
        actor.require(Permission.SESSIONS_READ)
        found = await seen_session(actor, session_id, managing=True)
    if found is None or found["purpose"] != SessionPurpose.WORK:
        raise NotFound("There is no such session, or you may not see it.", field="sessionId")
    return found


# -- how there was access


async def _owners(session: SessionRow) -> list[tuple[UUID, AccessPeriod]]:
    owner, since, found = session["creator_id"], session["created_at"], []

    def had(until: datetime | None) -> None:
        found.append((owner, AccessPeriod(AccessReasonKind.OWNER, AccessLevel.ADMIN, since, until)))

    for event in await db.fetch(
        "SELECT at, name, data FROM session_events WHERE session_id = $1 "
        "AND (name IN ('quarterdeck.handoff.accepted', 'quarterdeck.handoff.undone') "
        "OR name = 'quarterdeck.session.updated' AND data ->> 'reason' = 'succession') ORDER BY seq",
        session["id"],
        row=Row,
    ):
        had(event["at"])
        owner = decode("usr", event["data"]["fromId" if event["name"].endswith("undone") else "toId"])
        since = event["at"]
    if owner != session["owner_id"]:
        had(session["updated_at"])
        owner, since = session["owner_id"], session["updated_at"]
    had(None)
    return found


async def _granted(session: SessionRow) -> list[tuple[UUID, AccessPeriod]]:
    now, found = clock.now(), []
    grants = await db.fetch(
        "SELECT * FROM grants WHERE resource_kind = $1 AND resource_id = $2 ORDER BY created_at, id",
        SESSION,
        session["id"],
        row=GrantRow,
    )
    members = await _members(session, {grant["team_id"] for grant in grants if grant["team_id"] is not None})
    for grant in grants:
        by_itself = grant["expires_at"] if grant["expires_at"] is not None and grant["expires_at"] <= now else None
        period = AccessPeriod(
            AccessReasonKind.GRANT if grant["team_id"] is None else AccessReasonKind.TEAM_GRANT,
            AccessLevel(grant["level"]),
            grant["created_at"],
            grant["revoked_at"] or by_itself,
            # The row of former terms speaks of the grant that has others now.
            grant["replaced_by_id"] or grant["id"],
            grant["note"],
            grant["team_id"],
            grant["granted_by_id"],
            grant["revoked_by_id"],
            grant["via_link_id"],
        )
        if grant["user_id"] is not None:
            found.append((grant["user_id"], period))
        for user_id, periods in members.get(grant["team_id"], {}).items():
            found += [
                (user_id, replace(period, since=begin, until=until))
                for begin, until in _both([(period.since, period.until)], periods)
            ]
    return found


async def _members(session: SessionRow, teams: set[UUID]) -> dict[UUID, dict[UUID, Periods]]:
    """When who was in which team: by the audit log, and by the members there are."""
    found: dict[UUID, dict[UUID, Periods]] = {team: {} for team in teams}
    if not teams:
        return found
    for record in await db.fetch(
        "SELECT at, target_id, after ->> 'userId' AS added, before ->> 'userId' AS removed FROM audit_records "
        "WHERE organization_id = $1 AND target_id = ANY($2) AND action IN ('team.add_member', 'team.remove_member') "
        "AND outcome = 'SUCCEEDED' ORDER BY at, id",
        session["organization_id"],
        list(teams),
        row=Row,
    ):
        periods = found[record["target_id"]].setdefault(UUID(record["added"] or record["removed"]), [])
        _turn(periods, record["at"], record["added"] is not None)
    for row in await db.fetch(
        "SELECT team_id, user_id, created_at FROM team_members WHERE team_id = ANY($1)", list(teams), row=Row
    ):
        _turn(found[row["team_id"]].setdefault(row["user_id"], []), row["created_at"], True)
    return found


async def _admins(session: SessionRow) -> list[tuple[UUID, AccessPeriod]]:
    """When who was owner or admin of the organisation, since the session is there."""
    periods: dict[UUID, Periods] = {}
    for record in await db.fetch(
        "SELECT at, target_id, after ->> 'role' AS role, after -> 'active' = 'true'::jsonb AS active "
        "FROM audit_records WHERE organization_id = $1 AND target_id IS NOT NULL AND outcome = 'SUCCEEDED' "
        "AND action IN ('user.create', 'user.update', 'service_account.create') ORDER BY at, id",
        session["organization_id"],
        row=Row,
    ):
        admin = record["role"] in (Role.OWNER, Role.ADMIN) and record["active"]
        _turn(periods.setdefault(record["target_id"], []), record["at"], admin)
    query = Query()
    for row in await db.fetch(
        f"SELECT id, created_at FROM users WHERE organization_id = {query.arg(session['organization_id'])} "
        "AND role IN ('OWNER', 'ADMIN') AND deactivated_at IS NULL",
        *query.args,
        row=UserRow,
    ):
        _turn(periods.setdefault(row["id"], []), row["created_at"], True)
    whole: Periods = [(session["created_at"], None)]
    return [
        (user_id, AccessPeriod(AccessReasonKind.ORGANIZATION_ADMIN, AccessLevel.ADMIN, since, until))
        for user_id, its in periods.items()
        for since, until in _both(whole, its)
    ]


async def _opened(session: SessionRow) -> Periods:
    """When the session was open to the organisation, as far as its policy let it be."""
    wanted: Periods = []
    for record in await db.fetch(
        "SELECT at, after ->> 'visibility' AS visibility FROM audit_records WHERE organization_id = $1 "
        "AND session_id = $2 AND action IN ('session.create', 'session.update') AND outcome = 'SUCCEEDED' "
        "AND after ->> 'visibility' IS NOT NULL ORDER BY at, id",
        session["organization_id"],
        session["id"],
        row=Row,
    ):
        _turn(wanted, record["at"], record["visibility"] == Visibility.ORGANIZATION)
    if not wanted and session["visibility"] == Visibility.ORGANIZATION:
        wanted = [(session["created_at"], None)]
    let: Periods = [(session["created_at"], None)]
    records = await db.fetch(
        "SELECT at, before ->> 'organizationVisibility' AS before, after ->> 'organizationVisibility' AS after "
        "FROM audit_records WHERE organization_id = $1 AND action = 'sharing_policy.update' "
        "AND outcome = 'SUCCEEDED' ORDER BY at, id",
        session["organization_id"],
        row=Row,
    )
    if records:
        let = [(datetime.min.replace(tzinfo=session["created_at"].tzinfo), None)]
        if records[0]["before"] == Allowance.FORBIDDEN:
            let = []
        for record in records:
            _turn(let, record["at"], record["after"] == Allowance.ALLOWED)
    return _both(wanted, let)


def _turn(periods: Periods, at: datetime, on: bool) -> None:
    """Something is so from then on, or is so no more."""
    holds = bool(periods) and periods[-1][1] is None
    if on and not holds:
        periods.append((at, None))
    elif not on and holds:
        periods[-1] = (periods[-1][0], at)


def _both(some: Iterable[tuple[datetime, datetime | None]], others: Periods) -> Periods:
    """When both were so."""
    found: Periods = []
    for since, until in some:
        for other_since, other_until in others:
            begin = max(since, other_since)
            end = min((each for each in (until, other_until) if each is not None), default=None)
            if end is None or begin < end:
                found.append((begin, end))
    return found


# -- how it was used

_USES = """
SELECT user_id, sum(views)::bigint AS views, min(first_at) AS first_at, max(last_at) AS last_at,
       0::bigint AS messages, 0::bigint AS decisions
FROM session_views WHERE session_id = $1 AND last_at >= $2 AND first_at < $3 GROUP BY user_id
UNION ALL
-- What a fork copied has no run, and was sent elsewhere.
SELECT author_id, 0, NULL, NULL, count(*), 0 FROM messages
WHERE session_id = $1 AND author_id IS NOT NULL AND run_id IS NOT NULL AND created_at >= $2 AND created_at < $3
GROUP BY author_id
UNION ALL
SELECT decided_by_id, 0, NULL, NULL, 0, count(*) FROM approvals
WHERE session_id = $1 AND decided_by_id IS NOT NULL AND decided_at >= $2 AND decided_at < $3 GROUP BY decided_by_id
"""


async def _record(actor: Actor, session: SessionRow, since: datetime, until: datetime) -> None:
    entry = audit.Entry.of(actor, "session.access_report")
    entry.target_kind, entry.target_id, entry.target_name = "Session", session["id"], session["title"]
    entry.session_id = session["id"]
    entry.details = {"from": since, "to": until}
    async with db.transaction() as tx:
        await audit.record(tx, entry)
    await audit.announce()


def _user_id(cursor: str) -> UUID:
    [value] = decode_cursor(cursor, 1)
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise not_a_cursor() from None
