"""Forks of long conversations: copied inside the database, up to a limit."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from core import db
from core.errors import LimitExceeded
from core.ids import encode
from core.permissions import Actor, Role
from models.sessions import SessionRow
from services.sessions.forking import MOST_MESSAGES, fork_session
from services.sessions.lifecycle import NewSession, create_session
from services.sessions.messages import send_message
from tests.services.identity_help import a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def actor(database: object) -> Actor:
    return (await a_house()).actor(Role.MEMBER)


async def a_conversation(actor: Actor, messages: int) -> SessionRow:
    """A session of so many short messages, people's and agents' by turns."""
    session = await create_session(actor, NewSession())
    await db.execute(
        "INSERT INTO messages (id, organization_id, session_id, seq, role, status, reasoning, text, created_at) "
        "SELECT gen_random_uuid(), $2, $1, 10 + n, CASE n % 2 WHEN 1 THEN 'USER' ELSE 'ASSISTANT' END, "
        "CASE n % 2 WHEN 1 THEN 'COMPLETE' ELSE 'INTERRUPTED' END, n % 4 = 0, 'message ' || n, now() "
        "FROM generate_series(1, $3::int) AS n",
        session["id"],
        session["organization_id"],
        messages,
    )
    await db.execute("UPDATE sessions SET last_event_seq = 10 + $2 WHERE id = $1", session["id"], messages)
    return session


async def messages_of(session: UUID) -> list[Any]:
    return await db.fetch("SELECT * FROM messages WHERE session_id = $1 ORDER BY seq", session)


async def test_a_conversation_is_refused_above_the_limit_and_forked_below(actor: Actor) -> None:
    source = (await a_conversation(actor, MOST_MESSAGES + 1))["id"]
    with pytest.raises(LimitExceeded, match="20,000 messages"):
        await fork_session(actor, source, message_id=None, title=None)
    last = await db.fetchval("SELECT id FROM messages WHERE session_id = $1 ORDER BY seq DESC LIMIT 1", source)
    # At the last question, what came before is exactly as much as is allowed.
    fork = await fork_session(actor, source, message_id=last, title=None)
    assert fork["message_count"] == MOST_MESSAGES + 1
    assert await db.fetchval("SELECT count(*) FROM messages WHERE session_id = $1", fork["id"]) == MOST_MESSAGES + 1


async def test_a_copy_has_all_of_the_message_and_an_event_without_gaps(actor: Actor) -> None:
    source = await a_conversation(actor, 6)
    fork = await fork_session(actor, source["id"], message_id=None, title=None)
    await send_message(actor, fork["id"], "more")
    originals, copies = await messages_of(source["id"]), await messages_of(fork["id"])
    for original, copy in zip(originals, copies, strict=False):
        for name in ("organization_id", "role", "status", "reasoning", "author_id", "text", "created_at"):
            assert copy[name] == original[name]
    assert [copy["text"] for copy in copies[6:]] == ["more"]
    events = await db.fetch("SELECT * FROM session_events WHERE session_id = $1 ORDER BY seq", fork["id"])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    told = [event for event in events if event["name"] == "quarterdeck.message.copied"]
    for original, copy, event in zip(originals, copies, told, strict=False):
        assert (event["seq"], event["message_id"], event["actor_id"]) == (copy["seq"], copy["id"], actor.user_id)
        assert event["data"] == {
            "messageId": encode("msg", copy["id"]),
            "role": original["role"].lower(),
            "text": original["text"],
            "copyOf": encode("msg", original["id"]),
        }
    assert len(told) == 6


@pytest.mark.parametrize(("at", "has"), [(0, 0), (1, 2), (3, 4), (4, 4), (5, 6)])
async def test_forks_of_forks_go_by_turns(actor: Actor, at: int, has: int) -> None:
    """What was copied has no run: a turn lasts until the next question."""
    source = await a_conversation(actor, 6)
    point = (await messages_of(source["id"]))[at]
    fork = await fork_session(actor, source["id"], message_id=point["id"], title=None)
    asked_again = [point["text"]] if point["role"] == "USER" else []
    texts = [message["text"] for message in await messages_of(fork["id"])]
    assert texts == [f"message {n + 1}" for n in range(has)] + asked_again
