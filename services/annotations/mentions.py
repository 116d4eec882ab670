"""People who are named in comments: they must be able to see the session, and are told once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import ceil
from uuid import UUID

from core import db
from core.errors import BadInput, RateLimited
from core.ids import encode
from core.permissions import Actor, Origin
from models.base import Query, Row
from models.identity import UserRow
from models.sessions import Session
from services.identity.actors import actor_of_user
from services.work import Work

MOST_TOLD = 60
"""People that one author's mentions tell within a minute, in all sessions together."""
_MINUTE = 60.0


async def names_of(
    tx: db.Transaction, actor: Actor, session_id: UUID, people: Sequence[UUID], *, known: Collection[UUID] = ()
) -> dict[UUID, str]:
    """The names of people who are mentioned. BadInput where some may not see the session, but for those who are
    `known` to have been mentioned before."""
    if not people:
        return {}
    users = await tx.fetch(
        "SELECT id, organization_id, kind, role, name, deactivated_at FROM users "
        "WHERE id = ANY($1) AND organization_id = $2",
        list(people),
        actor.organization_id,
        row=UserRow,
    )
    may = set(known) | await _who_may_see(tx, session_id, [user for user in users if user["deactivated_at"] is None])
    names = {user["id"]: user["name"] for user in users if user["id"] in may}
    if others := [encode("usr", person) for person in people if person not in names]:
        raise BadInput(
            f"These people do not see this session, so they cannot be mentioned: {', '.join(others)}. "
            "Share the session with them first.",
            field="text",
            userIds=others,
        )
    return names


async def told(work: Work, comment_id: UUID, people: Iterable[UUID]) -> list[UUID]:
    """Those of the people who have not been told of this comment yet; from now on they have.

    Raises RateLimited where the author has told too many people in the last minute.
    """
    author = work.actor.user_id
    wanted = sorted({person for person in people if person != author})
    if not wanted:
        return []
    # Two comments at once in two sessions are counted one after the other.
    await work.tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"mentions:{author}")
    rows = await work.tx.fetch(
        "INSERT INTO annotation_mentions (id, comment_id, user_id, author_id, created_at) "
        "SELECT gen_random_uuid(), $1, person, $2, clock_timestamp() FROM unnest($3::uuid[]) AS person "
        "ON CONFLICT (comment_id, user_id) DO NOTHING RETURNING user_id",
        comment_id,
        author,
        wanted,
        row=Row,
    )
    recent = await work.tx.fetchrow(
        "SELECT count(*) AS n, extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest "
        "FROM annotation_mentions WHERE author_id = $1 AND created_at > clock_timestamp() - interval '1 minute'",
        author,
    )
    assert recent is not None
    if rows and recent["n"] > MOST_TOLD:
        raise RateLimited(
            f"Mentions tell at most {MOST_TOLD} people a minute. Wait a little, or mention fewer people.",
            field="text",
            retryAfterSeconds=max(1, ceil(_MINUTE - recent["oldest"])),
        )
    return [row["user_id"] for row in rows]


async def _who_may_see(tx: db.Transaction, session_id: UUID, users: Sequence[UserRow]) -> set[UUID]:
    """Each by the scope that their own reads have."""
    if not users:
        return set()
    query = Query()
    session = query.arg(session_id)
    looks = [
        f"SELECT {query.arg(user['id'])}::uuid AS id WHERE EXISTS (SELECT FROM sessions WHERE sessions.id = {session} "
        f"AND {query.scope(Session.visible_to(actor_of_user(user, None, Origin())))})"
        for user in users
    ]
    return {row["id"] for row in await tx.fetch(" UNION ALL ".join(looks), *query.args, row=Row)}
