"""The feed of changed sessions is kept for a week; who was away for longer is told so."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from core import db
from core.errors import CursorExpired
from core.permissions import Actor, Role
from services.sessions.lifecycle import NewSession, create_session
from services.sessions.pruning import prune_session_changes
from subscriptions.session_changes import current_cursor, session_changes
from tests.services.identity_help import a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def actor(database: object) -> Actor:
    return (await a_house()).actor(Role.MEMBER)


async def told(actor: Actor, after: str, count: int) -> list[tuple[str, str]]:
    found = []
    async with aclosing(session_changes(actor, lambda _: True, after)) as changes:  # type: ignore[type-var]
        async for change in changes:
            found.append((change.cursor, change.session["title"]))
            if len(found) == count:
                break
    return found


async def test_who_missed_what_was_pruned_is_told_and_others_go_on(actor: Actor) -> None:
    before = await current_cursor(actor)
    for title in ("old", "older than a week too", "new"):
        await create_session(actor, NewSession(title=title))
    [(first, _), (second, _), _] = await told(actor, before, 3)
    assert await prune_session_changes() == 0
    assert len(await told(actor, before, 3)) == 3
    await db.execute(
        "UPDATE session_changes SET at = now() - interval '8 days' WHERE session_id IN "
        "(SELECT id FROM sessions WHERE title <> 'new')"
    )
    assert await prune_session_changes() == 2
    for expired in (before, first):
        with pytest.raises(CursorExpired, match="7 days") as refused:
            await told(actor, expired, 1)
        assert refused.value.field == "after"
    # Nothing behind the last change that was removed is missing.
    assert [title for _, title in await told(actor, second, 1)] == ["new"]
    assert await prune_session_changes() == 0
    with pytest.raises(CursorExpired):
        await told(actor, first, 1)


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        ("DELETE FROM session_changes WHERE at < now() - interval '7 days'", "(at < "),
        ("SELECT id FROM messages WHERE run_id = SOME_ID ORDER BY seq", "(run_id = "),
        ("SELECT id FROM approvals WHERE tool_execution_id = SOME_ID", "(tool_execution_id = "),
    ],
)
async def test_what_is_looked_for_is_found_without_reading_all(actor: Actor, sql: str, index: str) -> None:
    async with db.transaction() as tx:
        await tx.execute("SET LOCAL enable_seqscan = off")
        await tx.execute("SET LOCAL enable_sort = off")
        sql = sql.replace("SOME_ID", f"'{actor.user_id}'::uuid")
        plan = "\n".join([row[0] for row in await tx.fetch(f"EXPLAIN {sql}")])
    assert f"Index Cond: {index}" in plan, plan
